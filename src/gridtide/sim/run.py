"""The run: a workload, a site's rules, simulated clouds and queue, and the *production* controller on virtual time.

Nothing of the controller or planner is replaced or told that it is simulated. Same workload, setting and seed: the
same bits.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from array import array
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

import structlog

from gridtide.clock import Clock, LoopClock
from gridtide.control.assembly import Assembly
from gridtide.control.controller import Controller
from gridtide.control.lease import LeaseKeeper
from gridtide.model.ids import WorkerId
from gridtide.model.workers import Worker
from gridtide.sim import virtual_time
from gridtide.sim.batch import Batch, Job
from gridtide.sim.cloud import SimulatedCloud
from gridtide.sim.faults import FaultName
from gridtide.sim.injector import Injector, Stage
from gridtide.sim.machines import MachineRecord
from gridtide.sim.processes import LEASE, Processes, Wall
from gridtide.sim.queue import SimulatedQueue
from gridtide.sim.setting import Setting
from gridtide.sim.spending import Days, days_of, keepable, passed
from gridtide.sim.store import WatchedStore
from gridtide.sim.trace import Trace
from gridtide.sim.watch import Rule, Violation, Watch
from gridtide.sim.world import SimulatedWorld

EPOCH: Final = 1_700_000_000.0
"""The clock's start: a Tuesday, 22:13 UTC. Where a policy goes by the hour, that of the log counts, if it says so."""

GIVE_UP_AFTER: Final = 7 * 86_400.0
"""Seconds in which no job starts or ends, and none is to come, before the run is given up: those left never start."""

_DRAIN_TIME: Final = 86_400.0
"""Seconds that the fleet has, after the last job, to come down to its minimum."""

_ERRORS: Final = 40
"""Level of the log that is looked at: a million warnings about refused launches are no news in a simulation."""
_COLLECT: Final = (100_000, 50, 100)
"""When garbage is looked for. With Python's own values a tenth of a long run is spent on looking at the workload's jobs
again and again, which are no garbage."""


@dataclass(slots=True)
class JobRecords:
    """What became of the jobs that ended, column by column: a row each would take ten times the memory."""

    submitted: array[float] = field(default_factory=lambda: array("d"))
    started: array[float] = field(default_factory=lambda: array("d"))
    ended: array[float] = field(default_factory=lambda: array("d"))
    cores: array[int] = field(default_factory=lambda: array("l"))

    def add(self, submitted: float, started: float, ended: float, cores: int) -> None:
        """One job that ended."""
        self.submitted.append(submitted)
        self.started.append(started)
        self.ended.append(ended)
        self.cores.append(cores)

    def __len__(self) -> int:
        return len(self.submitted)


@dataclass(frozen=True, slots=True)
class Run:
    """All that a run has shown."""

    trace: Trace
    setting: Setting
    seed: int
    jobs: JobRecords
    machines: tuple[MachineRecord, ...]
    days: Days
    """What each cloud has charged on each day."""
    violations: tuple[Violation, ...]
    violation_count: int
    never_started: int
    lost: int
    """Runs of jobs that were lost with machines that the cloud took back or broke."""
    killed: int
    """Jobs that we ended. Must be 0."""
    refused: int
    """Machines whose join was refused."""
    cycles: int
    """How often the controller planned."""
    decisions: int
    """State changes of workers, each with a reason."""
    events: int
    """After each of which every rule was checked."""
    strikes: Mapping[FaultName, int]
    """How often each fault struck."""
    length: float
    """Seconds from the workload's start to the end of the last machine or job."""


Progress = Callable[[float], None]
"""Hears what part of the run is done, from 0 to 1."""


