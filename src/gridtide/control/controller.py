"""The loop: observe, plan, act, until told to stop.

It is driven by events (a job submitted, an answer arrived, a timer of the plan ran out), batched over a short window.
It owns no state that the store, the queues and the clouds do not have: a new process goes on where an old one was
killed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from random import Random

import structlog

from gridtide.clock import Clock
from gridtide.clouds.protocol import HasConsole
from gridtide.control import explaining, operating
from gridtide.control.api import AliveAnswer, Cycle, Explanation, JoinAnswer, WorkerCounts
from gridtide.control.assembly import Assembly
from gridtide.control.boots import BootMemory
from gridtide.control.breaker import Breaker
from gridtide.control.cloud_hands import CloudHands, LaunchSettings
from gridtide.control.fleet import Fleet
from gridtide.control.lease import LeaseKeeper
from gridtide.control.observing import Observer
from gridtide.control.queue_hands import QueueHands
from gridtide.control.recording import Record, Recorder
from gridtide.control.tokens import MakeSecret, digest, join_token, new_worker_id, same
from gridtide.errors import AccessDenied, Conflict, LeaseLost, NotFound, StoreError
from gridtide.model.actions import Launch, Plan
from gridtide.model.boots import BootKey, BootReport, BootTimes
from gridtide.model.demand import Attribute
from gridtide.model.ids import CloudName, GroupName, MachineId, QueueName, WorkerId
from gridtide.model.machines import MachineRef
from gridtide.model.readings import Missing, last_known
from gridtide.model.reasons import Cause, Reason
from gridtide.model.rules import SiteRules, Wishes
from gridtide.model.snapshot import GroupMemory, Heartbeat, QueueMemory, Snapshot
from gridtide.model.workers import Worker, WorkerState
from gridtide.pilot.protocol import Order
from gridtide.planning import Planner, plan
from gridtide.planning.spawning import plan_resume, plan_spawn
from gridtide.store.ports import Change, Event, FleetStore

log = structlog.get_logger("gridtide.controller")

# After a cycle that failed (a store that is down, a fault of ours) the next one starts after this many seconds.
_AFTER_FAULT = 1.0
# Seconds of rest for each second that the loop itself was busy, where that is more than the batch window: however much
# happens at a large site, it takes a quarter of a core at most. Less plans sooner, and starves the service. What it
# waited for the store does not count: others were served meanwhile.
_REST = 3.0
_MACHINE_DIED = frozenset({Cause.MACHINE_BROKEN, Cause.MACHINE_STOPPED, Cause.MACHINE_GONE})
_LEAVING = frozenset({WorkerState.DRAINED, WorkerState.FAILED, WorkerState.TERMINATING})
# Boots read at the start: as many as 25 kinds of machines need to be known again.
_BOOTS = 5_000
# For a worker whose group has left the site file: as long as the default of those that are in it.
_LEASE_WITHOUT_GROUP = 600.0
_ORDERS = {
    WorkerState.DRAINING: Order.DRAIN,
    WorkerState.DRAINED: Order.STOP,
    WorkerState.FAILED: Order.DRAIN,
    WorkerState.TERMINATING: Order.STOP,
}


Think = Callable[[Callable[[], Plan]], Awaitable[Plan]]
"""Works out a plan, one at a time: on the loop, or elsewhere, so that the loop goes on meanwhile."""


async def think_at_once(work: Callable[[], Plan]) -> Plan:
    """On the loop: with virtual time, where everything must happen in the same order each time."""
    return work()


class Controller:
    """Implements :class:`gridtide.control.api.SiteControl`."""

    def __init__(
        self,
        assembly: Assembly,
        store: FleetStore,
        keeper: LeaseKeeper,
        *,
        clock: Clock,
        random: Random,
        make_secret: MakeSecret,
        reread: Callable[[], tuple[Assembly, str]] | None = None,
        think: Think = think_at_once,
    ) -> None:
        self._store = store
        self._keeper = keeper
        self._clock = clock
        self._random = random
        self._make_secret = make_secret
        self._reread = reread
        self._think = think
        self._fleet = Fleet(store, keeper)
        self._breakers: dict[CloudName, Breaker] = {}
        self._stirred = asyncio.Event()
        self._news = False
        """Whether something has happened that planning looks at."""
        self._number = 0
        self._rest = 0.0
        self._cycle: Cycle | None = None
        self._memory: Mapping[GroupName, GroupMemory] = {}
        self._queue_memory: Mapping[QueueName, QueueMemory] = {}
        self._known_strays: set[MachineRef] = set()
        self._boots = BootMemory()
        self._planner = Planner()
        self._started = clock.now()
        self._cloud_hands: dict[CloudName, CloudHands] = {}
        self._queue_hands: dict[QueueName, QueueHands] = {}
        self._assemble(assembly)

    # --- the loop

    async def load(self) -> None:
        """Learn what the store knows. Once, after the lease was taken and before :meth:`lead`."""
        await self._fleet.load(self._clock.now())
        self._boots.load(await self._store.boots(limit=_BOOTS))
        self._started = self._clock.now()
        told = operating.lost_events(self.rules, self._fleet.workers.values(), now=self._started)
        for event in told:
            log.error("the site file has lost workers", what=event.text, remedy="name again what it named before")
        if told:
            await self._fleet.note(*told)

    async def lead(self) -> None:
        """Run for as long as this process holds the lease. Raises LeaseLost; stops when cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._keeper.keep(), name="lease")
                tasks.create_task(self._loop(), name="loop")
        except* LeaseLost as lost:
            raise lost.exceptions[0] from None
        finally:
            await self._stop_hands()

    async def _loop(self) -> None:
        while True:
            try:
                await self.run_cycle()
                pause = 0.0
            except LeaseLost:
                raise
            except StoreError as error:
                log.warning("cycle not recorded", error=str(error))
                pause = _AFTER_FAULT
            # The barrier of the loop: a fault in planning one snapshot must not end the observation of the next.
            except Exception:
                log.exception("cycle failed")
                pause = _AFTER_FAULT
            await asyncio.sleep(pause)
            await self._wait()

    async def _wait(self) -> None:
        """Until something happens or a timer runs out, and then for what happens in the same window."""
        while not self._news and (remaining := self._next_timer() - self._clock.now()) > 0:
            self._stirred.clear()
            try:
                async with asyncio.timeout(remaining if remaining != float("inf") else None):
                    await self._stirred.wait()
            except TimeoutError:
                break
        await asyncio.sleep(max(self._assembly.timing.batch, self._rest))

    def _next_timer(self) -> float:
        """When there is something to do even if nothing happens."""
        return min(
            self._observer.next_due(),
            (self._cycle.plan.look_again if self._cycle is not None else None) or float("inf"),
            *(attempt for hands in self._all_hands() if (attempt := hands.next_attempt()) is not None),
            float("inf"),
        )

    async def run_cycle(self) -> Cycle:
        """One round: read what is due, plan, record, give the orders."""
        began = self._clock.now()
        await self._observer.observe()
        self._news = False  # what has happened so far is in this snapshot
        record = None
        while record is None:
            with self._busy(anew=True):
                snapshot, rules = self._snapshot(), self._assembly.rules
                decided = await self._think(partial(self._planner.plan, snapshot, rules))
            record = await self._commit(snapshot, rules, decided)
        self._memory, self._queue_memory = decided.memory, decided.queue_memory
        self._number += 1
        self._cycle = Cycle(self._number, snapshot, decided, self._clock.now() - began)
        with self._busy():
            self._follow(snapshot, decided, record)
        return self._cycle

    @contextmanager
    def _busy(self, *, anew: bool = False) -> Iterator[None]:
        """Whatever is done in here wants a rest after the cycle."""
        began = self._clock.now()
        yield
        self._rest = (0.0 if anew else self._rest) + _REST * (self._clock.now() - began)

    def _snapshot(self) -> Snapshot:
        now = self._clock.now()
        fleet = self._fleet
        return Snapshot(
            now=now,
            started=self._started,
            queues=self._observer.queue_views(now),
            clouds=self._observer.cloud_views(now, self._breakers),
            workers=fleet.view(),
            heartbeats=dict(fleet.heartbeats),
            wishes=dict(fleet.wishes),
            memory=self._memory,
            drain_acknowledged=dict(fleet.drain_acknowledged),
            undrain_answered=dict(fleet.undrain_answered),
            boot_times=self._boots.view(),
            queue_memory=self._queue_memory,
            ended_costs=fleet.ledger.view(now),
        )

    async def _commit(self, snapshot: Snapshot, rules: SiteRules, decided: Plan) -> Record | None:
        """None, with nothing recorded, when the site file or what operators want is other than when it was planned.

        StoreError when another controller could have led since: this process was stopped, or its host suspended, and
        nobody knows for how long what it planned from has been so no more.
        """
        made: list[Record] = []

        def decide(workers: Mapping[WorkerId, Worker]) -> Sequence[Change]:
            if rules is not self._assembly.rules or snapshot.wishes != self._fleet.wishes:
                return ()
            with self._busy():
                recorder = self._recorder(snapshot, workers)
                for action in decided.actions:
                    recorder.take(action)
            made.append(recorder.record)
            return recorder.record.changes

        def check() -> None:
            if not self._keeper.held_since(snapshot.now):
                age = self._clock.now() - snapshot.now
                raise StoreError(f"held up for {age:.0f} s before the plan was recorded", remedy="a new one is made")

        await self._fleet.change(decide, check)
        if not made:
            return None
        record = made[-1]
        self._known_strays.update(MachineRef(cloud, each) for cloud, ends in record.strays.items() for each in ends)
        return record

    def _recorder(self, snapshot: Snapshot, workers: Mapping[WorkerId, Worker]) -> Recorder:
        return Recorder(
            snapshot,
            self._assembly.rules,
            workers,
            now=self._clock.now(),
            new_id=lambda group: new_worker_id(group, self._random),
            known_strays=self._known_strays,
        )

    def _follow(self, snapshot: Snapshot, decided: Plan, record: Record) -> None:
        """Start the calls that the recorded plan asks for. None of them is waited for."""
        now = self._clock.now()
        for worker in record.failed:
            self._learn_from_failure(worker, now)
        for forgotten in record.drain_again:
            self._fleet.drain_acknowledged.pop(forgotten, None)
        for worker_id in record.undrain:
            self._hands_of(self._fleet.workers.get(worker_id), QueueHands.undrain)
        for worker in record.gone:
            self._breaker(worker.cloud).ended(worker.id)
            self._hands_of(worker, QueueHands.forget)
        for name, hands in self._cloud_hands.items():
            if self._observed(snapshot, name):
                hands.launch_intended()
                machines = last_known(snapshot.clouds[name].machines)
                hands.terminate(
                    [*self._ending_machines(snapshot, name), *record.strays.get(name, ())],
                    float("-inf") if machines is None else machines.started,
                )
        for queue_hands in self._queue_hands.values():
            queue_hands.kick()

    def _learn_from_failure(self, worker: Worker, now: float) -> None:
        """A machine that did not join says something of its offer."""
        if worker.launched is None or worker.joined is not None:
            return
        key, launched, text = (worker.zone, worker.shape.name), self._launched(worker), str(worker.reason)
        if worker.reason.cause is Cause.NEVER_JOINED:
            self._breaker(worker.cloud).never_joined(key, launched, now, text)
            if launched == worker.launched:  # else nobody could let it in for a while
                self._boots.gave_up(worker, worker.since - worker.launched)
        elif worker.reason.cause in _MACHINE_DIED:
            self._breaker(worker.cloud).died(key, launched, now, text)

    def _breaker(self, name: CloudName) -> Breaker:
        """Also of a cloud that a restart has found to be no more in the site file: its machines may still join."""
        return self._breakers.setdefault(name, Breaker())

    def _launched(self, worker: Worker) -> float:
        """When it was launched; by an earlier process, whose clock may have been another: when this one began."""
        launched = worker.launched
        known = launched is not None and self._started <= launched <= self._clock.now()
        return launched if launched is not None and known else self._started

    def _observed(self, snapshot: Snapshot, name: CloudName) -> bool:
        """Whether this cloud, and the queues of its groups, have been read since the start (DESIGN 1.2)."""
        queues = {group.queue for group in self._assembly.rules.groups.values() if name in group.clouds}
        if name not in snapshot.clouds or not queues <= snapshot.queues.keys():
            return False  # the site file has brought it since
        readings = [snapshot.clouds[name].machines, *(snapshot.queues[queue].nodes for queue in queues)]
        return not any(isinstance(reading, Missing) for reading in readings)

    def _ending_machines(self, snapshot: Snapshot, name: CloudName) -> list[MachineId]:
        terminating = self._fleet.in_state(WorkerState.TERMINATING).values()
        ending = {worker.id: worker.machine for worker in terminating if worker.cloud == name}
        if not ending:
            return []
        listed = last_known(snapshot.clouds[name].machines)
        tagged = [machine.id for machine in listed.value if machine.worker in ending] if listed is not None else []
        return [*tagged, *(machine for machine in ending.values() if machine is not None)]

    def _hands_of(self, worker: Worker | None, order: Callable[[QueueHands, WorkerId], None]) -> None:
        queue = None if worker is None else self.rules.queue_of(worker)
        if worker is not None and queue in self._queue_hands:
            order(self._queue_hands[queue], worker.id)

    # --- what spawning asks

    @property
    def fleet(self) -> Fleet:
        """The workers, to be changed only through it."""
        return self._fleet

    def spawn_launch(self, group: GroupName) -> Launch | Reason:
        """Whether one more worker may be launched on request, and how."""
        return plan_spawn(self._snapshot(), self._assembly.rules, group)

    def resume_launches(self, group: GroupName, number: int) -> tuple[Sequence[Launch], Reason]:
        """How so many workers may be launched on request, and why no more."""
        return plan_resume(self._snapshot(), self._assembly.rules, group, number)

    def intents_of(self, launch: Launch) -> list[Change]:
        """The records of a launch that was decided now."""
        recorder = self._recorder(self._snapshot(), self._fleet.workers)
        recorder.take(launch)
        return recorder.record.changes

    # --- putting together

    def _assemble(self, assembly: Assembly) -> list[CloudHands | QueueHands]:
        """Sources and hands for these drivers. Hands (and breakers) of drivers that stay are kept with what they are
        doing; those of the others are returned, to be stopped."""
        old = self._all_hands()
        self._assembly = assembly
        self._alive: dict[tuple[GroupName, WorkerState], AliveAnswer] = {}
        self._fleet.ledger.bill({name: cloud.billing for name, cloud in assembly.rules.clouds.items()})
        self._observer = Observer(
            assembly, clock=self._clock, random=self._random, changed=self.wake, stays=self._stays
        )
        clouds = {hands.cloud: hands for hands in self._cloud_hands.values()}
        queues = {hands.queue: hands for hands in self._queue_hands.values()}
        self._cloud_hands = {
            name: clouds.get(cloud) or self._make_cloud_hands(name) for name, cloud in assembly.clouds.items()
        }
        self._queue_hands = {
            name: queues.get(queue) or self._make_queue_hands(name) for name, queue in assembly.queues.items()
        }
        settings = LaunchSettings(
            assembly.render,
            assembly.rules.group_of,
            assembly.timing.launch_deadline,
            assembly.timing.call_deadline,
        )
        for hands in self._cloud_hands.values():
            hands.settings = settings
        kept = self._all_hands()
        return [hands for hands in old if hands not in kept]

    def _make_cloud_hands(self, name: CloudName) -> CloudHands:
        return CloudHands(
            self._assembly.clouds[name],
            self._fleet,
            self._breaker(name),
            clock=self._clock,
            random=self._random,
            make_secret=self._make_secret,
            may_act=self._check_lease,
            happened=self.wake,
            stir=self._stir,
            observe=lambda: self._observer.ask_cloud(name),
        )

    def _make_queue_hands(self, name: QueueName) -> QueueHands:
        def mine(worker: WorkerId) -> bool:
            return self.rules.queue_of(self._fleet.workers[worker]) == name

        return QueueHands(
            self._assembly.queues[name],
            self._fleet,
            mine=mine,
            deadline=self._assembly.timing.call_deadline,
            clock=self._clock,
            random=self._random,
            may_act=self._check_lease,
            happened=self.wake,
            stir=self._stir,
            observe=lambda: self._observer.ask_queue(name),
        )

    def _stays(self, worker: WorkerId) -> bool:
        known = self._fleet.workers.get(worker)
        return known is not None and known.state not in _LEAVING

    def _check_lease(self) -> None:
        _ = self._keeper.lease

    def _all_hands(self) -> list[CloudHands | QueueHands]:
        return [*self._cloud_hands.values(), *self._queue_hands.values()]

    async def _stop_hands(self) -> None:
        await asyncio.gather(self._observer.stop(), *(hands.stop() for hands in self._all_hands()))

    # --- what the service asks (gridtide.control.api.SiteControl)

    @property
    def rules(self) -> SiteRules:
        """The rules in force."""
        return self._assembly.rules

    @property
    def store(self) -> FleetStore:
        """For history, events and tokens."""
        return self._store

    @property
    def workers(self) -> Mapping[WorkerId, Worker]:
        """All that are not GONE."""
        return self._fleet.workers

    @property
    def worker_counts(self) -> WorkerCounts:
        """Of the same."""
        return self._fleet.counts

    def oldest_first(self) -> Sequence[Worker]:
        """The same, by when they were made."""
        return self._fleet.oldest_first()

    @property
    def boot_times(self) -> Mapping[BootKey, BootTimes]:
        """What was learned of how long machines take to join."""
        return self._boots.times

    @property
    def cycle(self) -> Cycle | None:
        """The last one that ended."""
        return self._cycle

    def wake(self, why: str) -> None:
        """Look again soon. ``why`` may name a source, queue or cloud; those it names are read again."""
        log.debug("wake", why=why)
        self._news = True
        self._stirred.set()

    def _stir(self) -> None:
        """Nothing to plan anew for; but when the next read or attempt is due may be another time now."""
        self._stirred.set()

    def queue_changed(self, name: QueueName) -> None:
        """A queue that can say so tells that its jobs or nodes have changed."""
        self._observer.ask_queue(name)
        self._stirred.set()  # what it is shows when it is read, and that may be due only later

    async def dry_run(self) -> Cycle:
        """What the next cycle would do, from the readings at hand."""
        began = self._clock.now()
        snapshot = self._snapshot()
        decided = await self._think(partial(plan, snapshot, self._assembly.rules))
        return Cycle(self._number + 1, snapshot, decided, self._clock.now() - began)

    async def join(
        self,
        worker: WorkerId,
        join_secret: str,
        worker_secret: str,
        host: Mapping[str, Attribute],
        report: BootReport | None = None,
    ) -> JoinAnswer:
        """Admit a machine. A repeated request gets the same answer."""
        outcome = await self._fleet.join(
            worker,
            join_digest=digest(join_secret),
            worker_digest=digest(worker_secret),
            now=self._clock.now(),
            host=host,
            report=report,
        )
        joined = outcome.worker
        if outcome.boot is not None and outcome.learned:
            self._boots.joined(outcome.boot)
        queue = self.rules.queue_of(joined)
        if queue is None:
            raise Conflict(f"neither group {joined.group} nor its queue are in the site file any more", where=joined.id)
        orders = await self._assembly.queues[queue].join(joined, host)
        if joined.launched is not None:
            self._breaker(joined.cloud).joined((joined.zone, joined.shape.name), self._launched(joined))
        self._fleet.heartbeats[worker] = Heartbeat(self._clock.now(), 0, 0.0, draining=False)
        self.queue_changed(queue)
        return JoinAnswer(joined, self._lease(joined), self._heartbeat(joined), orders, outcome.boot)

    def _lease(self, worker: Worker) -> float:
        group = self.rules.groups.get(worker.group)
        return group.lease if group is not None else _LEASE_WITHOUT_GROUP

    def _heartbeat(self, worker: Worker) -> float:
        return self._assembly.heartbeats.get(worker.group, self._assembly.timing.heartbeat)

    async def context(self, worker: WorkerId, join_secret: str, reader: str) -> bytes:
        """Rendered anew: it is kept nowhere."""
        now = self._clock.now()
        try:
            known = await self._store.read_context(
                self._keeper.lease, worker, join_digest=digest(join_secret), reader_digest=digest(reader), now=now
            )
        except AccessDenied:
            text = "its context was refused: the token is spent, or somebody else has read it before"
            await self._fleet.note(Event(now, "token", worker, f"worker:{worker}", None, text))
            raise
        return self._assembly.fetch(known, join_token(worker, join_secret))

    async def check_worker(self, worker: WorkerId, secret: str) -> None:
        """AccessDenied unless the secret is the worker's own."""
        stored = await self._store.worker_token(worker)
        # Compared even when there is none, so that both refusals take the same time.
        if not same(secret, stored or digest("")) or stored is None:
            raise AccessDenied("this is no worker's token", remedy="a worker that is gone has no rights any more")

    def alive(self, worker: WorkerId, *, load: float, running: int, draining: bool) -> AliveAnswer:
        """Note a sign of life; answer with orders."""
        known = self._fleet.get(worker)
        self._fleet.heartbeats[worker] = Heartbeat(self._clock.now(), running, load, draining)
        answer = self._alive.get((known.group, known.state))
        if answer is None:
            answer = AliveAnswer(_ORDERS.get(known.state, Order.CONTINUE), self._lease(known), self._heartbeat(known))
            self._alive[known.group, known.state] = answer
        return answer

    async def done(self, worker: WorkerId, text: str) -> None:
        """The worker says that it runs nothing and shuts down."""
        known = self._fleet.get(worker)
        now = self._clock.now()
        self._fleet.heartbeats[worker] = Heartbeat(now, 0, 0.0, draining=True)
        said = Event(now, "worker", worker, f"worker:{worker}", None, f"says it is done: {text}", group=known.group)
        await self._fleet.note(said)
        self._observer.ask_cloud(known.cloud)
        queue = self.rules.queue_of(known)
        if queue is not None:
            self.queue_changed(queue)

    async def set_wishes(self, group: GroupName, wishes: Wishes, *, actor: str) -> None:
        """Change what operators want of a group."""
        changes = operating.wishes_changes(self._assembly.rules, group, wishes, actor=actor, now=self._clock.now())
        await self._fleet.change(lambda _: changes)
        self.wake("wishes")

    async def drain(self, workers: Sequence[WorkerId], *, force: bool, actor: str) -> None:
        """Operators' order to drain, or to end, these."""
        now = self._clock.now()
        await self._fleet.change(lambda known: operating.drain_changes(known, workers, force, actor=actor, now=now))
        self.wake("operator drains")

    async def undrain(self, workers: Sequence[WorkerId], *, actor: str) -> None:
        """Take such an order back."""
        now = self._clock.now()
        await self._fleet.change(lambda known: operating.undrain_changes(known, workers, actor=actor, now=now))
        for worker in workers:
            self._hands_of(self._fleet.workers.get(worker), QueueHands.undrain)
        self.wake("operator takes drains back")

    async def explain(self, subject: str) -> Explanation:
        """Of a worker or group."""
        wishes = self._fleet.wishes.get(GroupName(subject), Wishes())
        return await explaining.explain(
            subject,
            rules=self._assembly.rules,
            cycle=self._cycle,
            store=self._store,
            wishes=wishes,
            now=self._clock.now(),
        )

    async def console(self, worker: WorkerId, *, most: int) -> bytes:
        """Asked of its cloud: nothing of it is kept here."""
        known = self._fleet.workers.get(worker) or await self._store.worker(worker)
        if known is None:
            raise NotFound(f"no worker is called {worker}", remedy="`gridtide workers --past` lists those that ended")
        cloud = self._assembly.clouds.get(known.cloud)
        if not isinstance(cloud, HasConsole):
            raise NotFound(f"cloud {known.cloud} shows no console", where=worker)
        async with asyncio.timeout(self._assembly.timing.call_deadline):
            content = await cloud.console(known.machine or MachineId(worker), most=most)
        if content is None:
            raise NotFound("its console is not kept (any more)", where=worker)
        return content

    async def close_site(self, *, actor: str) -> None:
        """Launch nothing more and drain all."""
        await self._set_closing(True, actor=actor)

    async def open_site(self, *, actor: str) -> None:
        """Undo :meth:`close_site`, at the start of a site that was closed."""
        await self._set_closing(False, actor=actor)

    async def _set_closing(self, closing: bool, *, actor: str) -> None:
        changes = operating.closing_changes(
            self._assembly.rules, self._fleet.wishes, closing, actor=actor, now=self._clock.now()
        )
        await self._fleet.change(lambda _: changes)
        self.wake("closing" if closing else "opening")

    async def reload(self) -> str:
        """Read the site file again. SiteFileError leaves everything as it was."""
        if self._reread is None:
            raise Conflict("this site was not started from a file")
        assembly, told = self._reread()
        operating.check_nothing_lost(self.rules, assembly.rules, self._fleet.workers.values())
        before = self._observer
        retired = self._assemble(assembly)
        self._observer.adopt(before)
        await asyncio.gather(before.stop(), *(hands.stop() for hands in retired))
        now = self._clock.now()
        await self._fleet.note(Event(now, "site", assembly.rules.name, "controller", None, told))
        self.wake("site file")
        return told
