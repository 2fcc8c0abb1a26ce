"""What clouds have charged today, as JSON. Pure."""

from __future__ import annotations

from dataclasses import asdict

from gridtide.control.api import Cycle
from gridtide.model.rules import SiteRules
from gridtide.planning.spending import spending_of
from gridtide.store.ports import Json


def spending(cycle: Cycle, rules: SiteRules) -> list[Json]:
    """A line for each cloud that has a budget or has charged anything today."""
    found = sorted(spending_of(cycle.snapshot, rules).items())
    return [{"cloud": name, **asdict(each)} for name, each in found if each.per_day is not None or each.spent]