def simulate(trace: Trace, setting: Setting, *, seed: int = 0, progress: Progress = lambda _: None) -> Run:
    """Replay a workload that was made to fit (:func:`gridtide.sim.setting.fitted`)."""
    before = structlog.get_config()
    faults: list[str] = []

    def keep(_logger: object, _name: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
        if event.get("exc_info"):
            faults.append(f"{event.get('event')}: {sys.exc_info()[1]!r}")
        raise structlog.DropEvent

    structlog.configure(processors=[keep], wrapper_class=structlog.make_filtering_bound_logger(_ERRORS))
    thresholds = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT)
    try:
        return virtual_time.run(Simulation(trace, setting, seed, progress, faults).run())
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()
        structlog.configure(**before)


class Simulation:
    """One run, on a virtual loop."""

    def __init__(
        self, trace: Trace, setting: Setting, seed: int, progress: Progress, faults: Sequence[str] = ()
    ) -> None:
        """``faults``: what the controller's barriers have caught so far; a run in which they caught anything ends."""
        self._faults = faults
        self._trace = trace
        self._setting = setting
        self._seed = seed
        self._progress = progress
        self._epoch = EPOCH if trace.epoch == 0.0 or not setting.by_the_hour else trace.epoch
        self._clock = LoopClock(self._epoch)
        self._jobs = JobRecords()
        self._joined: dict[WorkerId, float] = {}
        self._lost = 0
        self._moved = 0.0
        """When a job last started or ended."""

    async def run(self) -> Run:
        """Until all jobs have ended and the fleet is down."""
        batch = self._build()
        self._store = WatchedStore(self._watch)
        wall = Wall(self._epoch)
        names = {fault.name for fault in self._setting.faults}
        self._processes = Processes(
            self._controller, self._store, wall, self._world.connect, rivals=FaultName.TWO_CONTROLLERS in names
        )
        stage = Stage(self._clouds, self._queue, self._world, self._processes, wall)
        self._injector = Injector(stage, self._watch, self._seed, self._trace.span)
        self._watch.blind = self._injector.blind
        batch.feed(self._trace.jobs, self._epoch)
        self._processes.start()
        self._world.start()
        self._injector.start(self._setting.faults)
        try:
            never = await self._follow(batch)
        finally:
            await self._injector.stop()
            await self._processes.close()
            await self._world.close()
        return self._result(never)

    def _controller(self, keeper: LeaseKeeper, clock: Clock, process: int) -> Controller:
        """The production controller of one process."""
        suffix = "" if process == 1 else f" {process}"
        secrets = self._random(f"secrets{suffix}")
        return Controller(
            self._assembly(),
            self._store,
            keeper,
            clock=clock,
            random=self._random(f"controller{suffix}"),
            make_secret=lambda: f"{secrets.getrandbits(256):064x}",
        )

    def _build(self) -> Batch:
        """What is simulated: batch system, clouds, machines, and the watch over them."""
        batch = Batch(order=self._setting.order, placement=self._setting.placement)
        batch.on_end, batch.on_start, batch.on_lost = self._ended, self._started, self._lose
        setting, clock = self._setting, self._clock
        self._queue = SimulatedQueue(
            setting.queue, clock, self._random("queue"), batch, contact_timeout=setting.contact_timeout
        )
        self._clouds = [
            SimulatedCloud(name, clock, self._seed, model, settle=setting.rules.clouds[name].settle)
            for name, model in setting.clouds.items()
        ]
        self._watch = Watch(
            setting.rules,
            self._clouds,
            lambda: clock.now() - self._epoch,
            seed=self._seed,
            # What was planned by it may be recorded later by a lease: by a process that was frozen in between.
            price_age=setting.timing().shapes.max_age + LEASE,
        )
        self._watch.attach()
        self._world = SimulatedWorld(
            self._clouds,
            self._queue,
            clock,
            heartbeat=setting.heartbeat,
            lease=min((group.lease for group in setting.groups), default=600.0),
            attributes=setting.attributes,
        )
        self._world.on_joined = lambda worker: self._joined.setdefault(worker, clock.now() - self._epoch)
        return batch

    def _assembly(self) -> Assembly:
        return Assembly(
            rules=self._setting.rules,
            queues={self._setting.queue: self._queue},
            clouds={cloud.name: cloud for cloud in self._clouds},
            render=_render,
            timing=self._setting.timing(),
            planned_attributes=self._setting.attributes,
        )

    def _random(self, name: str) -> Random:
        return Random(f"{self._seed}/{name}")  # noqa: S311  (a simulation, no secret)

    async def _follow(self, batch: Batch) -> int:
        """Tell the controller of news, step by step, until all is over. How many jobs never started."""
        total = len(self._trace.jobs)
        last = self._trace.span
        steps = 0
        told = 0.0
        while True:
            await asyncio.sleep(self._setting.step)
            now = self._queue.catch_up()
            if self._queue.news() and (controller := self._processes.controller) is not None:
                controller.queue_changed(self._setting.queue)
            steps += 1
            if steps % 20:
                continue
            if self._faults and not self._watch.found:
                raise RuntimeError(f"the controller met a fault: {self._faults[0]}")
            if self._faults:  # what broke the rules broke the controller as well
                return total - batch.ended_count
            self._processes.check()
            self._injector.check()
            if self._world.crashed:
                raise self._world.crashed[0]
            self._watch.happened("time passes")
            part = (batch.ended_count + batch.arrived_count) / (2 * total)
            if part >= told + 0.001:
                told = part
                self._progress(part)
            elapsed = now - self._epoch
            if batch.ended_count == total:
                await self._injector.stop()
                if self._at_rest() or elapsed > self._moved + _DRAIN_TIME:
                    return 0
            elif elapsed > max(self._moved, last) + GIVE_UP_AFTER:
                return total - batch.ended_count

    def _at_rest(self) -> bool:
        """Whether the fleet is down to what it keeps."""
        kept = sum(group.minimum for group in self._setting.groups)
        return len(self._watch.known) <= kept and sum(1 for cloud in self._clouds for _ in cloud.alive()) <= kept

    def _started(self, _job: Job, at: float) -> None:
        self._moved = at - self._epoch

    def _ended(self, job: Job, at: float) -> None:
        self._moved = at - self._epoch
        self._jobs.add(job.submitted - self._epoch, job.started - self._epoch, at - self._epoch, job.given.cores)

    def _lose(self, _job: Job, _at: float) -> None:
        self._lost += 1

    def _result(self, never: int) -> Run:
        now = self._clock.now()
        machines = [
            MachineRecord(
                each.worker,
                cloud.name,
                each.shape,
                each.made - self._epoch,
                self._joined.get(each.worker),
                (now if each.ended is None else each.ended) - self._epoch,
                cloud.bill.seconds(each, now),
            )
            for cloud in self._clouds
            for each in cloud.bill.machines.values()
        ]
        machines.sort(key=lambda each: (each.made, each.worker))
        days = days_of(machines, self._epoch)
        self._look_at_budgets(days)
        return Run(
            trace=self._trace,
            setting=self._setting,
            seed=self._seed,
            jobs=self._jobs,
            machines=tuple(machines),
            days=days,
            violations=tuple(self._watch.found),
            violation_count=sum(self._watch.counts.values()),
            never_started=never,
            lost=self._lost,
            killed=sum(len(cloud.record.killed_jobs) for cloud in self._clouds),
            refused=len(self._world.refused),
            cycles=self._processes.cycles,
            decisions=self._watch.decisions,
            events=self._watch.events,
            strikes=dict(self._injector.strikes),
            length=max([self._moved, *(each.ended for each in machines)]),
        )

    def _look_at_budgets(self, days: Days) -> None:
        """Of days that are over, and of the promise that was given for them."""
        rules = self._setting.rules
        for cloud, day, cost, budget in passed(days, rules):
            if keepable(cloud, self._trace.jobs, rules):
                self._watch.breach(Rule.BUDGET, f"{cloud}: {cost:.2f} of {budget:.2f} on day {day}")


def _render(_worker: Worker, token: str) -> bytes:
    """A simulated machine needs to know nothing but its token."""
    return token.encode()
