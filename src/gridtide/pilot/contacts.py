"""When each worker was last heard of, and what it then said that wants a second hearing. In memory only.

After a restart nothing is known, and every worker gets a full lease from then on: the time for which this service did
not listen is no evidence against anybody. So it is after a pause, in which the process was stopped or its host slept.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Set

from gridtide.clock import Clock
from gridtide.model.ids import WorkerId
from gridtide.pilot.protocol import JobId

Listed = tuple[JobId, int]


class Contacts:
    """``lease`` is in seconds."""

    def __init__(self, clock: Clock, lease: float) -> None:
        self._clock = clock
        self._lease = lease
        self._started = clock.now()
        self._last: dict[WorkerId, float] = {}
        self._unsaved: dict[WorkerId, float] = {}
        self._insisting: set[WorkerId] = set()
        self._unlisted: dict[WorkerId, dict[Listed, float]] = {}

    def listen_anew(self) -> None:
        """Nobody was listened to for long. Everybody gets a full lease from now on."""
        self._started = self._clock.now()
        self._last.clear()
        self._unlisted.clear()

    def note(self, worker: WorkerId) -> None:
        """A sign of life."""
        self._last.pop(worker, None)  # whoever was heard of longest ago stands first
        self._last[worker] = self._unsaved[worker] = self._clock.now()

    def silent(self, workers: Set[WorkerId]) -> set[WorkerId]:
        """Those of them whose lease has ended."""
        limit = self._clock.now() - self._lease
        past = itertools.takewhile(lambda each: each[1] < limit, self._last.items())
        found = {worker for worker, _ in past if worker in workers}
        return found | (workers - self._last.keys()) if self._started < limit else found

    def next_end(self, workers: Set[WorkerId]) -> float:
        """When the lease of the first of them ends, unless it is heard of before; infinity when there are none."""
        if not workers <= self._last.keys():
            return self._started + self._lease  # some were not heard of, and no one was heard of before the start
        return next((at for worker, at in self._last.items() if worker in workers), float("inf")) + self._lease

    def unsaved(self) -> dict[WorkerId, float]:
        """Contacts since the last call."""
        taken, self._unsaved = self._unsaved, {}
        return taken

    def insists(self, worker: WorkerId, *, draining: bool) -> bool:
        """Whether it says for the second time in a row that it drains although it was told to go on.

        The first time it may only not know yet that a drain was taken back.
        """
        again = draining and worker in self._insisting
        if draining:
            self._insisting.add(worker)
        else:
            self._insisting.discard(worker)
        return again

    def obeys(self, worker: WorkerId) -> None:
        """It drains because it was told to."""
        self._insisting.discard(worker)

    def missing(self, worker: WorkerId, attempts: Collection[Listed]) -> None:
        """Attempts that it was given and does not list as running: its answer may have been lost, or it forgot them."""
        before = self._unlisted.pop(worker, {})
        now = self._clock.now()
        if attempts:
            self._unlisted[worker] = {attempt: before.get(attempt, now) for attempt in attempts}

    def forgotten(self) -> dict[WorkerId, set[Listed]]:
        """Attempts that a worker in contact has not listed for a whole lease."""
        limit = self._clock.now() - self._lease
        found = {
            worker: {attempt for attempt, since in attempts.items() if since < limit}
            for worker, attempts in self._unlisted.items()
        }
        return {worker: attempts for worker, attempts in found.items() if attempts}

    def drop(self, workers: Iterable[WorkerId]) -> None:
        """Their machines are gone."""
        for worker in workers:
            self._last.pop(worker, None)
            self._unsaved.pop(worker, None)
            self._unlisted.pop(worker, None)
            self._insisting.discard(worker)
