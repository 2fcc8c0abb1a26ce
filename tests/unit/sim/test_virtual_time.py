"""Virtual time jumps, keeps its order, and says so when nothing can happen any more."""

from __future__ import annotations

import asyncio
import time

import pytest

from gridtide.clock import LoopClock, SystemClock
from gridtide.sim import virtual_time


def test_an_hour_takes_no_time() -> None:
    async def main() -> float:
        clock = LoopClock(epoch=1000.0)
        before = clock.now()
        await asyncio.sleep(3600)
        return clock.now() - before

    began = time.monotonic()
    assert virtual_time.run(main()) == pytest.approx(3600)
    assert time.monotonic() - began < 1


def test_sleepers_wake_in_order_of_their_time() -> None:
    async def main() -> list[str]:
        woken: list[str] = []

        async def sleeper(name: str, seconds: float) -> None:
            await asyncio.sleep(seconds)
            woken.append(name)

        await asyncio.gather(sleeper("late", 3), sleeper("early", 1), sleeper("middle", 2))
        return woken

    assert virtual_time.run(main()) == ["early", "middle", "late"]


def test_a_deadline_follows_virtual_time() -> None:
    async def main() -> None:
        async with asyncio.timeout(10):
            await asyncio.sleep(11)

    with pytest.raises(TimeoutError):
        virtual_time.run(main())


def test_waiting_for_nothing_is_an_error_and_not_a_hang() -> None:
    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(virtual_time.NothingToWaitFor):
        virtual_time.run(main())


def test_many_tiny_waits_do_not_lose_time() -> None:
    async def main() -> float:
        for _ in range(10_000):
            await asyncio.sleep(0.001)
        return asyncio.get_running_loop().time()

    assert virtual_time.run(main()) == pytest.approx(10.0, rel=1e-3)


def test_the_system_clock_does_not_follow_a_step_of_the_wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SystemClock()
    before = clock.now()
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 3600)
    assert 0 <= clock.now() - before < 60


def test_the_system_clock_counts_the_time_in_which_its_host_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SystemClock()
    before = clock.now()
    real = time.clock_gettime

    def slept(which: int) -> float:
        return real(which) + (3600.0 if which == time.CLOCK_BOOTTIME else 0.0)

    monkeypatch.setattr(time, "clock_gettime", slept)
    assert 3600 <= clock.now() - before < 3660
