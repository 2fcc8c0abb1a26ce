"""A site put together and run: ``gridtide up`` and ``gridtide check``.

The only module that knows every room. What it builds, in order: store, lease, drivers, controller, service; and it
takes them down in the reverse order. Machines are left alone by all of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import structlog

from gridtide import expiry
from gridtide.clock import Clock, SystemClock
from gridtide.clouds.protocol import Cloud, Finding, Level
from gridtide.context.rendering import user_data
from gridtide.control.assembly import NOTHING_TO_FETCH, Assembly, Timing
from gridtide.control.controller import Controller, Think
from gridtide.control.lease import LeaseKeeper
from gridtide.control.powering import PowerSaving, no_power_saving
from gridtide.control.sources import Rhythm
from gridtide.control.spawning import Spawning
from gridtide.control.tokens import make_secret
from gridtide.drivers import (
    make_cloud,
    make_queue,
    pilot_settings,
    planned_attributes,
    private_directory,
    spawned_queue,
)
from gridtide.errors import GridtideError, LeaseLost, QueueNotReady, StoreError
from gridtide.logs import configure_logs
from gridtide.model.actions import Plan
from gridtide.model.ids import CloudName, GroupName, QueueName
from gridtide.model.workers import Worker
from gridtide.pilot.queue import PilotQueue
from gridtide.queues.protocol import HasCheck, HasClose, Queue
from gridtide.queues.slurm.lending import Lending
from gridtide.queues.slurm.queue import SlurmQueue
from gridtide.service.app import make_app
from gridtide.service.server import serve
from gridtide.service.settings import ServiceSettings
from gridtide.serving import Listener, check_service, check_store_answers, hand_over, listen
from gridtide.site.changes import changes, refusal
from gridtide.site.loader import load, problems
from gridtide.site.policies import POLICIES, SchedulePolicySettings
from gridtide.site.registry import CLOUDS, QUEUES
from gridtide.site.site import Site
from gridtide.site.watch import changed
from gridtide.store.database import Database
from gridtide.store.opening import open_store
from gridtide.store.owner import lives, this_process
from gridtide.store.sql import SqlFleetStore
from gridtide.telling import check as check_tellings
from gridtide.telling import image_digests, tellings

log = structlog.get_logger("gridtide.site")

# The pilot queue is looked over at least so often, in seconds, for workers that have fallen silent.
_SWEEP_EVERY = 5.0


async def run_site(path: Path, *, ready: Callable[[str], None]) -> None:
    """Run until SIGTERM or SIGINT. ``ready`` hears the service's address once it answers.

    While another controller leads on the same store, this one waits and takes over when that one ends. Raises
    GridtideError when the site cannot be started.
    """
    site = load(path)
    private_directory(site.state)
    configure_logs()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    clock = SystemClock()
    database, store = await open_store(site.store.connection_url())
    keeper = LeaseKeeper(store, this_process(), lives, clock=clock, seconds=site.controller.lease)
    try:
        while not stop.is_set():
            if await _unless(stop, keeper.take(lambda who: log.warning("waiting for the lease", leader=who))):
                async with _LeadingSite.start(site, database, store, keeper, clock) as leading:
                    with contextlib.suppress(LeaseLost):
                        await leading.run(stop, ready)
                site = leading.site
    finally:
        with contextlib.suppress(StoreError):
            await keeper.release()
        await database.close()


async def _unless(stop: asyncio.Event, work: Coroutine[None, None, object]) -> bool:
    """Do the work, or stop it when told to. Whether it was done."""
    task, stopping = asyncio.create_task(work), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((task, stopping), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            await task
            return True
        return False
    finally:
        for each in (task, stopping):
            each.cancel()
        await asyncio.gather(task, stopping, return_exceptions=True)


def _think_in(thread: ThreadPoolExecutor) -> Think:
    """Plans beside the loop: at a large site one takes as long as a hundred requests."""

    async def think(work: Callable[[], Plan]) -> Plan:
        return await asyncio.get_running_loop().run_in_executor(thread, work)

    return think


@dataclass(slots=True)
class _LeadingSite:
    """Everything that exists while this process leads."""

    site: Site
    listener: Listener
    pilot: PilotQueue | None
    queues: Mapping[QueueName, Queue]
    clouds: Callable[[], Mapping[CloudName, Cloud]]
    """Those of now: a changed site file may bring others."""
    controller: Controller
    clock: Clock

    @staticmethod
    @contextlib.asynccontextmanager
    async def start(
        site: Site, database: Database, store: SqlFleetStore, keeper: LeaseKeeper, clock: Clock
    ) -> AsyncIterator[_LeadingSite]:
        """Bind, build, hand over; and close what was opened at the end."""
        listener = listen(site, clock)
        if listener.instead_of is not None:
            log.warning(
                "workers that live know another port",
                port=listener.instead_of,
                url=listener.url,
                remedy="set a port in service.listen",
            )
        woken: list[Callable[[QueueName], None]] = []
        found = pilot_settings(site.queues)
        pilot: PilotQueue | None = None

        def wake(_why: str) -> None:
            for queue_changed in woken:
                queue_changed(queue_name)

        if found is not None:
            queue_name, settings = found
            pilot = PilotQueue(
                database,
                private_directory(settings.storage),
                clock,
                maximum_losses=settings.maximum_losses,
                lease=max(group.lease for group in site.groups.values()),
                wake=wake,
                alone=lambda: keeper.holds,
            )
        building = _Building(site, listener, pilot, {}, {})
        assembly = building.assemble(site)
        planning = ThreadPoolExecutor(1, thread_name_prefix="plan")  # one: a planner makes one plan after the other
        controller = Controller(
            assembly,
            store,
            keeper,
            clock=clock,
            random=random.Random(),  # noqa: S311  (jitter and names; secrets come from make_secret)
            make_secret=make_secret,
            reread=building.reread,
            think=_think_in(planning),
        )
        woken.append(controller.queue_changed)
        leading = _LeadingSite(site, listener, pilot, building.queues, lambda: building.clouds, controller, clock)
        try:
            yield leading
        finally:
            leading.site = building.site
            planning.shutdown(wait=False)
            listener.close()
            await asyncio.gather(*(cloud.close() for cloud in building.clouds.values()))
            await asyncio.gather(*(queue.close() for queue in building.queues.values() if isinstance(queue, HasClose)))

    async def run(self, stop: asyncio.Event, ready: Callable[[str], None]) -> None:
        """Serve and control until told to stop, or until another controller leads (LeaseLost)."""
        await self.controller.load()
        await self.controller.open_site(actor="controller")
        settings, spawner = self._spawning()
        app = make_app(
            self.controller,
            self.pilot,
            settings,
            spawner=spawner,
            power_saver=PowerSaving(self.controller, self._lending, self.clock),
        )
        await hand_over(self.site, self.listener, self.controller.store, self.clock)
        work = [
            serve(app, listen=self.listener.bound, tls=self.listener.tls, ready=lambda _: ready(self.listener.url)),
            self.controller.lead(),
            self._follow_file(),
            expiry.watch(self.clouds),
        ]
        if self.pilot is not None:
            work.append(self._sweep(self.pilot))
        tasks = [asyncio.create_task(each) for each in work]
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait((*tasks, stopping), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (*tasks, stopping):
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
        for outcome in ended:
            if isinstance(outcome, Exception):
                raise outcome

    def _spawning(self) -> tuple[ServiceSettings, Spawning | None]:
        """AliEC2's routes, where the site file switches them on."""
        wanted = self.site.service.aliec2
        found = pilot_settings(self.site.queues)
        pilot_queues = frozenset({found[0]}) if found is not None else frozenset()
        if wanted is None:
            return ServiceSettings(site=self.site.name, pilot_queues=pilot_queues), None
        group = GroupName(wanted.group)
        queue = spawned_queue(self.site, self.queues)
        settings = ServiceSettings(site=self.site.name, aliec2_group=group, pilot_queues=pilot_queues)
        return settings, Spawning(self.controller, queue, group, self.clock)

    def _lending(self, group: GroupName) -> tuple[QueueName, Lending]:
        """NotFound for a group without power saving."""
        rules = self.controller.rules.groups.get(group)
        queue = None if rules is None else self.queues.get(rules.queue)
        if not isinstance(queue, SlurmQueue) or queue.lending is None:
            raise no_power_saving(group)
        return queue.name, queue.lending

    async def _follow_file(self) -> None:
        """Reload when the site file, or a context file that it names, has new contents."""
        while True:
            layers = [*self.site.context.values(), *self.site.shared_context.values()]
            watched = [one.path for files in layers for one in files]
            async for _ in changed(self.site.path, *watched):
                try:
                    told = await self.controller.reload()
                except GridtideError as error:
                    log.error("the changed site file is not used", error=str(error))
                else:
                    log.info("site file reloaded", changes=told)
                    break

    async def _sweep(self, pilot: PilotQueue) -> None:
        while True:
            try:
                await pilot.sweep()
            except StoreError as error:
                log.warning("silent workers not looked for", error=str(error))
            await asyncio.sleep(_SWEEP_EVERY)


