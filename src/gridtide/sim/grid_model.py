"""A grid-like workload: one-core jobs that come in bags and bursts, with long tails of everything.

The forms are those found in the logs of production grids:

- Jobs come as *bags of tasks*, many alike at once (Iosup, Sonmez, Anoep, Epema: "The Performance of Bags-of-Tasks in
  Large-Scale Distributed Systems", HPDC 2008).
- Bags come in bursts: a Poisson process whose rate is switched by a hidden Markov chain (Li, Muskulus, Wolters:
  "Modeling Job Arrivals in a Data-Intensive Grid", JSSPP 2006), with a daily cycle on top.
- Run times of one bag are alike, those of different bags are not; the body is lognormal (Li, Groep, Wolters: "Workload
  Characteristics of a Multi-cluster Supercomputer", JSSPP 2004), the tail a power law, cut at the queue's limit.

The parameters are ours: round figures near those of the first days of the log LCG-2005-1 of the Parallel Workloads
Archive. docs/reference/traces.md says how near.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from gridtide.sim.chance import Chance, exp
from gridtide.sim.trace import DAY, TraceJob

_PARABOLA: Final = 4.0


@dataclass(frozen=True, slots=True)
class GridModel:
    """Parameters. Times in seconds."""

    calm: float = 11.0
    """Mean time between bags in calm times."""
    storm: float = 5.0
    """... and in a burst."""
    calm_for: float = 4 * 3600.0
    """Mean length of calm times."""
    storm_for: float = 1200.0
    """Mean length of bursts."""
    night: float = 0.6
    """Rate at midnight, relative to that at noon."""
    small_bag: float = 1.6
    """Mean size of most bags (geometric)."""
    large: float = 0.015
    """Part of the bags that are large."""
    large_bag: float = 10.0
    """Least size of a large bag."""
    large_index: float = 1.2
    """The chance that a large bag has more than n jobs falls with n to the power of minus this."""
    largest_bag: int = 500
    gap: float = 3.0
    """Mean time between the jobs of a bag: submission tools take a moment for each."""
    body: float = 230.0
    """Median run time of most bags."""
    body_sigma: float = 0.9
    """Standard deviation of its logarithm."""
    tail: float = 0.3
    """Part of the bags whose run times follow the power law."""
    tail_least: float = 4_000.0
    tail_index: float = 0.75
    within: float = 0.3
    """Standard deviation of the logarithm of run times within a bag."""
    longest: float = 172_800.0
    """The queue's limit; what is longer is cut."""
    failing: float = 0.03
    """Part of the jobs that end within seconds: pilots that find no work, broken inputs."""


STANDARD: Final = GridModel()


def grid(seed: int, *, jobs: int, model: GridModel = STANDARD, spread: float = 1.0) -> Iterator[TraceJob]:
    """Jobs in the order of their arrival. ``spread``: by what all times between bags are multiplied."""
    pending: list[tuple[float, int, float]] = []
    bags = _bags(Chance(seed, "grid/bags"), model)
    tasks = Chance(seed, "grid/tasks")
    number = made = 0
    while number < jobs:
        start = next(bags) * spread
        while pending and pending[0][0] <= start and number < jobs:
            at, _, runtime = heapq.heappop(pending)
            number += 1
            yield TraceJob(number, at, runtime, 1)
        size = _size(tasks, model)
        typical = _typical(tasks, model)
        at = start
        for _ in range(size):
            made += 1
            heapq.heappush(pending, (float(int(at)), made, _runtime(tasks, model, typical)))
            at += tasks.exponential(model.gap)


def _bags(chance: Chance, model: GridModel) -> Iterator[float]:
    """When bags arrive. Candidates come at the highest rate there is; each is kept with the chance that the present
    state and time of day give it (thinning: Lewis and Shedler 1979)."""
    least = min(model.calm, model.storm)
    now, storm = 0.0, False
    change = chance.exponential(model.calm_for)
    while True:
        now += chance.exponential(least)
        while now >= change:
            storm = not storm
            change += chance.exponential(model.storm_for if storm else model.calm_for)
        rate = least / (model.storm if storm else model.calm)
        if chance.happens(rate * _day(now, model)):
            yield now


def _day(now: float, model: GridModel) -> float:
    """A parabola through ``night`` at midnight and 1 at noon: no trigonometry, which differs between machines."""
    part = (now % DAY) / DAY
    return model.night + (1.0 - model.night) * _PARABOLA * part * (1.0 - part)


def _size(chance: Chance, model: GridModel) -> int:
    if chance.happens(model.large):
        return min(int(chance.pareto(model.large_bag, model.large_index)), model.largest_bag)
    return chance.geometric(model.small_bag)


def _typical(chance: Chance, model: GridModel) -> float:
    if chance.happens(model.tail):
        return chance.pareto(model.tail_least, model.tail_index)
    return chance.lognormal(model.body, model.body_sigma)


def _runtime(chance: Chance, model: GridModel, typical: float) -> float:
    if chance.happens(model.failing):
        return float(int(1.0 + chance.exponential(20.0)))
    return max(1.0, float(int(min(typical * exp(chance.normal(0.0, model.within)), model.longest))))
