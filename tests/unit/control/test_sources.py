"""A source is one call at a time, with a deadline, and a reading that never claims more than is known."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from random import Random
from typing import Any

import pytest

from gridtide.clock import LoopClock
from gridtide.control.sources import CONFIRM_AFTER, Rhythm, Source
from gridtide.errors import CloudUnavailable, QueueNotReady, Throttled
from gridtide.model.readings import Fresh, Missing, Reading, Stale, Unconfirmed
from gridtide.sim import virtual_time

RHYTHM = Rhythm(every=10.0, spacing=1.0, deadline=5.0)


def believe(before: Reading[int], answer: Fresh[int]) -> Reading[int]:
    """Doubts a fall to 0 until a second answer says the same."""
    if answer.value == 0 and isinstance(before, Fresh) and before.value > 0:
        return Unconfirmed(0, before, answer.started, answer.finished, "it was more before")
    return answer


class Peer:
    """Answers what the test tells it to, and counts."""

    def __init__(self) -> None:
        self.calls = 0
        self.says: Callable[[], Awaitable[int]] | int | Exception = 1
        self.clock = LoopClock()
        self.changes: list[str] = []
        self.source: Source[int] = Source(
            "peer",
            self.call,
            RHYTHM,
            clock=self.clock,
            random=Random(1),
            believe=believe,
            changed=self.changes.append,
        )

    async def call(self) -> int:
        self.calls += 1
        if isinstance(self.says, Exception):
            raise self.says
        if isinstance(self.says, int):
            return self.says
        return await self.says()

    async def read(self) -> Reading[int]:
        """Wait until a read is due, do it, return the reading."""
        await asyncio.sleep(max(0.0, self.source.due() - self.clock.now()))
        task = self.source.start()
        assert task is not None
        await task
        return self.source.reading(self.clock.now())


def on_virtual_time(test: Callable[[Peer], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Run an async test with a peer on a virtual loop."""

    async def main() -> None:
        await test(Peer())

    def run() -> None:
        virtual_time.run(main())

    run.__name__ = test.__name__
    run.__doc__ = test.__doc__
    return run


async def forever() -> int:
    await asyncio.sleep(1e9)
    return 1


@on_virtual_time
async def test_before_the_first_read_nothing_is_known(peer: Peer) -> None:
    assert isinstance(peer.source.reading(peer.clock.now()), Missing)


@on_virtual_time
async def test_an_answer_is_fresh_and_tells_when_the_call_began_and_ended(peer: Peer) -> None:
    async def slow() -> int:
        await asyncio.sleep(2)
        return 7

    peer.says = slow
    before = peer.clock.now()
    reading = await peer.read()
    assert isinstance(reading, Fresh)
    assert (reading.value, reading.started - before) == (7, 0.0)
    assert reading.finished - before == pytest.approx(2.0)
    assert peer.changes == ["peer"]


@on_virtual_time
async def test_a_call_that_hangs_ends_at_its_deadline_and_is_no_answer(peer: Peer) -> None:
    await peer.read()
    peer.says = forever
    peer.source.ask()
    reading = await peer.read()
    assert isinstance(reading, Stale)
    assert reading.last_good.value == 1
    assert "5 s" in reading.error


@on_virtual_time
async def test_a_failure_before_any_answer_is_missing_and_not_empty(peer: Peer) -> None:
    peer.says = CloudUnavailable("503")
    reading = await peer.read()
    assert isinstance(reading, Missing)
    assert "503" in reading.error


@on_virtual_time
async def test_failing_since_is_the_first_failure_and_the_error_the_last(peer: Peer) -> None:
    await peer.read()
    peer.says = CloudUnavailable("first")
    first = await peer.read()
    peer.says = CloudUnavailable("second")
    second = await peer.read()
    assert isinstance(first, Stale)
    assert isinstance(second, Stale)
    assert second.failing_since == first.failing_since
    assert second.error == "second"


@on_virtual_time
async def test_a_fault_of_the_driver_is_a_failure_of_its_source(peer: Peer) -> None:
    peer.says = ZeroDivisionError("driver")
    reading = await peer.read()
    assert isinstance(reading, Missing)
    assert "ZeroDivisionError" in reading.error


