"""An asyncio event loop whose time jumps to the next timer instead of waiting for it.

``asyncio.sleep``, ``asyncio.timeout`` and ``loop.call_at`` all follow ``loop.time()``, so code that uses them (and a
:class:`gridtide.clock.LoopClock`) runs unchanged, in exactly the same order every time. No threads, no sockets.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class NothingToWaitFor(RuntimeError):
    """Every task waits for something that can never come: on real time this program would hang for ever."""


class _TimeSelector(selectors.DefaultSelector):
    """Where the loop would block until a timer runs out, let its time jump there."""

    def __init__(self) -> None:
        super().__init__()
        self.elapsed = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise NothingToWaitFor("no timer and no ready task is left on virtual time")
        self.elapsed += max(timeout, 0.0)
        return []


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Starts at time 0."""

    def __init__(self) -> None:
        self._time_selector = _TimeSelector()
        super().__init__(self._time_selector)
        # Timers due within one resolution are run together; with the real clock's value a chain of jumps could
        # fall short of a timer by rounding and spin. A nanosecond is below anything that is scheduled.
        self._clock_resolution = 1e-9

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._time_selector.elapsed


def run(main: Coroutine[Any, Any, T]) -> T:
    """``asyncio.run`` on virtual time."""
    results: list[T] = []

    async def kept_aside() -> None:
        results.append(await main)

    # The runner's last word to the signal module writes out the task with its result, to throw it away: a second for
    # a large one.
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(kept_aside())
    return results[0]
