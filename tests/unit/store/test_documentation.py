"""docs/reference/store.md and the code say the same."""

from __future__ import annotations

import re
from pathlib import Path

import gridtide.pilot.tables as pilot_tables
from gridtide.store.tables import events, metadata, workers

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "store.md"


def test_every_table_is_explained() -> None:
    explained = re.findall(r"^\| `(\w+)` \|", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert pilot_tables.jobs.metadata is metadata
    assert sorted(explained) == sorted([*metadata.tables, "alembic_version"])


def test_the_clean_up_names_columns_that_exist() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert "DELETE FROM events WHERE at < " in text
    assert "DELETE FROM workers WHERE state = 'gone' AND since < " in text
    assert {"at"} <= set(events.c.keys())
    assert {"state", "since"} <= set(workers.c.keys())
