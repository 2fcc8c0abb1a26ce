"""Workers that wait for a job: one matcher serves all of them, whatever their number.

A worker that asks is matched at once, together with those that ask at the same moment. When nothing fits, it waits, and
is only tried again when something has changed (:meth:`WaitingRoom.wake`), together with all others that wait. So
nothing polls the database, and 1 000 waiting workers cost a few transactions when a job arrives.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from gridtide.pilot.protocol import JobAnswer, Order
from gridtide.pilot.scheduling import Ask

# Of one transaction. More would let a heartbeat or a finished job wait longer behind it on the writer's thread.
_MOST_ASKS: Final = 200


@dataclass(eq=False, slots=True)
class _Waiting:
    ask: Ask
    answer: asyncio.Future[JobAnswer]
    leaving: bool
    """Its time is up: the next answer is its last."""
    tried: bool = False
    in_hand: bool = False
    """A transaction that may give it a job is under way: it cannot leave without knowing."""


@dataclass(slots=True)
class WaitingRoom:
    """``assign`` answers a batch of questions in one transaction."""

    assign: Callable[[Sequence[Ask]], Awaitable[Sequence[JobAnswer]]]
    _waiting: list[_Waiting] = field(default_factory=list)
    _matcher: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    async def ask(self, ask: Ask, wait: float) -> JobAnswer:
        """A job or an order, or after ``wait`` seconds the answer that nothing fits."""
        entry = _Waiting(ask, asyncio.get_running_loop().create_future(), leaving=wait <= 0)
        self._waiting.append(entry)
        self._start()
        try:
            if not entry.leaving:
                await asyncio.wait((entry.answer,), timeout=wait)
                entry.leaving = True
            if not entry.answer.done() and entry.tried and not entry.in_hand:
                return JobAnswer(Order.CONTINUE, None)
            return await entry.answer
        finally:
            self._waiting.remove(entry)
            entry.answer.cancel()

    def wake(self) -> None:
        """Something changed: all that wait are tried again."""
        for entry in self._waiting:
            entry.tried = False
        if self._waiting:
            self._start()

    def _start(self) -> None:
        if self._matcher is None or self._matcher.done():
            self._matcher = asyncio.get_running_loop().create_task(self._match(), name="pilot-matcher")

    def _untried(self) -> list[_Waiting]:
        found = (entry for entry in self._waiting if not entry.tried and not entry.answer.done())
        return list(itertools.islice(found, _MOST_ASKS))

    async def _match(self) -> None:
        while batch := self._untried():
            for entry in batch:
                entry.tried = entry.in_hand = True
            try:
                answers = await self.assign([entry.ask for entry in batch])
            # The barrier of this task: what goes wrong belongs to those who asked, and the next batch is tried anew.
            except Exception as error:  # noqa: BLE001
                for entry in batch:
                    entry.in_hand = False
                    if not entry.answer.done():
                        entry.answer.set_exception(error)
                continue
            for entry, answer in zip(batch, answers, strict=True):
                entry.in_hand = False
                if (entry.leaving or answer.final) and not entry.answer.done():
                    entry.answer.set_result(answer)
