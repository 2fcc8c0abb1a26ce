"""Answers to heartbeats that still stand: the same words with nothing changed since need no look into the tables.

Most heartbeats say what the one before said, and are told the same. The answer is remembered until a write that may
change it has ended, whatever came of the write. A look that was under way when that happened is not remembered: it may
have seen the tables as they were before.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from gridtide.model.ids import WorkerId
from gridtide.pilot.contacts import Listed
from gridtide.pilot.protocol import JobId, Order

Told = tuple[Order, Sequence[JobId]]


@dataclass(frozen=True, slots=True)
class Said:
    """A heartbeat's words."""

    running: tuple[Listed, ...]
    draining: bool


NOTHING: Final = Said((), draining=False)
"""What a worker says that runs nothing and goes on."""


class StandingAnswers:
    """At most one for each worker that is heard of."""

    def __init__(self) -> None:
        self._answers: dict[WorkerId, tuple[Said, Told]] = {}
        self._looks: dict[WorkerId, object] = {}

    def to(self, worker: WorkerId, said: Said) -> Told | None:
        """None when the tables must be asked."""
        before = self._answers.get(worker)
        return before[1] if before is not None and before[0] == said else None

    def look(self, worker: WorkerId) -> object:
        """Before the tables are asked. What comes back goes with the answer to :meth:`keep`."""
        look = self._looks[worker] = object()
        return look

    def keep(self, worker: WorkerId, look: object, said: Said, told: Told | None) -> None:
        """What the tables answered; None when it holds for this once only: what stood before still does."""
        if self._looks.get(worker) is not look:
            return  # something has changed since, or another look was begun
        del self._looks[worker]
        if told is not None:
            self._answers[worker] = (said, told)

    def fall(self, workers: Iterable[WorkerId]) -> None:
        """Something may have changed for these."""
        for worker in workers:
            self._answers.pop(worker, None)
            self._looks.pop(worker, None)

    def fall_all(self) -> None:
        """Something may have changed for anybody."""
        self._answers.clear()
        self._looks.clear()
