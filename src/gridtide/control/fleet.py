"""The workers as this controller knows them: a copy of the store's, which only this process changes while it leads.

Every change is committed first and seen afterwards, under one lock, so that nobody acts on what is not yet recorded.
What was begun is done to its end, whatever becomes of the one who asked for it: a change that were committed and never
seen here would be in the way of all that follow.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from operator import attrgetter
from types import MappingProxyType
from typing import Final

from gridtide.control.boots import key_of
from gridtide.control.lease import LeaseKeeper
from gridtide.control.ledger import Ledger, reach_of
from gridtide.errors import Conflict, GridtideError, LeaseLost, NotFound, StoreError, StoreUnavailable
from gridtide.model.boots import Boot, BootReport, phases_of
from gridtide.model.demand import Attribute
from gridtide.model.ids import GroupName, WorkerId
from gridtide.model.reasons import Cause, Reason
from gridtide.model.rules import Wishes
from gridtide.model.snapshot import Heartbeat
from gridtide.model.workers import MAY_JOIN, Worker, WorkerState
from gridtide.store.ports import AddWorker, Change, Event, FleetStore, Join, SetWishes, Traded, UpdateWorker, no_check

Decide = Callable[[Mapping[WorkerId, Worker]], Sequence[Change]]

# Of one commit. More would let those who come later, and the plan's own changes, wait longer behind it.
_MOST_JOINS: Final = 256
_AGE: Final = attrgetter("created", "id")
_JOINED: Final = Reason(Cause.JOINED, "its machine traded the join token")


class Fleet:
    """``workers`` holds all that are not GONE; it is changed here and nowhere else."""

    def __init__(self, store: FleetStore, keeper: LeaseKeeper) -> None:
        self._store = store
        self._keeper = keeper
        self._lock = asyncio.Lock()
        self._door = asyncio.Lock()
        """Here those wait who want to join, so that of them only one at a time waits with everybody else."""
        self.workers: dict[WorkerId, Worker] = {}
        self.wishes: dict[GroupName, Wishes] = {}
        self.heartbeats: dict[WorkerId, Heartbeat] = {}
        self.drain_acknowledged: dict[WorkerId, float] = {}
        self.undrain_answered: dict[WorkerId, float] = {}
        self.ledger = Ledger()
        self._joining: dict[_Joining, None] = {}
        self._under_way: asyncio.Task[None] | None = None
        """The change that is being made, if one is: the event loop alone would let it be lost."""
        self._led_since = float("inf")
        self._in_doubt = False
        """Whether the store may hold other workers than these."""
        self._by_state: dict[WorkerState, dict[WorkerId, Worker]] = {state: {} for state in WorkerState}
        self.counts: Counter[tuple[GroupName, WorkerState]] = Counter()
        self._view: Mapping[WorkerId, Worker] | None = None
        self._oldest_first: Sequence[Worker] | None = None

    async def load(self, now: float) -> None:
        """Read everything anew, at the beginning of a lead.

        Drains count as not acknowledged, so they are ordered again; an undrain of the process before counts as
        answered: if the queue never heard of it, it lists the worker as draining, and that is then believed.
        """
        async with self._lock:
            self._in_doubt = False
            self.workers, self.counts = {}, Counter()
            self._view = self._oldest_first = None
            self._by_state = {state: {} for state in WorkerState}
            for worker in await self._store.workers():
                self._put(worker)
            self.wishes = dict(await self._store.wishes())
            self.ledger.load(await self._store.stays(since=reach_of(now)))
            self.heartbeats = {}
            self._led_since = now
            self.drain_acknowledged = {}
            self.undrain_answered = {
                worker.id: now for worker in self.workers.values() if worker.state is WorkerState.JOINED
            }

    def get(self, worker: WorkerId) -> Worker:
        """NotFound when there is none (any more)."""
        try:
            return self.workers[worker]
        except KeyError:
            raise NotFound(f"no worker {worker}", remedy="`gridtide workers` lists them") from None

    def view(self) -> Mapping[WorkerId, Worker]:
        """The workers as they are now, in a mapping that stays so: the same one until a worker changes."""
        if self._view is None:
            self._view = MappingProxyType(dict(self.workers))
        return self._view

    def oldest_first(self) -> Sequence[Worker]:
        """The workers as they are now, by when they were made: the same sequence until a worker changes."""
        if self._oldest_first is None:
            self._oldest_first = sorted(self.workers.values(), key=_AGE)
        return self._oldest_first

    def in_state(self, state: WorkerState) -> Mapping[WorkerId, Worker]:
        """Those that are in it, without a look at the others."""
        return self._by_state[state]

    async def change(self, decide: Decide, check: Callable[[], None] = no_check) -> Sequence[Change]:
        """Commit what ``decide`` makes of the present workers; returns what was committed.

        ``decide`` sees the workers as they are at the moment of the commit, so it must drop what no longer applies.
        ``check``: see :meth:`FleetStore.commit <gridtide.store.ports.FleetStore.commit>`.
        """
        changes: Sequence[Change] = ()

        async def make() -> None:
            nonlocal changes
            await self._be_sure()
            changes = decide(self.workers)
            if changes:
                with self._doubting():
                    await self._store.commit(self._keeper.lease, changes, check)
                for change in changes:
                    self._apply(change)

        await self._to_its_end(make)
        return changes

    @contextmanager
    def _doubting(self) -> Iterator[None]:
        """A store that does not answer may have recorded what it was given, and one that finds other workers than were
        decided on has: nothing more is decided on these before they are read again."""
        try:
            yield
        except (StoreUnavailable, Conflict):
            self._in_doubt = True
            raise

    async def _be_sure(self) -> None:
        if not self._in_doubt:
            return
        stored = {worker.id: worker for worker in await self._store.workers()}
        wishes = dict(await self._store.wishes())
        gone = [await self._store.worker(name) for name in self.workers.keys() - stored.keys()]
        for worker in (*stored.values(), *gone):
            if worker is not None and self.workers.get(worker.id) != worker:
                self._apply(UpdateWorker(worker.state, worker))
        self.wishes = wishes
        self._in_doubt = False

    async def _to_its_end(self, work: Callable[[], Coroutine[None, None, None]]) -> None:
        """Under the lock. A caller that is cancelled before it has the lock takes its work along; later it goes alone,
        and the work keeps the lock until it is done."""
        await self._lock.acquire()
        self._under_way = asyncio.create_task(work())
        self._under_way.add_done_callback(self._done)
        await asyncio.shield(self._under_way)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._under_way = None
        self._lock.release()
        if not task.cancelled():
            task.exception()  # its caller may be gone; asyncio would complain that nobody has looked at it

    async def note(self, *events: Event) -> None:
        """Commit what changes no worker. It need not wait for those that do."""
        await self._store.commit(self._keeper.lease, events)

    async def join(
        self,
        worker: WorkerId,
        *,
        join_digest: bytes,
        worker_digest: bytes,
        now: float,
        host: Mapping[str, Attribute],
        report: BootReport | None,
    ) -> Joined:
        """See FleetStore.join. ``report``: what the machine says of its boot.

        A machine that was launched before this controller led may have been ready while nobody could let it in: how
        long that took is told, and not kept, since nothing can be learned from it.

        Whoever is let in first lets in all that wait: thousands may come at once, and share a commit.
        """
        mine = _Joining(Join(worker, join_digest, worker_digest, now, host, _JOINED), report)
        self._joining[mine] = None
        try:
            async with self._door:
                if mine.outcome is None:
                    await self._to_its_end(self._let_all_in)
        finally:
            del self._joining[mine]
        return mine.joined()

    async def _let_all_in(self) -> None:
        waiting = (each for each in self._joining if each.outcome is None)
        await self._let_in(list(islice(waiting, _MOST_JOINS)))

    async def _let_in(self, batch: Sequence[_Joining]) -> None:
        """Sets the outcome of each. What breaks it off leaves those without one to the next in the row."""
        outcomes: Sequence[Traded | GridtideError]
        try:
            await self._be_sure()
            for each in batch:
                each.look(self.workers.get(each.join.worker), self._led_since)
            with self._doubting():
                outcomes = await self._store.join(self._keeper.lease, [each.join for each in batch])
        except StoreError as error:
            if len(batch) > 1 and not isinstance(error, StoreUnavailable | LeaseLost):
                for each in batch:  # what the database refuses of one must not concern the others
                    await self._let_in([each])
                return
            outcomes = [error] * len(batch)
        for each, outcome in zip(batch, outcomes, strict=True):
            each.outcome = outcome
            if isinstance(outcome, Traded):
                self._put(outcome.worker)

    def _apply(self, change: Change) -> None:
        match change:
            case AddWorker(worker=worker):
                self._put(worker)
            case UpdateWorker(worker=worker):
                self._put(worker)
                if worker.state is WorkerState.GONE:
                    self.ledger.add(worker)
                if worker.state is not WorkerState.DRAINING:
                    self.drain_acknowledged.pop(worker.id, None)
                if worker.state is not WorkerState.JOINED:
                    self.undrain_answered.pop(worker.id, None)
            case SetWishes(group=group, wishes=wishes):
                self.wishes[group] = wishes
            case Event():
                pass

    def _put(self, worker: Worker) -> None:
        self._view = self._oldest_first = None
        before = self.workers.get(worker.id)
        if before is not None:
            self.counts[before.group, before.state] -= 1
        if worker.state is not WorkerState.GONE:
            self.counts[worker.group, worker.state] += 1
        if before is not None and before.state is not worker.state:
            del self._by_state[before.state][worker.id]
        if worker.state is WorkerState.GONE:
            self.workers.pop(worker.id, None)
            self.heartbeats.pop(worker.id, None)
        else:
            self.workers[worker.id] = worker
            self._by_state[worker.state][worker.id] = worker


@dataclass(frozen=True, slots=True)
class Joined:
    """A worker that has joined; its boot, unless it had joined before."""

    worker: Worker
    boot: Boot | None
    learned: bool
    """Whether it says something of the next boots."""


@dataclass(eq=False, slots=True)
class _Joining:
    """A machine at the door."""

    join: Join
    report: BootReport | None
    outcome: Traded | GridtideError | None = None
    boot: Boot | None = None

    def look(self, before: Worker | None, led_since: float) -> None:
        """Note what its join will tell, from the worker as it is now."""
        if before is None:
            return
        now = self.join.now
        self.boot = _boot(before, now, self.report)
        learned = before.launched is not None and led_since <= before.launched <= now
        after = moved(before, WorkerState.JOINED, self.join.reason, now)
        told = replace(event_of(after, actor=f"worker:{before.id}", now=now), text=_joined_text(self.boot))
        self.join = replace(self.join, boot=self.boot if learned else None, event=told)

    def joined(self) -> Joined:
        """The outcome, or what was raised instead."""
        if isinstance(self.outcome, GridtideError):
            raise self.outcome
        if self.outcome is None:
            raise RuntimeError("it is asked before it was let in or turned away")
        if not self.outcome.now:
            return Joined(self.outcome.worker, None, learned=False)  # a repeated request
        return Joined(self.outcome.worker, self.boot, learned=self.join.boot is not None)


def _boot(worker: Worker, now: float, report: BootReport | None) -> Boot | None:
    if worker.launched is None or worker.state not in MAY_JOIN:
        return None
    answered = worker.since if worker.state is WorkerState.BOOTING else None
    phases = phases_of(worker.launched, answered, now, report)
    return Boot(worker.id, key_of(worker), now, max(0.0, now - worker.launched), phases)


def _joined_text(boot: Boot | None) -> str:
    if boot is None:
        return WorkerState.JOINED.value
    told = ", ".join(f"{phase.value} {seconds:.1f}" for phase, seconds in boot.phases.items())
    return f"{WorkerState.JOINED.value} {boot.seconds:.1f} s after its launch: {told}"


def moved(worker: Worker, after: WorkerState, reason: Reason, now: float) -> Worker:
    """The worker in its next state."""
    return replace(worker, state=after, since=now, reason=reason)


def event_of(worker: Worker, *, actor: str, now: float, evidence: Mapping[str, object] | None = None) -> Event:
    """The audit line for the state that a worker has just entered."""
    return Event(
        at=now,
        kind="worker",
        subject=worker.id,
        actor=actor,
        reason=worker.reason,
        text=worker.state.value,
        evidence=dict(evidence or {}),  # type: ignore[arg-type]
        group=worker.group,
    )
