"""What only shows where a plan takes its time."""

from __future__ import annotations

import asyncio

import pytest
from benchmarks.cycle import Size, measure

from gridtide.clock import LoopClock
from gridtide.model.actions import Plan
from gridtide.model.rules import SiteRules
from gridtide.model.snapshot import Snapshot
from gridtide.planning import Planner
from tests.scenarios.harness import Site, scenario


class LateClock(LoopClock):
    """Goes on while something is computed, which virtual time does not."""

    late = 0.0

    def now(self) -> float:
        return super().now() + self.late


@scenario
async def test_a_plan_that_takes_long_is_made_less_often() -> None:
    """However much happens, three quarters of the time are left to the service."""
    site = Site()
    clock = site.clock = LateClock()
    honest = Planner.plan

    def slow(planner: Planner, snapshot: Snapshot, rules: SiteRules) -> Plan:
        clock.late += 0.2
        return honest(planner, snapshot, rules)

    with pytest.MonkeyPatch.context() as patch:
        async with site:
            await site.up()
            await asyncio.sleep(1)
            patch.setattr(Planner, "plan", slow)
            for _ in range(600):
                site.controller.wake("something happened")
                await asyncio.sleep(0.01)
    assert clock.late == pytest.approx(6.0 / 0.6 * 0.2, abs=0.41)


def test_the_benchmark_of_cycles_replaces_workers() -> None:
    """In small: its times are for ``make bench``."""
    found = measure(Size(workers=200, jobs=4_000, kinds=8, seconds=120.0))
    assert found["cycles"] > 20
    assert 2 <= found["replaced"] <= 6
