"""What no policy can beat, and what one that knows the future can do. docs/explanation/yardsticks.md tells more."""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Final

from gridtide.model.costs import Billing
from gridtide.model.resources import Shape
from gridtide.sim.batch import Amount
from gridtide.sim.trace import TraceJob

_LOOKED_AT: Final = 64
"""Machines with room that are tried for one job, the best first. More find no better place where jobs are small."""


@dataclass(frozen=True, slots=True)
class Bound:
    """Hours and money."""

    machine_hours: float
    core_hours: float
    cost: float
    machines: int
    """Launches; 0 where the bound does not say."""


def zero_wait(jobs: Sequence[TraceJob], shapes: Sequence[Shape]) -> Bound:
    """What at least is needed when every job starts at once: machines that boot in no time, are charged by the moment,
    and whose jobs may be moved so that all of them are always full.

    Core-hours are those of the work. Machine-hours are those of the largest shape. The cost is that of the cheapest
    core. ValueError without shapes that have cores.
    """
    work = sum(job.runtime * job.cores for job in jobs) / 3600.0
    useful = [shape for shape in shapes if shape.resources.cores > 0]
    if not useful:
        raise ValueError("there is no shape with cores")
    largest = max(shape.resources.cores for shape in useful)
    cheapest = min(shape.price / shape.resources.cores for shape in useful)
    events = sorted(
        event for job in jobs for event in ((job.submit, job.cores), (job.submit + job.runtime, -job.cores))
    )
    hours, cores, before = 0.0, 0, 0.0
    for at, change in events:
        hours += ceil(cores / largest) * (at - before)
        cores, before = cores + change, at
    return Bound(hours / 3600.0, work, cheapest * work, 0)


@dataclass(slots=True, eq=False)
class _Machine:
    shape: Shape
    born: float
    """Ready for its first job."""
    ends: float
    """When its last job ends, as far as jobs are given to it."""
    free: Amount
    listed: bool = False


@dataclass(slots=True)
class _Packing:
    """Machines that live, those with room in the order of their ends."""

    idle: float
    """Seconds that a machine may be empty between two jobs: a boot, since a new one would cost as much."""
    rooms: list[tuple[float, int, _Machine]] = field(default_factory=list)
    departures: list[tuple[float, int, TraceJob, _Machine]] = field(default_factory=list)
    machines: list[_Machine] = field(default_factory=list)
    number: int = 0

    def advance(self, now: float) -> None:
        """Take off what has ended, forget machines that have been empty for too long."""
        while self.departures and self.departures[0][0] <= now:
            _, _, job, machine = heapq.heappop(self.departures)
            free = machine.free
            machine.free = (free[0] + job.cores, free[1] + job.memory, free[2] + job.disk, free[3] + job.gpus)
            if not machine.listed:
                self._list(machine)
        while self.rooms and self.rooms[0][0] + self.idle < now:
            self.rooms.pop(0)[2].listed = False

    def place(self, job: TraceJob, machine: _Machine) -> None:
        """Give it the job."""
        free, end = machine.free, job.submit + job.runtime
        if machine.listed:
            self._unlist(machine)
        machine.free = (free[0] - job.cores, free[1] - job.memory, free[2] - job.disk, free[3] - job.gpus)
        machine.ends = max(machine.ends, end)
        self.number += 1
        heapq.heappush(self.departures, (end, self.number, job, machine))
        if any(machine.free):
            self._list(machine)

    def best(self, job: TraceJob) -> _Machine | None:
        """Of the machines with room, one that ends no earlier than the job, but as soon as possible after it; else the
        one that ends last."""
        end = job.submit + job.runtime
        start = bisect_left(self.rooms, (end,))
        for _, _, machine in self.rooms[start : start + _LOOKED_AT]:
            if _fits(machine.free, job):
                return machine
        for place in range(start - 1, max(start - 1 - _LOOKED_AT, -1), -1):
            if _fits(self.rooms[place][2].free, job):
                return self.rooms[place][2]
        return None

    def open(self, shape: Shape, at: float) -> _Machine:
        """A new machine, empty."""
        resources = shape.resources
        machine = _Machine(shape, at, at, (resources.cores, resources.memory, resources.disk, resources.gpus))
        self.machines.append(machine)
        return machine

    def _list(self, machine: _Machine) -> None:
        self.number += 1
        insort(self.rooms, (machine.ends, self.number, machine))
        machine.listed = True

    def _unlist(self, machine: _Machine) -> None:
        place = bisect_left(self.rooms, (machine.ends,))
        while self.rooms[place][2] is not machine:
            place += 1
        del self.rooms[place]
        machine.listed = False


def clairvoyant(jobs: Sequence[TraceJob], shapes: Sequence[Shape], *, boot: float, billing: Billing) -> Bound:
    """What a planner can do that knows every job beforehand, and lets every job start at once.

    Each machine is launched ``boot`` seconds before its first job and ends with its last. Jobs are never moved. A job
    goes where it costs least: onto a machine that lives longer anyway, the one that ends soonest after it; by keeping
    one longer; or onto a new one of the shape that is cheapest for it. Of jobs that come at the same moment the longest
    is placed first. Not the optimum, which is too hard to compute: what a good planner with perfect foresight achieves.
    ValueError when a job fits on no shape.
    """
    packing = _Packing(idle=boot)
    cheapest: dict[tuple[int, ...], Shape] = {}
    for job in sorted(jobs, key=lambda each: (each.submit, -each.runtime)):
        packing.advance(job.submit)
        end = job.submit + job.runtime
        found = packing.best(job)
        need = (job.cores, job.memory, job.disk, job.gpus)
        shape = cheapest.get(need) or cheapest.setdefault(need, _cheapest_for(job, shapes))
        if found is not None:
            longer = max(0.0, end - found.ends) * found.shape.price
            if longer > (boot + job.runtime) * shape.price:
                found = None
        packing.place(job, found or packing.open(shape, job.submit))
    seconds = [(machine, billing.seconds(machine.ends - machine.born + boot)) for machine in packing.machines]
    return Bound(
        machine_hours=sum(charged for _, charged in seconds) / 3600.0,
        core_hours=sum(charged * machine.shape.resources.cores for machine, charged in seconds) / 3600.0,
        cost=sum(charged * machine.shape.price for machine, charged in seconds) / 3600.0,
        machines=len(packing.machines),
    )


def _cheapest_for(job: TraceJob, shapes: Sequence[Shape]) -> Shape:
    fitting = [shape for shape in shapes if shape.resources.covers(job.need)]
    if not fitting:
        raise ValueError(f"job {job.number} fits on no machine")
    return min(fitting, key=lambda shape: (shape.price, shape.resources.cores, shape.name))


def _fits(free: Amount, job: TraceJob) -> bool:
    return free[0] >= job.cores and free[1] >= job.memory and free[2] >= job.disk and free[3] >= job.gpus