@dataclass(slots=True)
class _Building:
    """Makes assemblies of a site file, keeping the drivers whose sections have not changed."""

    site: Site
    listener: Listener
    pilot: PilotQueue | None
    clouds: dict[CloudName, Cloud]
    queues: dict[QueueName, Queue]

    def reread(self) -> tuple[Assembly, str]:
        """The changed file. SiteFileError, and nothing has changed, when it is wrong or cannot be followed live."""
        new = load(self.site.path)
        refused = refusal(self.site, new)
        if refused is not None:
            raise refused
        pilot_settings(new.queues)
        told = changes(self.site, new)
        assembly = self.assemble(new)
        self.site = new
        return assembly, "; ".join(told) or "nothing has changed"

    def assemble(self, site: Site) -> Assembly:
        """The drivers that a file asks for. ContextError, and nothing is replaced, when machines cannot be told."""
        told = tellings(site, self.listener.url, self.listener.authority)
        check_tellings(site, told)
        clouds = {
            name: self.clouds[name]
            if name in self.clouds and self.site.clouds.get(name) == settings
            else make_cloud(name, settings, site.name)
            for name, settings in site.clouds.items()
        }
        queues = {
            name: self.queues[name] if name in self.queues else make_queue(name, settings, self.pilot)
            for name, settings in site.queues.items()
        }
        self.clouds, self.queues = clouds, queues
        rules = site.rules(image_digests(site))

        scripted = GroupName(site.service.aliec2.group) if site.service.aliec2 is not None else None
        scripts = spawned_queue(site, queues) if scripted is not None else None

        def render(worker: Worker, token: str) -> bytes:
            if scripts is not None and worker.group == scripted:
                return scripts.script(worker.id)
            return user_data(worker, token, told[worker.group, worker.cloud]).content

        def fetch(worker: Worker, token: str) -> bytes:
            return user_data(worker, token, told[worker.group, worker.cloud]).fetched or NOTHING_TO_FETCH

        return Assembly(
            rules=rules,
            queues=queues,
            clouds=clouds,
            render=render,
            fetch=fetch,
            timing=_timing(site),
            heartbeats={name: group.heartbeat for name, group in site.groups.items()},
            planned_attributes=planned_attributes(),
        )


