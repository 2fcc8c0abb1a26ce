"""What a run has cost, day by day, and whether a budget was passed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from gridtide.model.costs import HOUR, by_day
from gridtide.model.ids import CloudName
from gridtide.model.rules import SiteRules
from gridtide.sim.machines import MachineRecord
from gridtide.sim.trace import TraceJob

Days = Mapping[CloudName, Mapping[int, float]]
"""By cloud and number of the day (UTC, of the run's clock)."""


def days_of(machines: Iterable[MachineRecord], epoch: float) -> Days:
    """What each cloud has charged on each day. ``epoch``: the clock at the workload's start."""
    days: dict[CloudName, dict[int, float]] = defaultdict(lambda: defaultdict(float))
    for each in machines:
        start = epoch + each.made
        for day, seconds in by_day(start, start + each.charged):
            days[each.cloud][day] += each.shape.price * seconds / HOUR
    return days


def passed(days: Days, rules: SiteRules) -> Iterator[tuple[CloudName, int, float, float]]:
    """Cloud, day, cost and budget of each day that cost more than it may."""
    for cloud, costs in sorted(days.items()):
        budget = rules.clouds[cloud].budget
        for day, cost in sorted(costs.items()):
            if budget is not None and cost > budget.per_day + 1e-6:
                yield cloud, day, cost, budget.per_day


def keepable(cloud: CloudName, jobs: Sequence[TraceJob], rules: SiteRules) -> bool:
    """Whether the budget was promised for these jobs: none takes longer than money is kept back for."""
    budget = rules.clouds[cloud].budget
    return budget is not None and all(job.runtime <= budget.longest_job for job in jobs)
