"""What machines that are gone have been charged. The store keeps their workers; this is the sum of it.

Read from the store at the beginning of a lead, and added to with each worker that this controller records as gone.
Nobody else records any while it leads, so both are the same at every moment.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from gridtide.model.costs import DAY, Billing, Stay, day_of, stay_of
from gridtide.model.ids import CloudName
from gridtide.model.workers import Worker

_USUAL: Final = Billing()
"""Of clouds that have left the site file."""


def reach_of(now: float) -> float:
    """Machines that ended earlier are charged nothing from today on: no billing unit is longer than a day."""
    return (day_of(now) - 1) * DAY


class Ledger:
    """Sums by cloud and day, kept as machines end."""

    def __init__(self) -> None:
        self._stays: list[Stay] = []
        self._billing: Mapping[CloudName, Billing] = {}
        self._costs: dict[CloudName, dict[int, float]] = {}
        self._day = 0

    def load(self, stays: Iterable[Stay]) -> None:
        """Begin anew with these."""
        self._stays = list(stays)
        self._sum_up()

    def bill(self, billing: Mapping[CloudName, Billing]) -> None:
        """How the clouds charge, from the site file."""
        if dict(billing) != self._billing:
            self._billing = dict(billing)
            self._sum_up()

    def add(self, worker: Worker) -> None:
        """A worker that is gone now."""
        stay = stay_of(worker)
        if stay is not None and stay.price:
            self._stays.append(stay)
            self._add(stay)

    def view(self, now: float) -> Mapping[CloudName, Mapping[int, float]]:
        """A copy for a snapshot: from today on."""
        today = day_of(now)
        if today != self._day:
            self._day = today
            self._stays = [stay for stay in self._stays if stay.ended >= reach_of(now)]
            self._sum_up()
        return {
            cloud: {day: amount for day, amount in days.items() if day >= today} for cloud, days in self._costs.items()
        }

    def _sum_up(self) -> None:
        self._costs = {}
        for stay in self._stays:
            self._add(stay)

    def _add(self, stay: Stay) -> None:
        days = self._costs.setdefault(stay.cloud, {})
        for day, amount in stay.by_day(self._billing.get(stay.cloud, _USUAL)):
            days[day] = days.get(day, 0.0) + amount
