"""Yardsticks, bounds and curves: examples that were worked out by hand, and what must hold of any workload."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridtide.model.costs import Billing
from gridtide.model.ids import ShapeName
from gridtide.model.resources import Resources, Shape
from gridtide.sim.bounds import clairvoyant, zero_wait
from gridtide.sim.curves import Curve, elasticity
from gridtide.sim.trace import TraceJob
from gridtide.sim.yardsticks import waits_of

EXACT = Billing(unit=0.001, minimum=0.0)


def shape(cores: int, price: float | None = None) -> Shape:
    return Shape(ShapeName(f"c{cores}"), Resources(cores, 1024 * cores, 1024), float(cores) if price is None else price)


def job(submit: float, runtime: float, cores: int = 1) -> TraceJob:
    return TraceJob(0, submit, runtime, cores)


# --- waits


def test_waits_by_hand() -> None:
    # Waits 0, 30, 170; run times 100, 5, 30.
    waits = waits_of([0.0, 0.0, 10.0], [0.0, 30.0, 180.0], [100.0, 35.0, 210.0], boot=120.0)
    assert waits.mean == pytest.approx(200.0 / 3.0)
    assert waits.median == 30.0
    assert waits.longest == 170.0
    assert waits.p95 == pytest.approx(30.0 + 0.9 * 140.0)
    assert waits.p99 == pytest.approx(30.0 + 0.98 * 140.0)
    # The second job ran for less than ten seconds and counts as ten.
    assert waits.slowdown == pytest.approx((1.0 + 3.5 + 200.0 / 30.0) / 3.0)
    assert waits.beyond_boot == pytest.approx(50.0 / 3.0)
    assert waits.beyond_boot_share == pytest.approx(1.0 / 3.0)


def test_a_short_job_that_did_not_wait_is_not_slowed_down() -> None:
    assert waits_of([0.0], [0.0], [1.0], boot=1.0).slowdown == 1.0
    assert waits_of([], [], [], boot=1.0).slowdown == 1.0


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e5), st.floats(1, 1e5)), min_size=1, max_size=50))
def test_quantiles_are_in_order_and_the_slowdown_at_least_one(rows: list[tuple[float, float, float]]) -> None:
    submitted = [row[0] for row in rows]
    started = [row[0] + row[1] for row in rows]
    ended = [row[0] + row[1] + row[2] for row in rows]
    waits = waits_of(submitted, started, ended, boot=60.0)
    assert 0.0 <= waits.median <= waits.p95 <= waits.p99 <= waits.longest
    assert waits.beyond_boot <= waits.mean + 1e-6
    assert waits.slowdown >= 1.0


# --- curves and elasticity


def test_a_curve_from_changes() -> None:
    curve = Curve.of([(10.0, -1.0), (0.0, 2.0), (5.0, 3.0), (5.0, -1.0)])
    assert (curve.times, curve.values, curve.peak) == ((0.0, 5.0, 10.0), (2.0, 4.0, 3.0), 4.0)
    assert curve.sampled(0.0, 12.0, 3.0) == [2.0, 2.0, 4.0, 4.0, 3.0]
    assert Curve.of([]).peak == 0.0


def test_elasticity_by_hand() -> None:
    # Demand 4 in [0,100), 2 in [100,200), 0 in [200,300); supply 0 in [0,50), 4 in [50,250), 0 in [250,300).
    demand = Curve.of([(0.0, 4.0), (100.0, -2.0), (200.0, -2.0)])
    supply = Curve.of([(50.0, 4.0), (250.0, -4.0)])
    found = elasticity(demand, supply, 300.0, sample=50.0)
    assert found.under == pytest.approx(4.0 * 50.0 / 300.0)
    assert found.over == pytest.approx((2.0 * 100.0 + 4.0 * 50.0) / 300.0)
    assert found.under_accuracy == pytest.approx((4.0 / 4.0) * 50.0 / 300.0)
    assert found.over_accuracy == pytest.approx((2.0 / 2.0 * 100.0 + 4.0 / 1.0 * 50.0) / 300.0)
    assert found.under_timeshare == pytest.approx(50.0 / 300.0)
    assert found.over_timeshare == pytest.approx(150.0 / 300.0)
    # Samples at 0, 50 ... 300: demand 4 4 2 2 0 0 0, supply 0 4 4 4 4 0 0. They move differently in 4 of 6 steps.
    assert found.instability == pytest.approx(4.0 / 6.0)


def test_supply_that_is_demand_is_perfect() -> None:
    curve = Curve.of([(0.0, 3.0), (70.0, -1.0), (500.0, 5.0), (900.0, -7.0)])
    found = elasticity(curve, curve, 1000.0)
    assert (found.under, found.over, found.under_timeshare, found.over_timeshare, found.instability) == (0,) * 5


CHANGES = st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 9)), max_size=20).map(
    lambda rows: Curve.of([c for at, n in rows for c in ((float(at), float(n)), (at + 100.0, -float(n)))])
)


@given(CHANGES, CHANGES)
def test_shares_are_shares(demand: Curve, supply: Curve) -> None:
    found = elasticity(demand, supply, 1200.0)
    assert 0.0 <= found.under_timeshare + found.over_timeshare <= 1.0 + 1e-9
    assert 0.0 <= found.under_accuracy <= found.under_timeshare + 1e-9
    assert 0.0 <= found.instability <= 1.0
    mirrored = elasticity(supply, demand, 1200.0)
    assert mirrored.under == pytest.approx(found.over)
    assert mirrored.over == pytest.approx(found.under)


# --- bounds


def test_the_zero_wait_bound_by_hand() -> None:
    # Two cores wanted in [0, 3600), three in [3600, 7200), one until 10800.
    jobs = [job(0.0, 7200.0), job(0.0, 7200.0), job(3600.0, 7200.0)]
    bound = zero_wait(jobs, [shape(2, price=0.5), shape(1, price=0.3)])
    assert bound.core_hours == pytest.approx(6.0)
    assert bound.machine_hours == pytest.approx(1 + 2 + 1)
    assert bound.cost == pytest.approx(0.25 * 6.0)


def test_clairvoyant_packing_by_hand() -> None:
    # 8 jobs of one core, an hour each, at the same time: one machine of eight cores, with its boot.
    eight = [job(0.0, 3600.0) for _ in range(8)]
    found = clairvoyant(eight, [shape(8)], boot=100.0, billing=EXACT)
    assert found.machines == 1
    assert found.machine_hours == pytest.approx(3700.0 / 3600.0)
    # Long beside long and short beside short: two cores for 4000 s and two for 1000 s.
    four = [job(0.0, 4000.0), job(0.0, 1000.0), job(0.0, 4000.0), job(0.0, 1000.0)]
    found = clairvoyant(four, [shape(2)], boot=0.0, billing=EXACT)
    assert found.core_hours == pytest.approx(10_000.0 / 3600.0)


def test_foresight_keeps_a_machine_over_a_gap_that_is_shorter_than_a_boot() -> None:
    jobs = [job(0.0, 1000.0), job(1050.0, 1000.0)]
    assert clairvoyant(jobs, [shape(1)], boot=100.0, billing=EXACT).machines == 1
    assert clairvoyant(jobs, [shape(1)], boot=10.0, billing=EXACT).machines == 2


def test_foresight_takes_a_small_machine_for_a_lonely_job() -> None:
    jobs = [job(0.0, 1000.0)]
    found = clairvoyant(jobs, [shape(8), shape(2)], boot=0.0, billing=EXACT)
    assert found.core_hours == pytest.approx(2000.0 / 3600.0)


def test_what_fits_nowhere_is_told() -> None:
    with pytest.raises(ValueError, match="no shape with cores"):
        zero_wait([job(0.0, 1.0)], [])
    with pytest.raises(ValueError, match="fits on no machine"):
        clairvoyant([job(0.0, 1.0, 9)], [shape(8)], boot=0.0, billing=EXACT)


SOME_JOB = st.builds(job, st.integers(0, 5000), st.integers(1, 3000), st.integers(1, 4))
JOBS = st.lists(SOME_JOB, min_size=1, max_size=40).map(lambda jobs: sorted(jobs, key=lambda each: each.submit))


@given(JOBS, st.sampled_from([(4,), (4, 8), (1, 2, 4)]), st.floats(0.0, 300.0))
def test_no_packing_is_below_the_bound_nor_above_a_machine_for_each_job(
    jobs: list[TraceJob], sizes: tuple[int, ...], boot: float
) -> None:
    shapes = [shape(size) for size in sizes]
    bound = zero_wait(jobs, shapes)
    found = clairvoyant(jobs, shapes, boot=boot, billing=EXACT)
    assert found.core_hours >= bound.core_hours - 1e-6
    assert found.cost >= bound.cost - 1e-6
    assert 1 <= found.machines <= len(jobs)
    each = sum((one.runtime + boot + 0.001) * min(size for size in sizes if size >= one.cores) for one in jobs) / 3600.0
    assert found.core_hours <= each + 1e-6
