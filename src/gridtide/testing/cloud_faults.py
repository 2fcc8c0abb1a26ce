"""The cases of the conformance suite in which the cloud, or the way to it, does not do as it should."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from contextlib import AbstractAsyncContextManager
from typing import ClassVar, Final

from gridtide.clouds.protocol import Cloud, LaunchRequest, Level
from gridtide.errors import (
    AuthenticationFailed,
    CloudError,
    CloudUnavailable,
    NoCapacity,
    QuotaExceeded,
    Throttled,
)
from gridtide.model.ids import MachineId
from gridtide.model.machines import Machines
from gridtide.testing.cloud_bench import SECRET, CloudBench, Fault, Step
from gridtide.testing.expect import expect, expect_type

_LONG: Final = 60.0
"""Seconds within which an error must have come; the controller's own deadlines are shorter."""


class CloudFaultCases(ABC):
    """A part of :class:`gridtide.testing.clouds.CloudConformance`."""

    title: ClassVar[str] = ""
    """Of its column in the table of conformance; empty: the name of the class."""
    driver: ClassVar[type[Cloud]]
    """What is under test: the table shows how many lines it has."""

    @abstractmethod
    def bench(self) -> AbstractAsyncContextManager[CloudBench]:
        """A new, empty bench; leaving it removes everything that was made."""

    async def test_a_launch_whose_answer_is_dropped_doubles_nothing(self) -> None:
        """The machine was made, and its maker does not hear of it: one that is *not known*, never *not made*."""
        await self._lose(Fault.DROP)

    async def test_a_launch_whose_answer_is_cut_doubles_nothing(self) -> None:
        """Half of an answer is none."""
        await self._lose(Fault.CUT)

    async def _lose(self, fault: Fault) -> None:
        async with self.bench() as bench:
            request = await bench.request("conform-one")
            await bench.struck(fault, Step.LAUNCH, 1)
            answer = await _launch(bench, request)
            known = isinstance(answer, str) or type(answer) is CloudUnavailable
            expect(known, "the machine, or CloudUnavailable: whether it was made is not known", answer)
            await bench.healed()
            await _is_the_only_one(bench)

    async def test_a_launch_that_stays_unanswered_can_be_given_up(self) -> None:
        """Cancelled in the middle, after the machine was made: the next call finds it."""
        async with self.bench() as bench:
            request = await bench.request("conform-one")
            await bench.struck(Fault.SILENCE, Step.LAUNCH)
            await _given_up(bench, request)
            await bench.healed()
            await _is_the_only_one(bench)

    async def test_a_launch_that_hangs_can_be_given_up(self) -> None:
        """Cancelled in the middle, before anything was done: the next call makes it, once."""
        async with self.bench() as bench:
            request = await bench.request("conform-one")
            await bench.struck(Fault.HANG, Step.LAUNCH)
            await _given_up(bench, request)
            await bench.healed()
            await _is_the_only_one(bench)

    async def test_a_listing_that_hangs_holds_up_nothing_else(self) -> None:
        """It can be cancelled, and machines are made meanwhile."""
        async with self.bench() as bench:
            await bench.struck(Fault.HANG, Step.LIST)
            listing = asyncio.ensure_future(bench.cloud.machines())
            try:
                await asyncio.sleep(0)
                async with asyncio.timeout(_LONG):
                    (one,) = await bench.launch("conform-one")
            finally:
                listing.cancel()
                await asyncio.gather(listing, return_exceptions=True)
            await bench.healed()
            expect(list(await bench.listed()) == [one], "the next listing is whole", await bench.listed())

    async def test_an_unreachable_cloud_is_unavailable(self) -> None:
        """An error of its kind, never an empty listing, within the time that the controller has."""
        async with self.bench() as bench:
            (one,) = await bench.launch("conform-one")
            await bench.struck(Fault.UNREACHABLE)
            expect_type(await _listing(bench), CloudUnavailable, "the listing is CloudUnavailable")
            await bench.healed()
            expect(list(await bench.listed()) == [one], "the next listing is whole", await bench.listed())

    async def test_a_listing_that_is_cut_is_no_listing(self) -> None:
        """A machine that half a listing leaves out would be believed gone."""
        async with self.bench() as bench:
            made = set(await bench.launch("conform-one", "conform-two", "conform-three"))
            await bench.struck(Fault.CUT, Step.LIST, 1)
            answer = await _listing(bench)
            whole = isinstance(answer, CloudError) or {each.id for each in answer} == made
            expect(whole, "a listing is whole or an error", answer)
            await bench.healed()
            expect(set(await bench.listed()) == made, "the next listing is whole", await bench.listed())

    async def test_a_listing_that_lags_doubles_nothing(self) -> None:
        """What is not listed yet may exist."""
        async with self.bench() as bench:
            await bench.cloud.machines()
            await bench.struck(Fault.LAG, Step.LIST)
            (one,) = await bench.launch("conform-one")
            expect(not isinstance(await _listing(bench), CloudError), "an old listing is no error")
            (same,) = await bench.launch("conform-one")
            expect(same == one, "both answers name the same machine", (one, same))
            await bench.healed()
            expect(list(await bench.listed()) == [one], "one machine exists", await bench.listed())

    async def test_throttling_is_told_as_such(self) -> None:
        """Throttled means that nothing was made, and that waiting helps."""
        async with self.bench() as bench:
            request = await bench.request("conform-one")
            await bench.struck(Fault.THROTTLE)
            expect_type(await _listing(bench), Throttled, "the listing is Throttled")
            expect_type(await _launch(bench, request), Throttled, "the launch is Throttled")
            await bench.healed()
            expect(await bench.listed() == {}, "nothing was made", await bench.listed())
            await _is_the_only_one(bench)

    async def test_refused_credentials_are_told_as_such(self) -> None:
        """Nobody retries them in vain; the machines live on, and no secret is shown."""
        async with self.bench() as bench:
            (one,) = await bench.launch("conform-one")
            request = await bench.request("conform-two")
            await bench.struck(Fault.CREDENTIALS)
            for answer in (await _listing(bench), await _launch(bench, request), await _end(bench, one)):
                error = expect_type(answer, AuthenticationFailed, "the call is AuthenticationFailed")
                expect(SECRET not in str(error) + repr(error), "an error shows no user data")
            levels = {each.level for each in await bench.again().check([])}
            expect(Level.ERROR in levels, "`check` finds an error, and does not raise", levels)
            await bench.healed()
            expect(list(await bench.listed()) == [one], "what is there is what was there", await bench.listed())

    async def test_want_of_room_is_told_for_that_machine_alone(self) -> None:
        """The zone is sold out for one; the others of the call are made."""
        async with self.bench() as bench:
            requests = [await bench.request(f"conform-{number}") for number in range(3)]
            await bench.struck(Fault.CAPACITY, Step.LAUNCH, 1)
            answers = await bench.cloud.launch(requests)
            refused = [worker for worker, answer in answers.items() if isinstance(answer, NoCapacity)]
            made = {worker for worker, answer in answers.items() if isinstance(answer, str)}
            expect((len(refused), len(made)) == (1, 2), "one is NoCapacity, two are made", answers)
            await bench.healed()
            found = {each.worker for each in (await bench.listed()).values()}
            expect(found == made, "those that were made are listed", found)

    async def test_a_used_up_quota_is_told_as_such(self) -> None:
        """It is not want of room: another zone would not help."""
        async with self.bench() as bench:
            request = await bench.request("conform-one")
            await bench.struck(Fault.QUOTA, Step.LAUNCH)
            error = expect_type(await _launch(bench, request), QuotaExceeded, "the launch is QuotaExceeded")
            expect(SECRET not in str(error) + repr(error), "an error shows no user data")
            await bench.healed()
            expect(await bench.listed() == {}, "nothing was made", await bench.listed())
            await _is_the_only_one(bench)

    async def test_a_terminate_whose_answer_is_dropped_is_got_through(self) -> None:
        """Said again, it is a success."""
        async with self.bench() as bench:
            one, two = await bench.launch("conform-one", "conform-two")
            await bench.struck(Fault.DROP, Step.TERMINATE, 1)
            answer = await _end(bench, one)
            expect(answer is None or type(answer) is CloudUnavailable, "success, or not known", answer)
            await bench.healed()
            expect(await bench.cloud.terminate([one]) == {one: None}, "the next one is a success")
            await bench.until_ended(one)
            expect(list(await bench.listed()) == [two], "the other one lives on", await bench.listed())


