"""The demo's own modules: scripts that lie in one directory and import each other by plain names."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture
def run_module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """demo/run.py."""
    monkeypatch.syspath_prepend(str(ROOT / "demo"))
    return importlib.import_module("run")


@pytest.fixture
def open_data() -> Path:
    """The real file, where it is; elsewhere the tests that need it are left out, and say so."""
    named = os.environ.get("GRIDTIDE_OPEN_DATA")
    path = Path(named) if named else ROOT.parent / "shared" / "data" / "open-data-example.root"
    if not path.is_file():
        pytest.skip(f"there is no open-data file at {path}; GRIDTIDE_OPEN_DATA names another place")
    return path
