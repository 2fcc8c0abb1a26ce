"""Workloads as comma-separated values: what a site exports from its accounting with one query.

The first line names the columns; docs/reference/traces.md tells them. ``submit`` and ``runtime`` must be there.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Final

from gridtide.sim.swf import SHORTEST
from gridtide.sim.trace import Reading, Skip, TraceError, TraceJob

COLUMNS: Final = (
    "submit",
    "runtime",
    "cores",
    "memory",
    "disk",
    "gpus",
    "walltime",
    "priority",
    "group",
    "tasks",
    "at_once",
)

MOST_TASKS: Final = 1_000_000
"""Jobs of one array. A larger number is taken for a mistake: it would fill the memory."""


def read_csv(lines: Iterable[str], reading: Reading, name: str) -> Iterator[TraceJob]:
    """The jobs of a file, one after the other. TraceError when its first line names no columns of ours."""
    rows = csv.reader(lines)
    columns = [column.strip().lower() for column in next(rows, [])]
    missing = [column for column in ("submit", "runtime") if column not in columns]
    if missing:
        raise TraceError(
            f"column {missing[0]!r} is missing", where=f"{name}: line 1", remedy=f"columns are: {', '.join(COLUMNS)}"
        )
    unused = [column for column in columns if column not in COLUMNS]
    if unused:
        reading.notes.append(f"columns that are not used: {', '.join(unused)}")
    number = 0
    array = 0
    for row in rows:
        if not any(row):
            continue
        if len(row) != len(columns):
            reading.reject(rows.line_num, f"has {len(row)} fields, the first line {len(columns)}")
            continue
        given = {column: cell.strip() for column, cell in zip(columns, row, strict=True) if cell.strip()}
        try:
            job, tasks = _job(number, given)
        except ValueError as error:
            reading.reject(rows.line_num, str(error))
            continue
        if job is None:
            reading.skip(Skip.NEVER_RAN, tasks)
            continue
        if tasks > 1:
            array += 1
            job = job._replace(array=array)
        for _ in range(tasks):
            yield job._replace(number=number)
            number += 1


def _job(number: int, given: dict[str, str]) -> tuple[TraceJob | None, int]:
    """The job of a row, None when it never ran; and how many of it. ValueError."""
    tasks = _whole(given, "tasks", 1, least=1)
    if tasks > MOST_TASKS:
        raise ValueError(f"has {tasks} tasks, more than {MOST_TASKS}")
    if "runtime" not in given:
        return None, tasks
    runtime = _seconds(given, "runtime")
    job = TraceJob(
        number,
        _moment(given.get("submit", "")),
        max(runtime, SHORTEST),
        _whole(given, "cores", 1, least=1),
        _whole(given, "memory", 0),
        _whole(given, "disk", 0),
        _whole(given, "gpus", 0),
        _seconds(given, "walltime") or None if "walltime" in given else None,
        _whole(given, "priority", 0, least=-(10**9)),
        given.get("group", ""),
        0,
        _whole(given, "at_once", 0),
    )
    return job, tasks


def _whole(given: dict[str, str], column: str, default: int, least: int = 0) -> int:
    text = given.get(column)
    if text is None:
        return default
    try:
        value = int(text)
    except ValueError:
        raise ValueError(f"has {column} {text[:20]!r}, which is no whole number") from None
    if value < least:
        raise ValueError(f"has {column} {value}, the least is {least}")
    return value


def _seconds(given: dict[str, str], column: str) -> float:
    text = given[column]
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value < 1e11:
        raise ValueError(f"has {column} {text[:20]!r}, which is no number of seconds")
    return value


def _moment(text: str) -> float:
    """Seconds, or a date and time (of UTC unless it names a zone)."""
    try:
        value = float(text)
    except ValueError:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise ValueError(f"has submit {text[:30]!r}, which is neither seconds nor a date") from None
        value = (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()
    if not 0.0 <= value < 1e11:
        raise ValueError(f"has submit {text[:30]!r}, which is out of range")
    return value