def _timing(site: Site) -> Timing:
    given = site.controller
    return Timing(
        batch=given.batch_window,
        launch_deadline=given.launch_deadline,
        call_deadline=max(given.cloud_deadline, given.queue_deadline),
        queue=Rhythm(every=given.queue_refresh, spacing=0.0, deadline=given.queue_deadline),
        cloud=Rhythm(every=given.cloud_refresh, spacing=min(0.2, given.cloud_refresh), deadline=given.cloud_deadline),
        shapes=Rhythm(every=300.0, spacing=min(60.0, given.cloud_refresh), deadline=given.cloud_deadline),
    )


# --- gridtide check


async def check_site(path: Path) -> list[Finding]:
    """Look at everything that ``up`` would need, without changing anything. Never raises for what it finds."""
    wrong = problems(path)
    if wrong:
        return [Finding(error.where, Level.ERROR, error.what, error.remedy) for error in wrong]
    site = load(path)
    findings = [Finding("site file", Level.OK, f"{path} can be used")]
    findings += _check_plug_ins(site)
    findings += _check_contexts(site)
    findings += _check_state(site)
    findings += await _check_clouds(site)
    findings += await _check_store(site)
    findings += await check_service(site)
    return findings


def _check_plug_ins(site: Site) -> Sequence[Finding]:
    """Which packages from elsewhere serve this site, and which cannot."""
    used = [(QUEUES, each.type) for each in site.queues.values()]
    used += [(CLOUDS, each.type) for each in site.clouds.values()]  # type: ignore[misc]
    policies = [each.policy for each in site.groups.values()]
    policies += [each.follow for each in policies if isinstance(each, SchedulePolicySettings)]
    used += [(POLICIES, each.type) for each in policies]  # type: ignore[misc]
    found = {f"{table.noun} type {name!r} is of {package}" for table, name in used if (package := table.package(name))}
    findings = [Finding("plug-in", Level.OK, text) for text in sorted(found)]
    for table in (QUEUES, CLOUDS, POLICIES):
        for name, package in table.hidden().items():
            text = f"{table.noun} type {name!r} of {package} is hidden by Gridtide's own"
            findings.append(Finding("plug-in", Level.WARNING, text, "its authors should choose another name"))
    return findings


