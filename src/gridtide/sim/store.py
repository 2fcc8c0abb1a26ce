"""The store of a simulation: the one in memory, seen by the watch, with an instant before and after each call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gridtide.model.boots import Boot
from gridtide.model.costs import Stay
from gridtide.model.demand import Attribute
from gridtide.model.ids import GroupName, WorkerId
from gridtide.model.reasons import Reason
from gridtide.model.rules import Wishes
from gridtide.model.workers import Worker
from gridtide.sim.gate import reach
from gridtide.sim.watch import Watch
from gridtide.store.memory import MemoryFleetStore
from gridtide.store.ports import Change, Event, Lease, Owner


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

    async def commit(self, lease: Lease, changes: Sequence[Change]) -> None:
        """See FleetStore."""
        await reach()
        deposed = self._deposed(lease)
        await super().commit(lease, [change for change in changes if not isinstance(change, Event)])
        self._watch.recorded(changes, deposed=deposed)
        await reach()

    async def join(
        self,
        lease: Lease,
        worker: WorkerId,
        *,
        join_digest: bytes,
        worker_digest: bytes,
        now: float,
        host: Mapping[str, Attribute],
        reason: Reason,
        boot: Boot | None = None,
    ) -> Worker:
        """See FleetStore."""
        await reach()
        joined = await super().join(
            lease,
            worker,
            join_digest=join_digest,
            worker_digest=worker_digest,
            now=now,
            host=host,
            reason=reason,
            boot=boot,
        )
        self._watch.joined(joined)
        await reach()
        return joined

    def _deposed(self, lease: Lease) -> bool:
        """Whether another controller has led since."""
        return lease.epoch != self._epoch