@on_virtual_time
async def test_failures_back_off_even_when_asked_for_more(peer: Peer) -> None:
    peer.says = CloudUnavailable("503")
    began = peer.clock.now()
    while peer.clock.now() - began < 600:
        await peer.read()
        peer.source.ask()
    assert 10 <= peer.calls <= 60


@on_virtual_time
async def test_retry_after_is_honoured(peer: Peer) -> None:
    peer.says = Throttled("429", retry_after=90.0)
    await peer.read()
    peer.source.ask()
    assert peer.source.due() - peer.clock.now() >= 89.9


@on_virtual_time
async def test_a_queue_that_is_not_ready_is_asked_when_it_said(peer: Peer) -> None:
    peer.says = QueueNotReady("just started", ask_again=2.0)
    for _ in range(5):
        await peer.read()
        assert peer.source.due() - peer.clock.now() == pytest.approx(2.0), "no backoff: it is no fault"
    peer.says = CloudUnavailable("500")
    await peer.read()
    assert peer.source.due() - peer.clock.now() <= 0.5, "nor do these count as failures before"


@on_virtual_time
async def test_asking_reads_at_once_but_keeps_the_spacing(peer: Peer) -> None:
    await peer.read()
    assert peer.source.due() - peer.clock.now() == pytest.approx(10.0)
    peer.source.ask()
    assert peer.source.due() - peer.clock.now() == pytest.approx(1.0)


@on_virtual_time
async def test_there_is_never_more_than_one_call(peer: Peer) -> None:
    peer.says = forever
    first = peer.source.start()
    await asyncio.sleep(1)
    peer.source.ask()
    assert peer.source.start() is first
    assert peer.calls == 1
    await peer.source.stop()


@on_virtual_time
async def test_a_read_is_hoped_for_once_and_not_after_a_failure(peer: Peer) -> None:
    assert peer.source.hope(2.0) == 0.0
    peer.says = forever
    peer.source.start()
    assert peer.source.hope(2.0) == pytest.approx(2.0)
    await asyncio.sleep(0.5)
    assert peer.source.hope(2.0) == pytest.approx(1.5)
    await asyncio.sleep(2.0)
    assert peer.source.hope(2.0) == 0.0
    await asyncio.sleep(RHYTHM.deadline)
    await asyncio.sleep(max(0.0, peer.source.due() - peer.clock.now()))
    peer.source.start()
    assert peer.source.hope(2.0) == 0.0, "the read before failed"
    await peer.source.stop()
    peer.says = 1
    await peer.read()
    assert peer.source.hope(2.0) == 0.0, "nothing is under way"
    await asyncio.sleep(RHYTHM.every)
    peer.source.start()
    assert peer.source.hope(2.0) == pytest.approx(2.0)
    await peer.source.stop()


@on_virtual_time
async def test_an_answer_grows_stale_when_the_source_is_late(peer: Peer) -> None:
    await peer.read()
    await asyncio.sleep(RHYTHM.max_age + 1)
    reading = peer.source.reading(peer.clock.now())
    assert isinstance(reading, Stale)
    assert "no answer for" in reading.error


@on_virtual_time
async def test_a_doubted_answer_is_asked_for_again_soon_but_not_at_once(peer: Peer) -> None:
    await peer.read()
    peer.says = 0
    peer.source.ask()
    doubted = await peer.read()
    assert isinstance(doubted, Unconfirmed)
    peer.source.ask()
    assert peer.source.due() - doubted.started == pytest.approx(CONFIRM_AFTER)
    confirmed = await peer.read()
    assert isinstance(confirmed, Fresh)
    assert confirmed.value == 0


@on_virtual_time
async def test_recovery_is_fresh_again_and_resets_the_backoff(peer: Peer) -> None:
    for _ in range(5):
        peer.says = CloudUnavailable("503")
        await peer.read()
    peer.says = 3
    assert isinstance(await peer.read(), Fresh)
    peer.says = CloudUnavailable("503")
    await peer.read()
    assert peer.source.due() - peer.clock.now() <= 0.5
