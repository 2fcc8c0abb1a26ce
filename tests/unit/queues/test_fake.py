"""What the fake queue does in time, and its faults."""

import asyncio
from collections.abc import Awaitable, Callable
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridtide.errors import QueueError
from gridtide.model.demand import Demand, Node, Nodes, NodeState
from gridtide.model.ids import QueueName, WorkerId
from gridtide.model.reasons import Cause, Reason
from gridtide.model.resources import Resources
from gridtide.queues.fake import FakeJobState, FakeQueue, QueueCall, QueueFault
from gridtide.testing.clocks import ManualClock
from gridtide.testing.queues import SHAPE, TINY, host, offer, worker

WHY = Reason(Cause.SURPLUS, "test")
A, B = WorkerId("a"), WorkerId("b")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1000.0)


@pytest.fixture
def queue(clock: ManualClock) -> FakeQueue:
    return FakeQueue(QueueName("pool"), clock, Random(1), drain_delay=5.0, contact_timeout=300.0)


async def add(queue: FakeQueue, *names: WorkerId, single_use: bool = False) -> None:
    for name in names:
        await queue.join(worker(name, single_use=single_use), host(name))
        queue.register(name, SHAPE.resources)


async def node(queue: FakeQueue, name: WorkerId) -> Node:
    (found,) = [each for each in await queue.nodes() if each.worker == name]
    return found


# --- time


async def test_jobs_run_for_their_duration_one_after_the_other(queue: FakeQueue, clock: ManualClock) -> None:
    jobs = [queue.jobs[name] for name in queue.submit(5, duration=100.0)]
    clock.advance(7)
    await add(queue, A)
    clock.advance(1000)
    assert queue.count(FakeJobState.DONE) == 5
    assert [(job.started, job.ended) for job in jobs] == [
        (1007.0, 1107.0), (1007.0, 1107.0), (1107.0, 1207.0), (1107.0, 1207.0), (1207.0, 1307.0),
    ]  # fmt: skip
    assert (await node(queue, A)).idle_since == 1307.0


async def test_the_longest_waiting_that_fits_is_next(queue: FakeQueue, clock: ManualClock) -> None:
    queue.submit(1, need=Resources(2, 1024), duration=100.0)
    clock.advance(1)
    (small,) = queue.submit(1, duration=30.0)
    clock.advance(1)
    queue.submit(1, need=Resources(3, 1024), duration=100.0)
    await add(queue, A)
    assert queue.jobs[small].state is FakeJobState.WAITING
    clock.advance(100)
    assert queue.running_on(A) == [small]
    assert (await queue.demand([offer(SHAPE)]))[0].runs_on == frozenset()


async def test_requirements_decide_where_a_job_runs(queue: FakeQueue) -> None:
    queue.submit(1, requirement=lambda attributes: attributes.get("Arch") == "AARCH64", label="on ARM")
    await add(queue, A)
    (row,) = await queue.demand([offer(SHAPE), offer(TINY)])
    assert (row.count, row.label, row.runs_on) == (1, "on ARM", frozenset())


async def test_a_job_may_start_between_the_drain_and_its_effect(queue: FakeQueue, clock: ManualClock) -> None:
    await add(queue, A)
    await queue.drain({A: WHY})
    clock.advance(4.9)
    assert (await node(queue, A)).state is NodeState.ACCEPTING
    queue.submit(2, duration=60.0)
    clock.advance(0.1)
    drained = await node(queue, A)
    assert (drained.state, drained.running) == (NodeState.DRAINING, 2)
    queue.submit(1)
    clock.advance(60)
    drained = await node(queue, A)
    assert (drained.state, drained.running) == (NodeState.DRAINED, 0)
    assert queue.count(FakeJobState.WAITING) == 1


async def test_a_drain_that_was_taken_back_has_no_late_effect(queue: FakeQueue, clock: ManualClock) -> None:
    await add(queue, A)
    await queue.drain({A: WHY})
    clock.advance(1)
    assert await queue.undrain([A]) == {A: None}
    clock.advance(100)
    assert (await node(queue, A)).state is NodeState.ACCEPTING


async def test_what_drains_of_its_own_will_cannot_be_taken_back(queue: FakeQueue, clock: ManualClock) -> None:
    await add(queue, A)
    await add(queue, B, single_use=True)
    queue.submit(3, duration=10.0)
    queue.self_drain(A)
    clock.advance(10)
    outcomes = await queue.undrain([A, B])
    assert all("own will" in str(outcome) for outcome in outcomes.values())
    queue.forget_drains()
    assert queue.is_drained(A)
    assert queue.is_drained(B)


