"""The policy ``tide`` on a whole site, from a laptop's to one whose load goes up and down."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from gridtide.model.ids import ShapeName
from gridtide.model.resources import Resources, Shape
from gridtide.model.rules import TidePolicy
from gridtide.model.workers import WorkerState
from gridtide.queues.fake import FakeJobState
from tests.scenarios.harness import Site, scenario

IDLE_FOR = 1800.0
TIDE = TidePolicy(idle_for=IDLE_FOR)
LARGE = Shape(ShapeName("eight"), Resources(8, 8192, 8192))


def waits(site: Site, jobs: list[str]) -> list[float]:
    """Seconds from their submission to their start."""
    each = [site.queue.jobs[job] for job in jobs]
    return [job.started - job.submitted for job in each if job.started is not None]


@scenario
async def test_a_laptop_site_starts_at_once_and_is_empty_again_in_time() -> None:
    """Start: at most 4 workers. Do: submit 80 jobs. Expected: 4 machines at once, never another; none after idle_for."""
    async with Site(maximum=4, policy=TIDE) as site:
        await site.up()
        await asyncio.sleep(600)
        assert site.machines() == 0
        site.submit(80, duration=30)
        await site.until(lambda: site.machines() == 4, within=1.0)
        await site.until(lambda: site.queue.count(FakeJobState.DONE) == 80, within=1200)
        await site.until(lambda: site.machines() == 0 and not site.workers, within=IDLE_FOR + 120)
        assert site.launches() == 4


@scenario
async def test_one_job_gets_one_machine_and_the_next_one_finds_it() -> None:
    """Start: an idle site. Do: a job, and another four minutes after its end. Expected: one machine for both, which stays
    no longer than idle_for although jobs came often."""
    async with Site(maximum=50, policy=TIDE, more_shapes=[LARGE]) as site:
        await site.up()
        site.submit(1, duration=60)
        await site.until(lambda: site.queue.count(FakeJobState.DONE) == 1, within=300)
        await asyncio.sleep(240)
        (second,) = site.submit(1, duration=60)
        await site.until(lambda: site.queue.count(FakeJobState.DONE) == 2, within=61)
        assert waits(site, [second]) == [0.0]
        await site.until(lambda: site.machines() == 0, within=IDLE_FOR + 120)
        assert site.launches() == 1


@scenario
async def test_a_site_that_knows_its_tide_has_room_before_jobs_wait() -> None:
    """Start: 120 cores work, and 15 more for a while every quarter of an hour. Do: that for two hours, then some jobs
    more than there is room for. Expected: there was room ahead of them, and as many start without a boot."""
    async with Site(maximum=400, policy=TIDE) as site:
        await site.up()
        site.submit(120, duration=40_000)
        for _ in range(8):
            site.submit(15, duration=600)
            await asyncio.sleep(900)
        joined = len(site.in_state(WorkerState.JOINED))
        free = joined - site.queue.count(FakeJobState.RUNNING)
        assert 0 < free <= 25
        some = site.submit(free + 5, duration=600)
        await asyncio.sleep(600)
        assert sorted(waits(site, some))[:free] == [0.0] * free


@scenario
async def test_a_restart_forgets_the_tide_and_neither_launches_nor_drains_for_it() -> None:
    """Start: 100 cores work, 10 have become idle. Do: kill the controller. Expected: nothing is launched; the idle ones
    stay for as long as any would, then go."""
    async with Site(maximum=400, policy=TIDE) as site:
        await site.up()
        site.submit(100, duration=40_000)
        site.submit(10, duration=600)
        await site.until(lambda: site.queue.count(FakeJobState.DONE) == 10, within=900)
        await site.restart()
        made = site.launches()
        await asyncio.sleep(240)
        assert len(site.in_state(WorkerState.JOINED)) == 110
        await site.until(lambda: len(site.workers) == 100, within=200, what="the end of the idle ones")
        assert site.launches() == made


@scenario
async def test_load_that_returns_takes_drains_back() -> None:
    """Start: 30 workers, 20 of them idle, on a queue whose drains take long. Do: 20 jobs, once some drain. Expected: these
    are taken back, and nothing is launched."""
    async with Site(maximum=100, policy=replace(TIDE, ahead=0.0), drain_delay=60.0) as site:
        await site.up()
        site.submit(10, duration=40_000)
        site.submit(20, duration=600)
        await asyncio.sleep(900)
        await site.until(lambda: bool(site.in_state(WorkerState.DRAINING)), within=2500, what="the drain")
        made = site.launches()
        site.submit(20, duration=600)
        await asyncio.sleep(90)
        assert site.queue.count(FakeJobState.RUNNING) == 30
        assert site.launches() == made == 30
