"""A batch system in a few hundred lines: which job runs where from when to when. No I/O, no clock of its own.

It is told what time it is and works off what has happened until then (jobs that arrived, jobs that ended), in the order
of its time. Each event costs a logarithm of the number of running jobs, plus the number of *kinds* of waiting jobs and
of free rooms; never the number of jobs or machines.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import count
from typing import Final

from gridtide.model.ids import WorkerId
from gridtide.model.resources import Resources
from gridtide.sim.trace import TraceJob

Amount = tuple[int, int, int, int]
"""Cores, memory, disk, GPUs."""

_NEVER: Final = float("inf")

_WALLTIMES: Final = tuple(
    60.0 * minutes for minutes in (1, 2, 5, 10, 20, 30, 60, 120, 240, 480, 720, 1440, 2880, 4320, 10080, 20160, 43200)
)
"""Steps in which walltimes are told to the planner: finer ones make more kinds of jobs, not better plans."""


def coarse_walltime(walltime: float | None) -> float | None:
    """The next step that is no shorter; beyond the last step the walltime itself."""
    if walltime is None:
        return None
    place = bisect_left(_WALLTIMES, walltime)
    return _WALLTIMES[place] if place < len(_WALLTIMES) else walltime


class Order(StrEnum):
    """Which of the waiting jobs may start."""

    FIRST_FIT = "first-fit"
    """By priority, then age; a job that fits nowhere is passed over by those that do (simple backfill)."""
    IN_ORDER = "in-order"
    """By priority, then age; nothing starts before the first one does (no backfill)."""


class Placement(StrEnum):
    """On which of the machines with room a job starts."""

    FULLEST = "fullest"
    """The one with the least room, so that others become empty."""
    EMPTIEST = "emptiest"
    """The one with the most room, so that load is spread."""


@dataclass(slots=True, eq=False)
class Job:
    """A job on its way through."""

    given: TraceJob
    order: int
    """Age: the smaller, the older."""
    submitted: float
    node: BatchNode | None = None
    started: float = 0.0
    starts: int = 0
    """How often it was started. More than once: its machine was lost."""


@dataclass(frozen=True, slots=True)
class JobClass:
    """Waiting jobs that the scheduler and the planner need not tell apart."""

    need: Amount
    group: str
    walltime: float | None
    priority: int


@dataclass(slots=True, eq=False)
class BatchNode:
    """A machine that takes jobs."""

    name: str
    worker: WorkerId | None
    total: Resources
    group: str
    joined: float
    free: Amount = (0, 0, 0, 0)
    jobs: dict[int, Job] = field(default_factory=dict)
    idle_since: float | None = None
    single_use: bool = False
    draining: bool = False
    own_will: bool = False
    """It drains for good, by itself: its only job was given."""
    silent_since: float | None = None
    dead: bool = False

    @property
    def open(self) -> bool:
        """Whether it takes new jobs."""
        return not (self.draining or self.own_will or self.dead) and self.silent_since is None


@dataclass(slots=True)
class Batch:
    """Nodes, waiting jobs and what has become of the others.

    ``attributes`` of nodes are not modelled: a job asks for resources and, if at all, for a group of workers.
    """

    order: Order = Order.FIRST_FIT
    placement: Placement = Placement.FULLEST
    on_end: Callable[[Job, float], None] = lambda _job, _at: None
    on_start: Callable[[Job, float], None] = lambda _job, _at: None
    on_lost: Callable[[Job, float], None] = lambda _job, _at: None
    now: float = 0.0
    nodes: dict[str, BatchNode] = field(default_factory=dict)
    waiting: dict[JobClass, deque[Job]] = field(default_factory=dict)
    """Only classes of which a job waits."""
    waiting_count: int = 0
    running_count: int = 0
    ended_count: int = 0
    arrived_count: int = 0
    queued_count: int = 0
    """Jobs that had to wait, ever."""
    turns: int = 0
    """How often a node became empty, or took the first job since."""
    changed: dict[BatchNode, None] = field(default_factory=dict)
    """Nodes that are other than when they were last looked at, in the order in which they became so."""
    _rooms: dict[tuple[str, Amount], dict[BatchNode, None]] = field(default_factory=dict)
    """Open nodes with room, by what they have free."""
    _ends: list[tuple[float, int, Job, int]] = field(default_factory=list)
    _arrivals: Sequence[TraceJob] = ()
    _begun: float = 0.0
    _timers: list[tuple[float, int, Callable[[float], None]]] = field(default_factory=list)
    _number: count[int] = field(default_factory=count)
    _classes: dict[tuple[object, ...], JobClass] = field(default_factory=dict)
    _held: dict[int, deque[Job]] = field(default_factory=dict)
    _let: dict[int, int] = field(default_factory=dict)
    """Of each array with a limit: jobs that may run or run already."""

    # --- time

    def feed(self, jobs: Sequence[TraceJob], begin: float) -> None:
        """Let these arrive, the workload's second 0 being ``begin``. Once."""
        self._arrivals, self._begun = jobs, begin

    @property
    def all_arrived(self) -> bool:
        """Whether no job is still to come."""
        return self.arrived_count >= len(self._arrivals)

    def advance(self, now: float) -> None:
        """Work off everything up to ``now``. What happens at the same time: ends, then timers, then arrivals."""
        ends, timers, arrivals = self._ends, self._timers, self._arrivals
        while True:
            end = ends[0][0] if ends else _NEVER
            timer = timers[0][0] if timers else _NEVER
            coming = self._begun + arrivals[self.arrived_count].submit if self.arrived_count < len(arrivals) else _NEVER
            if end <= timer and end <= coming:
                if end > now:
                    break
                _, _, job, start = heapq.heappop(ends)
                node = job.node
                if node is not None and job.starts == start and not node.dead:
                    self._end(job, node, end)
            elif timer <= coming:
                if timer > now:
                    break
                heapq.heappop(timers)[2](timer)
            else:
                if coming > now:
                    break
                given = arrivals[self.arrived_count]
                self.arrived_count += 1
                self.submit(given, coming)
        self.now = now

    def at(self, when: float, happen: Callable[[float], None]) -> None:
        """Let something happen at ``when``."""
        heapq.heappush(self._timers, (when, next(self._number), happen))

    # --- jobs

    def submit(self, given: TraceJob, at: float) -> Job:
        """A job arrives."""
        job = Job(given, next(self._number), at)
        if given.at_once and given.array:
            if self._let.get(given.array, 0) >= given.at_once:
                self._held.setdefault(given.array, deque()).append(job)
                return job
            self._let[given.array] = self._let.get(given.array, 0) + 1
        self._queue(job, at)
        return job

    @property
    def held_count(self) -> int:
        """Jobs of arrays that may not run yet, since as many of their array as may run do."""
        return sum(map(len, self._held.values()))

    def _queue(self, job: Job, at: float) -> None:
        kind = self._class_of(job.given)
        others = self.waiting.get(kind)
        if others:
            others.append(job)  # they found no room, nor would this one
            self.waiting_count += 1
            self.queued_count += 1
            return
        if (self.order is Order.FIRST_FIT or not self.waiting) and (node := self._room_for(kind)) is not None:
            self._start(job, kind, node, at)
            return
        self.waiting[kind] = deque((job,))
        self.waiting_count += 1
        self.queued_count += 1

    def _class_of(self, given: TraceJob) -> JobClass:
        key = given[3:10]
        found = self._classes.get(key)
        if found is None:
            need = (given.cores, given.memory, given.disk, given.gpus)
            found = JobClass(need, given.group, coarse_walltime(given.walltime), given.priority)
            self._classes[key] = found
        return found

    def _room_for(self, kind: JobClass) -> BatchNode | None:
        """The node that the placement prefers. Among equals the one that has had this room for the longest time."""
        need, group = kind.need, kind.group
        best: tuple[str, Amount] | None = None
        fullest = self.placement is Placement.FULLEST
        for key in self._rooms:
            free = key[1]
            if (
                free[0] >= need[0]
                and free[1] >= need[1]
                and free[2] >= need[2]
                and free[3] >= need[3]
                and (not group or group == key[0])
                and (best is None or ((free < best[1]) if fullest else (free > best[1])))
            ):
                best = key
        return None if best is None else next(iter(self._rooms[best]))

    def _start(self, job: Job, kind: JobClass, node: BatchNode, at: float) -> None:
        self._close_room(node)
        free, need = node.free, kind.need
        node.free = (free[0] - need[0], free[1] - need[1], free[2] - need[2], free[3] - need[3])
        if not node.jobs:
            self.turns += 1
        node.jobs[job.order] = job
        node.idle_since = None
        self.changed[node] = None
        if node.single_use:
            node.own_will = True
        job.node, job.started, job.starts = node, at, job.starts + 1
        self.running_count += 1
        heapq.heappush(self._ends, (at + job.given.runtime, next(self._number), job, job.starts))
        self._open_room(node)
        self.on_start(job, at)

    def _end(self, job: Job, node: BatchNode, at: float) -> None:
        self._take_off(job, node, at)
        self.ended_count += 1
        self.on_end(job, at)
        array = job.given.array
        if array in self._let:
            held = self._held.get(array)
            if held:
                self._queue(held.popleft(), at)
                if not held:
                    del self._held[array]
            else:
                self._let[array] -= 1
        if self.waiting:
            self._fill(node, at)

    def _take_off(self, job: Job, node: BatchNode, at: float) -> None:
        self._close_room(node)
        del node.jobs[job.order]
        given, free = job.given, node.free
        node.free = (
            free[0] + given.cores,
            free[1] + given.memory,
            free[2] + given.disk,
            free[3] + given.gpus,
        )
        self.changed[node] = None
        if not node.jobs:
            node.idle_since = at
            self.turns += 1
        job.node = None
        self.running_count -= 1
        self._open_room(node)

    # --- rooms

    def _close_room(self, node: BatchNode) -> None:
        key = (node.group, node.free)
        room = self._rooms.get(key)
        if room is not None and node in room:
            del room[node]
            if not room:
                del self._rooms[key]

    def _open_room(self, node: BatchNode) -> None:
        if node.open and any(node.free):
            self._rooms.setdefault((node.group, node.free), {})[node] = None

    def _fill(self, node: BatchNode, at: float) -> None:
        """Room has appeared on this node, and on no other."""
        if self.order is Order.IN_ORDER:
            self._start_in_order(at)
            return
        while node.open and (kind := self._first_for(node)) is not None:
            self._start(self._pop(kind), kind, node, at)

    def _first_for(self, node: BatchNode) -> JobClass | None:
        free, group = node.free, node.group
        best: JobClass | None = None
        rank = (0, 0)
        for kind, jobs in self.waiting.items():
            need = kind.need
            if (
                free[0] >= need[0]
                and free[1] >= need[1]
                and free[2] >= need[2]
                and free[3] >= need[3]
                and (not kind.group or kind.group == group)
            ):
                other = (-kind.priority, jobs[0].order)
                if best is None or other < rank:
                    best, rank = kind, other
        return best

    def _start_in_order(self, at: float) -> None:
        while self.waiting:
            kind = min(self.waiting, key=lambda each: (-each.priority, self.waiting[each][0].order))
            node = self._room_for(kind)
            if node is None:
                return
            self._start(self._pop(kind), kind, node, at)

    def _pop(self, kind: JobClass) -> Job:
        jobs = self.waiting[kind]
        job = jobs.popleft()
        if not jobs:
            del self.waiting[kind]
        self.waiting_count -= 1
        return job

    # --- nodes

    def add(self, node: BatchNode, at: float) -> None:
        """A machine registers, empty."""
        total = node.total
        node.free = (total.cores, total.memory, total.disk, total.gpus)
        node.idle_since = at
        self.nodes[node.name] = node
        self.changed[node] = None
        self._open_room(node)
        if self.waiting:
            self._fill(node, at)

    def drain(self, node: BatchNode) -> None:
        """It takes no new job."""
        self._close_room(node)
        node.draining = True
        self.changed[node] = None

    def undrain(self, node: BatchNode, at: float) -> None:
        """It takes jobs again."""
        node.draining = False
        self.changed[node] = None
        self._open_room(node)
        if self.waiting:
            self._fill(node, at)

    def silence(self, node: BatchNode, at: float, *, dead: bool) -> None:
        """It is out of contact. ``dead``: its jobs are lost, which shows only in :meth:`give_up`."""
        self._close_room(node)
        if node.silent_since is None:
            node.silent_since = at
        node.dead = node.dead or dead
        self.changed[node] = None
        if dead:
            for job in node.jobs.values():
                self.on_lost(job, at)

    def hear(self, node: BatchNode, at: float) -> None:
        """It is in contact again, with the jobs that still run on it."""
        if node.dead or node.silent_since is None:
            return
        node.silent_since = None
        self.changed[node] = None
        self._open_room(node)
        if self.waiting:
            self._fill(node, at)

    def retire(self, node: BatchNode) -> None:
        """It takes no new job, of its own will and for good."""
        self._close_room(node)
        node.own_will = True
        self.changed[node] = None

    def give_up(self, node: BatchNode, at: float) -> None:
        """What ran on a dead node waits again, before the younger jobs of its class."""
        for job in sorted(node.jobs.values(), key=lambda each: -each.order):
            self._take_off(job, node, at)
            kind = self._class_of(job.given)
            if kind in self.waiting:
                self.waiting[kind].appendleft(job)
            else:
                self.waiting[kind] = deque((job,))
            self.waiting_count += 1
            self.queued_count += 1
        if self.waiting:
            self._start_what_fits(at)

    def remove(self, node: BatchNode, at: float) -> None:
        """It is struck off."""
        if self.nodes.get(node.name) is not node:
            return
        self._close_room(node)
        del self.nodes[node.name]
        if not node.dead:
            self.silence(node, at, dead=True)
        self.give_up(node, at)
        self.changed.pop(node, None)

    def _start_what_fits(self, at: float) -> None:
        """After jobs have come back: any node may have room for them."""
        if self.order is Order.IN_ORDER:
            self._start_in_order(at)
            return
        for kind in sorted(self.waiting, key=lambda each: (-each.priority, self.waiting[each][0].order)):
            while kind in self.waiting and (node := self._room_for(kind)) is not None:
                self._start(self._pop(kind), kind, node, at)