async def test_a_node_leaves_only_when_it_is_empty(queue: FakeQueue, clock: ManualClock) -> None:
    await add(queue, A)
    queue.submit(1, duration=10.0)
    with pytest.raises(QueueError, match="cannot leave"):
        queue.leave(A)
    clock.advance(10)
    queue.leave(A)
    assert await queue.nodes() == ()
    assert isinstance((await queue.undrain([A]))[A], QueueError)


async def test_registering_needs_admission(queue: FakeQueue) -> None:
    with pytest.raises(QueueError, match="not admitted"):
        queue.register(A, SHAPE.resources)


# --- silence and death


async def test_a_node_that_is_cut_off_runs_on_and_reports_later(queue: FakeQueue, clock: ManualClock) -> None:
    await add(queue, A)
    (job, other) = queue.submit(2, duration=100.0)
    queue.cut_off(A)
    clock.advance(299)
    seen = await node(queue, A)
    assert (seen.state, seen.running) == (NodeState.ACCEPTING, 2), "the queue knows nothing newer"
    assert queue.running_on(A) == [job, other], "their results are on the machine alone"
    assert isinstance((await queue.drain({A: WHY}))[A], QueueError)
    clock.advance(1)
    seen = await node(queue, A)
    assert (seen.state, seen.running, seen.idle_since) == (NodeState.UNAVAILABLE, 2, None)
    queue.submit(1, duration=1.0)
    assert queue.count(FakeJobState.WAITING) == 1
    queue.heal(A)
    assert (queue.jobs[job].state, queue.jobs[job].ended, queue.jobs[job].starts) == (FakeJobState.DONE, 1100.0, 1)
    assert queue.count(FakeJobState.WAITING) == 0
    assert queue.lost_runs == []


async def test_jobs_of_a_dead_machine_wait_again(queue: FakeQueue, clock: ManualClock) -> None:
    await add(queue, A)
    (job,) = queue.submit(1, duration=1000.0)
    later = queue.submit(3, duration=1.0)
    clock.advance(50)
    queue.machine_ended(A)
    assert queue.running_on(A) == []
    clock.advance(299)
    assert (await node(queue, A)).running == 1
    clock.advance(1)
    seen = await node(queue, A)
    assert (seen.state, seen.running) == (NodeState.UNAVAILABLE, 0)
    assert [name for _, name in queue.lost_runs] == [job]
    queue.heal(A)
    assert (await node(queue, A)).state is NodeState.UNAVAILABLE, "the dead do not come back"
    await add(queue, B)
    assert queue.running_on(B)[0] == job, "first in, first out again"
    clock.advance(2000)
    assert queue.jobs[job].starts == 2
    assert queue.count(FakeJobState.DONE) == 1 + len(later)
    await queue.forget([A])
    assert [each.worker for each in await queue.nodes()] == [B]


async def test_forgetting_a_living_node_shows_in_the_record(queue: FakeQueue) -> None:
    await add(queue, A, B)
    queue.submit(4)
    lost = queue.running_on(A)
    await queue.forget([A])
    assert {name for _, name in queue.lost_runs} == set(lost)
    assert queue.count(FakeJobState.RUNNING) == 2


# --- faults

READINGS: list[Callable[[FakeQueue], Awaitable[Demand | Nodes]]] = [lambda q: q.demand([]), lambda q: q.nodes()]


@pytest.mark.parametrize("read", READINGS)
async def test_faults_of_readings(
    queue: FakeQueue, clock: ManualClock, read: Callable[[FakeQueue], Awaitable[Demand | Nodes]]
) -> None:
    await add(queue, A)
    queue.submit(3)
    truth = await read(queue)
    queue.faults.inject(QueueFault.RAISE, times=1, error=QueueError("no such host"))
    with pytest.raises(QueueError, match="no such host"):
        await read(queue)
    queue.faults.inject(QueueFault.MALFORMED, times=1)
    with pytest.raises(QueueError, match="record 7"):
        await read(queue)
    queue.faults.inject(QueueFault.STALE, after=10.0, seconds=20.0)
    assert await read(queue) == truth
    clock.advance(10)
    queue.submit(1)
    await queue.drain({A: WHY})
    clock.advance(10)
    assert await read(queue) == truth
    clock.advance(10)
    assert await read(queue) != truth
    queue.faults.inject(QueueFault.EMPTY)
    assert await read(queue) == ()
    queue.faults.clear()
    assert await read(queue) != ()
    queue.faults.inject(QueueFault.HANG)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(read(queue), 0.01)


