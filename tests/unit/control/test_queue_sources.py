"""Nodes and jobs of a queue are read one after the other, and shown in pairs; neither holds the other up for good."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any

import pytest

from gridtide.clock import LoopClock
from gridtide.control.queue_sources import QueueSources
from gridtide.control.sources import Rhythm, Source
from gridtide.errors import QueueError
from gridtide.model.demand import Demand, DemandRow, Node, Nodes, NodeState
from gridtide.model.readings import Fresh, Missing, Stale
from gridtide.model.resources import Resources
from gridtide.model.snapshot import QueueView
from gridtide.planning.guards import believe_demand, believe_nodes
from gridtide.sim import virtual_time

RHYTHM = Rhythm(every=10.0, spacing=0.0, deadline=5.0)
ONE = Resources(1, 1024)
ROW = DemandRow(ONE, 1, 0.0, frozenset(), "a job")
FREE = Node("farm", None, NodeState.ACCEPTING, ONE, ONE, 0, 0.0)
TAKEN = Node("farm", None, NodeState.ACCEPTING, ONE, Resources(), 1, None)


class Peer:
    """A queue with one node and one job, that takes as long for each answer as the test says."""

    def __init__(self) -> None:
        self.clock = LoopClock()
        self.calls: list[str] = []
        self.nodes_take = 0.0
        self.demand_takes = 0.0
        self.refuses: set[str] = set()
        self.runs_from = float("inf")
        """When the job starts, on the node."""
        self.queue = QueueSources(
            self._source("demand", self.demand, believe_demand),
            self._source("nodes", self.nodes, believe_nodes),
            self.clock,
        )
        self._awake = asyncio.Event()

    def _source(self, name: str, call: Any, believe: Any) -> Source[Any]:
        return Source(
            name, call, RHYTHM, clock=self.clock, random=Random(1), believe=believe, changed=lambda _: self._awake.set()
        )

    async def demand(self) -> Demand:
        await self._answer("demand", self.demand_takes)
        return () if self.clock.now() >= self.runs_from else (ROW,)

    async def nodes(self) -> Nodes:
        await self._answer("nodes", self.nodes_take)
        return (TAKEN if self.clock.now() >= self.runs_from else FREE,)

    async def _answer(self, what: str, seconds: float) -> None:
        self.calls.append(what)
        await asyncio.sleep(seconds)
        if what in self.refuses:
            raise QueueError("no")

    async def run(self, seconds: float, *, look: Callable[[QueueView], None] = lambda _: None) -> None:
        """Read what is due, as the loop does, and look after each step."""
        until = self.clock.now() + seconds
        while self.clock.now() < until:
            self._awake.clear()
            self.queue.start()
            look(self.queue.view(self.clock.now()))
            left = min(self.queue.due(), until) - self.clock.now()
            try:
                async with asyncio.timeout(max(0.05, left)):
                    await self._awake.wait()
            except TimeoutError:
                pass


def on_virtual_time(test: Callable[[Peer], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    async def main() -> None:
        await test(Peer())

    def run() -> None:
        virtual_time.run(main())

    run.__doc__ = test.__doc__
    return run


@pytest.mark.parametrize("nodes_take", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("demand_takes", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("starts", [8.0 + 0.21 * step for step in range(25)])
def test_no_view_shows_a_job_that_waits_and_its_slot_taken(
    nodes_take: float, demand_takes: float, starts: float
) -> None:
    async def main() -> None:
        peer = Peer()
        peer.nodes_take, peer.demand_takes = nodes_take, demand_takes
        peer.runs_from = peer.clock.now() + starts
        seen: list[tuple[bool, bool]] = []

        def look(view: QueueView) -> None:
            if isinstance(view.demand, Fresh) and isinstance(view.nodes, Fresh):
                seen.append((bool(view.demand.value), view.nodes.value == (TAKEN,)))

        await peer.run(40.0, look=look)
        assert (True, True) not in seen
        assert seen[0] == (True, False)
        assert seen[-1] == (False, True)

    virtual_time.run(main())


@on_virtual_time
async def test_each_round_reads_the_nodes_and_then_the_jobs(peer: Peer) -> None:
    peer.nodes_take = peer.demand_takes = 0.3
    await peer.run(35.0)
    assert peer.calls == ["nodes", "demand"] * 4


@on_virtual_time
async def test_whoever_asks_all_the_time_gets_both(peer: Peer) -> None:
    peer.nodes_take = peer.demand_takes = 0.5

    async def ask() -> None:
        while True:
            peer.queue.ask()
            await asyncio.sleep(0.01)

    asking = asyncio.create_task(ask())
    await peer.run(10.0)
    asking.cancel()
    assert peer.calls[:16] == ["nodes", "demand"] * 8


@on_virtual_time
async def test_jobs_are_read_although_the_nodes_fail(peer: Peer) -> None:
    peer.refuses = {"nodes"}
    await peer.run(60.0)
    assert peer.calls.count("demand") >= 6
    view = peer.queue.view(peer.clock.now())
    assert isinstance(view.nodes, Missing)
    assert isinstance(view.demand, Fresh)


@on_virtual_time
async def test_nodes_are_read_although_the_jobs_hang(peer: Peer) -> None:
    await peer.run(12.0)
    peer.demand_takes, peer.runs_from = 100.0, peer.clock.now()
    peer.calls.clear()
    await peer.run(60.0)
    assert peer.calls.count("nodes") >= 5
    view = peer.queue.view(peer.clock.now())
    assert isinstance(view.demand, Stale)
    assert isinstance(view.nodes, Fresh)
    assert view.nodes.value == (TAKEN,)


@on_virtual_time
async def test_jobs_are_read_although_the_nodes_hang(peer: Peer) -> None:
    await peer.run(12.0)
    peer.nodes_take = 100.0
    peer.calls.clear()
    await peer.run(60.0)
    assert peer.calls.count("demand") >= 3
    assert isinstance(peer.queue.view(peer.clock.now()).demand, Fresh)


@on_virtual_time
async def test_nothing_is_due_while_it_is_read(peer: Peer) -> None:
    """A loop that slept until then would not sleep at all."""
    peer.nodes_take = peer.demand_takes = 2.0
    looks: list[float] = []
    await peer.run(30.0, look=lambda _: looks.append(peer.clock.now()))
    assert len(looks) < 20
