"""A budget per day is never passed, and no job is ended for it."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from gridtide.clouds.fake import FakeCloud, FakeMachine
from gridtide.model.costs import DAY, HOUR, Billing, Budget, Choose, Stay
from gridtide.model.ids import MachineId
from gridtide.model.resources import Resources, Shape
from gridtide.queues.fake import FakeJobState
from tests.scenarios.harness import SHAPE, Site, scenario

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

    def days(self) -> Counter[int]:
        """By day."""
        days: Counter[int] = Counter()
        for machine, made in self.made.items():
            stay = Stay(self.cloud.name, self.price, made, self.ended.get(machine, self.site.clock.now()))
            for day, amount in stay.by_day(self.billing):
                days[day] += amount  # type: ignore[assignment]
        return days


def billed(site: Site, prices: list[float], billing: Billing) -> list[Bill]:
    return [Bill(site, cloud, price, billing) for cloud, price in zip(site.clouds, prices, strict=True)]


@dataclass(frozen=True)
class Case:
    seed: int
    prices: tuple[float, ...]
    per_day: float
    longest: float
    boot: float
    unit: float
    choose: Choose
    restarts: bool
    days: float = 2.5


async def live(case: Case) -> tuple[Site, list[Bill]]:
    """Days of random demand, with restarts in the middle."""
    dice = Random(case.seed)
    billing = Billing(case.unit, min(case.unit, 60.0))
    site = Site(
        maximum=40,
        prices=case.prices,
        budget=Budget(case.per_day, case.longest),
        billing=billing,
        choose=case.choose,
        boot_time=case.boot,
        shape=Shape(SHAPE.name, Resources(2, 2048, 2048)),
    )
    bills = billed(site, list(case.prices), billing)
    async with site:
        await site.up()
        end = site.clock.now() + case.days * DAY
        while site.clock.now() < end:
            for _ in range(dice.randint(0, 12)):
                site.submit(dice.randint(1, 3), duration=dice.uniform(0.02, 1.0) * case.longest)
            pause = dice.expovariate(1 / (2 * HOUR))
            if case.restarts and dice.random() < 0.4:
                await asyncio.sleep(pause / 2)
                await site.kill()
                await asyncio.sleep(dice.choice([1.0, 30.0, 20 * MINUTE, 3 * HOUR]))
                await site.up()
            await asyncio.sleep(pause)
        assert site.queue.count(FakeJobState.DONE) > 0
    return site, bills


@settings(max_examples=4, deadline=None)
@given(
    st.builds(
        Case,
        seed=st.integers(0, 2**32),
        prices=st.lists(st.sampled_from([0.1, 0.25, 0.6, 1.0]), min_size=1, max_size=3).map(tuple),
        per_day=st.sampled_from([3.0, 10.0, 25.0]),
        longest=st.sampled_from([0.25 * HOUR, HOUR, 4 * HOUR]),
        boot=st.sampled_from([5.0, 120.0, 500.0]),
        unit=st.sampled_from([1.0, 60.0, HOUR]),
        choose=st.sampled_from(list(Choose)),
        restarts=st.booleans(),
    )
)
def test_no_day_passes_its_budget(case: Case) -> None:
    """Start: clouds with budgets. Do: random demand for days. Expected: every day within the budget, no job ended."""

    async def main() -> None:
        _, bills = await live(case)
        for bill in bills:
            for day, amount in bill.days().items():
                assert amount <= case.per_day + 1e-6, (case, bill.cloud.name, day, amount)

    scenario(main)()
