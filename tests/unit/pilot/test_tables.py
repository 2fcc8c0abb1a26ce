"""That a million waiting jobs are never scanned: the plans of the queries that run all the time."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Connection, Select, event, select, text

from gridtide.pilot import cancelling, demand, nodes, records, scheduling, sql
from gridtide.pilot.protocol import JobState
from gridtide.pilot.tables import jobs
from tests.unit.pilot.support import Site

QUERIES: dict[str, Select[Any]] = {
    "classes that wait": scheduling._WAITING_CLASSES,
    "next job of a class": scheduling._NEXT,
    "demand": demand._WAITING,
    "nodes": nodes._NODES,
    "what runs": sql._RUNNING,
    "what runs here": sql._RUNNING_ON,
    "answers given before": sql._OF_REQUESTS,
    "one attempt": sql._ONE_ATTEMPT,
    "a state's page": records._JOB.where(
        jobs.c.id >= 1, jobs.c.id < 9, records._IN_STATE[JobState.FAILED], text("pilot_jobs.state <> 'waiting'")
    ).order_by(jobs.c.id),
    "a submission's running jobs": select(jobs.c.id).where(jobs.c.id.between(1, 9), cancelling._RUNNING),
}


def _plan(connection: Connection, name: str) -> list[str]:
    sent: list[tuple[str, Any]] = []

    @event.listens_for(connection, "before_cursor_execute")
    def _note(_connection: object, _cursor: object, statement: str, parameters: Any, *_rest: object) -> None:
        sent.append((statement, parameters))

    values = {"class_number": 1, "workers": ["w"], "requests": ["r"], "number": 1, "index": 0, "attempt": 1}
    connection.execute(QUERIES[name], values)
    statement, parameters = sent[-1]  # the first one is BEGIN
    return [row.detail for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)]


async def _plan_of(site: Site, name: str) -> list[str]:
    return await site.database.read(lambda connection: _plan(connection, name))


@pytest.mark.parametrize("name", QUERIES)
async def test_no_query_scans_jobs_or_attempts(site: Site, name: str) -> None:
    plan = await _plan_of(site, name)
    assert plan
    for step in plan:
        scans = step.startswith(("SCAN pilot_jobs", "SCAN pilot_attempts"))
        assert not scans or "ix_pilot_attempts_running" in step


@pytest.mark.parametrize("name", ["next job of a class", "classes that wait", "demand"])
async def test_waiting_jobs_are_found_by_the_partial_index(site: Site, name: str) -> None:
    assert any("ix_pilot_jobs_waiting" in step for step in await _plan_of(site, name))
