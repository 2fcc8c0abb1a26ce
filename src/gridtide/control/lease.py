"""One controller leads; the others wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from gridtide.clock import Clock
from gridtide.errors import Conflict, LeaseLost, StoreError, StoreUnavailable
from gridtide.store.ports import FleetStore, Lease, Owner

log = structlog.get_logger("gridtide.lease")

# A waiting controller looks this often, in seconds: it bounds how long a site is without a leader after a clean stop.
_LOOK_EVERY = 0.5


class LeaseKeeper:
    """Takes the lease, renews it, and knows at any time whether it may still act."""

    def __init__(
        self, store: FleetStore, owner: Owner, lives: Callable[[Owner], bool | None], *, clock: Clock, seconds: float
    ) -> None:
        self._store = store
        self._owner = owner
        self._lives = lives
        self._clock = clock
        self._seconds = seconds
        self._lease: Lease | None = None
        self._good_until = float("-inf")
        self._held_since = float("inf")

    @property
    def lease(self) -> Lease:
        """The lease to commit with. LeaseLost when it was never taken or was lost; StoreUnavailable, for now, when it
        could not be renewed in time: another controller may lead, which the next renewal will tell."""
        if self._lease is None:
            raise LeaseLost("this controller does not lead", remedy="another one may have taken over")
        if not self.holds:
            raise StoreUnavailable("the lease could not be renewed in time", remedy="wait until it is")
        return self._lease

    @property
    def holds(self) -> bool:
        """Whether nobody else can have led since the lease was taken."""
        return self._lease is not None and self._clock.now() < self._good_until

    def held_since(self, moment: float) -> bool:
        """Whether nobody else can have led from then on. Not so for a process that was stopped, or whose host was
        suspended, for longer than its lease: even if it could renew the lease when it went on."""
        return self.holds and self._held_since <= moment

    async def take(self, waiting: Callable[[str], None]) -> Lease:
        """Wait until this process leads. ``waiting`` hears once who leads meanwhile."""
        told = False
        while True:
            asked = self._clock.now()
            current = await self._store.current_lease()
            alive = None if current is None else self._lives(current.owner)
            try:
                lease = await self._store.take_lease(
                    self._owner, now=asked, seconds=self._seconds, owner_lives=alive, seen=current
                )
            except Conflict as error:
                if not told:
                    waiting(str(error))
                    told = True
                await asyncio.sleep(_LOOK_EVERY)
                continue
            self._lease, self._held_since, self._good_until = lease, asked, asked + self._seconds
            log.info("leading", epoch=lease.epoch)
            return lease

    async def keep(self) -> None:
        """Renew until cancelled. Raises LeaseLost when another one leads, or has led.

        A renewal that comes late is tried all the same: if nobody else has led, there was a pause and no more. A busy
        machine would otherwise take its controller down.
        """
        while self._lease is not None:
            await asyncio.sleep(self._seconds / 4)
            asked = self._clock.now()
            try:
                self._lease = await self._store.renew_lease(self._lease, now=asked, seconds=self._seconds)
                if (now := self._clock.now()) >= self._good_until:
                    self._held_since = now
                self._good_until = asked + self._seconds
            except LeaseLost:
                self._lease = None
                raise
            except StoreError as error:
                log.warning("lease not renewed", error=str(error), good_for=round(self._good_until - asked, 1))

    async def release(self) -> None:
        """Let the next one lead at once."""
        if self._lease is not None:
            lease, self._lease = self._lease, None
            await self._store.release_lease(lease)
