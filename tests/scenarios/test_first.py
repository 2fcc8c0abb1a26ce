"""The plain course of things."""

from __future__ import annotations

import asyncio

from gridtide.queues.fake import FakeJobState
from tests.scenarios.harness import IDLE_FOR, Site, scenario


@scenario
async def test_workers_rise_with_the_queue_and_fall_with_it() -> None:
    """Start: an idle site. Do: submit 10 jobs. Expected: 4 workers, all jobs done once, then none and no machine."""
    async with Site(maximum=4) as site:
        await site.up()
        await asyncio.sleep(30)
        assert site.machines() == 0
        site.queue.submit(10, duration=600)
        site.controller.queue_changed(site.queue.name)
        assert await site.until(lambda: site.machines() == 4, within=1.0) <= 1.0
        await site.until(lambda: site.queue.count(FakeJobState.DONE) == 10, within=3600)
        await site.until(lambda: site.machines() == 0 and not site.workers, within=IDLE_FOR + 120)
        assert all(job.starts == 1 for job in site.queue.jobs.values())
        assert site.launches() == 4
