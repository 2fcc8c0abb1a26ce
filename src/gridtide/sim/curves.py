"""Step functions of time: demand, supply, and what the elasticity metrics make of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

SAMPLE: Final = 60.0
"""Seconds between the samples by which instability is counted: its definition is for discrete time, and a finer one
would count every single job."""

EPSILON: Final = 1.0
"""Cores. A demand below it counts as this much where something is divided by the demand."""


@dataclass(frozen=True, slots=True)
class Curve:
    """``values[i]`` from ``times[i]`` on; 0 before the first time."""

    times: tuple[float, ...]
    values: tuple[float, ...]

    @classmethod
    def of(cls, changes: Iterable[tuple[float, float]]) -> Curve:
        """From changes: when, and by how much. They need no order."""
        times: list[float] = []
        values: list[float] = []
        level = 0.0
        for at, change in sorted(changes):
            level += change
            if times and times[-1] == at:
                values[-1] = level
            else:
                times.append(at)
                values.append(level)
        return cls(tuple(times), tuple(values))

    def sampled(self, begin: float, end: float, every: float) -> list[float]:
        """Its values at ``begin``, ``begin + every`` ... up to ``end``."""
        samples: list[float] = []
        place, level = 0, 0.0
        for number in range(int((end - begin) / every + 1e-9) + 1):
            at = begin + number * every
            while place < len(self.times) and self.times[place] <= at:
                level = self.values[place]
                place += 1
            samples.append(level)
        return samples

    @property
    def peak(self) -> float:
        """Its highest value."""
        return max(self.values, default=0.0)


@dataclass(frozen=True, slots=True)
class Elasticity:
    """How well supply follows demand: the metrics of the SPEC Research Group (docs/explanation/yardsticks.md)."""

    under: float
    """Mean cores that are missing."""
    over: float
    """Mean cores too many."""
    under_accuracy: float
    """Mean of what is missing, relative to the demand of the moment."""
    over_accuracy: float
    """Mean of what is too much, relative to the demand of the moment (which counts as one core at least)."""
    under_timeshare: float
    """Part of the time in which something is missing."""
    over_timeshare: float
    """Part of the time in which there is too much."""
    instability: float
    """Part of the samples in which supply moves another way than demand."""


def elasticity(demand: Curve, supply: Curve, end: float, *, sample: float = SAMPLE) -> Elasticity:
    """From second 0 to ``end``, which is positive."""
    under = over = under_part = over_part = under_time = over_time = 0.0
    for d, s, seconds in pieces(demand, supply, end):
        if d > s:
            under += (d - s) * seconds
            under_part += (d - s) / max(d, EPSILON) * seconds
            under_time += seconds
        elif s > d:
            over += (s - d) * seconds
            over_part += (s - d) / max(d, EPSILON) * seconds
            over_time += seconds
    return Elasticity(
        under / end,
        over / end,
        under_part / end,
        over_part / end,
        under_time / end,
        over_time / end,
        _instability(demand.sampled(0.0, end, sample), supply.sampled(0.0, end, sample)),
    )


def pieces(first: Curve, second: Curve, end: float) -> Iterable[tuple[float, float, float]]:
    """Both values and for how many seconds, wherever neither changes, from second 0 to ``end``."""
    events = sorted(
        [(at, 0, value) for at, value in zip(first.times, first.values, strict=True)]
        + [(at, 1, value) for at, value in zip(second.times, second.values, strict=True)]
    )
    levels = [0.0, 0.0]
    before = 0.0
    for at, which, value in events:
        moment = min(max(at, 0.0), end)
        if moment > before:
            yield levels[0], levels[1], moment - before
            before = moment
        levels[which] = value
    if end > before:
        yield levels[0], levels[1], end - before


def _instability(demand: Sequence[float], supply: Sequence[float]) -> float:
    """1/(T-1) times the sum over t of min(abs(sgn(change of supply) - sgn(change of demand)), 1)."""
    if len(demand) < 2:
        return 0.0
    differ = sum(
        _sign(s1 - s0) != _sign(d1 - d0) for d0, d1, s0, s1 in zip(demand, demand[1:], supply, supply[1:], strict=False)
    )
    return differ / (len(demand) - 1)


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)