async def test_an_order_whose_answer_is_lost_is_carried_out(queue: FakeQueue, clock: ManualClock) -> None:
    await add(queue, A)
    queue.faults.inject(QueueFault.ANSWER_LOST, call=QueueCall.DRAIN)
    with pytest.raises(QueueError, match="before the answer"):
        await queue.drain({A: WHY})
    clock.advance(5)
    assert (await node(queue, A)).state is NodeState.DRAINED
    assert await queue.undrain([A]) == {A: None}
    assert queue.calls == {"join": 1, "drain": 1, "undrain": 1, "nodes": 1}


async def test_one_order_of_a_call_is_refused(queue: FakeQueue) -> None:
    await add(queue, A, B)
    queue.faults.inject(QueueFault.REFUSE, times=1)
    outcomes = await queue.drain({A: WHY, B: WHY})
    assert isinstance(outcomes[A], QueueError)
    assert outcomes[B] is None


async def test_a_restart_lists_nobody_at_first_and_loses_drains_but_no_job(
    queue: FakeQueue, clock: ManualClock
) -> None:
    await add(queue, A, B)
    await queue.drain({A: WHY})
    clock.advance(5)
    queue.submit(1, duration=1000.0)
    queue.restart(refill=60.0)
    assert await queue.nodes() == ()
    queue.submit(1)
    clock.advance(60)
    assert {each.state for each in await queue.nodes()} == {NodeState.ACCEPTING}
    assert queue.count(FakeJobState.RUNNING) == 2
    clock.advance(1000)
    assert queue.lost_runs == []


async def test_a_clock_that_is_ahead(queue: FakeQueue) -> None:
    queue.clock_skew = 3600.0
    await add(queue, A)
    queue.submit(1, need=Resources(9, 9))
    assert (await node(queue, A)).idle_since == 4600.0
    assert (await queue.demand([]))[0].oldest_since == 4600.0


async def test_foreign_nodes_run_jobs_and_take_no_orders(queue: FakeQueue) -> None:
    queue.add_foreign_node("physical-1", Resources(8, 8192))
    queue.submit(3)
    (seen,) = await queue.nodes()
    assert (seen.worker, seen.running) == (None, 3)
    assert isinstance((await queue.drain({WorkerId("physical-1"): WHY}))[WorkerId("physical-1")], QueueError)


async def test_withdrawn_jobs_wait_no_more(queue: FakeQueue) -> None:
    await add(queue, A)
    queue.submit(5)
    assert queue.cancel_waiting() == 3
    assert await queue.demand([]) == ()
    assert queue.count(FakeJobState.RUNNING) == 2


# --- properties

KINDS = ["submit", "drain", "undrain", "cut", "heal", "die", "join", "forget", "wait"]
STEPS = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 3)), max_size=60)


@given(steps=STEPS)
@settings(max_examples=150, deadline=None)
def test_jobs_and_resources_are_conserved(steps: list[tuple[str, int]]) -> None:
    async def play() -> None:
        clock = ManualClock()
        queue = FakeQueue(QueueName("pool"), clock, Random(1), drain_delay=3.0, contact_timeout=20.0)
        for step, number in steps:
            name = WorkerId(f"w{number}")
            match step:
                case "submit":
                    queue.submit(number, need=Resources(1 + number % 2, 512), duration=7.0 * (1 + number))
                case "drain":
                    await queue.drain({name: WHY})
                case "undrain":
                    await queue.undrain([name])
                case "cut":
                    queue.cut_off(name)
                case "heal":
                    queue.heal(name)
                case "die":
                    queue.machine_ended(name)
                case "join":
                    await add(queue, name)
                case "forget":
                    await queue.forget([name])
                case _:
                    clock.advance(5.0 * number)
            await _check(queue)

    asyncio.run(play())


async def _check(queue: FakeQueue) -> None:
    jobs = list(queue.jobs.values())
    waiting = sum(row.count for row in await queue.demand([]))
    assert waiting == sum(job.state is FakeJobState.WAITING for job in jobs)
    assert all((job.node is not None) == (job.state is not FakeJobState.WAITING) for job in jobs)
    for each in await queue.nodes():
        on_it = [job for job in jobs if job.state is FakeJobState.RUNNING and job.node == each.name]
        if each.state is not NodeState.UNAVAILABLE and each.worker and not queue.is_silent(each.worker):
            assert each.running == len(on_it)
            assert each.free.cores == each.total.cores - sum(job.need.cores for job in on_it)
            assert (each.idle_since is None) == bool(on_it)
