"""The wall clock is set between one process of the controller and the next: what the first recorded is no measure then."""

from __future__ import annotations

import asyncio

import pytest

from gridtide.clouds.fake import CloudCall, CloudFault
from gridtide.model.workers import WorkerState
from gridtide.queues.fake import FakeJobState
from tests.scenarios.harness import Site, scenario
from tests.scenarios.test_fatal_cases import HOUR, MINUTE


@pytest.mark.parametrize("step", [HOUR, -HOUR, 0.0])
def test_a_machine_that_is_not_listed_yet_is_not_made_again(step: float) -> None:
    """Start: a launch whose answer is lost, on a cloud that lists machines 100 s late. Do: restart with a step.

    Expected: the worker is not given up before the listing can show its machine, so the maximum of 1 is kept. (An hour
    forwards its join token has expired: that costs another launch.)
    """

    async def main() -> None:
        async with Site(maximum=1, list_lag=100.0, boot_time=240.0) as site:
            site.cloud.faults.inject(CloudFault.ITEM_LOST, call=CloudCall.LAUNCH, times=1)
            await site.up()
            site.submit(2, duration=600)
            await site.until(lambda: site.launches() == 1, within=MINUTE)
            site.wall_step = step
            await site.restart()
            await site.until(lambda: site.queue.count(FakeJobState.DONE) == 2, within=HOUR)
            assert site.launches() == (2 if step > 0 else 1)

    scenario(main)()


@pytest.mark.parametrize("step", [HOUR, -HOUR])
@pytest.mark.parametrize("state", [WorkerState.TERMINATING, WorkerState.BOOTING])
def test_what_was_begun_before_a_step_is_ended_after_it(step: float, state: WorkerState) -> None:
    """Start: a worker that is being ended, or boots and will never join. Do: restart with a step of an hour.

    Expected: it is gone within minutes, not after the hour by which the clock differs.
    """

    async def main() -> None:
        async with Site(maximum=1, join_deadline=300.0, leave_when_drained=False) as site:
            if state is WorkerState.BOOTING:
                site.cloud.faults.inject(CloudFault.DEAD_ON_ARRIVAL)
            if state is WorkerState.TERMINATING:
                site.cloud.faults.inject(CloudFault.RAISE, call=CloudCall.TERMINATE, seconds=12 * MINUTE)
            await site.up()
            site.submit(1, duration=60)
            await site.until(lambda: len(site.in_state(state)) == 1, within=15 * MINUTE)
            site.queue.cancel_waiting()
            site.wall_step = step
            await site.restart()
            await asyncio.sleep(1.0)
            await site.until(lambda: site.machines() == 0 and not site.workers, within=12 * MINUTE)

    scenario(main)()


@pytest.mark.parametrize("step", [HOUR, -HOUR])
def test_a_launch_before_a_step_tells_nothing_of_room_nor_of_boot_times(step: float) -> None:
    """Start: five machines boot. Do: restart with a step, the cloud is sold out, a launch is refused, the five join.

    Expected: they do not make the cloud look as if it had room, and nothing is learned from how long they took.
    """

    async def main() -> None:
        async with Site(maximum=8, boot_time=30.0, join_deadline=3 * HOUR) as site:
            await site.up()
            site.submit(5, duration=HOUR)
            await site.until(lambda: site.launches() == 5, within=MINUTE)
            site.wall_step = step
            await site.restart()
            await asyncio.sleep(10.0)
            site.cloud.faults.inject(CloudFault.REFUSE, seconds=HOUR)
            site.submit(1, duration=HOUR)
            await site.until(lambda: len(site.in_state(WorkerState.JOINED)) == 5, within=MINUTE)
            assert site.cloud.record.calls[CloudCall.LAUNCH] == 2
            await asyncio.sleep(5.0)
            assert site.cloud.record.calls[CloudCall.LAUNCH] == 2
            assert site.controller.boot_times == {}

    scenario(main)()
