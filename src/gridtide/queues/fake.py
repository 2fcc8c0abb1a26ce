"""A batch system that is made of nothing, with every fault that real ones have shown. For scenarios and users' tests.

It follows the clock that it is given and starts no task: what has happened up to now (jobs that ended, orders that took
effect, jobs that started) is worked off in the order of its time whenever it is asked. Jobs run on nodes; a node exists
from :meth:`FakeQueue.register`, which is the machine's own doing (see :class:`gridtide.testing.world.FakeWorld`).
"""

from __future__ import annotations

import asyncio
import heapq
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from functools import partial
from itertools import count
from random import Random
from typing import TypeVar

from gridtide.clock import Clock
from gridtide.errors import QueueError
from gridtide.model.demand import Attribute, Demand, DemandRow, Node, Nodes, NodeState, Offer
from gridtide.model.ids import QueueName, WorkerId
from gridtide.model.reasons import Reason
from gridtide.model.resources import Resources
from gridtide.model.workers import Worker
from gridtide.queues.fake_nodes import FakeJob, FakeJobState, FakeNode, Requirement, kind_of
from gridtide.queues.protocol import JoinOrders, Outcome
from gridtide.testing.faults import Faults

__all__ = ["ONE_CORE", "FakeJobState", "FakeQueue", "QueueCall", "QueueFault"]

ONE_CORE = Resources(1, 1024)


class QueueCall(StrEnum):
    """Kinds of calls, for counting and for faults."""

    DEMAND = "demand"
    NODES = "nodes"
    DRAIN = "drain"
    UNDRAIN = "undrain"
    JOIN = "join"
    FORGET = "forget"


class QueueFault(StrEnum):
    """What can go wrong. ``error`` of the injection replaces the usual error."""

    RAISE = "raise"
    """Unreachable: QueueError, nothing done."""
    HANG = "hang"
    """The call does nothing and never answers."""
    EMPTY = "empty"
    """No node, no job, with success."""
    MALFORMED = "malformed"
    """One record of the answer makes no sense: a partial answer is an error, so QueueError."""
    STALE = "stale"
    """Readings say again what they said before this fault began."""
    REFUSE = "refuse"
    """Of a drain or undrain: QueueError for one worker, the others are taken."""
    ANSWER_LOST = "answer-lost"
    """The order is carried out, then QueueError."""


T = TypeVar("T")

_JobClass = tuple[Resources, str, Requirement | None, float | None]


