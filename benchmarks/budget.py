"""A budget of 10 a day on three levels of price, with more work than it pays for: days of it on virtual time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from random import Random

from benchmarks.figures import Figure
from gridtide.model.costs import HOUR, Billing, Budget
from gridtide.model.ids import CloudName, GroupName, ShapeName
from gridtide.model.machines import Quota
from gridtide.model.resources import Shape
from gridtide.model.rules import CloudRules
from gridtide.sim.cloud import CloudModel
from gridtide.sim.run import simulate
from gridtide.sim.setting import Setting, fitted, standard_setting
from gridtide.sim.trace import Reading, Trace, TraceJob, make_trace

PER_DAY = 10.0
PRICES = (0.05, 0.10, 0.20)
"""Per core and hour."""
LONGEST = 2 * HOUR
BILLING = Billing(60.0, 60.0)


def figures(directory: Path, *, quick: bool) -> Iterable[Figure]:
    """How far a day was from its budget, what of it was used, and what became of the jobs."""
    trace, setting = _workload(300 if quick else 6_000, 0.5 if quick else 4.0), _setting()
    run = simulate(fitted(trace, setting), setting)
    costs = [cost for days in run.days.values() for cost in days.values()]
    dearest = max(shape.price for model in setting.clouds.values() for shape in model.shapes)
    unit = dearest * BILLING.unit / HOUR
    words = f"{len(run.jobs)} jobs on {len(run.machines)} machines, {len(costs)} days of {len(run.days)} clouds"
    yield Figure("budget: most above 10 on any day", max(max(costs) - PER_DAY, 0.0), "", "<=", unit, words)
    yield Figure("budget: jobs ended for it", float(run.killed), "jobs", "==", 0.0, words)
    yield Figure("budget: jobs that never started", float(run.never_started), "jobs", "==", 0.0, words)
    cheapest = sorted(run.days[CloudName("level0")].values())
    used = 100.0 * cheapest[-1] / PER_DAY
    yield Figure("budget: used of the cheapest cloud's fullest day", used, "%", ">=", 0.0 if quick else 90.0, words)


def _setting() -> Setting:
    base = standard_setting("three levels of price")
    names = [CloudName(f"level{number}") for number in range(len(PRICES))]
    group = replace(base.rules.groups[GroupName("grid")], clouds=tuple(names))
    rules = {name: CloudRules(name, Quota(), 0.0, BILLING, Budget(PER_DAY, LONGEST)) for name in names}
    shapes = next(iter(base.clouds.values())).shapes
    clouds = {
        name: CloudModel(tuple(_priced(shape, price) for shape in shapes), billing=BILLING)
        for name, price in zip(names, PRICES, strict=True)
    }
    return replace(base, rules=replace(base.rules, groups={group.name: group}, clouds=rules), clouds=clouds)


def _priced(shape: Shape, price: float) -> Shape:
    return Shape(ShapeName(shape.name), shape.resources, price * shape.resources.cores)


def _workload(jobs: int, days: float) -> Trace:
    """Bursts of jobs, one in ten as long as any may be."""
    dice = Random(0)
    made: list[TraceJob] = []
    while len(made) < jobs:
        at = dice.uniform(0.0, days * 24 * HOUR)
        length = LONGEST * dice.choice([0.02] * 3 + [0.1] * 3 + [0.4] * 3 + [1.0])
        for _ in range(min(dice.choice([1, 5, 30]), jobs - len(made))):
            made.append(TraceJob(len(made), at, length * dice.uniform(0.5, 1.0), dice.choice([1, 1, 2])))
    return make_trace("bursts", made, Reading())
