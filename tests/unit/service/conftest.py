"""One site in memory per test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.service.site import Site, make_site


@pytest.fixture
async def site(tmp_path: Path) -> Site:
    return await make_site(tmp_path)