class FakeQueue:
    """See the module. Public attributes may be changed at any time; ``faults`` injects, ``calls`` counts.

    ``drain_delay``: seconds before a drain takes effect, in which the node may still be given a job, as in a real
    batch system. ``call_times``: seconds before each kind of call is carried out and answered, at first ``call_time``.
    ``negotiation_delay``: seconds before jobs that were submitted may start. ``contact_timeout``: seconds after which a
    silent node is listed as UNAVAILABLE (and, when its machine is dead, its jobs wait again). ``clock_skew``: how far
    its clock is ahead of ours.
    """

    def __init__(
        self,
        name: QueueName,
        clock: Clock,
        random: Random,
        *,
        drain_delay: float = 0.0,
        contact_timeout: float = 300.0,
        call_time: float = 0.0,
        clock_skew: float = 0.0,
    ) -> None:
        self.name = name
        self.faults: Faults[QueueFault] = Faults(clock, random)
        self.calls: Counter[QueueCall] = Counter()
        self.drain_delay = drain_delay
        self.contact_timeout = contact_timeout
        self.call_times = dict.fromkeys(QueueCall, call_time)
        self.negotiation_delay = 0.0
        self.clock_skew = clock_skew
        self.jobs: dict[str, FakeJob] = {}
        self.lost_runs: list[tuple[float, str]] = []
        """When, and which job had to start again because its node died under it."""
        self._clock = clock
        self._random = random
        self._nodes: dict[str, FakeNode] = {}
        self._admitted: dict[WorkerId, tuple[Mapping[str, Attribute], bool]] = {}
        self._waiting: dict[_JobClass, deque[FakeJob]] = {}
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._number = count(1)
        self._last_demand: Demand | None = None
        self._last_nodes: Nodes | None = None

    # --- the protocol

    async def demand(self, offers: Sequence[Offer]) -> Demand:
        """All waiting jobs, one row per class."""
        await self._begin(QueueCall.DEMAND)
        rows = tuple(self._row(kind, jobs, offers) for kind, jobs in self._waiting.items() if jobs)
        self._last_demand = self._said(QueueCall.DEMAND, rows, self._last_demand)
        return self._last_demand

    async def nodes(self) -> Nodes:
        """All listed nodes."""
        now = await self._begin(QueueCall.NODES)
        nodes = tuple(self._view(node, now) for node in self._nodes.values() if now >= node.listed_from)
        self._last_nodes = self._said(QueueCall.NODES, nodes, self._last_nodes)
        return self._last_nodes

    async def drain(self, workers: Mapping[WorkerId, Reason]) -> Mapping[WorkerId, Outcome]:
        """Takes effect after ``drain_delay``."""
        await self._begin(QueueCall.DRAIN)
        outcomes = {worker: self._order(worker, QueueCall.DRAIN) for worker in workers}
        self._end(QueueCall.DRAIN)
        return outcomes

    async def undrain(self, workers: Sequence[WorkerId]) -> Mapping[WorkerId, Outcome]:
        """Takes effect at once. A node that has left, or has had its only job, cannot be taken back."""
        await self._begin(QueueCall.UNDRAIN)
        outcomes = {worker: self._order(worker, QueueCall.UNDRAIN) for worker in workers}
        self._end(QueueCall.UNDRAIN)
        return outcomes

    async def join(self, worker: Worker, host: Mapping[str, Attribute]) -> JoinOrders:
        """The worker may register from now on."""
        await self._begin(QueueCall.JOIN)
        self._admitted[worker.id] = (dict(host), worker.single_use)
        self._end(QueueCall.JOIN)
        return JoinOrders(kind="fake", settings={"queue": str(self.name)})

    async def forget(self, workers: Sequence[WorkerId]) -> None:
        """What still ran there waits again."""
        now = await self._begin(QueueCall.FORGET)
        for worker in workers:
            self._admitted.pop(worker, None)
            if (node := self._nodes.pop(worker, None)) is not None:
                self._requeue(node, now)
        self._fill_all(now)
        self._end(QueueCall.FORGET)

    # --- users

    def submit(
        self,
        number: int = 1,
        *,
        need: Resources = ONE_CORE,
        duration: float = 600.0,
        requirement: Requirement | None = None,
        label: str | None = None,
        walltime: float | None = None,
    ) -> list[str]:
        """Let jobs wait, that run for ``duration`` seconds each; returns their ids."""
        now = self._advance()
        made = []
        for _ in range(number):
            job = FakeJob(str(next(self._number)), need, duration, now, label or str(need), requirement, walltime)
            self.jobs[job.id] = job
            self._waiting.setdefault(_class_of(job), deque()).append(job)
            made.append(job.id)
        if self.negotiation_delay:
            self._at(now + self.negotiation_delay, self._fill_all)
        else:
            self._fill_all(now)
        return made

    def cancel_waiting(self) -> int:
        """All users change their minds; returns how many jobs were withdrawn."""
        self._advance()
        withdrawn = [job.id for jobs in self._waiting.values() for job in jobs]
        for job in withdrawn:
            del self.jobs[job]
        self._waiting.clear()
        return len(withdrawn)

    def count(self, state: FakeJobState) -> int:
        """How many jobs are in this state now."""
        self._advance()
        return sum(job.state is state for job in self.jobs.values())

    def running_on(self, worker: WorkerId) -> list[str]:
        """The jobs whose results would be lost if the worker's machine ended now."""
        self._advance()
        node = self._nodes.get(worker)
        return [] if node is None or node.dead else list(node.jobs)

    # --- machines

    def register(self, worker: WorkerId, total: Resources) -> None:
        """A machine that was admitted becomes a node. QueueError when it was not; repeating it is harmless."""
        now = self._advance()
        if worker not in self._admitted:
            raise QueueError(f"worker {worker} was not admitted", where=str(self.name))
        if worker not in self._nodes:
            attributes, single_use = self._admitted[worker]
            node = FakeNode(str(worker), worker, attributes, total, total, idle_since=now, single_use=single_use)
            self._nodes[node.name] = node
            self._fill(node, now)

    def add_foreign_node(self, name: str, total: Resources, attributes: Mapping[str, Attribute] | None = None) -> None:
        """A node of somebody else, which takes jobs like any."""
        now = self._advance()
        self._nodes[name] = FakeNode(name, None, attributes or {}, total, total, idle_since=now)
        self._fill(self._nodes[name], now)

    def self_drain(self, worker: WorkerId) -> None:
        """The node takes no new job, of its own will."""
        self._advance()
        if (node := self._nodes.get(worker)) is not None:
            node.own_will = True

    def is_draining(self, worker: WorkerId) -> bool:
        """Whether the node takes no new job, and knows it."""
        self._advance()
        return (node := self._nodes.get(worker)) is not None and node.draining

    def is_drained(self, worker: WorkerId) -> bool:
        """Whether it runs none either."""
        return self.is_draining(worker) and not self._nodes[worker].jobs

    def leave(self, worker: WorkerId) -> None:
        """The node signs off. QueueError while it runs jobs."""
        self._advance()
        if (node := self._nodes.get(worker)) is not None:
            if node.jobs:
                raise QueueError(f"{worker} runs {len(node.jobs)} jobs and cannot leave", where=str(self.name))
            del self._nodes[worker]

    def cut_off(self, worker: WorkerId) -> None:
        """The node can be reached no more; its jobs run on."""
        self._silence(worker)

    def heal(self, worker: WorkerId) -> None:
        """The node is in contact again, and reports the jobs that ended meanwhile."""
        now = self._advance()
        node = self._nodes.get(worker)
        if node is None or node.dead:
            return
        node.silent_since, node.last_seen = None, None
        for job, ended in node.unreported:
            self._finish(node, job, ended)
        node.unreported.clear()
        self._fill(node, now)

    def machine_ended(self, worker: WorkerId) -> None:
        """The machine under the node is no more. The queue finds out when ``contact_timeout`` is over."""
        self._silence(worker)
        if (node := self._nodes.get(worker)) is not None and not node.dead:
            node.dead = True
            self._at(self._clock.now() + self.contact_timeout, lambda at: self._requeue(node, at))

    def is_silent(self, worker: WorkerId) -> bool:
        """Whether the node is out of contact, so that only its last word is listed."""
        return (node := self._nodes.get(worker)) is not None and node.silent_since is not None

    # --- accidents

    def forget_drains(self) -> None:
        """Every node takes jobs again, as after a restart of a batch system that keeps drains in memory."""
        now = self._advance()
        for node in self._nodes.values():
            node.ordered = node.drain_pending = False
            node.orders += 1
            self._fill(node, now)

    def restart(self, *, refill: float) -> None:
        """All nodes are unknown at first and report back within ``refill`` seconds; jobs run on; drains are lost."""
        now = self._advance()
        for node in self._nodes.values():
            node.ordered = node.drain_pending = False
            node.orders += 1
            node.listed_from = now + self._random.uniform(0.0, refill)
            self._at(node.listed_from, partial(self._fill, node))

    # --- inside: calls

    async def _begin(self, call: QueueCall) -> float:
        self.calls[call] += 1
        if self.call_times[call]:
            await asyncio.sleep(self.call_times[call])
        if self.faults.strike(QueueFault.HANG, call):
            await asyncio.get_running_loop().create_future()
        if strike := self.faults.strike(QueueFault.RAISE, call):
            raise strike.error or QueueError("cannot be reached", where=str(self.name))
        return self._advance()

    def _said(self, call: QueueCall, truth: tuple[T, ...], before: tuple[T, ...] | None) -> tuple[T, ...]:
        """What a reading answers, the present faults considered."""
        if self.faults.strike(QueueFault.MALFORMED, call):
            raise QueueError("record 7 of the answer is malformed: Memory = 'undefined'", where=str(self.name))
        if self.faults.strike(QueueFault.EMPTY, call):
            return ()
        if before is not None and self.faults.strike(QueueFault.STALE, call):
            return before
        return truth

    def _end(self, call: QueueCall) -> None:
        if self.faults.strike(QueueFault.ANSWER_LOST, call):
            raise QueueError("the connection was reset before the answer came", where=str(self.name))

    def _order(self, worker: WorkerId, call: QueueCall) -> Outcome:
        node = self._nodes.get(worker)
        if node is None or node.worker is None:
            return QueueError(f"no node is called {worker}", where=str(self.name))
        if strike := self.faults.strike(QueueFault.REFUSE, call):
            error = strike.error
            return error if isinstance(error, QueueError) else QueueError(f"{worker}: order refused")
        if node.silent_since is not None:
            return QueueError(f"node {worker} does not answer", where=str(self.name))
        if call is QueueCall.UNDRAIN and node.own_will:
            return QueueError(f"{worker} drains of its own will and cannot be taken back", where=str(self.name))
        if call is QueueCall.UNDRAIN:
            node.orders += 1
            node.ordered = node.drain_pending = False
            self._fill(node, self._clock.now())
        elif not node.ordered and not node.drain_pending:  # a repeated order does not put off the first
            node.orders += 1
            node.drain_pending = True
            order = node.orders
            self._at(self._clock.now() + self.drain_delay, lambda _at: self._acknowledge(node, order))
            self._advance()
        return None

    # --- inside: what happens in time

    def _advance(self) -> float:
        """Work off what is due; returns the present time."""
        now = self._clock.now()
        while self._events and self._events[0][0] <= now:
            at, _, happen = heapq.heappop(self._events)
            happen(at)
        return now

    def _at(self, when: float, happen: Callable[[float], None]) -> None:
        heapq.heappush(self._events, (when, next(self._number), happen))

    def _acknowledge(self, node: FakeNode, order: int) -> None:
        if node.orders == order:
            node.ordered, node.drain_pending = True, False

    def _silence(self, worker: WorkerId) -> None:
        now = self._advance()
        if (node := self._nodes.get(worker)) is not None and node.silent_since is None:
            node.last_seen = self._view(node, now)
            node.silent_since = now

    def _fill_all(self, at: float) -> None:
        if any(self._waiting.values()):
            for node in self._nodes.values():
                self._fill(node, at)

    def _fill(self, node: FakeNode, at: float) -> None:
        """Start the jobs that have waited longest and fit."""
        while (
            node.silent_since is None
            and not node.draining
            and at >= node.listed_from
            and (job := self._next_for(node)) is not None
        ):
            job.state, job.node, job.started, job.starts = FakeJobState.RUNNING, node.name, at, job.starts + 1
            node.jobs[job.id] = job
            node.free = node.free.minus(job.need)
            node.own_will, node.idle_since = node.own_will or node.single_use, None
            self._at(at + job.duration, partial(self._job_ends, node, job))

    def _next_for(self, node: FakeNode) -> FakeJob | None:
        fitting = [
            jobs
            for jobs in self._waiting.values()
            if jobs
            and node.free.covers(jobs[0].need)
            and (jobs[0].requirement is None or jobs[0].requirement(node.attributes))
        ]
        return min(fitting, key=lambda jobs: jobs[0].submitted).popleft() if fitting else None

    def _job_ends(self, node: FakeNode, job: FakeJob, at: float) -> None:
        if node.dead or job.id not in node.jobs or self._nodes.get(node.name) is not node:
            return
        if node.silent_since is not None:
            node.unreported.append((job, at))
            return
        self._finish(node, job, at)
        self._fill(node, at)

    def _finish(self, node: FakeNode, job: FakeJob, at: float) -> None:
        del node.jobs[job.id]
        node.free = node.free.plus(job.need)
        node.idle_since = None if node.jobs else at
        job.state, job.ended = FakeJobState.DONE, at

    def _requeue(self, node: FakeNode, at: float) -> None:
        """What ran on a dead node waits again, before the others of its class."""
        for job in reversed(node.jobs.values()):
            self.lost_runs.append((at, job.id))
            job.state, job.node, job.started = FakeJobState.WAITING, None, None
            self._waiting.setdefault(_class_of(job), deque()).appendleft(job)
        node.jobs.clear()
        node.unreported.clear()
        node.free = node.total
        if node.last_seen is not None:
            node.last_seen = replace(node.last_seen, running=0, free=node.total)
        self._fill_all(at)

    def _row(self, kind: _JobClass, jobs: deque[FakeJob], offers: Sequence[Offer]) -> DemandRow:
        need, label, requirement, walltime = kind
        runs_on = frozenset(
            offer.key
            for offer in offers
            if offer.shape.resources.covers(need) and (requirement is None or requirement(offer.attributes))
        )
        others = [node.attributes for node in self._nodes.values() if node.worker is None]
        kinds = frozenset(kind_of(each) for each in others if requirement is None or requirement(each))
        return DemandRow(need, len(jobs), jobs[0].submitted + self.clock_skew, runs_on, label, walltime, kinds)

    def _view(self, node: FakeNode, now: float) -> Node:
        if node.last_seen is not None and node.silent_since is not None:
            lost = now >= node.silent_since + self.contact_timeout
            return replace(node.last_seen, state=NodeState.UNAVAILABLE) if lost else node.last_seen
        state = (NodeState.DRAINING if node.jobs else NodeState.DRAINED) if node.draining else NodeState.ACCEPTING
        idle_since = None if node.idle_since is None or node.jobs else node.idle_since + self.clock_skew
        kind = kind_of(node.attributes) if node.worker is None else None
        return Node(node.name, node.worker, state, node.total, node.free, len(node.jobs), idle_since, kind)


def _class_of(job: FakeJob) -> _JobClass:
    return (job.need, job.label, job.requirement, job.walltime)
