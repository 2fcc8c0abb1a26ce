"""The batch system of the simulator: who starts where, when."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridtide.model.ids import WorkerId
from gridtide.model.resources import Resources
from gridtide.sim.batch import Batch, BatchNode, Job, Order, Placement, coarse_walltime
from gridtide.sim.trace import TraceJob


@dataclass
class Bench:
    """A batch system that notes what it did."""

    order: Order = Order.FIRST_FIT
    placement: Placement = Placement.FULLEST
    log: list[tuple[str, int, float]] = field(default_factory=list)
    where: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.batch = Batch(order=self.order, placement=self.placement)
        self.batch.on_start = self.started
        self.batch.on_end = lambda job, at: self.log.append(("end", job.given.number, at))
        self.batch.on_lost = lambda job, at: self.log.append(("lost", job.given.number, at))

    def started(self, job: Job, at: float) -> None:
        self.log.append(("start", job.given.number, at))
        assert job.node is not None
        self.where[job.given.number] = job.node.name

    def node(self, name: str, cores: int = 1, at: float = 0.0, **more: object) -> BatchNode:
        size = Resources(cores, 1024 * cores, 100 * cores, 1)
        node = BatchNode(name, WorkerId(name), size, "grid", at, **more)  # type: ignore[arg-type]
        self.batch.add(node, at)
        return node

    def starts(self) -> list[tuple[int, float]]:
        return [(number, at) for what, number, at in self.log if what == "start"]


def jobs(*given: tuple[float, float] | tuple[float, float, int]) -> list[TraceJob]:
    """(submit, run time[, cores]), numbered from 1."""
    return [TraceJob(number, one[0], one[1], *one[2:]) for number, one in enumerate(given, 1)]


def test_first_come_first_served_on_one_core() -> None:
    bench = Bench()
    bench.node("a")
    bench.batch.feed(jobs((0, 10), (1, 5), (2, 5)), 0.0)
    bench.batch.advance(100.0)
    assert bench.log == [
        ("start", 1, 0.0), ("end", 1, 10.0), ("start", 2, 10.0), ("end", 2, 15.0), ("start", 3, 15.0), ("end", 3, 20.0),
    ]  # fmt: skip
    assert (bench.batch.all_arrived, bench.batch.ended_count, bench.batch.queued_count) == (True, 3, 2)


def test_first_fit_passes_over_what_does_not_fit() -> None:
    bench = Bench()
    bench.node("a", 2)
    bench.batch.feed(jobs((0, 10, 1), (1, 10, 2), (2, 3, 1)), 0.0)
    bench.batch.advance(100.0)
    assert bench.starts() == [(1, 0.0), (3, 2.0), (2, 10.0)]


def test_in_order_lets_nobody_overtake() -> None:
    bench = Bench(order=Order.IN_ORDER)
    bench.node("a", 2)
    bench.batch.feed(jobs((0, 10, 1), (1, 10, 2), (2, 3, 1)), 0.0)
    bench.batch.advance(100.0)
    assert bench.starts() == [(1, 0.0), (2, 10.0), (3, 20.0)]


def test_in_order_uses_other_nodes_once_the_first_has_started() -> None:
    bench = Bench(order=Order.IN_ORDER)
    bench.node("a", 2)
    bench.node("b", 1)
    bench.batch.feed(jobs((0, 10, 1), (0, 10, 2), (0, 5, 1), (0, 5, 2)), 0.0)
    bench.batch.advance(100.0)
    assert bench.where[1] == "b"
    assert bench.starts() == [(1, 0.0), (2, 0.0), (3, 10.0), (4, 10.0)]


def test_priority_goes_before_age() -> None:
    bench = Bench()
    bench.node("a")
    given = [
        one._replace(priority=priority) for one, priority in zip(jobs((0, 10), (1, 1), (2, 1)), (0, 0, 5), strict=True)
    ]
    bench.batch.feed(given, 0.0)
    bench.batch.advance(100.0)
    assert bench.starts() == [(1, 0.0), (3, 10.0), (2, 11.0)]


@pytest.mark.parametrize(("placement", "where"), [(Placement.FULLEST, "small"), (Placement.EMPTIEST, "large")])
def test_placement(placement: Placement, where: str) -> None:
    bench = Bench(placement=placement)
    bench.node("large", 8)
    bench.node("small", 2)
    bench.batch.feed(jobs((0, 10)), 0.0)
    bench.batch.advance(0.0)
    assert bench.where == {1: where}


@pytest.mark.parametrize(
    ("need", "fits"),
    [
        ({"memory": 2048}, True),
        ({"memory": 2049}, False),
        ({"disk": 200}, True),
        ({"disk": 201}, False),
        ({"gpus": 1}, True),
        ({"gpus": 2}, False),
        ({"group": "grid"}, True),
        ({"group": "other"}, False),
    ],
)
def test_every_need_counts(need: dict[str, object], fits: bool) -> None:
    for late in (False, True):
        bench = Bench()
        if not late:
            bench.node("a", 2)
        bench.batch.feed([TraceJob(1, 0.0, 5.0, **need)], 0.0)  # type: ignore[arg-type]
        bench.batch.advance(1.0)
        if late:
            bench.node("a", 2, at=1.0)
        assert (bench.batch.running_count, bench.batch.waiting_count) == ((1, 0) if fits else (0, 1))


def test_an_array_runs_as_many_at_once_as_it_may() -> None:
    bench = Bench()
    bench.node("a", 8)
    bench.batch.feed([TraceJob(number, 0.0, 10.0, array=1, at_once=2) for number in range(1, 6)], 0.0)
    bench.batch.advance(0.0)
    assert (bench.batch.running_count, bench.batch.waiting_count, bench.batch.held_count) == (2, 0, 3)
    bench.batch.advance(100.0)
    assert bench.starts() == [(1, 0.0), (2, 0.0), (3, 10.0), (4, 10.0), (5, 20.0)]


def test_a_draining_node_takes_nothing_until_it_is_taken_back() -> None:
    bench = Bench()
    node = bench.node("a", 2)
    bench.batch.feed(jobs((0, 10), (1, 10)), 0.0)
    bench.batch.advance(0.5)
    bench.batch.drain(node)
    bench.batch.advance(20.0)
    assert (bench.batch.ended_count, bench.batch.waiting_count, node.idle_since) == (1, 1, 10.0)
    bench.batch.undrain(node, 20.0)
    assert bench.starts()[-1] == (2, 20.0)


def test_a_single_use_node_takes_one_job() -> None:
    bench = Bench()
    node = bench.node("a", 8, single_use=True)
    bench.batch.feed(jobs((0, 10), (0, 10)), 0.0)
    bench.batch.advance(50.0)
    assert (bench.batch.ended_count, bench.batch.waiting_count, node.open) == (1, 1, False)


def test_jobs_of_a_lost_machine_run_again_from_the_start_before_younger_ones() -> None:
    bench = Bench()
    node = bench.node("a")
    bench.batch.feed(jobs((0, 10), (1, 10)), 0.0)
    bench.batch.advance(4.0)
    bench.batch.silence(node, 4.0, dead=True)
    bench.batch.advance(30.0)
    assert bench.batch.ended_count == 0, "what ran on a dead machine cannot end"
    bench.batch.give_up(node, 30.0)
    bench.node("b", at=30.0)
    bench.batch.advance(100.0)
    assert bench.log == [
        ("start", 1, 0.0), ("lost", 1, 4.0), ("start", 1, 30.0), ("end", 1, 40.0), ("start", 2, 40.0), ("end", 2, 50.0),
    ]  # fmt: skip


def test_an_end_that_was_planned_before_the_loss_does_not_come() -> None:
    bench = Bench()
    node = bench.node("a")
    bench.node("b", at=0.0)
    bench.batch.feed(jobs((0, 10)), 0.0)
    bench.batch.advance(2.0)
    bench.batch.remove(node if node.jobs else bench.batch.nodes["b"], 2.0)
    bench.batch.advance(11.0)
    assert bench.batch.ended_count == 0
    bench.batch.advance(12.0)
    assert bench.log[-1] == ("end", 1, 12.0)


def test_walltimes_in_steps() -> None:
    assert [coarse_walltime(each) for each in (None, 1.0, 60.0, 61.0, 3600.0, 1e9)] == [
        None, 60.0, 60.0, 120.0, 3600.0, 1e9,
    ]  # fmt: skip


WORK = st.lists(
    st.builds(
        lambda submit, run, cores, memory, priority: TraceJob(
            0, float(submit), float(run), cores, memory, priority=priority
        ),
        st.integers(0, 50),
        st.integers(1, 30),
        st.integers(1, 4),
        st.sampled_from((0, 512, 3000)),
        st.integers(0, 1),
    ),
    max_size=25,
)


@given(WORK, st.lists(st.integers(1, 4), min_size=1, max_size=4), st.sampled_from(Order), st.sampled_from(Placement))
def test_no_node_is_overfull_no_job_is_lost_and_none_waits_beside_room(
    given_jobs: list[TraceJob], sizes: list[int], order: Order, placement: Placement
) -> None:
    work = [job._replace(number=n) for n, job in enumerate(sorted(given_jobs, key=lambda job: job.submit))]
    bench = Bench(order=order, placement=placement)
    for number, size in enumerate(sizes):
        bench.node(f"n{number}", size)
    bench.batch.feed(work, 0.0)
    for second in range(0, 2000, 7):
        bench.batch.advance(float(second))
        for node in bench.batch.nodes.values():
            used = [job.given for job in node.jobs.values()]
            assert min(node.free) >= 0
            assert node.free[0] == node.total.cores - sum(job.cores for job in used)
            assert node.free[1] == node.total.memory - sum(job.memory for job in used)
            assert (node.idle_since is None) == bool(used)
        if order is Order.FIRST_FIT:
            for kind in bench.batch.waiting:
                for node in bench.batch.nodes.values():
                    assert not all(f >= n for f, n in zip(node.free, kind.need, strict=True))
    possible = [job for job in work if any(job.cores <= size and job.memory <= 1024 * size for size in sizes)]
    started = [number for what, number, _ in bench.log if what == "start"]
    assert len(started) == len(set(started))
    if order is Order.FIRST_FIT or len(possible) == len(work):
        assert sorted(started) == [job.number for job in possible]
        assert bench.batch.ended_count == len(possible)
    at = {number: when for what, number, when in bench.log if what == "start"}
    ended = {number: when for what, number, when in bench.log if what == "end"}
    for job in possible:
        if job.number in ended:
            assert at[job.number] >= job.submit
            assert ended[job.number] == pytest.approx(at[job.number] + job.runtime)
