"""One machine for each worker, whatever becomes of the answers."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from random import Random
from typing import Any

import pytest

from gridtide.clouds.making import ATTEMPTS, LOOKS, SURE, Making
from gridtide.clouds.protocol import LaunchRequest
from gridtide.clouds.refusals import Answered
from gridtide.clouds.repeating import repeated
from gridtide.errors import CloudError, CloudUnavailable, ImageNotFound, NoCapacity, Throttled
from gridtide.model.ids import GroupName, MachineId, ShapeName, WorkerId
from gridtide.sim import virtual_time

SOLD_OUT, LOST, OVER = NoCapacity("sold out"), CloudUnavailable("no answer"), Answered("500")


@dataclass
class Cloud:
    """``answers``: what calls end with, one after the other; None, and then always: a good answer.

    ``shown``: how many looks miss what a call that was not answered has made; None: it made nothing.
    """

    answers: list[CloudError | None] = field(default_factory=list)
    shown: int | None = None
    lookup: CloudError | None = None
    calls: Counter[str] = field(default_factory=Counter)
    machines: dict[WorkerId, MachineId] = field(default_factory=dict)

    async def prepare(self, request: LaunchRequest) -> str:
        self.calls["prepare"] += 1
        if self.lookup is not None:
            raise self.lookup
        return f"body of {request.worker}"

    async def make(self, request: LaunchRequest, prepared: str) -> MachineId:
        assert prepared == f"body of {request.worker}"
        self.calls["make"] += 1
        await asyncio.sleep(0.1)
        failure = self.answers.pop(0) if self.answers else None
        if failure is None or self.shown is not None:
            self.machines[request.worker] = MachineId(f"m-{request.worker}")
        if failure is not None:
            raise failure
        return self.machines[request.worker]

    async def listed(self) -> Mapping[WorkerId, MachineId]:
        self.calls["look"] += 1
        return dict(self.machines) if self.calls["look"] > (self.shown or 0) else {}

    def forget(self) -> None:
        self.calls["forget"] += 1

    async def launch(self, *names: str, at_once: int = 4, within: float = 55.0) -> Mapping[WorkerId, Any]:
        until = asyncio.get_running_loop().time() + within
        making = Making(self.prepare, self.make, self.listed, self.forget, asyncio.Semaphore(at_once), until)
        return await making.all(
            [LaunchRequest(WorkerId(name), GroupName("g"), ShapeName("s"), None, "image", b"") for name in names]
        )


def on_virtual_time(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def run() -> None:
        virtual_time.run(test())

    run.__name__ = test.__name__
    return run


@on_virtual_time
async def test_good_answers_take_one_call_each_and_no_look() -> None:
    cloud = Cloud()
    assert await cloud.launch("a", "b") == {"a": "m-a", "b": "m-b"}
    assert cloud.calls == {"prepare": 2, "make": 2}


@pytest.mark.parametrize("failure", [LOST, OVER])
@pytest.mark.parametrize("late", [0, 1])
def test_what_was_made_without_an_answer_is_found_and_not_made_again(failure: CloudError, late: int) -> None:
    async def main() -> None:
        cloud = Cloud([failure], shown=late)
        assert await cloud.launch("a") == {"a": "m-a"}
        assert cloud.calls["make"] == 1
        assert cloud.calls["look"] == late + 1

    virtual_time.run(main())


@on_virtual_time
async def test_without_an_answer_it_is_never_asked_for_again() -> None:
    cloud = Cloud([LOST])
    assert await cloud.launch("a") == {"a": LOST}
    assert cloud.calls["make"] == 1
    assert cloud.calls["look"] == len(LOOKS)


@on_virtual_time
async def test_after_an_error_it_is_asked_for_again_once_looks_are_sure() -> None:
    cloud = Cloud([OVER])
    assert await cloud.launch("a") == {"a": "m-a"}
    assert cloud.calls["make"] == 2
    assert cloud.calls["look"] == SURE


@on_virtual_time
async def test_after_errors_without_end_it_is_given_up() -> None:
    cloud = Cloud([OVER] * 100)
    assert await cloud.launch("a") == {"a": OVER}
    assert cloud.calls["make"] == ATTEMPTS


@on_virtual_time
async def test_when_time_is_short_it_is_not_asked_for_again() -> None:
    cloud = Cloud([OVER])
    assert await cloud.launch("a", within=1.0) == {"a": OVER}
    assert cloud.calls["make"] == 1


@on_virtual_time
async def test_of_several_only_those_are_asked_for_again_that_were_not_made() -> None:
    cloud = Cloud([OVER, None, LOST])
    assert await cloud.launch("a", "b", "c") == {"a": "m-a", "b": "m-b", "c": LOST}
    assert cloud.calls["make"] == 4


@on_virtual_time
async def test_once_refused_those_that_failed_before_are_not_asked_for_again() -> None:
    cloud = Cloud([OVER, None, SOLD_OUT])
    assert await cloud.launch("a", "b", "c") == {"a": SOLD_OUT, "b": "m-b", "c": SOLD_OUT}
    assert cloud.calls["make"] == 3


@pytest.mark.parametrize(("failure", "forgets"), [(SOLD_OUT, 0), (ImageNotFound("no such image"), 1)])
def test_a_refusal_spares_the_rest_of_its_kind_the_call(failure: CloudError, forgets: int) -> None:
    async def main() -> None:
        cloud = Cloud([failure])
        assert await cloud.launch("a", "b", "c", at_once=1) == dict.fromkeys("abc", failure)
        assert cloud.calls["make"] == 1
        assert cloud.calls["forget"] == forgets

    virtual_time.run(main())


@on_virtual_time
async def test_what_cannot_be_looked_up_was_not_asked_for() -> None:
    cloud = Cloud(lookup=CloudUnavailable("no images", where="here"))
    (answer,) = (await cloud.launch("a")).values()
    assert isinstance(answer, Answered)
    assert answer.what == "no images"
    assert cloud.calls["make"] == 0
    assert cloud.calls["prepare"] == ATTEMPTS
    cloud.lookup = ImageNotFound("no such image")
    assert await cloud.launch("a") == {"a": cloud.lookup}


# --- calls that may be repeated


def attempts(*failures: CloudError) -> tuple[Callable[[], Coroutine[Any, Any, int]], list[float]]:
    """What fails so often, and when it was tried."""
    left, times = list(failures), list[float]()

    async def attempt() -> int:
        times.append(asyncio.get_running_loop().time())
        if left:
            raise left.pop(0)
        return 7

    return attempt, times


@on_virtual_time
async def test_a_call_is_repeated_with_growing_pauses() -> None:
    attempt, times = attempts(LOST, LOST, LOST)
    assert await repeated(attempt, times_up(60.0), Random(1), final=lambda _: False) == 7
    pauses = [later - earlier for earlier, later in pairwise(times)]
    assert pauses == sorted(pauses)
    assert 0.1 <= pauses[0] <= 0.2


@on_virtual_time
async def test_a_throttled_call_waits_for_as_long_as_it_is_told_if_there_is_time() -> None:
    attempt, times = attempts(Throttled("429", retry_after=10.0))
    assert await repeated(attempt, times_up(60.0), Random(1), final=lambda _: True) == 7
    assert times[1] - times[0] >= 10.0
    attempt, times = attempts(Throttled("429", retry_after=10.0))
    with pytest.raises(Throttled):
        await repeated(attempt, times_up(5.0), Random(1), final=lambda _: True)
    assert len(times) == 1


@on_virtual_time
async def test_a_final_failure_and_a_refusal_are_not_repeated() -> None:
    for failure, final in ((LOST, True), (SOLD_OUT, False)):
        attempt, times = attempts(failure)
        with pytest.raises(type(failure)):
            await repeated(attempt, times_up(60.0), Random(1), final=lambda _, final=final: final)  # type: ignore[misc]
        assert len(times) == 1


def times_up(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds
