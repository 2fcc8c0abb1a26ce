"""The conformance suite for queue drivers: subclass :class:`QueueConformance` as ``Test...`` and say how to get one."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final

from gridtide.errors import QueueError
from gridtide.model.demand import Attribute, Node, NodeState, Offer
from gridtide.model.ids import CloudName, Generation, GroupName, ShapeName, WorkerId
from gridtide.model.reasons import Cause, Reason
from gridtide.model.resources import Resources, Shape
from gridtide.model.workers import Worker, WorkerState
from gridtide.queues.protocol import Queue
from gridtide.testing.expect import expect, expect_type

SHAPE: Final = Shape(ShapeName("conform"), Resources(2, 4096, 20480))
TINY: Final = Shape(ShapeName("tiny"), Resources(1, 16, 16))
"""Too small for any of the suite's jobs."""

_GROUP: Final = GroupName("conform")
_WHY: Final = Reason(Cause.SURPLUS, "the conformance suite asks for it")


def offer(shape: Shape) -> Offer:
    """What the suite's group could launch."""
    attributes: dict[str, Attribute] = {"GridtideGroup": str(_GROUP), "Arch": "X86_64", "OpSys": "LINUX"}
    return Offer(_GROUP, shape, attributes)


def worker(name: str, *, single_use: bool = False) -> Worker:
    """A worker that is about to join."""
    return Worker(
        WorkerId(name), _GROUP, CloudName("conform"), SHAPE, None, Generation("1"), single_use,
        WorkerState.BOOTING, 0.0, 0.0, Reason(Cause.DEMAND, "conformance"),
    )  # fmt: skip


def host(name: str) -> dict[str, Attribute]:
    """How its machine describes itself."""
    size = SHAPE.resources
    return {
        "Cpus": size.cores, "Memory": size.memory, "Disk": size.disk, "Gpus": 0, "Arch": "X86_64", "OpSys": "LINUX",
        "Machine": name, "GridtideGroup": str(_GROUP),
    }  # fmt: skip


@dataclass(frozen=True)
class QueueBench:
    """A driver under test, and the levers that the suite needs beside it."""

    queue: Queue
    start_node: Callable[[Worker], Awaitable[None]]
    """The machine of a worker that has joined becomes a node (its daemon starts)."""
    submit: Callable[[int], Awaitable[None]]
    """Submit so many jobs of 1 core and 1024 MiB that run until they are ended."""
    take_jobs: Callable[[Worker], Awaitable[None]]
    """Let the node take what it may take (for queues whose nodes ask; others do nothing)."""
    wait: Callable[[float], Awaitable[None]] = asyncio.sleep
    patience: float = 30.0
    """Seconds within which an order has taken effect. Looked for longer than that: machines that run tests are slow."""

    async def start(self, name: str, *, single_use: bool = False) -> Worker:
        """Join and become a node."""
        made = worker(name, single_use=single_use)
        await self.queue.join(made, host(name))
        await self.start_node(made)
        await self.until(made, NodeState.ACCEPTING, NodeState.DRAINING, NodeState.DRAINED)
        return made

    async def node(self, of: Worker) -> Node | None:
        """The worker's node; AssertionError when it has several."""
        found = [each for each in await self.queue.nodes() if each.worker == of.id]
        expect(len(found) <= 1, "a worker is one node", found)
        return found[0] if found else None

    async def until(self, of: Worker, *states: NodeState) -> Node:
        """The worker's node, once it is in one of the states; AssertionError when that does not come."""
        node = await self.node(of)
        for _ in range(10 * 60):
            if node is not None and node.state in states:
                return node
            await self.wait(self.patience / 60)
            node = await self.node(of)
        raise AssertionError(f"node of {of.id} should be one of {states}; found: {node}")


