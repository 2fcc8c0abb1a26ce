"""The conformance suite for cloud drivers.

A driver's author subclasses :class:`CloudConformance` in a test module, says in ``bench`` how to get a driver, and runs
pytest (with pytest-asyncio in auto mode; the suite itself needs no framework)::

    class TestMyCloud(CloudConformance):
        title = "my cloud"
        driver = MyCloud

        @asynccontextmanager
        async def bench(self) -> AsyncIterator[CloudBench]:
            account = await start_something_that_answers_like_my_cloud()
            yield CloudBench(cloud=MyCloud(account), again=lambda: MyCloud(account), ...)
            await account.remove()

Each test gets a bench of its own, with no machine in it. What a test expects is what the controller relies on. The
cases of :mod:`gridtide.testing.cloud_faults` belong to it: they need ``faults`` of the bench. ``python -m
gridtide.testing.conformance`` prints which driver passes which case.
"""

from __future__ import annotations

import asyncio
from typing import Final

from gridtide.errors import CloudError, LaunchRejected
from gridtide.model.ids import MachineId, ShapeName, WorkerId
from gridtide.model.machines import MachineState
from gridtide.testing.cloud_bench import SECRET, CloudBench
from gridtide.testing.cloud_faults import CloudFaultCases
from gridtide.testing.expect import expect, expect_type

__all__ = ["SECRET", "CloudBench", "CloudConformance"]

_LIVING: Final = {MachineState.STARTING, MachineState.RUNNING}
_LEAVING: Final = {MachineState.ENDING, MachineState.GONE}


