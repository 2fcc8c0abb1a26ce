"""The in-memory twin keeps the store's contract."""

from __future__ import annotations

import pytest

from gridtide.store.memory import MemoryFleetStore
from gridtide.store.ports import FleetStore
from tests.unit.store.contract import *  # noqa: F403
from tests.unit.store.contract_joining import *  # noqa: F403
from tests.unit.store.values import lead


@pytest.fixture
def store() -> FleetStore:
    return MemoryFleetStore()


async def test_closing_keeps_everything() -> None:
    store = MemoryFleetStore()
    lease = await lead(store)
    await store.close()
    assert await store.current_lease() == lease
