"""A budget per day is never passed, and no job is ended for it."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random

import pytest

from gridtide.clouds.fake import FakeCloud, FakeMachine
from gridtide.model.costs import DAY, HOUR, Billing, Budget, Choose, Stay, day_of
from gridtide.model.ids import MachineId
from gridtide.model.reasons import Cause
from gridtide.model.workers import WorkerState
from gridtide.planning.spending import spending_of
from gridtide.queues.fake import FakeJobState
from tests.scenarios.harness import GROUP, Site, scenario

MINUTE = 60.0


@dataclass
class Bill:
    """What a cloud really charges: from the moment a machine is made until nothing runs in it any more."""

    site: Site
    cloud: FakeCloud
    price: float
    billing: Billing
    made: dict[MachineId, float] = field(default_factory=dict)
    ended: dict[MachineId, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.cloud.on_made.append(self._made)
        self.cloud.on_ended.append(self._ended)

    def _made(self, machine: FakeMachine) -> None:
        self.made[machine.id] = self.site.clock.now()

    def _ended(self, machine: FakeMachine) -> None:
        self.ended.setdefault(machine.id, self.site.clock.now())

    def days(self) -> Mapping[int, float]:
        """By day."""
        days: dict[int, float] = defaultdict(float)
        for machine, made in self.made.items():
            stay = Stay(self.cloud.name, self.price, made, self.ended.get(machine, self.site.clock.now()))
            for day, amount in stay.by_day(self.billing):
                days[day] += amount
        return days


def budgeted(
    prices: list[float],
    budget: Budget,
    *,
    billing: Billing | None = None,
    choose: Choose = Choose.ORDER,
    minimum: int = 0,
) -> tuple[Site, list[Bill]]:
    """A site with a cloud for each price, and what each of them charges."""
    charged = billing or Billing()
    site = Site(maximum=40, minimum=minimum, prices=prices, budget=budget, billing=charged, choose=choose)
    return site, [Bill(site, cloud, price, charged) for cloud, price in zip(site.clouds, prices, strict=True)]


def check(bills: list[Bill], budget: Budget) -> None:
    """No day of any cloud costs more than it may."""
    for bill in bills:
        for day, cost in bill.days().items():
            assert cost <= budget.per_day + 1e-6, (bill.cloud.name, day, cost)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_restarts_and_hours_without_a_controller_pass_no_budget(seed: int) -> None:
    """Start: two clouds. Do: random jobs; kill controllers, some for hours. Expected: no day too dear, no job ended."""

    async def main() -> None:
        dice = Random(seed)
        budget = Budget(3.0, dice.choice([HOUR / 2, 2 * HOUR]))
        billing = dice.choice([Billing(), Billing(HOUR, HOUR)])
        site, bills = budgeted([0.1, 0.25], budget, billing=billing, choose=dice.choice(list(Choose)))
        async with site:
            await site.up()
            for _ in range(14):
                site.submit(dice.randint(1, 12), duration=dice.uniform(0.1, 1.0) * budget.longest_job)
                await asyncio.sleep(dice.uniform(5 * MINUTE, 2 * HOUR))
                if dice.random() < 0.5:
                    await site.kill()
                    await asyncio.sleep(dice.choice([1.0, 30.0, 20 * MINUTE, 3 * HOUR]))
                    await site.up()
            check(bills, budget)
            assert site.queue.count(FakeJobState.DONE) > 0
            assert sum(sum(bill.days().values()) for bill in bills) > 1.0

    scenario(main)()


def test_what_was_spent_is_known_to_the_next_controller() -> None:
    """Start: a day's work has been paid for. Do: kill -9, start anew. Expected: the same sum, and nothing is launched."""

    async def main() -> None:
        budget = Budget(1.0, HOUR / 4)
        site, bills = budgeted([0.5], budget)
        async with site:
            await site.up()
            site.submit(40, duration=HOUR / 4)
            await asyncio.sleep(80 * MINUTE)
            launched, (spent,) = site.launches(), bills[0].days().values()
            assert 0.5 < spent <= 1.0
            controller = await site.restart()
            await asyncio.sleep(5 * MINUTE)
            cycle = controller.cycle
            assert cycle is not None
            told = spending_of(cycle.snapshot, controller.rules)[site.cloud.name]
            assert told.spent == pytest.approx(bills[0].days()[day_of(site.clock.now())], abs=0.05)
            assert site.launches() == launched
            why = (await controller.explain(GROUP)).because
            assert "at-budget" in why
            assert "of 1.00 of today's budget are spent or kept back" in why
            check(bills, budget)

    scenario(main)()


def test_a_new_day_brings_new_money() -> None:
    """Start: the budget of the day is used up. Do: wait for midnight. Expected: machines, paid for by the new day."""

    async def main() -> None:
        budget = Budget(0.6, HOUR / 4)
        site, bills = budgeted([0.5], budget)
        async with site:
            await site.up()
            site.submit(40, duration=HOUR / 4)
            midnight = (day_of(site.clock.now()) + 1) * DAY
            await asyncio.sleep(midnight - site.clock.now() - 40 * MINUTE)
            assert site.controller.cycle is not None
            assert site.controller.cycle.plan.why_group[GROUP].cause is Cause.AT_BUDGET
            assert site.queue.count(FakeJobState.WAITING) > 0
            launched = site.launches()
            await asyncio.sleep(42 * MINUTE)
            assert site.launches() > launched
            assert len(bills[0].days()) == 2
            check(bills, budget)

    scenario(main)()


def test_the_last_money_of_a_day_drains_the_idle_one_first() -> None:
    """Start: two workers that are kept, one of them busy. Do: let time eat the budget. Expected: the idle one goes, the
    busy one goes on for what that saves, and is drained in time too."""

    async def main() -> None:
        budget = Budget(3.0, HOUR)
        site, bills = budgeted([0.5], budget, minimum=2)
        async with site:
            await asyncio.sleep(2 * HOUR)  # after midnight: the clock starts at 22:13
            await site.up()
            await site.until(lambda: len(site.in_state(WorkerState.JOINED)) == 2, within=10 * MINUTE)
            busy: dict[str, float] = {}
            while site.machines():
                if not site.queue.count(FakeJobState.RUNNING) + site.queue.count(FakeJobState.WAITING):
                    site.submit(1, duration=0.9 * HOUR)
                busy |= {each.id: site.clock.now() for each in site.workers if site.queue.running_on(each.id)}
                await asyncio.sleep(MINUTE)
            drains = [
                (each.event.subject, each.event.at)
                for each in await site.store.events(kind="worker", limit=1000)
                if each.event.text == WorkerState.DRAINING and each.event.reason is not None
            ]
            assert len(drains) == 2
            (idle, first), (other, second) = drains
            assert busy.get(idle, 0.0) < first < busy[other]
            assert second > first + HOUR / 2
            check(bills, budget)
            assert max(bills[0].days().values()) > 2.0

    scenario(main)()