class QueueConformance(ABC):
    """Implement :meth:`bench`."""

    @abstractmethod
    def bench(self) -> AbstractAsyncContextManager[QueueBench]:
        """A new bench without jobs and nodes; leaving it removes everything."""

    async def test_nothing_is_there_at_first(self) -> None:
        """An empty queue answers with success."""
        async with self.bench() as bench:
            expect(await bench.queue.demand([offer(SHAPE)]) == (), "no job waits")
            expect(await bench.queue.nodes() == (), "no node is there")

    async def test_demand_is_counted_by_shape(self) -> None:
        """Rows, not jobs; with the offers that could run them."""
        async with self.bench() as bench:
            await bench.submit(7)
            rows = await bench.queue.demand([offer(SHAPE), offer(TINY)])
            expect(sum(row.count for row in rows) == 7, "seven jobs wait", rows)
            expect(len(rows) == 1, "jobs that look alike are one row", rows)
            expect(rows[0].need.cores == 1 and rows[0].need.memory == 1024, "the need is theirs", rows)
            expect(rows[0].runs_on == {(_GROUP, SHAPE.name)}, "they fit the shape and not the tiny one", rows)
            expect(bool(rows[0].label), "the row has a name for people", rows)
            blind = await bench.queue.demand([])
            expect(blind[0].count == 7 and not blind[0].runs_on, "jobs that nothing could run are still told", blind)

    async def test_all_nodes_are_listed(self) -> None:
        """A node that is left out would be believed gone."""
        async with self.bench() as bench:
            workers = [await bench.start(f"conform-{number}") for number in range(12)]
            nodes = await bench.queue.nodes()
            expect({node.worker for node in nodes} == {each.id for each in workers}, "each is listed", nodes)
            for node in nodes:
                expect(node.state is NodeState.ACCEPTING, "a new node takes jobs", node)
                expect(node.running == 0 and node.free.cores == SHAPE.resources.cores, "it is free", node)

    async def test_joining_twice_is_joining(self) -> None:
        """The answer to a join may be lost."""
        async with self.bench() as bench:
            one = await bench.start("conform-one")
            first = await bench.queue.join(one, host("conform-one"))
            second = await bench.queue.join(one, host("conform-one"))
            expect((first.kind, first.settings) == (second.kind, second.settings), "the orders are equivalent")
            expect(len(await bench.queue.nodes()) == 1, "one node is there", await bench.queue.nodes())

    async def test_orders_show_no_secret(self) -> None:
        """Secrets of the join are in no representation."""
        async with self.bench() as bench:
            orders = await bench.queue.join(worker("conform-one"), host("conform-one"))
            expect(not any(secret in repr(orders) for secret in orders.secrets.values()), "no secret is shown")

    async def test_drain_and_undrain(self) -> None:
        """An idle node becomes DRAINED, and takes jobs again when the order is taken back. Repeating is harmless."""
        async with self.bench() as bench:
            one, two = await bench.start("conform-one"), await bench.start("conform-two")
            for _ in range(2):
                expect(await bench.queue.drain({one.id: _WHY}) == {one.id: None}, "the drain is taken")
            drained = await bench.until(one, NodeState.DRAINED)
            expect(drained.running == 0, "a drained node runs nothing", drained)
            await bench.until(two, NodeState.ACCEPTING)
            for _ in range(2):
                expect(await bench.queue.undrain([one.id]) == {one.id: None}, "it is taken back")
            await bench.until(one, NodeState.ACCEPTING)

    async def test_a_busy_node_is_not_drained_before_its_jobs_end(self) -> None:
        """What the whole design rests on."""
        async with self.bench() as bench:
            one = await bench.start("conform-one")
            await bench.submit(1)
            await bench.take_jobs(one)
            node = await bench.until(one, NodeState.ACCEPTING)
            expect(node.running == 1 and node.free.cores == 1, "the job runs there", node)
            expect(node.idle_since is None, "a busy node is not idle", node)
            await bench.queue.drain({one.id: _WHY})
            node = await bench.until(one, NodeState.DRAINING)
            expect(node.running == 1, "the job runs on", node)
            await bench.wait(bench.patience)
            node = await bench.until(one, NodeState.DRAINING)
            expect(node.running == 1, "it is still not ended", node)

    async def test_a_draining_node_gets_no_job(self) -> None:
        """However much waits."""
        async with self.bench() as bench:
            one = await bench.start("conform-one")
            await bench.queue.drain({one.id: _WHY})
            await bench.until(one, NodeState.DRAINED)
            await bench.submit(3)
            await bench.take_jobs(one)
            node = await bench.until(one, NodeState.DRAINED)
            expect(node.running == 0, "it runs nothing", node)
            rows = await bench.queue.demand([offer(SHAPE)])
            expect(sum(row.count for row in rows) == 3, "all jobs still wait", rows)

    async def test_orders_for_who_is_unknown(self) -> None:
        """An error for that one alone."""
        async with self.bench() as bench:
            one = await bench.start("conform-one")
            never = WorkerId("conform-never")
            outcomes = await bench.queue.drain({never: _WHY, one.id: _WHY})
            expect(set(outcomes) == {never, one.id}, "each has an outcome", outcomes)
            expect_type(outcomes[never], QueueError, "an unknown worker cannot be drained")
            expect(outcomes[one.id] is None, "the other one is drained", outcomes)
            outcomes = await bench.queue.undrain([never, one.id])
            expect_type(outcomes[never], QueueError, "an unknown worker cannot be taken back")
            expect(outcomes[one.id] is None, "the other one is taken back", outcomes)
            expect(await bench.queue.drain({}) == {}, "no worker, no outcome")
            expect(await bench.queue.undrain([]) == {}, "no worker, no outcome")

    async def test_a_single_use_worker_takes_one_job(self) -> None:
        """Then it drains by itself."""
        async with self.bench() as bench:
            one = await bench.start("conform-one", single_use=True)
            await bench.submit(2)
            await bench.take_jobs(one)
            node = await bench.until(one, NodeState.DRAINING)
            expect(node.running == 1, "one job, though there is room for two", node)

    async def test_forgetting(self) -> None:
        """Its machine is gone: the node goes, its job waits again, and doing it twice is harmless."""
        async with self.bench() as bench:
            one = await bench.start("conform-one")
            await bench.submit(1)
            await bench.take_jobs(one)
            expect(await bench.queue.demand([offer(SHAPE)]) == (), "the job runs")
            for _ in range(2):
                await bench.queue.forget([one.id, WorkerId("conform-never")])
            expect(await bench.node(one) is None, "the node is gone", await bench.queue.nodes())
            rows = await bench.queue.demand([offer(SHAPE)])
            expect(sum(row.count for row in rows) == 1, "its job waits again", rows)
