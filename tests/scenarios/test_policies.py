"""Policies on a whole site: loads that come from heartbeats, windows that open while nothing else happens."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from gridtide.clock import LoopClock
from gridtide.model.rules import LoadPolicy, SchedulePolicy, Window
from gridtide.model.workers import WorkerState
from gridtide.queues.fake import FakeJobState
from tests.scenarios.harness import Site, scenario

MINUTE, HOUR = 60.0, 3600.0


def joined(site: Site) -> int:
    return len(site.in_state(WorkerState.JOINED))


@scenario
async def test_load_adds_one_after_the_other_and_gives_them_back() -> None:
    """Start: a minimum of 1. Do: 40 jobs of 10 min. Expected: one more a minute up to 4, all done once, then 1 again."""
    async with Site(minimum=1, maximum=4, policy=LoadPolicy()) as site:
        await site.up()
        await site.until(lambda: joined(site) == 1, within=5 * MINUTE)
        site.submit(40, duration=600)
        two = await site.until(lambda: site.machines() == 2, within=3 * MINUTE)
        three = await site.until(lambda: site.machines() == 3, within=3 * MINUTE)
        assert two >= MINUTE
        assert three >= MINUTE, "the cooldown"
        await site.until(lambda: site.machines() == 4, within=3 * MINUTE)
        await site.until(lambda: site.queue.count(FakeJobState.DONE) == 40, within=4 * HOUR)
        await site.until(lambda: site.machines() == 1, within=10 * MINUTE)
        await asyncio.sleep(HOUR)
        assert joined(site) == 1
        assert all(job.starts == 1 for job in site.queue.jobs.values())


@scenario
async def test_a_long_job_survives_every_low_load_around_it() -> None:
    """The source document's own test: one job of 10 h, and each hour short ones that make the pool grow and shrink."""
    async with Site(minimum=1, maximum=4, policy=LoadPolicy()) as site:
        await site.up()
        (long_job,) = site.submit(1, duration=10 * HOUR)
        for _ in range(10):
            site.submit(3, duration=60)
            await asyncio.sleep(HOUR)
        await site.until(lambda: site.queue.count(FakeJobState.DONE) == 31, within=2 * HOUR)
        assert site.queue.jobs[long_job].starts == 1


@scenario
async def test_workers_that_cannot_be_heard_are_not_taken_for_idle() -> None:
    """Start: 3 loaded workers. Do: their jobs end, and no heartbeat arrives. Expected: all stay; then reports, then 1."""
    async with Site(minimum=1, maximum=3, policy=LoadPolicy(), lease=4 * HOUR) as site:
        await site.up()
        site.submit(9, duration=900)
        await site.until(lambda: joined(site) == 3, within=HOUR)
        site.world.connect(None)
        await site.until(lambda: site.queue.count(FakeJobState.DONE) == 9, within=2 * HOUR)
        await asyncio.sleep(HOUR)
        assert joined(site) == 3
        site.world.connect(site.controller)
        await site.until(lambda: site.machines() == 1, within=10 * MINUTE)


@scenario
async def test_a_group_without_minimum_wakes_up_for_a_job() -> None:
    async with Site(maximum=2, policy=LoadPolicy()) as site:
        await site.up()
        await asyncio.sleep(HOUR)
        assert site.machines() == 0
        site.submit(1, duration=60)
        await site.until(lambda: site.machines() == 1, within=MINUTE)
        await site.until(lambda: site.machines() == 0, within=15 * MINUTE)


@scenario
async def test_a_window_is_acted_on_at_its_time_though_nothing_else_happens() -> None:
    """Start: an idle site. Do: wait. Expected: 3 workers at the window's minute, gone when it is over, no job killed."""
    begin = (LoopClock().now() // 60 + 90) * 60
    moment = datetime.fromtimestamp(begin, UTC)
    window = Window(f"{moment.minute} {moment.hour} * * *", 2 * HOUR, minimum=3)
    async with Site(maximum=4, policy=SchedulePolicy((window,))) as site:
        await site.up()
        await asyncio.sleep(begin - site.clock.now() - 1.0)
        assert site.machines() == 0
        await site.until(lambda: site.machines() == 3, within=3.0)
        await asyncio.sleep(HOUR)
        assert joined(site) == 3
        site.submit(1, duration=3 * HOUR)
        await site.until(lambda: site.machines() == 1, within=2 * HOUR)
        assert site.clock.now() >= begin + 2 * HOUR
        await site.until(lambda: site.queue.count(FakeJobState.DONE) == 1, within=3 * HOUR)


@scenario
async def test_warm_workers_follow_those_that_run_jobs() -> None:
    async with Site(maximum=4, policy=SchedulePolicy((), warm=1)) as site:
        await site.up()
        await site.until(lambda: joined(site) == 1, within=5 * MINUTE)
        (job,) = site.submit(1, duration=HOUR)
        await asyncio.sleep(1.0)
        assert site.queue.jobs[job].state is FakeJobState.RUNNING, "it did not wait for a boot"
        await site.until(lambda: joined(site) == 2, within=5 * MINUTE)
        await asyncio.sleep(2 * HOUR)
        assert joined(site) == 1
