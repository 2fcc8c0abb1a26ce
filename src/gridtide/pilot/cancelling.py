"""Cancelling: what waits ends at once, what runs when its worker has obeyed.

A running job keeps its state until its worker reports, because a worker that still runs something must not look empty
to whoever ends machines. If the worker is lost meanwhile, the job is cancelled with it instead of waiting again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection, Row, and_, select, text, update

from gridtide.errors import AccessDenied, NotFound
from gridtide.pilot.protocol import JobId, JobState
from gridtide.pilot.sql import job_id, move, parse_job_id, recount
from gridtide.pilot.tables import jobs, submissions

_REASON: Final = "cancelled while it waited"
_WAITING: Final = text("pilot_jobs.state = 'waiting'")
_RUNNING: Final = and_(text("pilot_jobs.state = 'running'"), text("pilot_jobs.state <> 'waiting'"))


def cancel_submission(connection: Connection, number: int, user: str | None, now: float) -> int:
    """All jobs of a submission that have not ended. Returns how many. NotFound, AccessDenied."""
    row = connection.execute(select(submissions).where(submissions.c.number == number)).one_or_none()
    if row is None:
        raise NotFound(f"there is no submission {number}")
    _check_owner(row, user, f"submission {number}")
    its = jobs.c.id.between(row.first, row.first + row.size - 1)
    ended = {"state": JobState.CANCELLED.value, "ended": now, "reason": _REASON}
    waiting = connection.execute(update(jobs).where(its, _WAITING).values(ended)).rowcount
    if waiting:
        recount(connection, number, row.class_id, JobState.WAITING, JobState.CANCELLED, waiting)
    told = update(jobs).where(its, _RUNNING, jobs.c.cancelling.is_(False)).values(cancelling=True)
    return waiting + connection.execute(told).rowcount


def cancel_jobs(connection: Connection, names: Sequence[JobId], user: str | None, now: float) -> int:
    """These jobs, as far as they have not ended. Returns how many. NotFound, AccessDenied: then none."""
    return sum(_cancel_job(connection, name, user, now) for name in dict.fromkeys(names))


def _cancel_job(connection: Connection, name: JobId, user: str | None, now: float) -> int:
    number, index = parse_job_id(name)
    query = (
        select(jobs, submissions.c.user_name)
        .join(submissions, jobs.c.id == submissions.c.first + index)
        .where(submissions.c.number == number, index < submissions.c.size)
        .with_for_update(of=jobs)
    )
    row = connection.execute(query).one_or_none()
    if row is None:
        raise NotFound(f"there is no job {name}")
    _check_owner(row, user, f"job {job_id(number, index)}")
    if row.state == JobState.RUNNING and not row.cancelling:
        connection.execute(update(jobs).where(jobs.c.id == row.id).values(cancelling=True))
        return 1
    if row.state != JobState.WAITING:
        return 0
    move(
        connection,
        row.id,
        number,
        row.class_id,
        JobState.WAITING,
        JobState.CANCELLED,
        attempt=row.attempt,
        losses=row.losses,
        ended=now,
        reason=_REASON,
    )
    return 1


def _check_owner(row: Row[Any], user: str | None, what: str) -> None:
    if user is not None and row.user_name != user:
        raise AccessDenied(f"{what} belongs to another user", remedy="ask its owner or an operator")
