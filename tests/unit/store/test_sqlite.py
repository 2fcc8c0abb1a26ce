"""The SQL store on SQLite keeps the store's contract."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gridtide.store.database import Database, make_engine
from gridtide.store.migrate import migrate
from gridtide.store.ports import FleetStore
from gridtide.store.sql import SqlFleetStore
from tests.unit.store.contract import *  # noqa: F403
from tests.unit.store.contract_joining import *  # noqa: F403


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh database file. Migrating takes longer than most of the tests."""
    file = tmp_path_factory.mktemp("migrated") / "store.db"
    engine = make_engine(f"sqlite:///{file}")
    migrate(engine)
    engine.dispose()
    return file


@pytest.fixture
async def store(tmp_path: Path, migrated: Path) -> AsyncIterator[FleetStore]:
    store = SqlFleetStore(Database(f"sqlite:///{shutil.copy(migrated, tmp_path)}"))
    yield store
    await store.close()
