"""Site files to start from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gridtide.site.loader import load
from gridtide.site.site import Site

Write = Callable[[str], Path]
Read = Callable[[str], Site]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a text as site file."""

    def write_text(text: str) -> Path:
        path = tmp_path / "site.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write_text


@pytest.fixture
def read(write: Write) -> Read:
    """Write a text as site file and load it."""
    return lambda text: load(write(text))
