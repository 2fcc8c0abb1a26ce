"""Policies of packages from elsewhere, in a whole site."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from gridtide.clock import LoopClock
from gridtide.model.reasons import Cause
from gridtide.model.rules import QueuePolicy
from gridtide.planning.policies import Aim, Outlook, PlugInPolicy
from gridtide.queues.fake import FakeJobState
from tests.scenarios.harness import GROUP, Site, scenario


@dataclass(frozen=True, slots=True)
class Fails(PlugInPolicy):
    """Works for a while, as a policy that was tested too little."""

    until: float

    def aim(self, outlook: Outlook) -> Aim:
        """Fails from its time on."""
        if outlook.now >= self.until:
            raise ZeroDivisionError("a fault of its own")
        return Aim(outlook.memory, idle_for=60.0)


@scenario
async def test_a_policy_that_fails_stops_its_group_and_no_other() -> None:
    """Start: two groups, jobs run in both. Do: one's policy begins to fail. Expected: its workers stay, the other group works on."""
    async with Site(maximum=2, may_pass_maximum=True, policy=Fails(LoopClock().now() + 300.0)) as site:
        other = site.add_group("other", policy=QueuePolicy(idle_for=60.0))
        await site.up()
        site.submit(4, duration=600)
        await site.until(lambda: site.machines() == 4, within=120)
        await asyncio.sleep(1800)
        assert site.queue.count(FakeJobState.DONE) == 4
        assert len(site.of_group(GROUP)) == 2, "nobody says that they are not wanted"
        assert site.of_group(other) == []
        site.submit(4, duration=600, label="second")
        await site.until(lambda: site.queue.count(FakeJobState.DONE) == 8, within=1000)
        assert site.launches() == 6, "what it has still serves"
        cycle = site.controller.cycle
        assert cycle is not None
        assert cycle.plan.why_group[GROUP].cause is Cause.POLICY_FAILED, "also while nothing waits"
        assert "ZeroDivisionError: a fault of its own" in cycle.plan.why_group[GROUP].text