async def _launch(bench: CloudBench, request: LaunchRequest) -> MachineId | CloudError:
    """The answer; an error of the call as a whole stands for it."""
    try:
        async with asyncio.timeout(_LONG):
            return (await bench.cloud.launch([request]))[request.worker]
    except CloudError as error:
        return error


async def _listing(bench: CloudBench) -> Machines | CloudError:
    try:
        async with asyncio.timeout(_LONG):
            return await bench.cloud.machines()
    except CloudError as error:
        return error


async def _end(bench: CloudBench, machine: MachineId) -> CloudError | None:
    try:
        async with asyncio.timeout(_LONG):
            return (await bench.cloud.terminate([machine]))[machine]
    except CloudError as error:
        return error


async def _given_up(bench: CloudBench, request: LaunchRequest) -> None:
    """Launch, and cancel after a while as the controller does; that must work at once."""
    call = asyncio.ensure_future(bench.again().launch([request]))
    await asyncio.wait([call], timeout=bench.give_up)
    call.cancel()
    done, _ = await asyncio.wait([call], timeout=_LONG)
    expect(bool(done), "a call that is cancelled ends")


async def _is_the_only_one(bench: CloudBench) -> None:
    """After a launch of which the suite may not know the outcome: repeated, it gives one machine."""
    (machine,) = await bench.launch("conform-one")
    found = await bench.listed(bench.again())
    expect([(each.id, each.worker) for each in found.values()] == [(machine, "conform-one")], "one exists", found)
