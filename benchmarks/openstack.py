"""Two hundred servers on real Nova (Debian's, with the fake driver), and Nova in trouble.

The production controller and driver; machines, jobs and queue are played (benchmarks.played_site).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog
from tests.real.openstack.control_plane import control_plane
from tests.real.openstack.inside.plane import IMAGE
from tests.real.openstack.nova import LAUNCH, nova_call
from tests.real.openstack.project import Project, User, new_project, with_settings

from benchmarks.figures import Figure
from benchmarks.played_site import PlayedCloud, PlayedSite
from gridtide.clouds.openstack import OpenstackCloud
from gridtide.model.ids import MachineId, WorkerId
from gridtide.model.resources import Resources
from gridtide.queues.fake import FakeJobState
from gridtide.testing.fault_proxy import Answer, FaultProxy, HttpFault

MIX: Final = (
    Answer(500),
    Answer(503),
    Answer(429),
    HttpFault.HANG,
    HttpFault.HANG_AFTER,
    HttpFault.LOST,
    HttpFault.CUT,
)
PART: Final = 0.2
SETTLE: Final = 20.0
"""Seconds after which what Nova does not list was not made. The default of a minute suits a cloud of many users; this
one has none but us, on this host."""
PATIENCE: Final = 600.0
"""Seconds after which a run counts as stuck."""
TINY: Final = Resources(1, 512, 1024)


def figures(directory: Path, *, quick: bool) -> Iterable[Figure]:
    """Everything on one control plane, each part in a project of its own."""
    directory.mkdir(parents=True)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))  # thousands of lines otherwise
    many, some, pace = (6, 4, 3.0) if quick else (200, 60, 20.0)
    began = time.monotonic()
    with control_plane() as address:
        yield Figure("openstack: control plane ready", time.monotonic() - began, "s", "<=", 900.0)
        administrator = User(address, "admin", "admin")
        for measure, workers in ((life, many), (quota, some), (trouble, many)):
            yield from asyncio.run(measure(administrator, directory, workers, pace))


@dataclass(slots=True)
class _Run:
    """One site in one project."""

    project: Project
    proxy: FaultProxy
    cloud: OpenstackCloud
    site: PlayedSite

    async def until(self, holds: Callable[[], bool]) -> float:
        """Seconds until it holds; infinite when it does not."""
        began = time.monotonic()
        while not holds():
            if time.monotonic() - began > PATIENCE:
                return float("inf")
            await asyncio.sleep(0.1)
        return time.monotonic() - began

    async def end(self) -> float:
        """Wait for the jobs, want nothing more; seconds until all is gone."""
        jobs = self.site.queue
        await self.until(lambda: not jobs.count(FakeJobState.WAITING) and not jobs.count(FakeJobState.RUNNING))
        await self.site.want(0)
        return await self.until(lambda: not self.site.controller.workers)


@contextlib.asynccontextmanager
async def _running(
    administrator: User, directory: Path, workers: int, pace: float, *, part: float = 0.0, limit: int = -1
) -> AsyncIterator[_Run]:
    project = await asyncio.to_thread(new_project, administrator, directory)
    await asyncio.to_thread(project.limit, instances=limit, cores=-1, ram=-1)
    async with FaultProxy(project.compute, name=nova_call, patience=120.0) as proxy:
        cloud = project.cloud(
            with_settings(page=1000), endpoint=proxy.url, settle=SETTLE, timeout=10.0 if part else 30.0
        )

        async def look() -> Mapping[MachineId, tuple[WorkerId, bool]]:
            return {
                MachineId(each["id"]): (WorkerId(each["name"]), each["status"] == "ACTIVE")
                for each in await asyncio.to_thread(project.servers)
            }

        site = PlayedSite(PlayedCloud(cloud, look, "tiny", IMAGE, TINY, workers=2 * workers))
        site.queue.submit(workers, need=TINY, duration=pace)
        task = asyncio.create_task(site.run())
        await asyncio.sleep(0.5)
        await site.want(workers)
        proxy.mix(part, MIX)
        try:
            yield _Run(project, proxy, cloud, site)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await cloud.close()
            await asyncio.to_thread(project.remove)


async def life(administrator: User, directory: Path, workers: int, pace: float) -> list[Figure]:
    """All are made, an administrator meddles, all are ended."""
    async with _running(administrator, directory, workers, pace) as run:
        reached = await run.until(lambda: run.site.living() >= workers)
        began = time.monotonic()
        listed = len(await run.cloud.machines())
        listing = time.monotonic() - began
        broken = list(run.site.joined.values())[: workers // 20 + 1]
        stopped = list(run.site.joined.values())[-1]
        run.site.touched.update([*broken, stopped])
        for machine in broken:
            await asyncio.to_thread(run.project.break_, machine)
        await asyncio.to_thread(run.project.act, stopped, {"os-stop": None})
        total = workers + len(broken) + 1
        replaced = await run.until(lambda: len(run.site.joined) >= total and run.site.living() >= workers)
        ended = await run.end()
        made, calls = len(run.site.workers_of), sum(run.proxy.calls.values())
        left, killed = len(await asyncio.to_thread(run.project.servers)), run.site.killed
        note = ", ".join(f"{number} {name}" for name, number in run.proxy.calls.most_common(5))
    return [
        Figure("openstack: all workers joined", reached, "s", "<=", PATIENCE, f"{workers} workers"),
        Figure("openstack: listing", listing, "s", "<=", 10.0, f"{listed} servers"),
        Figure("openstack: broken and stopped servers replaced", replaced, "s", "<=", 120.0, f"{len(broken)} + 1"),
        Figure("openstack: all drained, ended and gone", ended, "s", "<=", PATIENCE, f"{workers} workers"),
        Figure("openstack: servers left", left, "servers", "==", 0),
        Figure("openstack: jobs killed", killed, "jobs", "==", 0),
        Figure("openstack: calls per server, listings included", calls / max(made, 1), "calls", "<=", 3.0, note),
    ]


async def quota(administrator: User, directory: Path, workers: int, pace: float) -> list[Figure]:
    """Half of what is wanted does not fit."""
    fits = workers // 2
    async with _running(administrator, directory, workers, pace, limit=fits) as run:
        await run.until(lambda: run.site.living() >= fits)
        await asyncio.sleep(3.0)
        before = Counter(run.proxy.calls)
        await asyncio.sleep(1.5 * pace)
        launches, calls = run.proxy.calls[LAUNCH], sum((run.proxy.calls - before).values())
        made = len(run.site.workers_of)
        await run.end()
    return [
        Figure("openstack quota: servers", made, "servers", "==", fits, f"{workers} wanted, {fits} allowed"),
        Figure("openstack quota: launch calls in all", launches, "calls", "<=", fits + 2),
        Figure("openstack quota: calls in half a minute at the limit", calls, "calls", "<=", 20),
    ]


async def trouble(administrator: User, directory: Path, workers: int, pace: float) -> list[Figure]:
    """The same with and without faults in a fifth of all calls."""
    reached = []
    for part in (0.0, PART):
        async with _running(administrator, directory, workers, pace, part=part) as run:
            reached.append(await run.until(lambda: run.site.living() >= workers))
            await run.end()
            known = {worker.machine for worker in run.site.controller.workers.values()}
            left = [each for each in await asyncio.to_thread(run.project.servers) if each["id"] not in known]
            doubled = sum(number > 1 for number in Counter(run.site.workers_of.values()).values())
            killed, struck, total = run.site.killed, sum(run.proxy.struck.values()), sum(run.proxy.calls.values())
    note = f"{workers} workers; {struck} of {total} calls spoilt; {reached[0]:.1f} s without faults"
    return [
        Figure("openstack faults: servers lost", len(left), "servers", "==", 0, note),
        Figure("openstack faults: workers with two servers", doubled, "workers", "==", 0, note),
        Figure("openstack faults: jobs killed", killed, "jobs", "==", 0, note),
        Figure("openstack faults: time to the target", reached[1] / reached[0], "x", "<=", 2.0, note),
    ]
