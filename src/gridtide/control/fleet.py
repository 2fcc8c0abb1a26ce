"""The workers as this controller knows them: a copy of the store's, which only this process changes while it leads.

Every change is committed first and seen afterwards, under one lock, so that nobody acts on what is not yet recorded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from gridtide.control.boots import key_of
from gridtide.control.lease import LeaseKeeper
from gridtide.control.ledger import Ledger, reach_of
from gridtide.errors import NotFound
from gridtide.model.boots import Boot, BootReport, phases_of
from gridtide.model.demand import Attribute
from gridtide.model.ids import GroupName, WorkerId
from gridtide.model.reasons import Cause, Reason
from gridtide.model.rules import Wishes
from gridtide.model.snapshot import Heartbeat
from gridtide.model.workers import MAY_JOIN, Worker, WorkerState
from gridtide.store.ports import AddWorker, Change, Event, FleetStore, SetWishes, UpdateWorker

Decide = Callable[[Mapping[WorkerId, Worker]], Sequence[Change]]


class Fleet:
    """``workers`` holds all that are not GONE; it is changed here and nowhere else."""

    def __init__(self, store: FleetStore, keeper: LeaseKeeper) -> None:
        self._store = store
        self._keeper = keeper
        self._lock = asyncio.Lock()
        self.workers: dict[WorkerId, Worker] = {}
        self.wishes: dict[GroupName, Wishes] = {}
        self.heartbeats: dict[WorkerId, Heartbeat] = {}
        self.drain_acknowledged: dict[WorkerId, float] = {}
        self.undrain_answered: dict[WorkerId, float] = {}
        self.ledger = Ledger()
        self._led_since = float("inf")
        self._by_state: dict[WorkerState, dict[WorkerId, Worker]] = {state: {} for state in WorkerState}
        self._view: Mapping[WorkerId, Worker] | None = None

    async def load(self, now: float) -> None:
        """Read everything anew, at the beginning of a lead.

        Drains count as not acknowledged, so they are ordered again; an undrain of the process before counts as
        answered: if the queue never heard of it, it lists the worker as draining, and that is then believed.
        """
        async with self._lock:
            self.workers, self._view = {}, None
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

    def in_state(self, state: WorkerState) -> Mapping[WorkerId, Worker]:
        """Those that are in it, without a look at the others."""
        return self._by_state[state]

    async def change(self, decide: Decide) -> Sequence[Change]:
        """Commit what ``decide`` makes of the present workers; returns what was committed.

        ``decide`` sees the workers as they are at the moment of the commit, so it must drop what no longer applies.
        """
        async with self._lock:
            changes = decide(self.workers)
            if changes:
                await self._store.commit(self._keeper.lease, changes)
                for change in changes:
                    self._apply(change)
            return changes

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
        """
        async with self._lock:
            before = self.workers.get(worker)
            boot = None if before is None else _boot(before, now, report)
            launched = None if before is None else before.launched
            learned = launched is not None and self._led_since <= launched <= now
            joined = await self._store.join(
                self._keeper.lease,
                worker,
                join_digest=join_digest,
                worker_digest=worker_digest,
                now=now,
                host=host,
                reason=Reason(Cause.JOINED, "its machine traded the join token"),
                boot=boot if learned else None,
            )
            self._put(joined)
            if before is None or before.state is joined.state:
                return Joined(joined, None, learned=False)  # a repeated request
            told = replace(event_of(joined, actor=f"worker:{worker}", now=now), text=_joined_text(boot))
            await self._store.commit(self._keeper.lease, [told])
            return Joined(joined, boot, learned=learned)

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
        self._view = None
        before = self.workers.get(worker.id)
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
