"""What people see of the pilot queue: reads only, never longer than the page that was asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection, Row, Select, and_, func, select, text

from gridtide.errors import NotFound
from gridtide.model.ids import WorkerId
from gridtide.model.resources import Resources
from gridtide.pilot.protocol import JobId, JobRecord, JobState, OutputFile, SubmissionRecord
from gridtide.pilot.sql import job_id, parse_job_id
from gridtide.pilot.tables import STARTED, attempts, classes, jobs, outputs, submissions

# The state is written into the query as a literal, for SQLite uses a partial index for no other; STARTED likewise.
_IN_STATE: Final = {state: text(f"pilot_jobs.state = '{state.value}'") for state in JobState}

_JOB: Final[Select[Any]] = (
    select(
        jobs.c.id,
        jobs.c.submission,
        (jobs.c.id - submissions.c.first).label("position"),
        jobs.c.state,
        jobs.c.attempt,
        jobs.c.cancelling,
        jobs.c.ended,
        jobs.c.reason,
        submissions.c.user_name,
        submissions.c.name,
        submissions.c.submitted,
        classes.c.cores,
        classes.c.memory,
        classes.c.disk,
        classes.c.gpus,
        classes.c.priority,
        classes.c.requirements,
        attempts.c.worker,
        attempts.c.started,
        attempts.c.exit_code,
        attempts.c.cpu_seconds,
        attempts.c.peak_memory,
    )
    .select_from(jobs)
    .join(submissions, submissions.c.number == jobs.c.submission)
    .join(classes, classes.c.id == jobs.c.class_id)
    .outerjoin(attempts, and_(attempts.c.job == jobs.c.id, attempts.c.attempt == jobs.c.attempt))
)


def _record(row: Row[Any]) -> JobRecord:
    need = Resources(row.cores, row.memory, row.disk, row.gpus)
    return JobRecord(
        id=job_id(row.submission, row.position),
        user=row.user_name,
        state=JobState(row.state),
        name=row.name,
        need=need,
        priority=row.priority,
        submitted=row.submitted,
        started=row.started,
        ended=row.ended,
        attempt=row.attempt,
        worker=None if row.worker is None else WorkerId(row.worker),
        exit_code=row.exit_code,
        reason=row.reason or _present_reason(row, need),
        cpu_seconds=row.cpu_seconds,
        peak_memory=row.peak_memory,
    )


def _present_reason(row: Row[Any], need: Resources) -> str:
    if row.state == JobState.WAITING:
        return f"waits for a worker with {need_label(need, row.requirements)}"
    if row.cancelling:
        return f"to be cancelled: worker {row.worker} is told at its next contact"
    return f"runs on worker {row.worker}, attempt {row.attempt}"


def need_label(need: Resources, requirements: str) -> str:
    """Needs and requirements in one line."""
    return str(need) if requirements == "true" else f"{need}; Requirements: {requirements}"


def job(connection: Connection, name: JobId) -> JobRecord:
    """NotFound."""
    submission, index = parse_job_id(name)
    query = _JOB.where(
        submissions.c.number == submission, jobs.c.id == submissions.c.first + index, index < submissions.c.size
    )
    row = connection.execute(query).one_or_none()
    if row is None:
        raise NotFound(f"there is no job {name}")
    return _record(row)


def job_page(
    connection: Connection,
    *,
    submission: int | None,
    state: JobState | None,
    user: str | None,
    after: JobId | None,
    limit: int,
) -> list[JobRecord]:
    """Submission by submission, skipping those whose counters say that nothing is to be found there."""
    after_submission, after_index = (0, -1) if after is None else parse_job_id(after)
    query = select(submissions.c.number, submissions.c.first, submissions.c.size)
    query = query.where(submissions.c.number >= after_submission).order_by(submissions.c.number)
    if submission is not None:
        query = query.where(submissions.c.number == submission)
    if user is not None:
        query = query.where(submissions.c.user_name == user)
    if state is not None:
        query = query.where(submissions.c[state.value] > 0)
    found: list[JobRecord] = []
    for row in connection.execute(query.limit(limit + 1)).all():
        if len(found) >= limit:
            break
        begin = row.first + (after_index + 1 if row.number == after_submission else 0)
        found += _jobs_between(connection, begin, row.first + row.size, state, limit - len(found))
    return found


def _jobs_between(connection: Connection, begin: int, end: int, state: JobState | None, limit: int) -> list[JobRecord]:
    query: Select[Any] = _JOB.where(jobs.c.id >= begin, jobs.c.id < end)
    if state is not None:
        query = query.where(_IN_STATE[state])
        if state is not JobState.WAITING:
            query = query.where(text(f"pilot_jobs.{STARTED.text}"))
    return [_record(row) for row in connection.execute(query.order_by(jobs.c.id).limit(limit))]


def _submission(row: Row[Any]) -> SubmissionRecord:
    counts = {state: getattr(row, state.value) for state in JobState}
    return SubmissionRecord(row.number, row.user_name, row.name, row.submitted, counts)


def submission(connection: Connection, number: int) -> SubmissionRecord:
    """NotFound."""
    row = connection.execute(select(submissions).where(submissions.c.number == number)).one_or_none()
    if row is None:
        raise NotFound(f"there is no submission {number}")
    return _submission(row)


def submission_page(connection: Connection, user: str | None, limit: int) -> list[SubmissionRecord]:
    """Newest first."""
    query = select(submissions).order_by(submissions.c.number.desc()).limit(limit)
    if user is not None:
        query = query.where(submissions.c.user_name == user)
    return [_submission(row) for row in connection.execute(query)]


def counts(connection: Connection) -> Mapping[JobState, int]:
    """Over all jobs, from the submissions' counters."""
    sums = [func.coalesce(func.sum(submissions.c[state.value]), 0).label(state.value) for state in JobState]
    row = connection.execute(select(*sums)).one()
    return {state: int(getattr(row, state.value)) for state in JobState}


def output_list(connection: Connection, name: JobId) -> Sequence[OutputFile]:
    """Of the last attempt of a job that has ended; NotFound when there is no such job."""
    record = job(connection, name)
    if record.ended is None:
        return ()
    number, index = parse_job_id(name)
    query = (
        select(outputs.c.name, outputs.c.size, outputs.c.digest)
        .join(submissions, outputs.c.job == submissions.c.first + index)
        .where(submissions.c.number == number, outputs.c.attempt == record.attempt)
        .order_by(outputs.c.name)
    )
    return [OutputFile(row.name, row.size, row.digest) for row in connection.execute(query)]
