"""Replacing workers of an older image or context."""

from __future__ import annotations

import asyncio

from gridtide.model.demand import NodeState
from gridtide.model.ids import GroupName, ShapeName
from gridtide.model.resources import Resources, Shape
from gridtide.model.rules import QueuePolicy, Wishes
from gridtide.model.workers import WorkerState
from gridtide.queues.fake import FakeJobState
from tests.scenarios.harness import GROUP, Site, scenario

BIG = Shape(ShapeName("thirteen"), Resources(13, 64 * 1024, 64 * 1024))


async def keep_running(site: Site, jobs: int) -> None:
    """So many jobs at any time, each of five to fifteen minutes."""
    while True:
        missing = jobs - site.queue.count(FakeJobState.RUNNING) - site.queue.count(FakeJobState.WAITING)
        for _ in range(missing):
            site.queue.submit(1, duration=site.random.uniform(300, 900))
        if missing:
            site.controller.queue_changed(site.queue.name)
        await asyncio.sleep(5)


async def accepting(site: Site) -> int:
    """Cores of the nodes that take jobs."""
    return sum(node.total.cores for node in await site.queue.nodes() if node.state is NodeState.ACCEPTING)


def old(site: Site) -> int:
    return sum(worker.generation != "g2" for worker in site.workers)


@scenario
async def test_eight_workers_with_a_hundred_jobs_are_replaced_without_a_gap() -> None:
    """Start: 100 jobs run on 8 workers. Do: a new image. Expected: all replaced, no job ended, capacity never below 90 %."""
    async with Site(maximum=10, shape=BIG, policy=QueuePolicy(idle_for=600.0)) as site:
        await site.up()
        load = asyncio.create_task(keep_running(site, 100))
        await site.until(lambda: site.queue.count(FakeJobState.RUNNING) == 100, within=600)
        assert len(site.workers) == 8
        await site.update("g2")
        least = await accepting(site)
        hours = 0.0
        while old(site) and hours < 24 * 3600:
            await asyncio.sleep(5)
            hours += 5
            least = min(least, await accepting(site))
        load.cancel()
        assert old(site) == 0
        assert least >= 90, f"{least} cores took jobs, 100 were wanted"
        assert site.queue.count(FakeJobState.RUNNING) > 90
        assert all(job.starts <= 1 for job in site.queue.jobs.values())


@scenario
async def test_a_paused_rollout_replaces_nobody() -> None:
    """Start: 3 busy workers. Do: pause, then a new image; resume. Expected: nothing until resumed, then all replaced."""
    async with Site(maximum=5, shape=BIG, policy=QueuePolicy(idle_for=600.0)) as site:
        await site.up()
        load = asyncio.create_task(keep_running(site, 30))
        await site.until(lambda: site.queue.count(FakeJobState.RUNNING) == 30, within=600)
        await site.controller.set_wishes(GROUP, Wishes(rollout_paused=True), actor="user:rosa")
        await site.update("g2")
        await asyncio.sleep(3600)
        assert (old(site), len(site.workers)) == (3, 3)
        cycle = site.controller.cycle
        assert cycle is not None
        assert "paused" in cycle.plan.rollouts[GroupName(GROUP)].why.text
        await site.controller.set_wishes(GROUP, Wishes(), actor="user:rosa")
        await site.until(lambda: old(site) == 0, within=4 * 3600)
        load.cancel()


@scenario
async def test_without_room_beside_it_waits_and_says_what_would_help() -> None:
    """Start: 3 busy workers, maximum 3. Do: a new image. Expected: no worker is spared; the reason names the maximum."""
    async with Site(maximum=3, shape=BIG, policy=QueuePolicy(idle_for=600.0)) as site:
        await site.up()
        load = asyncio.create_task(keep_running(site, 39))
        await site.until(lambda: site.queue.count(FakeJobState.RUNNING) == 39, within=600)
        await site.update("g2")
        await asyncio.sleep(2 * 3600)
        assert (old(site), len(site.workers)) == (3, 3)
        cycle = site.controller.cycle
        assert cycle is not None
        assert "raise the maximum by 1" in cycle.plan.rollouts[GroupName(GROUP)].why.text
        load.cancel()


@scenario
async def test_an_image_that_never_joins_empties_no_site() -> None:
    """Start: 8 busy workers. Do: an image whose machines never join. Expected: the old workers go on taking jobs."""
    async with Site(maximum=10, shape=BIG, policy=QueuePolicy(idle_for=600.0), join_deadline=300.0) as site:
        await site.up()
        load = asyncio.create_task(keep_running(site, 100))
        await site.until(lambda: site.queue.count(FakeJobState.RUNNING) == 100, within=600)
        site.cloud.boot_time = 1e9
        await site.update("g2")
        for _ in range(6 * 60):
            await asyncio.sleep(60)
            assert await accepting(site) >= 90
        load.cancel()


@scenario
async def test_idle_workers_are_replaced_at_once() -> None:
    """Start: a minimum of 4 idle workers, room beside. Do: a new image. Expected: all new, never fewer than 90 % of 4."""
    async with Site(minimum=4, maximum=6, shape=BIG, policy=QueuePolicy(idle_for=600.0)) as site:
        await site.up()
        await site.until(lambda: len(site.in_state(WorkerState.JOINED)) == 4, within=600)
        await site.update("g2")
        least = 4 * 13
        for _ in range(200):
            await asyncio.sleep(5)
            least = min(least, await accepting(site))
        assert old(site) == 0
        assert least >= 4 * 13 * 0.9
