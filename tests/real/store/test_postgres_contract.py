"""The SQL store on PostgreSQL keeps the store's contract."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text

from gridtide.store.database import make_engine
from gridtide.store.opening import open_store
from gridtide.store.ports import FleetStore
from gridtide.store.tables import boots, events, tokens, wishes, workers
from tests.real.postgres import PostgresServer
from tests.unit.store.contract import *  # noqa: F403
from tests.unit.store.contract_joining import *  # noqa: F403


@pytest.fixture(scope="module")
def shared_url(postgres: PostgresServer) -> str:
    return postgres.new_database()


@pytest.fixture
async def store(shared_url: str) -> AsyncIterator[FleetStore]:
    """A store as good as new: making a database for each test would take longer than the test."""
    _database, store = await open_store(shared_url)
    yield store
    await store.close()
    engine = make_engine(shared_url)
    with engine.begin() as connection:
        names = ", ".join(table.name for table in (boots, events, tokens, wishes, workers))
        connection.execute(text(f"TRUNCATE {names} RESTART IDENTITY"))
        connection.execute(text("UPDATE leadership SET epoch = 0, host = NULL"))
    engine.dispose()
