"""Synthetic workloads: what their papers say of them."""

from __future__ import annotations

import math
from statistics import fmean

import pytest

from gridtide.sim.chance import Chance
from gridtide.sim.grid_model import grid
from gridtide.sim.lublin import BATCH, BUCKETS, INTERACTIVE, Kind, _daily_cycle, _Source, gamma_below, lublin
from gridtide.sim.reading import read_trace
from gridtide.sim.trace import DAY


def test_the_gamma_distribution() -> None:
    assert gamma_below(1.0, 1.0, 1.0) == pytest.approx(1.0 - math.exp(-1.0), rel=1e-13)
    assert gamma_below(3.0, 2.0, 1.0) == pytest.approx(1.0 - 4.0 * math.exp(-3.0), rel=1e-13)
    assert gamma_below(2.0, 0.5, 1.0) == pytest.approx(math.erf(math.sqrt(2.0)), rel=1e-13)
    assert gamma_below(-1.0, 2.0, 1.0) == 0.0
    assert gamma_below(500.0, 8.0, 4.0) == pytest.approx(1.0)


@pytest.mark.parametrize("kind", [BATCH, INTERACTIVE])
def test_the_daily_cycle_is_one_on_average_and_high_in_the_afternoon(kind: Kind) -> None:
    weights = _daily_cycle(kind)
    assert len(weights) == BUCKETS
    assert fmean(weights) == pytest.approx(1.0)
    assert 20 <= weights.index(max(weights)) <= 40
    assert min(weights) > 0.0


def test_sizes_are_as_the_paper_says() -> None:
    jobs = list(lublin(1, jobs=20_000))
    assert {1} < {job.cores for job in jobs}
    assert max(job.cores for job in jobs) <= 128
    powers = [job for job in jobs if job.cores > 1 and job.cores & (job.cores - 1) == 0]
    serial = sum(job.cores == 1 for job in jobs) / len(jobs)
    assert min(INTERACTIVE.serial, BATCH.serial) - 0.02 < serial < max(INTERACTIVE.serial, BATCH.serial) + 0.02
    assert len(powers) / len(jobs) > 0.6


@pytest.mark.parametrize(("kind", "size"), [(BATCH, 1), (BATCH, 100), (INTERACTIVE, 1), (INTERACTIVE, 40)])
def test_run_times_follow_the_hyper_gamma(kind: Kind, size: int) -> None:
    source = _Source(kind, Chance(5), "some", 128, 1.0)
    logarithms = [math.log(source._runtime(size)) for _ in range(8000)]
    p = kind.pa * size + kind.pb
    first, second = kind.a1 * kind.b1, kind.a2 * kind.b2
    mean = p * first + (1.0 - p) * second
    square = p * (kind.a1 * kind.b1**2 + first**2) + (1.0 - p) * (kind.a2 * kind.b2**2 + second**2)
    # Whole seconds, none below 1 and none above e^12, move the mean a little.
    assert fmean(logarithms) == pytest.approx(mean, abs=0.12 + 4.0 * math.sqrt((square - mean**2) / 8000))
    assert max(logarithms) <= 12.0


def test_a_larger_machine_has_larger_jobs() -> None:
    sizes = [fmean(job.cores for job in lublin(1, jobs=3000, largest=largest)) for largest in (4, 32, 128, 1024)]
    assert sizes == sorted(sizes)
    assert max(job.cores for job in lublin(1, jobs=3000, largest=4)) == 4


def test_a_spread_of_two_takes_twice_as_long() -> None:
    once, twice = list(lublin(1, jobs=500)), list(lublin(1, jobs=500, spread=2.0))
    assert [job.runtime for job in once] == [job.runtime for job in twice]
    assert twice[-1].submit == 2.0 * once[-1].submit


def test_the_grid_model_has_a_long_tail_and_bursts() -> None:
    jobs = read_trace("grid", seed=1, jobs=60_000).jobs
    runtimes = sorted(job.runtime for job in jobs)
    median, mean = runtimes[len(runtimes) // 2], fmean(runtimes)
    assert mean > 10.0 * median
    assert all(job.cores == 1 for job in jobs)
    minutes = [0] * (int(jobs[-1].submit // 60) + 1)
    for job in jobs:
        minutes[int(job.submit // 60)] += 1
    level = fmean(minutes)
    assert fmean((count - level) ** 2 for count in minutes) / level > 3.0, "a Poisson process would have 1"


def test_the_grid_model_has_nights() -> None:
    counts = [0] * 24
    for job in grid(2, jobs=120_000):
        counts[int(job.submit % DAY // 3600)] += 1
    assert sum(counts[10:14]) > 1.2 * sum(counts[22:24] + counts[:2])


@pytest.mark.parametrize("name", ["lublin", "grid"])
def test_models_are_in_order_and_the_same_each_time(name: str) -> None:
    first, second, other = (read_trace(name, seed=seed, jobs=2000) for seed in (1, 1, 2))
    assert first.jobs == second.jobs != other.jobs
    assert len(first.jobs) == 2000
    assert list(first.jobs) == sorted(first.jobs, key=lambda job: job.submit)
    assert first.jobs[0].submit == 0.0
    assert all(job.runtime >= 1.0 for job in first.jobs)