class CloudConformance(CloudFaultCases):
    """Subclass it as ``Test...`` and implement :meth:`bench`."""

    async def test_shapes_are_the_same_each_time(self) -> None:
        """The planner fits demand onto them: none, doubled or changing ones would make it launch at random."""
        async with self.bench() as bench:
            shapes = await bench.cloud.shapes()
            expect(len(shapes) > 0, "a cloud offers at least one shape")
            expect(len({shape.name for shape in shapes}) == len(shapes), "names of shapes are unique", shapes)
            expect(all(shape.resources.cores > 0 for shape in shapes), "each shape has a core", shapes)
            expect(await bench.cloud.shapes() == shapes, "the second answer is the first")
            expect(await bench.again().shapes() == shapes, "another driver object answers the same")

    async def test_a_machine_is_listed_with_its_tag(self) -> None:
        """Worker, state and resources are what everything else is decided on."""
        async with self.bench() as bench:
            shape = (await bench.cloud.shapes())[0]
            (machine,) = await bench.launch("conform-one")
            for cloud in (bench.cloud, bench.again()):
                found = (await bench.listed(cloud))[machine]
                expect(found.worker == "conform-one", "the tag names the worker", found)
                expect(found.state in _LIVING, "a new machine is starting or running", found)
                expect(found.resources.cores == shape.resources.cores, "it has its shape's cores", found)
                expect(found.resources.memory == shape.resources.memory, "it has its shape's memory", found)

    async def test_the_same_request_again_makes_no_second_machine(self) -> None:
        """The controller repeats a launch whose outcome it does not know."""
        async with self.bench() as bench:
            (first,) = await bench.launch("conform-one")
            (second,) = await bench.launch("conform-one")
            expect(first == second, "both answers name the same machine", (first, second))
            expect(list(await bench.listed()) == [first], "one machine exists", await bench.listed())

    async def test_the_same_request_at_the_same_time_makes_one_machine(self) -> None:
        """A repeated call may overtake the first one."""
        async with self.bench() as bench:
            request = await bench.request("conform-one")
            answers = await asyncio.gather(
                bench.cloud.launch([request]), bench.again().launch([request]), bench.cloud.launch([request, request])
            )
            made = {answer[request.worker] for answer in answers if isinstance(answer[request.worker], str)}
            expect(len(made) == 1, "all answers that name a machine name the same one", answers)
            expect(set(await bench.listed()) == made, "one machine exists", await bench.listed())

    async def test_a_lost_answer_is_found_again(self) -> None:
        """The controller died in the call: the next one lists by tag, or repeats, and never doubles."""
        async with self.bench() as bench:
            call = asyncio.ensure_future(bench.again().launch([await bench.request("conform-one")]))
            await asyncio.sleep(0)
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
            (machine,) = await bench.launch("conform-one")
            found = await bench.listed(bench.again())
            expect({each.worker for each in found.values()} == {"conform-one"}, "the tag is there", found)
            expect(list(found) == [machine], "one machine exists", found)

    async def test_one_bad_request_does_not_spoil_a_bulk_call(self) -> None:
        """Bulk calls report per item, with the kind of error that fits."""
        async with self.bench() as bench:
            bad = await bench.request("conform-bad", ShapeName("no-such-shape"))
            requests = [await bench.request("conform-one"), bad, await bench.request("conform-two")]
            answers = await bench.cloud.launch(requests)
            expect(set(answers) == {each.worker for each in requests}, "every request has an answer", answers)
            rejected = expect_type(answers[bad.worker], LaunchRejected, "an unknown shape is rejected for good")
            expect("no-such-shape" in str(rejected), "the error names the shape", str(rejected))
            expect(SECRET not in str(rejected) + repr(rejected), "an error shows no user data")
            expect(
                {each.worker for each in (await bench.listed()).values()} == {"conform-one", "conform-two"}, "2 exist"
            )

    async def test_terminate_ends_that_machine_and_no_other(self) -> None:
        """Twice the same order is a success as well."""
        async with self.bench() as bench:
            one, two = await bench.launch("conform-one", "conform-two")
            expect(await bench.cloud.terminate([one]) == {one: None}, "terminate is a success")
            await bench.until_ended(one)
            expect(await bench.cloud.terminate([one]) == {one: None}, "terminate of what is gone is a success")
            expect(await bench.again().terminate([one]) == {one: None}, "also for who never knew it")
            expect((await bench.listed())[two].state in _LIVING, "the other one lives on", await bench.listed())

    async def test_terminate_of_what_never_was(self) -> None:
        """Ids of other shapes than the cloud's own are no reason to raise."""
        async with self.bench() as bench:
            (one,) = await bench.launch("conform-one")
            strange = [MachineId(name) for name in ("conform-never", "", "../..", "Ünïcode", "a" * 300, "0")]
            answers = await bench.cloud.terminate(strange)
            expect(set(answers) == set(strange), "every id has an answer", answers)
            errors = [error for error in answers.values() if error is not None]
            expect(all(isinstance(error, CloudError) for error in errors), "errors are typed", errors)
            expect(answers[MachineId("conform-never")] is None, "one that does not exist is a success", answers)
            expect((await bench.listed())[one].state in _LIVING, "nothing else was ended", await bench.listed())

    async def test_a_terminated_worker_can_be_replaced(self) -> None:
        """Ending one machine leaves nothing that is in the way of the next."""
        async with self.bench() as bench:
            (one,) = await bench.launch("conform-one")
            await bench.cloud.terminate([one])
            (two,) = await bench.launch("conform-two")
            await bench.until_ended(one)
            expect(list(await bench.listed()) == [two], "the new one exists", await bench.listed())

    async def test_foreign_machines_are_seen_and_left_alone(self) -> None:
        """They count against the quota; nothing else is done with them."""
        async with self.bench() as bench:
            foreign = await bench.add_foreign()
            before = (await bench.listed())[foreign]
            expect(before.worker is None, "a machine without our tag has no worker", before)
            (ours,) = await bench.launch("conform-one")
            await bench.cloud.terminate([ours])
            await bench.until_ended(ours)
            expect((await bench.listed())[foreign] == before, "it is as it was", await bench.listed())

    async def test_a_useless_machine_is_reported(self) -> None:
        """It stays listed, as ours, and not as a living one; terminate takes it away."""
        async with self.bench() as bench:
            one, two = await bench.launch("conform-one", "conform-two")
            await bench.break_machine(one)
            found = (await bench.listed())[one]
            expect(found.state in {MachineState.BROKEN, MachineState.STOPPED}, "it is broken or stopped", found)
            expect(found.worker == "conform-one", "its tag is still there", found)
            expect(bool(found.message), "the cloud's words on it are passed on", found)
            expect((await bench.listed())[two].state in _LIVING, "the other one lives", await bench.listed())
            expect(await bench.cloud.terminate([one]) == {one: None}, "it can be ended")
            await bench.until_ended(one)

    async def test_a_useless_machine_is_not_started_again(self) -> None:
        """Repeating the launch of a worker whose machine stopped answers that machine, or an error; never a new one."""
        async with self.bench() as bench:
            (one,) = await bench.launch("conform-one")
            await bench.break_machine(one)
            answers = await bench.again().launch([await bench.request("conform-one")])
            answer = answers[WorkerId("conform-one")]
            expect(answer == one or isinstance(answer, CloudError), "the same machine or an error", answer)
            found = await bench.listed()
            expect(list(found) == [one] and found[one].state not in _LIVING, "nothing was made or started", found)

    async def test_listings_are_complete(self) -> None:
        """A machine that a listing leaves out would be believed gone."""
        async with self.bench() as bench:
            made = await bench.launch(*(f"conform-{number:03d}" for number in range(bench.many)))
            expect(len(set(made)) == bench.many, "each has an id of its own", made)
            expect(set(await bench.listed()) == set(made), "all are listed")
            expect(set(await bench.listed(bench.again())) == set(made), "all are listed to a new driver object")
            answers = await bench.cloud.terminate(made)
            expect(answers == dict.fromkeys(made), "all are ended by one call", answers)
            for machine in made:
                await bench.until_ended(machine)

    async def test_a_machine_that_is_being_ended_says_so(self) -> None:
        """Between terminate and its end a machine is ENDING, GONE or not listed: never RUNNING again."""
        async with self.bench() as bench:
            (one,) = await bench.launch("conform-one")
            await bench.cloud.terminate([one])
            found = (await bench.listed()).get(one)
            expect(found is None or found.state in _LEAVING, "it is on its way out", found)

    async def test_empty_bulk_calls(self) -> None:
        """Nothing asked, nothing answered."""
        async with self.bench() as bench:
            expect(await bench.cloud.launch([]) == {}, "no request, no answer")
            expect(await bench.cloud.terminate([]) == {}, "no machine, no answer")

    async def test_check_looks_and_does_not_touch(self) -> None:
        """``gridtide check`` may be run at any time."""
        async with self.bench() as bench:
            (one,) = await bench.launch("conform-one")
            findings = await bench.cloud.check(["no-such-image"])
            expect(len(findings) > 0, "something was looked at")
            expect(all(each.subject and each.text for each in findings), "each finding says what and how", findings)
            expect(SECRET not in repr(findings), "no finding shows user data")
            expect((await bench.listed())[one].state in _LIVING, "nothing changed", await bench.listed())

    async def test_machines_outlive_the_driver(self) -> None:
        """Closing is not ending; listings do not show user data."""
        async with self.bench() as bench:
            other = bench.again()
            await other.launch([await bench.request("conform-one")])
            await other.close()
            found = await bench.listed()
            expect([each.worker for each in found.values()] == ["conform-one"], "it lives on", found)
            expect(all(each.state in _LIVING for each in found.values()), "it lives on", found)
            expect(SECRET not in repr(found), "a listing shows no user data")
