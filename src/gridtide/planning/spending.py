"""What each cloud has charged today, and what it may still charge. For people; nothing is decided on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gridtide.model.costs import Stay, charged_since, day_of
from gridtide.model.ids import CloudName
from gridtide.model.rules import SiteRules
from gridtide.model.snapshot import Snapshot
from gridtide.planning.budgets import accounts_of
from gridtide.planning.evidence import Evidence


@dataclass(frozen=True, slots=True)
class Spending:
    """Of one cloud, today."""

    per_day: float | None
    """Its budget; None: it has none."""
    spent: float
    """Charged so far, billing units that were begun included."""
    kept: float | None
    """Kept back for what its machines may still cost today. None without a budget."""
    late: int
    """Workers that were drained and run jobs for longer than its ``longest_job``."""


def spending_of(snapshot: Snapshot, rules: SiteRules) -> Mapping[CloudName, Spending]:
    """Of each cloud of the site file."""
    today = day_of(snapshot.now)
    spent = {name: snapshot.ended_costs.get(name, {}).get(today, 0.0) for name in rules.clouds}
    for worker in snapshot.workers.values():
        price = worker.shape.price
        if price and worker.cloud in spent and (launched := charged_since(worker)) is not None:
            so_far = Stay(worker.cloud, price, launched, snapshot.now)
            spent[worker.cloud] += so_far.on(today, rules.clouds[worker.cloud].billing)
    budgeted = any(cloud.budget is not None for cloud in rules.clouds.values())
    accounts = accounts_of(Evidence(snapshot, rules)) if budgeted else {}
    found: dict[CloudName, Spending] = {}
    for name, cloud in rules.clouds.items():
        account = accounts.get(name)
        per_day = None if cloud.budget is None else cloud.budget.per_day
        kept = None if account is None else max(account.totals(0.0)[today] - spent[name], 0.0)
        found[name] = Spending(per_day, spent[name], kept, 0 if account is None else len(account.late))
    return found
