"""The simulated queue keeps the protocol that real drivers keep."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import pytest

from gridtide.errors import QueueError
from gridtide.model.demand import NodeState
from gridtide.model.ids import QueueName, WorkerId
from gridtide.model.resources import Resources
from gridtide.model.workers import Worker
from gridtide.queues.fake import QueueCall, QueueFault
from gridtide.sim.batch import Batch
from gridtide.sim.queue import SimulatedQueue
from gridtide.sim.trace import TraceJob
from gridtide.testing.clocks import ManualClock
from gridtide.testing.queues import SHAPE, TINY, QueueBench, QueueConformance, host, offer, worker


def make() -> tuple[SimulatedQueue, ManualClock]:
    clock = ManualClock()
    return SimulatedQueue(QueueName("pool"), clock, Random(1), Batch()), clock


class TestSimulatedQueue(QueueConformance):
    @asynccontextmanager
    async def bench(self) -> AsyncIterator[QueueBench]:
        queue, clock = make()

        async def start_node(one: Worker) -> None:
            queue.register(one.id, SHAPE.resources)

        async def submit(number: int) -> None:
            now = queue.catch_up()
            for _ in range(number):
                queue.batch.submit(TraceJob(0, 0.0, 1e9, 1, 1024), now)

        async def take_jobs(_worker: Worker) -> None:
            """The batch system pushes."""

        async def wait(seconds: float) -> None:
            clock.advance(seconds)

        yield QueueBench(queue, start_node, submit, take_jobs, wait)


async def joined(queue: SimulatedQueue, name: str) -> WorkerId:
    one = worker(name)
    await queue.join(one, host(name))
    queue.register(one.id, Resources(2, 4096, 20480))
    return one.id


async def test_demand_tells_which_offers_could_run_it() -> None:
    queue, clock = make()
    queue.batch.submit(TraceJob(1, 0.0, 9.0, 1, 1000, walltime=3000.0), clock.now())
    queue.batch.submit(TraceJob(2, 0.0, 9.0, 1, 1000, walltime=3500.0, group="other"), clock.now())
    first, second = await queue.demand([offer(SHAPE), offer(TINY)])
    assert (first.count, first.walltime, first.runs_on) == (1, 3600.0, frozenset({offer(SHAPE).key}))
    assert second.runs_on == frozenset()
    assert "group other" in second.label


async def test_a_machine_that_ended_is_listed_until_contact_is_lost_and_its_jobs_wait_again() -> None:
    queue, clock = make()
    name = await joined(queue, "conform-1")
    queue.batch.submit(TraceJob(1, 0.0, 1e6), queue.catch_up())
    assert (await queue.nodes())[0].running == 1
    assert queue.running_on(name) == ["1"]
    queue.machine_ended(name)
    (listed,) = await queue.nodes()
    assert (listed.state, listed.running, queue.running_on(name)) == (NodeState.ACCEPTING, 1, [])
    clock.advance(queue.contact_timeout)
    (listed,) = await queue.nodes()
    assert listed.state is NodeState.UNAVAILABLE
    assert queue.batch.waiting_count == 1
    outcome = await queue.drain({name: worker("x").reason})
    assert isinstance(outcome[name], QueueError)


async def test_news_are_what_a_planner_would_act_on() -> None:
    queue, clock = make()
    assert not queue.news()
    name = await joined(queue, "conform-1")
    queue.batch.submit(TraceJob(1, 0.0, 50.0), queue.catch_up())
    assert queue.news(), "an idle node took a job"
    queue.batch.submit(TraceJob(2, 0.0, 100.0), queue.catch_up())
    assert not queue.news(), "a job that started at once beside another"
    queue.batch.submit(TraceJob(3, 0.0, 100.0), queue.catch_up())
    assert queue.news(), "a job waits"
    clock.advance(60.0)
    queue.catch_up()
    assert queue.news(), "it has started"
    clock.advance(500.0)
    queue.catch_up()
    assert queue.news(), "the node is idle"
    assert not queue.news()
    assert queue.running_on(name) == []


async def test_faults_of_readings() -> None:
    queue, _ = make()
    await joined(queue, "conform-1")
    before = await queue.nodes()
    queue.faults.inject(QueueFault.EMPTY, times=1)
    assert await queue.nodes() == ()
    assert await queue.nodes() == before
    queue.faults.inject(QueueFault.RAISE, call=QueueCall.NODES, times=1)
    with pytest.raises(QueueError):
        await queue.nodes()
    queue.faults.inject(QueueFault.STALE, call=QueueCall.NODES, times=1)
    await joined(queue, "conform-2")
    assert await queue.nodes() == before
    assert len(await queue.nodes()) == 2


async def test_what_has_not_changed_is_the_same_object() -> None:
    queue, _ = make()
    await joined(queue, "conform-1")
    await joined(queue, "conform-2")
    first = await queue.nodes()
    queue.batch.submit(TraceJob(1, 0.0, 50.0), queue.catch_up())
    second = await queue.nodes()
    assert [a is b for a, b in zip(first, second, strict=True)].count(True) == 1
    with pytest.raises(QueueError, match="not admitted"):
        queue.register(WorkerId("stranger"), SHAPE.resources)


async def test_a_node_behind_a_broken_network_runs_on_and_comes_back() -> None:
    queue, clock = make()
    name = await joined(queue, "a")
    now = queue.catch_up()
    queue.batch.submit(TraceJob(1, 0.0, 100.0, 1, 1000), now)
    queue.batch.submit(TraceJob(2, 0.0, 9e9, 1, 1000), now)
    (before,) = await queue.nodes()
    queue.cut_off(name)
    clock.advance(200.0)
    assert await queue.nodes() == (before,)  # what it said last, though one job has ended
    queue.batch.submit(TraceJob(3, 0.0, 9e9, 1, 1000), queue.catch_up())
    clock.advance(200.0)
    (node,) = await queue.nodes()
    assert (node.state, node.running) == (NodeState.UNAVAILABLE, 0)
    assert len(queue.running_on(name)) == 1
    queue.heal(name)
    (node,) = await queue.nodes()
    assert (node.state, node.running) == (NodeState.ACCEPTING, 2)
    assert await queue.demand([]) == ()


@pytest.mark.parametrize("dies", [False, True])
async def test_what_the_queue_knew_when_it_lost_contact_is_what_it_tells(dies: bool) -> None:
    """A drain is taken back, and a job begins, after the last reading and before the network breaks."""
    queue, _ = make()
    name = await joined(queue, "a")
    await queue.drain({name: worker("x").reason})
    queue.batch.submit(TraceJob(1, 0.0, 100.0, 1, 1000), queue.catch_up())
    assert [(node.state, node.running) for node in await queue.nodes()] == [(NodeState.DRAINED, 0)]
    await queue.undrain([name])
    await queue.drain({name: worker("x").reason})
    (queue.machine_ended if dies else queue.cut_off)(name)
    assert [(node.state, node.running) for node in await queue.nodes()] == [(NodeState.DRAINING, 1)]


async def test_a_dead_node_does_not_come_back() -> None:
    queue, clock = make()
    name = await joined(queue, "a")
    queue.machine_ended(name)
    queue.heal(name)
    clock.advance(1000.0)
    (node,) = await queue.nodes()
    assert node.state is NodeState.UNAVAILABLE


async def test_a_node_that_drains_itself_cannot_be_taken_back() -> None:
    queue, clock = make()
    name = await joined(queue, "a")
    queue.self_drain(name)
    (node,) = await queue.nodes()
    assert node.state is NodeState.DRAINED
    assert isinstance((await queue.undrain([name]))[name], QueueError)
    queue.batch.submit(TraceJob(1, 0.0, 100.0, 1, 1000), clock.now())
    assert queue.running_on(name) == []
