"""Fixtures of the pilot queue's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tests.unit.pilot.support import Site


@pytest_asyncio.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    """A queue of its own."""
    made = Site(tmp_path)
    yield made
    await made.database.close()
