"""Days of random demand on virtual time, through the production planner: no day passes its budget, no job is ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridtide.model.costs import HOUR, Billing, Budget, Choose
from gridtide.model.ids import CloudName, GroupName, ShapeName
from gridtide.model.machines import Quota
from gridtide.model.resources import Resources, Shape
from gridtide.model.rules import CloudRules
from gridtide.sim.cloud import BootTime, CloudModel
from gridtide.sim.document import run_document
from gridtide.sim.report import rows
from gridtide.sim.run import Run, simulate
from gridtide.sim.setting import Setting, fitted, standard_setting
from gridtide.sim.spending import passed
from gridtide.sim.trace import Reading, Trace, TraceJob, make_trace
from gridtide.sim.yardsticks import score

GROUP = GroupName("grid")


@dataclass(frozen=True)
class Market:
    """Clouds with a price each, alike in all else."""

    prices: Sequence[float]
    budget: Budget
    billing: Billing = field(default_factory=Billing)
    boot: BootTime = field(default_factory=BootTime)
    choose: Choose = Choose.ORDER

    def setting(self) -> Setting:
        base = standard_setting()
        names = [CloudName(f"level{number}") for number in range(len(self.prices))]
        group = replace(base.rules.groups[GROUP], clouds=tuple(names), choose=self.choose)
        rules = {name: CloudRules(name, Quota(), 0.0, self.billing, self.budget) for name in names}
        clouds = {
            name: CloudModel(
                tuple(Shape(ShapeName(f"{n}core"), Resources(n, 4096 * n, 20_480 * n), price * n) for n in (4, 2, 1)),
                boot=self.boot,
                billing=self.billing,
            )
            for name, price in zip(names, self.prices, strict=True)
        }
        return replace(base, rules=replace(base.rules, groups={GROUP: group}, clouds=rules), clouds=clouds)


def workload(seed: int, jobs: int, longest: float, days: float) -> Trace:
    """Bursts of jobs, some of which take as long as any may."""
    dice = Random(seed)
    made: list[TraceJob] = []
    while len(made) < jobs:
        at = dice.uniform(0.0, days * 24 * HOUR)
        length = longest * dice.choice([0.05, 0.5, 1.0])
        burst = range(min(dice.choice([1, 5, 30]), jobs - len(made)))
        made += [TraceJob(len(made) + n, at, length * dice.uniform(0.5, 1.0), dice.choice([1, 1, 2])) for n in burst]
    return make_trace("bursts", made, Reading())


def run(trace: Trace, market: Market, seed: int = 0) -> Run:
    setting = market.setting()
    return simulate(fitted(trace, setting), setting, seed=seed)


markets = st.builds(
    Market,
    prices=st.lists(st.sampled_from([0.02, 0.05, 0.2, 0.5]), min_size=1, max_size=3),
    budget=st.builds(
        Budget, per_day=st.sampled_from([2.0, 10.0, 40.0]), longest_job=st.sampled_from([900.0, HOUR, 6 * HOUR])
    ),
    billing=st.sampled_from([Billing(), Billing(60.0, 600.0), Billing(HOUR, HOUR)]),
    boot=st.builds(BootTime, median=st.sampled_from([2.0, 120.0, 600.0]), sigma=st.sampled_from([0.0, 0.5])),
    choose=st.sampled_from(list(Choose)),
)


@settings(max_examples=8, deadline=None)
@given(market=markets, seed=st.integers(0, 2**32))
def test_no_day_of_a_cloud_costs_more_than_its_budget(market: Market, seed: int) -> None:
    done = run(workload(seed, 150, market.budget.longest_job, 1.5), market, seed)
    assert done.killed == 0
    assert done.violations == ()
    assert list(passed(done.days, done.setting.rules)) == []


def test_the_budget_is_used_and_the_next_cloud_taken() -> None:
    """The measured case: 10 a day, three levels of price, and more work than they can pay for."""
    market = Market((0.05, 0.10, 0.20), Budget(10.0, HOUR))
    done = run(workload(1, 2_500, HOUR, 2.0), market)
    assert done.killed == 0
    assert done.violations == ()
    assert set(done.days) == set(done.setting.clouds)
    costs = [cost for days in done.days.values() for cost in days.values()]
    assert 9.0 < max(costs) <= 10.0
    judged = score(done)
    assert judged.dearest_day == max(costs)
    assert judged.days_over_budget == 0
    told = run_document(done, judged)["spending"]
    assert isinstance(told, list)
    assert sum(line["cost"] for line in told) == pytest.approx(judged.cost)
    assert ("  days over a budget", ("0",)) in rows([done], [judged])


def test_a_job_that_takes_longer_is_not_ended_and_the_day_that_it_costs_is_told() -> None:
    market = Market((0.5,), Budget(2.0, 900.0))
    done = run(make_trace("long", [TraceJob(1, 0.0, 12 * HOUR)], Reading()), market)
    assert len(done.jobs) == 1
    assert done.killed == 0
    assert score(done).days_over_budget >= 1
    assert done.violations == (), "nothing was promised for such a job"
