"""What clouds charge, and how much they may: ``billing`` and ``budget`` of a cloud."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from gridtide.model.costs import DAY, Billing, Budget
from gridtide.site.base import Price, SiteModel, written
from gridtide.site.units import Duration, Moment, Period, show_duration, wrong

LONGEST_JOB = 30 * DAY
"""Seconds. Further ahead nothing is kept back."""


def _a_day(seconds: float) -> float:
    if seconds > DAY:
        raise wrong(f"{show_duration(seconds)} is longer than a day", 'at most "24 h"')
    return seconds


def _a_month(seconds: float) -> float:
    if seconds > LONGEST_JOB:
        raise wrong(f"{show_duration(seconds)} is too long to keep money back for", 'at most "30 days"')
    return seconds


def _something(amount: float) -> float:
    if amount == 0.0:
        raise wrong("nothing could ever be launched with it", "for example 40.0, or leave the cloud out of the groups")
    return amount


class BillingSettings(SiteModel):
    """From the launch call to the end of the machine."""

    unit: Annotated[Moment, AfterValidator(_a_day)] = written(
        "1 s", description="A unit that was begun is charged in full."
    )
    minimum: Annotated[Duration, AfterValidator(_a_day)] = written(
        "1 min", description="Every machine is charged at least so long."
    )

    def billing(self) -> Billing:
        """The planner's view of it."""
        return Billing(self.unit, self.minimum)


class BudgetSettings(SiteModel):
    """A hard limit, with which no running job is ended."""

    per_day: Annotated[Price, AfterValidator(_something)] = Field(
        description="The most that the cloud's machines may cost on any day (UTC), in the currency of the prices."
    )
    longest_job: Annotated[Period, AfterValidator(_a_month)] = written(
        "24 h",
        description="How long a job takes at most. Each machine that takes jobs keeps back what it would cost for so "
        "long. A longer job is not ended either: then the budget may be passed.",
    )

    def budget(self) -> Budget:
        """The planner's view of it."""
        return Budget(self.per_day, self.longest_job)
