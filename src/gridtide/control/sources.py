"""One outside source, observed: at most one call under way, with a deadline, kept as a typed reading.

The loop never waits for a source. It starts the reads that are due, gives them a moment, and plans with what there is:
a call that hangs costs its own source its freshness and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from random import Random
from typing import Generic, TypeVar

import structlog

from gridtide.clock import Clock
from gridtide.control.backoff import Backoff
from gridtide.errors import QueueNotReady, SourceError, Throttled
from gridtide.model.readings import Fresh, Missing, Reading, Stale, Unconfirmed, last_known

T = TypeVar("T")
log = structlog.get_logger("gridtide.sources")

# A doubted answer is asked for again after this long. Sooner, the two answers may come from the same hiccup.
CONFIRM_AFTER = 2.0


@dataclass(frozen=True, slots=True)
class Rhythm:
    """When a source is read, in seconds."""

    every: float
    """Read at least so often, whatever happens."""
    spacing: float
    """Never start two reads closer together than this, however much happens."""
    deadline: float
    """An answer that takes longer counts as a failure."""

    @property
    def max_age(self) -> float:
        """An answer older than this is stale even if no call has failed yet (one hangs, or the loop was held up)."""
        return 2 * self.every + self.deadline


class Source(Generic[T]):
    """``believe`` turns an answer into a reading, given the one before: it may ask for a second look."""

    def __init__(
        self,
        name: str,
        call: Callable[[], Awaitable[T]],
        rhythm: Rhythm,
        *,
        clock: Clock,
        random: Random,
        believe: Callable[[Reading[T], Fresh[T]], Reading[T]],
        changed: Callable[[str], None],
    ) -> None:
        self.name = name
        self.rhythm = rhythm
        self._call = call
        self._clock = clock
        self._believe = believe
        self._changed = changed
        self._backoff = Backoff(random)
        self._reading: Reading[T] = Missing("not read yet", clock.now())
        self._task: asyncio.Task[None] | None = None
        self.attempted = asyncio.Event()
        """Set once the first read has ended, well or not."""
        self.last_start = float("-inf")
        """When the newest read began."""
        self._next_due = float("-inf")
        self._asked = False
        self._blocked_until = float("-inf")

    def reading(self, now: float) -> Reading[T]:
        """What is known at ``now``, with its quality."""
        return self.aged(self._reading, now)

    def aged(self, reading: Reading[T], now: float) -> Reading[T]:
        """One of its readings as it is to be taken at ``now``: stale when nothing newer came for too long."""
        if isinstance(reading, Fresh) and now - reading.finished > self.rhythm.max_age:
            return Stale(reading, f"no answer for {now - reading.finished:.0f} s", reading.finished)
        return reading

    @property
    def sound(self) -> bool:
        """Whether the newest answer is believed."""
        return isinstance(self._reading, Fresh)

    @property
    def under_way(self) -> asyncio.Task[None] | None:
        """The read that has begun and not ended."""
        return None if self._task is None or self._task.done() else self._task

    def ask(self) -> None:
        """Something happened: read again as soon as the spacing (and a cloud's own wish to be left alone) allows."""
        self._asked = True

    def due(self) -> float:
        """When the next read should start; never while one is under way, whose end will be told."""
        if self.under_way is not None:
            return float("inf")
        wanted = self.last_start + self.rhythm.spacing if self._asked else self._next_due
        return max(wanted, self._blocked_until)

    def start(self) -> asyncio.Task[None] | None:
        """Start a read if one is due; the task of the read that is under way, if any."""
        if self.due() <= self._clock.now():
            self._asked = False
            self.last_start = self._clock.now()
            self._task = asyncio.create_task(self._read(), name=f"read {self.name}")
        return self.under_way

    def hope(self, patience: float) -> float:
        """Seconds in which the read under way may answer: what is left of ``patience`` since it began; 0 for nothing.

        A source whose last read failed is not hoped for: whoever waited for it each time would be as slow as it is.
        """
        failing = self.attempted.is_set() and isinstance(self._reading, Missing | Stale)
        if failing or self.under_way is None:
            return 0.0
        return max(0.0, self.last_start + patience - self._clock.now())

    def adopt(self, before: Source[T]) -> None:
        """Go on from another source's reading (the same driver, under a changed site file)."""
        self._reading = before._reading

    async def stop(self) -> None:
        """Abandon the read that is under way."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _read(self) -> None:
        started = self._clock.now()
        try:
            async with asyncio.timeout(self.rhythm.deadline):
                value = await self._call()
        except TimeoutError:
            self._failed(f"no answer within {self.rhythm.deadline:g} s")
        except Throttled as error:
            self._failed(str(error), max(self._backoff.failed(), error.retry_after or 0.0))
        except QueueNotReady as error:
            self._failed(str(error), error.ask_again)  # no fault to back off from: it is known when to ask again
        except SourceError as error:
            self._failed(str(error))
        # The one barrier of this task: whatever a driver lets escape is a failure of its source, not of the loop.
        except Exception as error:
            log.exception("driver fault", source=self.name)
            self._failed(f"the driver failed: {type(error).__name__}: {error}")
        else:
            self._answered(Fresh(value, started, self._clock.now()))
        finally:
            self.attempted.set()

    def _answered(self, answer: Fresh[T]) -> None:
        self._backoff.succeeded()
        self._reading = self._believe(self._reading, answer)
        doubted = isinstance(self._reading, Unconfirmed)
        self._next_due = answer.started + (max(CONFIRM_AFTER, self.rhythm.spacing) if doubted else self.rhythm.every)
        self._blocked_until = self._next_due if doubted else float("-inf")
        self._changed(self.name)

    def _failed(self, error: str, wait: float | None = None) -> None:
        """Keep what was known, as stale. ``wait``: seconds until the next try; None: the backoff's."""
        now = self._clock.now()
        before = self._reading
        if isinstance(before, Missing | Stale):
            since = before.failing_since
            self._reading = replace(before, error=error)
        else:
            since = now
            known = last_known(before)
            self._reading = Missing(error, now) if known is None else Stale(known, error, now)
        if since == now or not self.attempted.is_set():
            log.warning("source failed", source=self.name, error=error)
        self._next_due = now + (self._backoff.failed() if wait is None else wait)
        self._blocked_until = self._next_due
        self._changed(self.name)
