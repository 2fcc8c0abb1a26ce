"""A run of a model of another autoscaler: the same simulated queue, clouds, machines and watch, another hand.

It looks every so often, asks the model, launches and ends. It never ends a machine that runs a job.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from random import Random
from typing import Final

from gridtide.clock import LoopClock
from gridtide.clouds.fake import FakeMachine
from gridtide.clouds.protocol import LaunchRequest
from gridtide.control.api import AliveAnswer, JoinAnswer
from gridtide.errors import CloudError, SiteFileError
from gridtide.model.demand import Attribute
from gridtide.model.ids import MachineId, WorkerId
from gridtide.model.reasons import Cause, Reason
from gridtide.model.resources import Shape
from gridtide.model.workers import Worker, WorkerState
from gridtide.pilot.protocol import Order
from gridtide.sim import virtual_time
from gridtide.sim.baselines.base import Baseline, Decision, Idle, InUse, Sight
from gridtide.sim.batch import Batch, BatchNode, Job
from gridtide.sim.cloud import SimulatedCloud
from gridtide.sim.machines import MachineRecord
from gridtide.sim.queue import SimulatedQueue
from gridtide.sim.run import EPOCH, GIVE_UP_AFTER, JobRecords, Progress, Run
from gridtide.sim.setting import Setting
from gridtide.sim.spending import days_of
from gridtide.sim.trace import Trace
from gridtide.sim.watch import Watch
from gridtide.sim.world import SimulatedWorld

PROVISION: Final = 900.0
"""Seconds: a machine that has not joined by then is given up (cluster-autoscaler's max-node-provision-time)."""
_LEASE: Final = 600.0
_HEARTBEAT: Final = 300.0


def run_baseline(
    trace: Trace, setting: Setting, baseline: Baseline, *, seed: int = 0, progress: Progress = lambda _: None
) -> Run:
    """Replay a workload that was made to fit. SiteFileError for a site with several groups or clouds."""
    if len(setting.groups) != 1 or len(setting.groups[0].clouds) != 1:
        raise SiteFileError(
            "the models of other autoscalers know one group on one cloud",
            where=setting.name,
            remedy="simulate them on a site that has no more, or leave --baseline out",
        )

    async def drive() -> Run:
        return await _Hand(trace, setting, baseline, seed, progress).run()

    return virtual_time.run(drive())


class _Hand:
    """One run. To the machines it is the service that they join."""

    def __init__(self, trace: Trace, setting: Setting, baseline: Baseline, seed: int, progress: Progress) -> None:
        self._trace, self._setting, self._baseline = trace, setting, baseline
        self._seed, self._progress = seed, progress
        self._group = setting.groups[0]
        self._epoch = trace.epoch or EPOCH
        self._clock = clock = LoopClock(self._epoch)
        name = self._group.clouds[0]
        settle = setting.rules.clouds[name].settle
        self._cloud = SimulatedCloud(name, clock, seed, setting.clouds[name], settle=settle)
        self._batch = Batch(order=setting.order, placement=setting.placement)
        self._batch.on_end, self._batch.on_start, self._batch.on_lost = self._ended, self._started, self._lose
        random = Random(f"{seed}/queue")  # noqa: S311  (a simulation, no secret)
        self._queue = SimulatedQueue(setting.queue, clock, random, self._batch, contact_timeout=setting.contact_timeout)
        self._watch = Watch(setting.rules, [self._cloud], lambda: clock.now() - self._epoch, seed=seed)
        self._watch.attach(records=False)
        self._world = SimulatedWorld(
            [self._cloud], self._queue, clock, heartbeat=_HEARTBEAT, lease=_LEASE, attributes=setting.attributes
        )
        self._cloud.on_ended.append(self._gone)
        self._shapes = tuple(
            sorted(setting.shapes_of(self._group), key=lambda shape: (shape.resources.cores, shape.name), reverse=True)
        )
        self._rule = baseline.rule()
        self._starting: dict[WorkerId, tuple[Shape, float]] = {}
        self._joined: dict[WorkerId, float] = {}
        self._draining: dict[WorkerId, None] = {}
        self._jobs = JobRecords()
        self._number = self._lost = self._looks = 0
        self._moved = 0.0

    async def run(self) -> Run:
        """Until all jobs have ended; then every machine goes."""
        self._batch.feed(self._trace.jobs, self._epoch)
        self._world.connect(self)
        self._world.start()
        try:
            never = await self._follow()
            await self._end(list(self._batch.nodes))
            await self._give_up(list(self._starting))
        finally:
            await self._world.close()
        return self._result(never)

    async def _follow(self) -> int:
        """Look after look. How many jobs never started."""
        total, last, told = len(self._trace.jobs), self._trace.span, 0.0
        while True:
            elapsed = self._queue.catch_up() - self._epoch
            if self._world.crashed:
                raise self._world.crashed[0]
            if self._batch.ended_count == total:
                return 0
            if elapsed > max(self._moved, last) + GIVE_UP_AFTER:
                return total - self._batch.ended_count
            self._looks += 1
            await self._do(self._rule(self._sight()))
            part = (self._batch.ended_count + self._batch.arrived_count) / (2 * total)
            if part >= told + 0.001:
                told = part
                self._progress(part)
            await asyncio.sleep(self._baseline.every)

    # --- looking

    def _sight(self) -> Sight:
        running, idle = 0, []
        accepting: list[BatchNode] = []
        for node in self._batch.nodes.values():
            running += node.total.cores - node.free[0]
            if node.open and node.worker is not None:
                accepting.append(node)
                if node.idle_since is not None:
                    idle.append(Idle(node.worker, node.idle_since))
        idle.sort(key=lambda each: each.since)
        return Sight(
            now=self._clock.now(),
            shapes=self._shapes,
            waiting=tuple((kind.need, len(jobs)) for kind, jobs in self._batch.waiting.items()),
            running=running,
            joined=len(accepting),
            starting=tuple(shape for shape, _ in self._starting.values()),
            idle=tuple(idle),
            in_use=lambda: _by_use(accepting),
        )

    # --- doing

    async def _do(self, decision: Decision) -> None:
        for worker in decision.drain:
            if (node := self._batch.nodes.get(worker)) is not None and node.open:
                self._batch.drain(node)
                self._draining[worker] = None
        await self._end([*self._draining, *decision.end])
        now = self._clock.now()
        await self._give_up([worker for worker, (_, since) in self._starting.items() if now >= since + PROVISION])
        alive = self._cloud.machines_of(self._group.name)
        room = max(self._group.maximum - alive, 0)
        missing = max(self._group.minimum - alive, 0)
        wanted = (*decision.launch, *(self._shapes[:1] * (missing - len(decision.launch))))[:room]
        # A full cloud is not asked: a rule that sees a long queue wants thousands of machines at each look.
        await self._launch(self._cloud.within_quota(wanted))

    async def _launch(self, shapes: Sequence[Shape]) -> None:
        requests: list[LaunchRequest] = []
        sizes: dict[WorkerId, Shape] = {}
        for shape in shapes:
            self._number += 1
            worker = WorkerId(f"{self._group.name}-{self._number:08x}")
            sizes[worker] = shape
            requests.append(LaunchRequest(worker, self._group.name, shape.name, None, None, b"token.secret"))
        if not requests:
            return
        with contextlib.suppress(CloudError):  # the next look asks again
            answer = await self._cloud.launch(requests)
            now = self._clock.now()
            self._starting |= {
                worker: (sizes[worker], now) for worker, made in answer.items() if not isinstance(made, CloudError)
            }

    async def _end(self, workers: list[str]) -> None:
        """Idle machines, down to the minimum, take no more jobs and go. One that runs a job stays, whoever asks."""
        self._queue.catch_up()
        spare = self._cloud.machines_of(self._group.name) - self._group.minimum
        nodes = [node for each in workers if (node := self._batch.nodes.get(each)) is not None and not node.jobs]
        chosen = nodes[: max(spare, 0)] if self._batch.ended_count < len(self._trace.jobs) else nodes
        machines = []
        for node in chosen:
            machine = None if node.worker is None else self._cloud.machine_of(node.worker)
            if machine is not None:
                self._batch.drain(node)
                machines.append(machine.id)
        await self._terminate(machines)

    async def _give_up(self, workers: list[WorkerId]) -> None:
        found = [self._cloud.machine_of(worker) for worker in workers]
        await self._terminate([machine.id for machine in found if machine is not None])
        for worker in workers:
            self._starting.pop(worker, None)

    async def _terminate(self, machines: list[MachineId]) -> None:
        if machines:
            with contextlib.suppress(CloudError):  # it is idle at the next look as well
                await self._cloud.terminate(machines)

    def _gone(self, machine: FakeMachine) -> None:
        if machine.worker is None:
            return
        self._starting.pop(machine.worker, None)
        self._draining.pop(machine.worker, None)
        node = self._batch.nodes.get(machine.worker)
        if node is not None and not node.jobs:
            self._batch.remove(node, self._clock.now())

    # --- what machines ask

    async def join(
        self, worker: WorkerId, join_secret: str, worker_secret: str, host: Mapping[str, Attribute]
    ) -> JoinAnswer:
        """Let it in."""
        shape, launched = self._starting.pop(worker)
        now = self._clock.now()
        self._joined[worker] = now - self._epoch
        reason = Reason(Cause.JOINED, self._baseline.name)
        known = Worker(
            worker, self._group.name, self._cloud.name, shape, None, self._group.generation, False,
            WorkerState.JOINED, now, launched, reason,
        )  # fmt: skip
        return JoinAnswer(known, _LEASE, _HEARTBEAT, await self._queue.join(known, host))

    def alive(self, worker: WorkerId, *, load: float, running: int, draining: bool) -> AliveAnswer:
        """Nothing to say."""
        return AliveAnswer(Order.CONTINUE, _LEASE, _HEARTBEAT)

    async def done(self, worker: WorkerId, text: str) -> None:
        """Simulated machines do not say it."""

    # --- what becomes of jobs

    def _started(self, _job: Job, at: float) -> None:
        self._moved = at - self._epoch

    def _ended(self, job: Job, at: float) -> None:
        self._moved = at - self._epoch
        self._jobs.add(job.submitted - self._epoch, job.started - self._epoch, at - self._epoch, job.given.cores)

    def _lose(self, _job: Job, _at: float) -> None:
        self._lost += 1

    def _result(self, never: int) -> Run:
        now, bill = self._clock.now(), self._cloud.bill
        machines = [
            MachineRecord(
                each.worker,
                self._cloud.name,
                each.shape,
                each.made - self._epoch,
                self._joined.get(each.worker),
                (now if each.ended is None else each.ended) - self._epoch,
                bill.seconds(each, now),
            )
            for each in bill.machines.values()
        ]
        machines.sort(key=lambda each: (each.made, each.worker))
        return Run(
            trace=self._trace,
            setting=self._setting,
            seed=self._seed,
            jobs=self._jobs,
            machines=tuple(machines),
            days=days_of(machines, self._epoch),
            violations=tuple(self._watch.found),
            violation_count=sum(self._watch.counts.values()),
            never_started=never,
            lost=self._lost,
            killed=len(self._cloud.record.killed_jobs),
            refused=len(self._world.refused),
            cycles=self._looks,
            decisions=0,
            events=self._watch.events,
            strikes={},
            length=max([self._moved, *(each.ended for each in machines)]),
        )


def _by_use(nodes: list[BatchNode]) -> tuple[InUse, ...]:
    found = [InUse(node.worker, node.total.cores - node.free[0]) for node in nodes if node.worker is not None]
    return tuple(sorted(found, key=lambda each: each.used))
