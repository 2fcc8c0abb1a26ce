"""The fake cloud passes the suite that real drivers must pass, in its calm and in its worst manners."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from random import Random

import pytest

from gridtide.clouds.fake import FakeCloud
from gridtide.clouds.protocol import Finding, LaunchRequest, Level
from gridtide.errors import CloudError, CloudUnavailable, LaunchRejected
from gridtide.model.ids import CloudName, MachineId, WorkerId, Zone
from gridtide.model.machines import Machines
from gridtide.testing.clocks import ManualClock
from gridtide.testing.cloud_bench import NotHere
from gridtide.testing.clouds import CloudBench, CloudConformance
from tests.unit.clouds.fake_boundary import FakeBoundary


class FakeCloudConformance(CloudConformance):
    """``manners`` are arguments of the fake."""

    manners: dict[str, float]
    driver = FakeCloud

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

        faults = FakeBoundary(cloud, cloud.list_lag)
        yield CloudBench(
            cloud, lambda: cloud, add_foreign, break_machine, Zone("a"), wait=wait, faults=faults, give_up=0.02
        )


class TestCalmCloud(FakeCloudConformance):
    title = "fake"
    manners = {}  # noqa: RUF012 - never changed


class TestSlowCloud(FakeCloudConformance):
    title = "fake, slow"
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


# --- the suite notices drivers that misread faults


class Trusting(FakeCloud):
    """Takes half a listing for all of it, and every error for a refusal."""

    async def machines(self) -> Machines:
        try:
            return await super().machines()
        except CloudError:
            return ()

    async def launch(self, requests: Sequence[LaunchRequest]) -> Mapping[WorkerId, MachineId | CloudError]:
        try:
            return await super().launch(requests)
        except CloudUnavailable as error:
            return {each.worker: LaunchRejected(error.what) for each in requests}

    async def check(self, images: Sequence[str]) -> tuple[Finding, ...]:
        return (Finding("connection", Level.OK, "all is well"),)


class Stubborn(FakeCloud):
    """Does not let go of a call that is cancelled, and asks one thing after the other."""

    _turn = asyncio.Lock()

    async def machines(self) -> Machines:
        async with self._turn:
            return await super().machines()

    async def launch(self, requests: Sequence[LaunchRequest]) -> Mapping[WorkerId, MachineId | CloudError]:
        async with self._turn:
            return await super().launch(requests)


class Plain(FakeCloud):
    """Knows one kind of error."""

    async def machines(self) -> Machines:
        try:
            return await super().machines()
        except CloudError as error:
            raise CloudUnavailable(error.what) from error

    async def launch(self, requests: Sequence[LaunchRequest]) -> Mapping[WorkerId, MachineId | CloudError]:
        answers = await super().launch(requests)
        return {
            worker: CloudUnavailable(answer.what) if isinstance(answer, CloudError) else answer
            for worker, answer in answers.items()
        }


@pytest.mark.parametrize(
    ("kind", "case", "words"),
    [
        (Trusting, "a_launch_whose_answer_is_dropped_doubles_nothing", "not known"),
        (Trusting, "an_unreachable_cloud_is_unavailable", "the listing is CloudUnavailable"),
        (Trusting, "a_listing_that_is_cut_is_no_listing", "a listing is whole or an error"),
        (Trusting, "refused_credentials_are_told_as_such", "the call is AuthenticationFailed"),
        (Stubborn, "a_listing_that_hangs_holds_up_nothing_else", "^"),
        (Plain, "throttling_is_told_as_such", "the listing is Throttled"),
        (Plain, "want_of_room_is_told_for_that_machine_alone", "one is NoCapacity"),
        (Plain, "a_used_up_quota_is_told_as_such", "the launch is QuotaExceeded"),
    ],
)
async def test_the_suite_notices(monkeypatch: pytest.MonkeyPatch, kind: type[FakeCloud], case: str, words: str) -> None:
    monkeypatch.setattr("gridtide.testing.cloud_faults._LONG", 0.2)

    class Bad(TestCalmCloud):
        @asynccontextmanager
        async def bench(self) -> AsyncIterator[CloudBench]:
            async with super().bench() as bench:
                bench.cloud.__class__ = kind
                yield bench

    with pytest.raises((AssertionError, TimeoutError), match=words):
        await getattr(Bad(), f"test_{case}")()


async def test_a_cloud_without_a_fault_says_why() -> None:
    class Silent(TestCalmCloud):
        @asynccontextmanager
        async def bench(self) -> AsyncIterator[CloudBench]:
            async with super().bench() as bench:
                yield replace(bench, faults=None)

    with pytest.raises(NotHere, match="this bench makes no faults"):
        await Silent().test_throttling_is_told_as_such()
