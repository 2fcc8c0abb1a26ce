"""Several queues and groups on one cloud whose quota does not hold what all of them want."""

from __future__ import annotations

import asyncio

import pytest

from gridtide.model.ids import GroupName, ShapeName
from gridtide.model.machines import Quota
from gridtide.model.reasons import Cause
from gridtide.model.resources import Resources, Shape
from gridtide.model.rules import QueuePolicy
from gridtide.model.workers import WorkerState
from gridtide.queues.fake import FakeJobState
from tests.scenarios.harness import GROUP, SHAPE, Site, scenario

MINUTE, HOUR = 60.0, 3600.0
WIDE = Shape(ShapeName("wide"), Resources(8, 8192, 8192))


def staying(site: Site, group: GroupName) -> int:
    """Cores of its workers that are not on their way out."""
    out = (WorkerState.DRAINING, WorkerState.DRAINED, WorkerState.FAILED, WorkerState.TERMINATING)
    return sum(worker.shape.resources.cores for worker in site.of_group(group) if worker.state not in out)


def total(site: Site, state: FakeJobState) -> int:
    """Jobs of all queues."""
    return sum(queue.count(state) for queue in site.queues)


@scenario
async def test_jobs_of_different_shapes_go_to_different_groups() -> None:
    """Start: a group of small and a group of wide machines on one queue. Do: submit jobs of both kinds.

    Expected: each group makes the machines for its own kind.
    """
    async with Site(maximum=20, more_shapes=(WIDE,)) as site:
        site._group = site._more_groups.pop(site.add_group(GROUP, shapes=(SHAPE,)))
        wide = site.add_group("wide", shapes=(WIDE,))
        await site.up()
        site.submit(3, duration=HOUR, need=Resources(8, 8192))
        site.submit(4, duration=HOUR)
        await site.until(lambda: site.queue.count(FakeJobState.RUNNING) == 7, within=5 * MINUTE)
        assert {worker.shape.name for worker in site.of_group(wide)} == {WIDE.name}
        assert len(site.of_group(wide)) == 3
        assert len(site.of_group(GROUP)) == 4


@pytest.mark.parametrize(("shares", "parts"), [((1.0, 1.0), (6, 6)), ((1.0, 2.0), (4, 8)), ((5.0, 1.0), (10, 2))])
def test_two_queues_share_one_quota(shares: tuple[float, float], parts: tuple[int, int]) -> None:
    """Start: a quota of 12 cores. Do: 50 jobs in each of two queues. Expected: machines by share, and never more."""

    async def main() -> None:
        async with Site(maximum=30, queues=2, quota=Quota(cores=12), share=shares[0]) as site:
            other = site.add_group("other", queue=1, share=shares[1])
            await site.up()
            for queue in (0, 1):
                site.submit(20, queue=queue, duration=30 * MINUTE)
            await asyncio.sleep(10 * MINUTE)
            assert (staying(site, GROUP), staying(site, other)) == parts
            assert site.machines() == 12
            why = site.why_demand("1 core, 1 GiB memory", site.queues[1].name)
            assert why.cause is Cause.AT_QUOTA
            assert "fair part" in why.text
            await site.until(lambda: total(site, FakeJobState.DONE) == 40, within=24 * HOUR)
            assert site.cloud.record.most_alive <= 12

    scenario(main)()


@scenario
async def test_what_one_group_does_not_use_is_for_the_others() -> None:
    """Start: a quota of 12 cores. Do: 2 jobs in one queue, 50 in the other. Expected: 2 and 10 machines."""
    async with Site(maximum=30, queues=2, quota=Quota(cores=12)) as site:
        other = site.add_group("other", queue=1)
        await site.up()
        site.submit(2, duration=HOUR)
        site.submit(50, queue=1, duration=HOUR)
        await asyncio.sleep(10 * MINUTE)
        assert (staying(site, GROUP), staying(site, other)) == (2, 10)


