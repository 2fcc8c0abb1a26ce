"""Jobs that no real machine takes, though every planned one seems to fit: no endless boot, idle, drain, boot."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from gridtide.model.demand import Attribute
from gridtide.model.reasons import Cause
from gridtide.queues.fake import FakeJobState
from tests.scenarios.harness import GROUP, IDLE_FOR, Site, scenario

MINUTE, HOUR = 60.0, 3600.0
LABEL = "KernelVersion > 99"


def new_kernel(machine: Mapping[str, Attribute]) -> bool:
    """True of every planned machine, since only a real one tells its own name, and of no real one."""
    return "Machine" not in machine


@scenario
async def test_jobs_that_no_real_machine_takes_stop_the_launches() -> None:
    """Start: an idle site. Do: submit 3 jobs that fit every plan and no machine; wait for ten hours.

    Expected: 3 launches, then one after each pause, which doubles: no more than 9 in all. It is said why.
    """
    async with Site(maximum=10) as site:
        await site.up()
        site.submit(3, requirement=new_kernel, label=LABEL)
        await asyncio.sleep(6 * MINUTE)
        assert site.launches() == 3
        assert site.why_demand(LABEL).cause is Cause.NOT_TAKEN
        assert "one is tried there in" in site.why_demand(LABEL).text
        cycle = site.controller.cycle
        assert cycle is not None
        assert cycle.plan.why_group[GROUP].cause in (Cause.NOT_TAKEN, Cause.IDLE)
        explained = await site.controller.explain(GROUP)
        assert "not-taken" in explained.because
        await asyncio.sleep(IDLE_FOR)
        assert site.machines() == 0, "they are of no use and go"
        await asyncio.sleep(10 * HOUR)
        assert 5 <= site.launches() <= 9, site.launches()
        assert site.queue.count(FakeJobState.WAITING) == 3


@scenario
async def test_other_jobs_of_the_group_are_served_meanwhile() -> None:
    """Start: jobs that no machine takes have been found out. Do: submit jobs that run. Expected: they run at once."""
    async with Site(maximum=10) as site:
        await site.up()
        site.submit(3, requirement=new_kernel, label=LABEL)
        await asyncio.sleep(15 * MINUTE)
        site.submit(5, duration=60.0)
        await site.until(lambda: site.queue.count(FakeJobState.DONE) == 5, within=4 * MINUTE)


@scenario
async def test_a_scheduler_that_was_away_costs_one_probe() -> None:
    """Start: a scheduler that places nothing. Do: submit 6 jobs; after half an hour it works again.

    Expected: the jobs run, all at once as soon as one of them did, long before the longest pause.
    """
    async with Site(maximum=10) as site:
        await site.up()
        fill = site.queue._fill
        site.queue._fill = lambda node, at: None  # type: ignore[method-assign]
        site.submit(6, duration=HOUR)
        await asyncio.sleep(30 * MINUTE)
        before = site.launches()
        assert before <= 8
        site.queue._fill = fill  # type: ignore[method-assign]
        await site.until(lambda: site.queue.count(FakeJobState.RUNNING) == 6, within=30 * MINUTE)


@scenario
async def test_a_steady_stream_is_never_taken_for_jobs_that_nobody_takes() -> None:
    """Start: an idle site. Do: 3 short jobs every 20 s for 2 h. Expected: none of them is ever called not taken."""
    async with Site(maximum=3) as site:
        await site.up()
        for _ in range(360):
            site.submit(3, duration=19.0, label="short")
            await asyncio.sleep(20)
            cycle = site.controller.cycle
            assert cycle is not None
            assert all(reason.cause is not Cause.NOT_TAKEN for reason in cycle.plan.why_demand.values())
        await site.until(lambda: site.queue.count(FakeJobState.DONE) == 1080, within=HOUR)
