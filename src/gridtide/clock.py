"""Time as a parameter. Nothing in Gridtide reads a clock that was not handed to it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol


class Clock(Protocol):
    """Seconds since the epoch that never run backwards while a process lives."""

    def now(self) -> float:
        """The present time."""
        ...


def steady() -> float:
    """Seconds since the host booted, those in which it slept included: whoever wakes up must know that it slept."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class SystemClock:
    """Wall time at the start, carried on by the host's own seconds: a step of the wall clock moves nothing.

    Waiting is done with ``asyncio.sleep`` and ``asyncio.timeout``, which use the loop's monotonic time. The simulator
    gives it both clocks of a simulated host.
    """

    def __init__(self, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = steady) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._base = wall() - monotonic()

    def now(self) -> float:
        """The present time."""
        return self._base + self._monotonic()


class LoopClock:
    """The running event loop's own time on top of an epoch: virtual time under a virtual loop."""

    def __init__(self, epoch: float = 1_700_000_000.0) -> None:
        self._epoch = epoch

    def now(self) -> float:
        """The present time. RuntimeError outside a running loop."""
        return self._epoch + asyncio.get_running_loop().time()