def _check_contexts(site: Site) -> Sequence[Finding]:
    try:
        check_tellings(site, tellings(site, site.service.url_on(site.service.listen.port), None))
    except GridtideError as error:
        return [Finding("context", Level.ERROR, f"{error.where}: {error.what}", error.remedy)]
    return [Finding("context", Level.OK, "every group's machines can be told what they are")]


def _check_state(site: Site) -> Sequence[Finding]:
    try:
        private_directory(site.state)
    except GridtideError as error:
        return [Finding("state directory", Level.ERROR, error.what, error.remedy)]
    return [Finding("state directory", Level.OK, f"{site.state} can be written")]


async def _check_clouds(site: Site) -> Sequence[Finding]:
    findings: list[Finding] = []
    images: Mapping[CloudName, list[str]] = {name: [] for name in site.clouds}
    for group in site.groups.values():
        for used in group.clouds:
            if group.image is not None:
                images[CloudName(used)].append(group.image)
    for name, settings in site.clouds.items():
        try:
            cloud = make_cloud(name, settings, site.name)
        except GridtideError as error:
            findings.append(Finding(f"cloud {name}", Level.ERROR, error.what, error.remedy))
            continue
        try:
            async with asyncio.timeout(site.controller.cloud_deadline):
                findings += await cloud.check(images[name])
        except TimeoutError:
            late = f"no answer within {site.controller.cloud_deadline:g} s"
            findings.append(Finding(f"cloud {name}", Level.ERROR, late, "look at its address and the network"))
        finally:
            await cloud.close()
    return findings


async def _check_store(site: Site) -> Sequence[Finding]:
    """The store, and the queues that live in it."""
    findings: list[Finding] = []
    try:
        database, store = await open_store(site.store.connection_url())
    except GridtideError as error:
        return [Finding("store", Level.ERROR, str(error), error.remedy)]
    try:
        findings.append(await check_store_answers(store))
        found = pilot_settings(site.queues)
        pilot = None
        if found is not None:
            pilot = PilotQueue(database, private_directory(found[1].storage), SystemClock(), wake=lambda _: None)
        for name in site.queues:
            findings += await _check_queue(name, site, pilot)
    except GridtideError as error:
        findings.append(Finding("store", Level.ERROR, str(error), error.remedy))
    finally:
        await database.close()
    return findings


async def _check_queue(name: QueueName, site: Site, pilot: PilotQueue | None) -> Sequence[Finding]:
    findings: list[Finding] = []
    try:
        queue = make_queue(name, site.queues[name], pilot)
    except GridtideError as error:
        return [Finding(f"queue {name}", Level.ERROR, error.what, error.remedy)]
    try:
        async with asyncio.timeout(site.controller.queue_deadline):
            findings += await queue.check() if isinstance(queue, HasCheck) else ()
            waiting = sum(row.count for row in await queue.demand([]))
            nodes = len(await queue.nodes())
        findings.append(Finding(f"queue {name}", Level.OK, f"it answers: {waiting} jobs wait, {nodes} nodes"))
    except QueueNotReady as error:
        findings.append(Finding(f"queue {name}", Level.WARNING, error.what, "the site waits for it; nothing to do"))
    except GridtideError as error:
        findings.append(Finding(f"queue {name}", Level.ERROR, str(error), error.remedy or "look at its address"))
    except TimeoutError:
        late = f"no answer within {site.controller.queue_deadline:g} s"
        findings.append(Finding(f"queue {name}", Level.ERROR, late, "look at its address"))
    finally:
        if isinstance(queue, HasClose):
            await queue.close()
    return findings
