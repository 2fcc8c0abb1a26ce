"""The pilot queue on PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.real.postgres import PostgresServer, running_postgres
from tests.unit.pilot.support import Site


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One server for all tests of this folder."""
    with running_postgres() as server:
        yield server


@pytest_asyncio.fixture
async def site(postgres: PostgresServer, tmp_path: Path) -> AsyncIterator[Site]:
    """A queue on an empty database."""
    made = Site(tmp_path, postgres.new_database())
    yield made
    await made.database.close()
