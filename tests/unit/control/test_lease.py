"""Who may act: the lease as its keeper knows it."""

from __future__ import annotations

import asyncio

import pytest

from gridtide.control.lease import LeaseKeeper
from gridtide.errors import LeaseLost, StoreUnavailable
from gridtide.store.memory import MemoryFleetStore
from gridtide.store.ports import Owner


class HandClock:
    """Moved by hand."""

    def __init__(self) -> None:
        self.at = 1000.0

    def now(self) -> float:
        return self.at


async def test_it_is_held_from_being_taken_until_it_may_be_anothers() -> None:
    clock = HandClock()
    keeper = LeaseKeeper(MemoryFleetStore(), Owner("host", "boot", 1, 1), lambda _: None, clock=clock, seconds=10.0)
    assert not keeper.holds
    with pytest.raises(LeaseLost):
        _ = keeper.lease
    taken = await keeper.take(lambda _: None)
    clock.at += 9.9
    assert keeper.holds
    assert keeper.lease == taken
    clock.at += 0.2
    assert not keeper.holds
    with pytest.raises(StoreUnavailable, match="renewed in time"):
        _ = keeper.lease


async def kept(keeper: LeaseKeeper) -> asyncio.Task[None]:
    """Has renewed it once, or failed to."""
    keeping = asyncio.create_task(keeper.keep())
    await asyncio.sleep(0.02)
    return keeping


async def test_a_late_renewal_is_a_pause_when_nobody_else_has_led() -> None:
    clock, store = HandClock(), MemoryFleetStore()
    keeper = LeaseKeeper(store, Owner("host", "boot", 1, 1), lambda _: None, clock=clock, seconds=0.01)
    taken = await keeper.take(lambda _: None)
    clock.at += 3600.0
    assert not keeper.holds
    keeping = await kept(keeper)
    assert keeper.holds
    assert keeper.lease.epoch == taken.epoch
    keeping.cancel()


async def test_a_late_renewal_tells_who_has_led_meanwhile() -> None:
    clock, store = HandClock(), MemoryFleetStore()
    keeper = LeaseKeeper(store, Owner("host", "boot", 1, 1), lambda _: None, clock=clock, seconds=0.01)
    await keeper.take(lambda _: None)
    clock.at += 3600.0
    other = await store.take_lease(Owner("other", "boot", 2, 2), now=clock.at, seconds=5.0, owner_lives=None)
    await store.release_lease(other)
    keeping = await kept(keeper)
    with pytest.raises(LeaseLost):
        await keeping
    with pytest.raises(LeaseLost):
        _ = keeper.lease


async def test_what_was_seen_before_a_pause_may_be_over_whoever_has_led_meanwhile() -> None:
    clock, store = HandClock(), MemoryFleetStore()
    keeper = LeaseKeeper(store, Owner("host", "boot", 1, 1), lambda _: None, clock=clock, seconds=0.01)
    assert not keeper.held_since(clock.at)
    await keeper.take(lambda _: None)
    seen = clock.at
    for _ in range(3):  # renewed in time, however often
        clock.at += 0.009
        keeping = await kept(keeper)
        keeping.cancel()
    assert keeper.held_since(seen)
    assert not keeper.held_since(seen - 1.0)
    clock.at += 0.02
    assert not keeper.held_since(seen), "the lease has run out"
    keeping = await kept(keeper)
    assert keeper.holds
    assert not keeper.held_since(seen), "it was renewed too late"
    assert keeper.held_since(clock.at)
    keeping.cancel()


async def test_who_has_released_it_holds_nothing() -> None:
    keeper = LeaseKeeper(
        MemoryFleetStore(), Owner("host", "boot", 1, 1), lambda _: None, clock=HandClock(), seconds=10.0
    )
    await keeper.take(lambda _: None)
    await keeper.release()
    assert not keeper.holds
