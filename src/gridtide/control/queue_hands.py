"""Carries out what the plan says of one queue: drains are ordered until they are acknowledged, one order at a time.

One at a time, because an order to take a drain back that is still on its way while a new drain is acknowledged could
let a job start on a worker that is about to be returned.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

import structlog

from gridtide.clock import Clock
from gridtide.control.backoff import Backoff
from gridtide.control.fleet import Fleet
from gridtide.errors import QueueError, SourceError, StoreError
from gridtide.model.ids import WorkerId
from gridtide.model.reasons import Reason
from gridtide.model.workers import WorkerState
from gridtide.queues.protocol import Outcome, Queue

log = structlog.get_logger("gridtide.queues")


@dataclass(slots=True)
class _Orders:
    undrain: set[WorkerId] = field(default_factory=set)
    forget: set[WorkerId] = field(default_factory=set)


class QueueHands:
    """One per queue. ``mine`` tells whether a worker belongs to this queue."""

    def __init__(
        self,
        queue: Queue,
        fleet: Fleet,
        *,
        mine: Callable[[WorkerId], bool],
        deadline: float,
        clock: Clock,
        random: Random,
        may_act: Callable[[], None],
        happened: Callable[[str], None],
        stir: Callable[[], None],
        observe: Callable[[], None],
    ) -> None:
        self.queue = queue
        self._fleet = fleet
        self._mine = mine
        self._deadline = deadline
        self._clock = clock
        self._may_act = may_act
        self._happened = happened
        self._stir = stir
        self._observe = observe
        self._orders = _Orders()
        self._backoff = Backoff(random)
        self._not_before = float("-inf")
        self._task: asyncio.Task[None] | None = None

    def undrain(self, worker: WorkerId) -> None:
        """Take this worker's drain back (it is recorded as JOINED already)."""
        self._orders.undrain.add(worker)

    def forget(self, worker: WorkerId) -> None:
        """This worker's machine is gone."""
        self._orders.forget.add(worker)

    def kick(self) -> None:
        """Start giving the orders that are open, unless some are being given."""
        if (self._task is None or self._task.done()) and self._clock.now() >= self._not_before and self._open():
            self._task = asyncio.create_task(self._give(), name=f"orders {self.queue.name}")

    def next_attempt(self) -> float | None:
        """When orders that failed may be given again."""
        return self._not_before if self._open() and self._not_before > self._clock.now() else None

    async def stop(self) -> None:
        """Abandon the order under way: drains are ordered again by the next process."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _undrained(self) -> dict[WorkerId, Reason]:
        return {
            worker.id: worker.reason
            for worker in self._fleet.in_state(WorkerState.DRAINING).values()
            if worker.id not in self._fleet.drain_acknowledged and self._mine(worker.id)
        }

    def _open(self) -> bool:
        return bool(self._orders.undrain or self._orders.forget or self._undrained())

    async def _give(self) -> None:
        try:
            self._may_act()
            failures = await self._give_each()
        except StoreError as error:
            log.warning("not ordered", queue=self.queue.name, error=str(error))
            failures = 1
        if failures:
            self._not_before = self._clock.now() + self._backoff.failed()
        else:
            self._backoff.succeeded()
        self._observe()
        if not failures and self._open():
            self._happened(f"orders to {self.queue.name}")  # there have come more
        else:
            self._stir()  # what came of them shows when the queue is read

    async def _give_each(self) -> int:
        failures = 0
        back = {
            worker
            for worker in self._orders.undrain
            if worker in self._fleet.workers and self._fleet.workers[worker].state is WorkerState.JOINED
        }
        self._orders.undrain.clear()  # one that is refused is listed as draining, which the planner sees
        if back:
            await self._call("undrain", lambda: self.queue.undrain(sorted(back)), back)
            answered = self._clock.now()
            self._fleet.undrain_answered.update(dict.fromkeys(back, answered))
        drains = self._undrained()
        ordered_on = {worker: self._fleet.workers[worker].since for worker in drains}
        if drains:
            outcomes = await self._call("drain", lambda: self.queue.drain(drains), drains)
            now = self._clock.now()
            for worker, outcome in outcomes.items():
                if outcome is not None:
                    failures += 1
                elif self._still_draining(worker, ordered_on[worker]):
                    self._fleet.drain_acknowledged[worker] = now
        gone = set(self._orders.forget)
        if gone and await self._forget(gone):
            self._orders.forget -= gone
        else:
            failures += len(gone)
        return failures

    def _still_draining(self, worker: WorkerId, since: float) -> bool:
        """Whether it is in the very drain that was ordered: not taken back, nor drained anew, while the call ran."""
        current = self._fleet.workers.get(worker)
        return current is not None and current.state is WorkerState.DRAINING and current.since == since

    async def _call(
        self,
        what: str,
        call: Callable[[], Awaitable[Mapping[WorkerId, Outcome]]],
        asked: Sequence[WorkerId] | set[WorkerId] | Mapping[WorkerId, Reason],
    ) -> Mapping[WorkerId, Outcome]:
        silent = QueueError("the queue did not say whether it took the order", where=self.queue.name)
        try:
            async with asyncio.timeout(self._deadline):
                answer = await call()
        except TimeoutError:
            outcomes: Mapping[WorkerId, Outcome] = dict.fromkeys(
                asked, QueueError(f"no answer within {self._deadline:g} s", where=self.queue.name)
            )
        except QueueError as error:
            outcomes = dict.fromkeys(asked, error)
        # The barrier of this task: a fault of the driver is an order that was not taken.
        except Exception as fault:
            log.exception("driver fault", queue=self.queue.name)
            outcomes = dict.fromkeys(asked, QueueError(f"the driver failed: {fault}", where=self.queue.name))
        else:
            outcomes = {worker: answer.get(worker, silent) for worker in asked}
        for worker, outcome in outcomes.items():
            if outcome is not None:
                log.warning("order not taken", what=what, queue=self.queue.name, worker=worker, error=str(outcome))
        return outcomes

    async def _forget(self, gone: set[WorkerId]) -> bool:
        try:
            async with asyncio.timeout(self._deadline):
                await self.queue.forget(sorted(gone))
        except (TimeoutError, SourceError) as error:
            log.warning("not forgotten", queue=self.queue.name, error=str(error) or "no answer")
            return False
        return True
