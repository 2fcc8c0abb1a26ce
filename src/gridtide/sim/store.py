"""The store of a simulation: the one in memory, seen by the watch, with an instant before and after each call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from gridtide.errors import AccessDenied, Conflict
from gridtide.model.costs import Stay
from gridtide.model.ids import GroupName
from gridtide.model.rules import Wishes
from gridtide.model.workers import Worker
from gridtide.sim.gate import reach
from gridtide.sim.watch import Watch
from gridtide.store.memory import MemoryFleetStore
from gridtide.store.ports import Change, Event, Join, Lease, Owner, Traded, no_check


class WatchedStore(MemoryFleetStore):
    """Events are looked at and not kept: a month of them would fill the memory."""

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self._watch = watch

    async def take_lease(
        self, owner: Owner, *, now: float, seconds: float, owner_lives: bool | None, seen: Lease | None = None
    ) -> Lease:
        """See FleetStore."""
        await reach()
        lease = await super().take_lease(owner, now=now, seconds=seconds, owner_lives=owner_lives, seen=seen)
        await reach()
        return lease

    async def renew_lease(self, lease: Lease, *, now: float, seconds: float) -> Lease:
        """See FleetStore."""
        await reach()
        renewed = await super().renew_lease(lease, now=now, seconds=seconds)
        await reach()
        return renewed

    async def workers(self) -> Sequence[Worker]:
        """See FleetStore."""
        await reach()
        return await super().workers()

    async def wishes(self) -> Mapping[GroupName, Wishes]:
        """See FleetStore."""
        await reach()
        return await super().wishes()

    async def stays(self, *, since: float) -> Sequence[Stay]:
        """See FleetStore."""
        await reach()
        return await super().stays(since=since)

    async def commit(self, lease: Lease, changes: Sequence[Change], check: Callable[[], None] = no_check) -> None:
        """See FleetStore."""
        await reach()
        deposed = self._deposed(lease)
        await super().commit(lease, [change for change in changes if not isinstance(change, Event)], check)
        self._watch.recorded(changes, deposed=deposed)
        await reach()

    async def join(self, lease: Lease, joins: Sequence[Join]) -> Sequence[Traded | AccessDenied | Conflict]:
        """See FleetStore."""
        await reach()
        outcomes = await super().join(lease, [replace(each, event=None) for each in joins])
        for outcome in outcomes:
            if isinstance(outcome, Traded):
                self._watch.joined(outcome.worker)
        await reach()
        return outcomes

    def _deposed(self, lease: Lease) -> bool:
        """Whether another controller has led since."""
        return lease.epoch != self._epoch
