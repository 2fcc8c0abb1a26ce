"""The simulated batch system as the controller sees it: the ``Queue`` protocol over :class:`~gridtide.sim.batch.Batch`.

It starts no task: what has happened up to now is worked off whenever it is asked. Nodes and rows of demand that have
not changed are the same objects as in the answer before.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Final

from gridtide.clock import Clock
from gridtide.errors import QueueError
from gridtide.model.demand import Attribute, Demand, DemandRow, Node, Nodes, NodeState, Offer, OfferKey
from gridtide.model.ids import QueueName, WorkerId
from gridtide.model.reasons import Reason
from gridtide.model.resources import Resources
from gridtide.model.workers import Worker
from gridtide.queues.fake import QueueCall, QueueFault
from gridtide.queues.protocol import JoinOrders, Outcome
from gridtide.sim.batch import Batch, BatchNode, JobClass
from gridtide.sim.gate import reach
from gridtide.testing.faults import Faults

CONTACT_TIMEOUT: Final = 300.0
"""Seconds until a batch system gives up a node that died, and lets its jobs wait again."""

GROUP: Final = "GridtideGroup"
"""The attribute by which a job asks for a group of workers."""


class SimulatedQueue:
    """See the module. ``faults`` injects those of :class:`~gridtide.queues.fake.QueueFault` that concern readings.

    ``contact_timeout``: seconds after which a silent node is listed as UNAVAILABLE, and the jobs of a dead one wait
    again.
    """

    def __init__(
        self,
        name: QueueName,
        clock: Clock,
        random: Random,
        batch: Batch,
        *,
        contact_timeout: float = CONTACT_TIMEOUT,
    ) -> None:
        self.name = name
        self.batch = batch
        self.faults: Faults[QueueFault] = Faults(clock, random)
        self.calls: Counter[QueueCall] = Counter()
        self.contact_timeout = contact_timeout
        self._clock = clock
        self._admitted: dict[WorkerId, tuple[str, bool]] = {}
        self._views: dict[str, Node] = {}
        """Of all nodes, in the order in which they came."""
        self._silent: dict[str, BatchNode] = {}
        """Those of which there is no news."""
        self._runs_on: dict[JobClass, frozenset[OfferKey]] = {}
        self._offers: tuple[Offer, ...] = ()
        self._news = (0, 0, 0)
        self._last_demand: Demand | None = None
        self._last_nodes: Nodes | None = None

    # --- the protocol

    async def demand(self, offers: Sequence[Offer]) -> Demand:
        """All waiting jobs, one row per kind."""
        await self._begin(QueueCall.DEMAND)
        if tuple(offers) != self._offers:
            self._offers, self._runs_on = tuple(offers), {}
        if self._last_demand is not None and self.faults.strike(QueueFault.STALE, QueueCall.DEMAND):
            return self._last_demand
        rows = tuple(self._row(kind) for kind in self.batch.waiting)
        self._last_demand = () if self.faults.strike(QueueFault.EMPTY, QueueCall.DEMAND) else rows
        return self._last_demand

    async def nodes(self) -> Nodes:
        """All nodes."""
        now = await self._begin(QueueCall.NODES)
        if self._last_nodes is not None and self.faults.strike(QueueFault.STALE, QueueCall.NODES):
            return self._last_nodes
        self._look(now)
        nodes = tuple(self._views.values())
        self._last_nodes = () if self.faults.strike(QueueFault.EMPTY, QueueCall.NODES) else nodes
        return self._last_nodes

    async def drain(self, workers: Mapping[WorkerId, Reason]) -> Mapping[WorkerId, Outcome]:
        """Takes effect at once."""
        await self._begin(QueueCall.DRAIN)
        outcomes = {worker: self._order(worker, QueueCall.DRAIN) for worker in workers}
        await reach()
        return outcomes

    async def undrain(self, workers: Sequence[WorkerId]) -> Mapping[WorkerId, Outcome]:
        """Takes effect at once. A node that has had its only job cannot be taken back."""
        await self._begin(QueueCall.UNDRAIN)
        outcomes = {worker: self._order(worker, QueueCall.UNDRAIN) for worker in workers}
        await reach()
        return outcomes

    async def join(self, worker: Worker, host: Mapping[str, Attribute]) -> JoinOrders:
        """The worker may register from now on."""
        await self._begin(QueueCall.JOIN)
        self._admitted[worker.id] = (str(worker.group), worker.single_use)
        await reach()
        return JoinOrders(kind="simulated", settings={"queue": str(self.name)})

    async def forget(self, workers: Sequence[WorkerId]) -> None:
        """What still ran there waits again."""
        now = await self._begin(QueueCall.FORGET)
        for worker in workers:
            self._admitted.pop(worker, None)
            self._views.pop(worker, None)
            self._silent.pop(worker, None)
            if (node := self.batch.nodes.get(worker)) is not None:
                self.batch.remove(node, now)
        await reach()

    # --- machines

    def register(self, worker: WorkerId, total: Resources) -> None:
        """A machine that was admitted becomes a node. QueueError when it was not; repeating it is harmless."""
        now = self.catch_up()
        if worker not in self._admitted:
            raise QueueError(f"worker {worker} was not admitted", where=str(self.name))
        if worker not in self.batch.nodes:
            group, single_use = self._admitted[worker]
            self.batch.add(BatchNode(str(worker), worker, total, group, now, single_use=single_use), now)

    def machine_ended(self, worker: WorkerId) -> None:
        """The machine under the node is no more: its jobs are lost, the batch system finds out later."""
        now = self.catch_up()
        node = self.batch.nodes.get(worker)
        if node is None or node.dead:
            return
        had_jobs = bool(node.jobs)
        self._silence(node, now, dead=True)
        if had_jobs:
            self.batch.at(now + self.contact_timeout, lambda at: self.batch.give_up(node, at))

    def cut_off(self, worker: WorkerId) -> None:
        """The node can be reached no more; its jobs run on."""
        now = self.catch_up()
        if (node := self.batch.nodes.get(worker)) is not None:
            self._silence(node, now, dead=False)

    def heal(self, worker: WorkerId) -> None:
        """The node is in contact again."""
        now = self.catch_up()
        if (node := self.batch.nodes.get(worker)) is not None:
            self.batch.hear(node, now)

    def self_drain(self, worker: WorkerId) -> None:
        """The node takes no new job, of its own will."""
        self.catch_up()
        if (node := self.batch.nodes.get(worker)) is not None:
            self.batch.retire(node)

    def running_on(self, worker: WorkerId) -> list[str]:
        """The jobs that would be lost if the worker's machine ended now."""
        self.catch_up()
        node = self.batch.nodes.get(worker)
        return [] if node is None or node.dead else [str(job.given.number) for job in node.jobs.values()]

    def news(self) -> bool:
        """Whether anything has happened since the last time that a planner would want to know: jobs began to wait, or
        the jobs that wait are others; a node became idle, or took its first job; a drained one is empty.

        With it a batch system that is read only when there is news gives the same plans as one that is read always.
        """
        batch = self.batch
        seen = (batch.queued_count, batch.waiting_count, batch.turns)
        before, self._news = self._news, seen
        return seen != before

    def catch_up(self) -> float:
        """Work off what is due; the present time."""
        now = self._clock.now()
        self.batch.advance(now)
        return now

    # --- inside

    async def _begin(self, call: QueueCall) -> float:
        self.calls[call] += 1
        if self.faults.strike(QueueFault.HANG, call):
            await asyncio.get_running_loop().create_future()
        if strike := self.faults.strike(QueueFault.RAISE, call):
            raise strike.error or QueueError("cannot be reached", where=str(self.name))
        await reach()
        return self.catch_up()

    def _order(self, worker: WorkerId, call: QueueCall) -> Outcome:
        node = self.batch.nodes.get(worker)
        if node is None:
            return QueueError(f"no node is called {worker}", where=str(self.name))
        if node.silent_since is not None:
            return QueueError(f"node {worker} does not answer", where=str(self.name))
        if call is QueueCall.DRAIN:
            self.batch.drain(node)
        elif node.own_will:
            return QueueError(f"{worker} drains of its own will and cannot be taken back", where=str(self.name))
        else:
            self.batch.undrain(node, self._clock.now())
        return None

    def _row(self, kind: JobClass) -> DemandRow:
        jobs = self.batch.waiting[kind]
        need = Resources(*kind.need)
        runs_on = self._runs_on.get(kind)
        if runs_on is None:
            runs_on = self._runs_on[kind] = frozenset(
                offer.key
                for offer in self._offers
                if offer.shape.resources.covers(need) and (not kind.group or kind.group == offer.attributes.get(GROUP))
            )
        return DemandRow(need, len(jobs), jobs[0].submitted, runs_on, _label(kind, need), kind.walltime)

    def _silence(self, node: BatchNode, now: float, *, dead: bool) -> None:
        """What is seen of it from now on is what it was, whoever has looked at it last."""
        self._look(now)
        self.batch.silence(node, now, dead=dead)

    def _look(self, now: float) -> None:
        """At the nodes that have changed, and at those that are silent: of these no more is seen than before, until
        they have been so for too long."""
        for node in self.batch.changed:
            if node.silent_since is None:
                self._views[node.name] = _seen(node)
                self._silent.pop(node.name, None)
            else:
                self._views.setdefault(node.name, _seen(node))
                self._silent[node.name] = node
        self.batch.changed.clear()
        for name, node in self._silent.items():
            lost = node.silent_since is not None and now >= node.silent_since + self.contact_timeout
            if lost and self._views[name].state is not NodeState.UNAVAILABLE:
                self._views[name] = replace(self._views[name], state=NodeState.UNAVAILABLE, running=0)


def _seen(node: BatchNode) -> Node:
    if node.draining or node.own_will:
        state = NodeState.DRAINING if node.jobs else NodeState.DRAINED
    else:
        state = NodeState.ACCEPTING
    return Node(node.name, node.worker, state, node.total, Resources(*node.free), len(node.jobs), node.idle_since)


def _label(kind: JobClass, need: Resources) -> str:
    parts = [str(need)]
    if kind.walltime is not None:
        parts.append(f"at most {kind.walltime / 60:g} min")
    if kind.group:
        parts.append(f"group {kind.group}")
    if kind.priority:
        parts.append(f"priority {kind.priority}")
    return "; ".join(parts)
