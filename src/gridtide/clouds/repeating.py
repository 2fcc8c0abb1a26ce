"""Calls that are made again, with growing pauses, while there is time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from random import Random
from typing import Final, TypeVar

from gridtide.errors import CloudError, CloudUnavailable, Throttled

T = TypeVar("T")

FIRST_PAUSE: Final = 0.2
LONGEST_PAUSE: Final = 5.0
"""Seconds before a call is repeated, doubling, with jitter. Shorter: a server in trouble gets more of it."""


def check_in_time(until: float, where: str) -> None:
    """The last thing to do before a call leaves, in the thread that sends it. ``until`` is loop time.

    A process may be held up anywhere (its host is suspended, it is stopped) and go on minutes later. Who waited for the
    call has given up by then; another controller may lead, and may have counted a launch as never made. Raises
    CloudUnavailable.
    """
    if time.monotonic() >= until:
        raise CloudUnavailable("held up until it was too late for the call", where=where)


async def repeated(
    attempt: Callable[[], Awaitable[T]], until: float, random: Random, *, final: Callable[[CloudUnavailable], bool]
) -> T:
    """What the first attempt returns that succeeds, as long as it can end before ``until`` (loop time).

    Made again is what was throttled (nothing was done), and what was not answered unless that is ``final``. Raises
    CloudError.
    """
    pause = FIRST_PAUSE
    while True:
        at_least = 0.0
        try:
            return await attempt()
        except Throttled as error:
            failure: CloudError = error
            at_least = error.retry_after or 0.0
        except CloudUnavailable as error:
            if final(error):
                raise
            failure = error
        wait = max(at_least, pause * random.uniform(0.5, 1.0))
        pause = min(LONGEST_PAUSE, 2.0 * pause)
        if asyncio.get_running_loop().time() + wait >= until:
            raise failure
        await asyncio.sleep(wait)
