"""React, Adapt, Hist and Reg: four autoscalers of services, in the form of their comparison (ICPE 2017).

Where the papers speak of requests and servers there are cores of jobs, and machines. All end idle machines only.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Final

from gridtide.sim.baselines.base import Baseline, Decision, Sight, remembering, towards

INTERVAL: Final = 30.0
"""Seconds: the autoscaling interval of the comparison."""
SPARE: Final = 2
"""Machines beyond the load when there are too few: the comparison's margin."""


def react(sight: Sight) -> Decision:
    """To the load and two machines more whenever it reaches what there is; back when more than two are too many."""
    if sight.load >= sight.capacity * sight.cores:
        return towards(sight, sight.wanted + SPARE if sight.load else sight.capacity)
    if sight.capacity - sight.wanted > SPARE or not sight.load:
        return towards(sight, sight.wanted + SPARE if sight.load else 0)
    return Decision()


SLOWNESS: Final = 15.0
"""A surplus is given back by a fifteenth of it in each interval."""


def adapt(sight: Sight, repair: float) -> tuple[Decision, float]:
    """Up at once, with a margin; down by a part of the surplus in each interval, so that nothing goes too early.

    ``repair``: what is left of the surplus's parts below a whole machine.
    """
    excess = sight.capacity - sight.load / sight.cores
    if excess < 0:
        return towards(sight, sight.wanted + SPARE), 0.0
    repair += excess / SLOWNESS
    whole = int(repair)
    least = sight.wanted + SPARE if sight.load else 0
    return towards(sight, min(max(sight.capacity - whole, least), sight.capacity)), repair - whole


PERCENTILE: Final = 0.95
RECENT: Final = 10
"""Looks, of which more than half must have seen too few machines before it reacts."""

_Counts = tuple[int, ...]
_Histograms = tuple[tuple[_Counts, ...], tuple[bool, ...]]


def hist(sight: Sight, memory: _Histograms) -> tuple[Decision, _Histograms]:
    """A high percentile of what this hour of the day has wanted so far; more when that was too little lately."""
    hours, short = memory
    hour = int(sight.now % 86_400.0 // 3600.0)
    counts = _counted(hours[hour], sight.wanted)
    hours = (*hours[:hour], counts, *hours[hour + 1 :])
    short = (*short, sight.wanted > sight.capacity)[-RECENT:]
    target = percentile(counts, PERCENTILE)
    if 2 * sum(short) > RECENT:
        return towards(sight, max(target, sight.wanted + SPARE)), (hours, ())
    return towards(sight, target), (hours, short)


def _counted(counts: _Counts, value: int) -> _Counts:
    longer = counts + (0,) * (value + 1 - len(counts))
    return (*longer[:value], longer[value] + 1, *longer[value + 1 :])


def percentile(counts: Sequence[int], part: float) -> int:
    """The least value that this part of the samples does not exceed."""
    needed, seen = part * sum(counts), 0
    for value, count in enumerate(counts):
        seen += count
        if seen >= needed and seen:
            return value
    return 0


SAMPLES: Final = 72

_Sample = tuple[float, float]


def reg(sight: Sight, samples: tuple[_Sample, ...]) -> tuple[Decision, tuple[_Sample, ...]]:
    """Up to the load at once; down to what a parabola through the last loads says of now."""
    samples = (*samples, (sight.now, sight.load / sight.cores))[-SAMPLES:]
    if sight.load >= sight.capacity * sight.cores:
        return towards(sight, max(sight.wanted, sight.capacity)), samples
    predicted = ceil(parabola(samples, sight.now) - 1e-9)
    return towards(sight, min(max(predicted, 0), sight.capacity)), samples


def parabola(samples: Sequence[_Sample], at: float) -> float:
    """Least squares of second order, at one time; of lower order when there are too few samples for it."""
    order = min(2, len(samples) - 1)
    scale = max((abs(time - at) for time, _ in samples), default=0.0) or 1.0
    times = [(time - at) / scale for time, _ in samples]
    sums = [sum(time**power for time in times) for power in range(2 * order + 1)]
    rows = [
        [*sums[row : row + order + 1], sum(time**row * value for time, (_, value) in zip(times, samples, strict=True))]
        for row in range(order + 1)
    ]
    return _solved(rows)[0]


def _solved(rows: list[list[float]]) -> list[float]:
    """Gauss's elimination with pivots, of a system that is not singular."""
    size = len(rows)
    for column in range(size):
        pivot = max(range(column, size), key=lambda row: abs(rows[row][column]))
        rows[column], rows[pivot] = rows[pivot], rows[column]
        for row in range(column + 1, size):
            factor = rows[row][column] / rows[column][column]
            rows[row] = [value - factor * above for value, above in zip(rows[row], rows[column], strict=True)]
    found = [0.0] * size
    for row in reversed(range(size)):
        rest = sum(rows[row][column] * found[column] for column in range(row + 1, size))
        found[row] = (rows[row][size] - rest) / rows[row][row]
    return found


_NO_HISTORY: Final[_Histograms] = (((),) * 24, ())
_NO_SAMPLES: Final[tuple[_Sample, ...]] = ()
REACT: Final = Baseline("react", INTERVAL, lambda: react)
ADAPT: Final = Baseline("adapt", INTERVAL, remembering(adapt, 0.0))
HIST: Final = Baseline("hist", INTERVAL, remembering(hist, _NO_HISTORY))
REG: Final = Baseline("reg", INTERVAL, remembering(reg, _NO_SAMPLES))
