"""The two sources of a queue, its nodes and its waiting jobs, read and shown so that no slot is lost between them.

Two answers tell of a waiting job and of the slot that it is about to take, or that has just become free for it. If the
jobs were read first, one could still wait there while the nodes, read later, show its slot as taken; if the nodes were
much older, they could show a slot as taken that is free by now. For such a job a machine would be launched. So each
round reads the nodes and then at once the jobs, and new nodes are shown when the jobs have been read after them. What
can be wrong then does no harm: a slot counts that has been taken meanwhile, until the next round.
"""

from __future__ import annotations

from gridtide.clock import Clock
from gridtide.control.sources import Source
from gridtide.model.demand import Demand, Nodes
from gridtide.model.readings import Fresh, last_known
from gridtide.model.snapshot import QueueView


class QueueSources:
    """Of one queue."""

    def __init__(self, demand: Source[Demand], nodes: Source[Nodes], clock: Clock) -> None:
        self.demand = demand
        self.nodes = nodes
        self._clock = clock
        self._before: tuple[Fresh[Nodes] | None, Fresh[Nodes] | None] = (None, None)
        """The nodes that were known when the jobs were asked for last, and the time before."""

    def ask(self) -> None:
        """Something happened to this queue."""
        self.demand.ask()
        self.nodes.ask()

    def start(self) -> None:
        """Start what is due. Nodes that fail do not hold up the jobs, nor jobs that fail the nodes."""
        self.follow()
        now = self._clock.now()
        if self.demand.due() <= now and self.nodes.under_way is None:
            self.nodes.ask()
            if not self.nodes.sound and self.nodes.due() > now:
                self._start_demand()
        if not self._nodes_wait():
            self.nodes.start()

    def follow(self) -> None:
        """Ask for the jobs, if the nodes were read after them."""
        if self.nodes.under_way is None and self._owed():
            self.demand.ask()
            self._start_demand()

    def due(self) -> float:
        """When the next read should start; never while one is under way that the other waits for."""
        if self._nodes_wait():
            return self.demand.due()
        if self.nodes.under_way is not None or (self.nodes.sound and self.demand.due() <= self._clock.now()):
            return self.nodes.due()
        return min(self.demand.due(), self.nodes.due())

    def view(self, now: float) -> QueueView:
        """What is known at ``now``."""
        demand, nodes = self.demand.reading(now), self.nodes.reading(now)
        if isinstance(demand, Fresh) and isinstance(nodes, Fresh):
            fitting = (each for each in self._before if each is not None and each.finished <= demand.started)
            if nodes.finished > demand.started and (before := next(fitting, None)) is not None:
                nodes = self.nodes.aged(before, now)
        return QueueView(demand, nodes)

    def _start_demand(self) -> None:
        if self.demand.due() <= self._clock.now():
            self._before = (self._known(), self._before[0])
            self.demand.start()

    def _known(self) -> Fresh[Nodes] | None:
        return last_known(self.nodes.reading(self._clock.now()))

    def _owed(self) -> bool:
        """Whether the jobs have not been asked for since the nodes were read."""
        known = self._known()
        return known is not None and known.finished > self.demand.last_start

    def _nodes_wait(self) -> bool:
        return self.demand.sound and (self.demand.under_way is not None or self._owed())