@scenario
async def test_who_comes_late_gets_its_part_without_a_job_being_ended() -> None:
    """Start: one group fills the quota of 12 with an endless queue. Do: the other group gets 50 jobs.

    Expected: within an hour (the jobs take 20 min) it has its 6 machines; every job runs once.
    """
    async with Site(maximum=30, queues=2, quota=Quota(cores=12)) as site:
        other = site.add_group("other", queue=1)
        await site.up()
        site.submit(400, duration=20 * MINUTE)
        await site.until(lambda: site.queue.count(FakeJobState.RUNNING) == 12, within=5 * MINUTE)
        site.submit(50, queue=1, duration=20 * MINUTE)
        await site.until(lambda: site.queues[1].count(FakeJobState.RUNNING) == 6, within=HOUR)
        assert staying(site, GROUP) == 6
        for _ in range(60):
            await asyncio.sleep(MINUTE)
            assert staying(site, GROUP) >= 6, "no more than the part of the other is given up"
        assert staying(site, other) == 6
        assert all(job.starts <= 1 for queue in site.queues for job in queue.jobs.values())
        assert site.cloud.record.most_alive <= 12


@scenario
async def test_idle_machines_are_given_up_early_when_another_group_waits() -> None:
    """Start: one group keeps 12 idle machines for hours. Do: the other one needs 12. Expected: it has them in 6 min."""
    async with Site(maximum=30, queues=2, quota=Quota(cores=12), policy=QueuePolicy(idle_for=6 * HOUR)) as site:
        other = site.add_group("other", queue=1)
        await site.up()
        site.submit(12, duration=10 * MINUTE)
        await site.until(lambda: site.queue.count(FakeJobState.DONE) == 12, within=20 * MINUTE)
        assert site.machines() == 12
        await asyncio.sleep(2 * MINUTE)
        site.submit(12, queue=1, duration=HOUR)
        await site.until(lambda: site.queues[1].count(FakeJobState.RUNNING) == 12, within=6 * MINUTE)
        assert not site.of_group(GROUP)
        assert staying(site, other) == 12


@scenario
async def test_a_wide_machine_is_not_starved_by_small_ones() -> None:
    """Start: small machines fill a quota of 12, their queue is endless. Do: one job that needs 8 cores.

    Expected: room is kept for its machine until it has it.
    """
    async with Site(maximum=30, queues=2, quota=Quota(cores=12), more_shapes=(WIDE,)) as site:
        site._group = site._more_groups.pop(site.add_group(GROUP, shapes=(SHAPE,)))
        wide = site.add_group("wide", queue=1, shapes=(WIDE,))
        await site.up()
        site.submit(600, duration=15 * MINUTE)
        await site.until(lambda: site.queue.count(FakeJobState.RUNNING) == 12, within=5 * MINUTE)
        site.submit(1, queue=1, duration=15 * MINUTE, need=Resources(8, 8192))
        await site.until(lambda: site.queues[1].count(FakeJobState.RUNNING) == 1, within=HOUR)
        assert len(site.of_group(wide)) == 1
        assert staying(site, GROUP) == 4
        await site.until(lambda: staying(site, GROUP) == 12, within=HOUR, what="taking the room back")


@scenario
async def test_three_groups_with_coming_and_going_demand_all_get_on() -> None:
    """Start: a quota of 9 cores, three queues. Do: bursts of jobs at random for five hours. Expected: every job runs, once."""
    async with Site(maximum=9, queues=3, quota=Quota(cores=9), policy=QueuePolicy(idle_for=HOUR)) as site:
        for number in (1, 2):
            site.add_group(f"g{number}", queue=number, share=float(number))
        await site.up()
        for _ in range(40):
            queue = site.random.randrange(3)
            site.submit(site.random.randint(1, 15), queue=queue, duration=site.random.uniform(60.0, HOUR / 3))
            await asyncio.sleep(site.random.uniform(0.0, 15 * MINUTE))
        await site.until(lambda: total(site, FakeJobState.WAITING) == 0, within=24 * HOUR)
        await asyncio.sleep(HOUR)
        for fake in site.queues:
            assert all(job.starts == 1 for job in fake.jobs.values())
        assert site.cloud.record.most_alive <= 9
