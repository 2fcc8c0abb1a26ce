"""The fake cloud passes the suite that real drivers must pass, in its calm and in its worst manners."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import pytest

from gridtide.clouds.fake import FakeCloud
from gridtide.model.ids import CloudName, MachineId, Zone
from gridtide.testing.clocks import ManualClock
from gridtide.testing.clouds import CloudBench, CloudConformance


class FakeCloudConformance(CloudConformance):
    """``manners`` are arguments of the fake."""

    manners: dict[str, float]

    @asynccontextmanager
    async def bench(self) -> AsyncIterator[CloudBench]:
        clock = ManualClock()
        cloud = FakeCloud(CloudName("fake"), clock, Random(1), zones=(Zone("a"),), **self.manners)  # type: ignore[arg-type]

        async def wait(seconds: float) -> None:
            clock.advance(seconds)

        async def add_foreign() -> MachineId:
            return cloud.add_foreign()

        async def break_machine(machine: MachineId) -> None:
            cloud.break_machine(machine)

        yield CloudBench(cloud, lambda: cloud, add_foreign, break_machine, Zone("a"), wait=wait)


class TestCalmCloud(FakeCloudConformance):
    manners = {}  # noqa: RUF012 - never changed


class TestSlowCloud(FakeCloudConformance):
    manners = {"list_lag": 20.0, "end_time": 15.0, "gone_listed": 100.0, "boot_jitter": 30.0}  # noqa: RUF012


async def test_the_suite_notices_a_cloud_that_doubles() -> None:
    class Doubling(TestCalmCloud):
        @asynccontextmanager
        async def bench(self) -> AsyncIterator[CloudBench]:
            async with super().bench() as bench:
                assert isinstance(bench.cloud, FakeCloud)
                from gridtide.clouds.fake import CloudFault

                bench.cloud.faults.inject(CloudFault.DOUBLES)
                yield bench

    with pytest.raises(AssertionError, match="same machine"):
        await Doubling().test_the_same_request_again_makes_no_second_machine()


async def test_the_suite_notices_a_listing_that_is_too_short() -> None:
    class Short(FakeCloud):
        async def machines(self):  # type: ignore[no-untyped-def]
            return (await super().machines())[:50]

    class Forgetful(TestCalmCloud):
        @asynccontextmanager
        async def bench(self) -> AsyncIterator[CloudBench]:
            async with super().bench() as bench:
                assert isinstance(bench.cloud, FakeCloud)
                bench.cloud.__class__ = Short
                yield bench

    with pytest.raises(AssertionError, match="all are listed"):
        await Forgetful().test_listings_are_complete()
