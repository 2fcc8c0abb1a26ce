"""What machines cost: billing units, budgets, and how a machine's charge falls onto days.

Days are those of UTC, numbered from the epoch. Prices are per hour, in the currency of the price list.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from math import ceil, floor
from typing import Final

from gridtide.model.ids import CloudName
from gridtide.model.reasons import Cause
from gridtide.model.resources import Shape
from gridtide.model.workers import Worker

DAY: Final = 86_400.0
HOUR: Final = 3_600.0


class Choose(StrEnum):
    """Which of its clouds and shapes a group takes for a job."""

    ORDER = "order"
    """Clouds in the order written: the first that has room; of its shapes the one that jobs fill best."""
    PRICE = "price"
    """Of all clouds, what costs least for each core that jobs get."""
    FILL = "fill"
    """Of all clouds, what leaves least unused; among equals the cheaper."""


@dataclass(frozen=True, slots=True)
class Billing:
    """From the launch call to the end of the machine."""

    unit: float = 1.0
    """Seconds; a unit that was begun is charged in full."""
    minimum: float = 60.0
    """Seconds that every machine is charged at least."""

    def seconds(self, lived: float) -> float:
        """What is charged for a machine that lived so long."""
        return ceil(round(max(lived, self.minimum) / self.unit, 9)) * self.unit


@dataclass(frozen=True, slots=True)
class Budget:
    """What a cloud may charge us for one day, as long as no job takes longer than ``longest_job``."""

    per_day: float
    longest_job: float
    """Seconds. A machine that takes jobs keeps back what a job of this length would still cost."""


@dataclass(frozen=True, slots=True)
class Stay:
    """A machine that was, as far as its bill is concerned. Times are seconds since the epoch."""

    cloud: CloudName
    price: float
    launched: float
    ended: float

    def by_day(self, billing: Billing) -> Iterator[tuple[int, float]]:
        """What is charged for it on each day, a unit that spans midnight on both."""
        until = self.launched + billing.seconds(self.ended - self.launched)
        return ((day, self.price * seconds / HOUR) for day, seconds in by_day(self.launched, until))

    def on(self, day: int, billing: Billing) -> float:
        """What is charged for it on that day."""
        until = self.launched + billing.seconds(self.ended - self.launched)
        return self.price * _seconds_on(day, self.launched, until) / HOUR


def day_of(moment: float) -> int:
    """The number of its day."""
    return floor(moment / DAY)


def by_day(start: float, end: float) -> Iterator[tuple[int, float]]:
    """Seconds of a stretch of time on each day that it touches."""
    for day in range(day_of(start), day_of(end) + 1):
        seconds = _seconds_on(day, start, end)
        if seconds > 0:
            yield day, seconds


def _seconds_on(day: int, start: float, end: float) -> float:
    return max(0.0, min(end, (day + 1) * DAY) - max(start, day * DAY))


def charged_since(worker: Worker) -> float | None:
    """Since when its machine is charged; None when none was made, as far as is known.

    A launch whose answer was lost counts until the worker is gone: its machine may have been made.
    """
    refused = worker.reason.cause is Cause.LAUNCH_REFUSED and worker.machine is None
    return None if refused else worker.launched


def stay_of(worker: Worker) -> Stay | None:
    """Of a worker that is gone; None when no machine was made for it."""
    launched = charged_since(worker)
    return None if launched is None else Stay(worker.cloud, worker.shape.price, launched, worker.since)


def price_per_core(shape: Shape) -> float:
    """Per hour; of the whole machine where it has no cores."""
    return shape.price / shape.resources.cores if shape.resources.cores else shape.price
