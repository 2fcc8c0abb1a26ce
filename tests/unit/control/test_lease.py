"""Who may act: the lease as its keeper knows it."""

from __future__ import annotations

import pytest

from gridtide.control.lease import LeaseKeeper
from gridtide.errors import LeaseLost
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
    with pytest.raises(LeaseLost):
        _ = keeper.lease


async def test_who_has_released_it_holds_nothing() -> None:
    keeper = LeaseKeeper(
        MemoryFleetStore(), Owner("host", "boot", 1, 1), lambda _: None, clock=HandClock(), seconds=10.0
    )
    await keeper.take(lambda _: None)
    await keeper.release()
    assert not keeper.holds
