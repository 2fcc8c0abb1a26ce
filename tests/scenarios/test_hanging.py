"""A cloud that hangs on every call costs the others nothing: not a cycle, and not the first look at the queue."""

from __future__ import annotations

import asyncio

import pytest

from gridtide.clouds.fake import CloudCall, CloudFault
from tests.scenarios.harness import Site, scenario

MOMENTS = [0.0, 0.4, 3.0, 9.5, 14.9, 21.0, 29.0, 31.0, 44.0, 61.0, 75.3, 95.0]
"""Seconds at which a job is submitted: before and after the deadlines of the hanging calls, and their repetition."""
WARM = 61.0
"""Seconds after the start from which on a group does not wait any more for a cloud that has never answered."""


async def launched_after(*, hanging: bool, before: float) -> list[float]:
    """Seconds from each submission to the launch call that it causes, on the first of three clouds.

    The third hangs (or does not) from ``before`` seconds before the first submission on.
    """
    took: list[float] = []
    async with Site(maximum=len(MOMENTS), clouds=3) as site:
        if hanging:
            site.clouds[2].faults.inject(CloudFault.HANG, after=WARM - before)
        await site.up()
        await asyncio.sleep(WARM)
        began = site.clock.now()
        for number, moment in enumerate(MOMENTS, start=1):
            await asyncio.sleep(began + moment - site.clock.now())
            submitted = site.clock.now()
            site.submit(1, duration=600)
            while site.cloud.record.calls[CloudCall.LAUNCH] < number:
                assert site.clock.now() < submitted + 5.0, f"no launch for the job of {moment} s"
                await asyncio.sleep(0.001)
            took.append(site.clock.now() - submitted)
    return took


@pytest.mark.parametrize("before", [WARM, 7.0, 0.0], ids=["from the start", "for some seconds", "from now on"])
def test_the_others_launch_as_fast_as_ever(before: float) -> None:
    """Start: three clouds. Do: one hangs. Expected: launches on another are as early as without.

    The first read that hangs, and no other, may cost one of them the patience of a cycle.
    """

    async def main() -> None:
        without = await launched_after(hanging=False, before=before)
        beside = await launched_after(hanging=True, before=before)
        slower = [b / a for a, b in zip(without, beside, strict=True) if b > 1.1 * a]
        assert len(slower) <= (0 if before == WARM else 1), (without, beside)

    scenario(main)()
