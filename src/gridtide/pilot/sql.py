"""How jobs and attempts are found and change, each function within the caller's transaction.

A job's state, its class's and its submission's counters and its user's usage move together, in :func:`move`,
:func:`start_using` and :func:`stop_using` only. Rows that a decision rests on are locked (which matters to PostgreSQL;
SQLite has a single writer), so that a drain and an assignment come one after the other.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Row, Select, Update, and_, bindparam, delete, insert, select, update

from gridtide.errors import Conflict, NotFound
from gridtide.model.ids import WorkerId
from gridtide.model.resources import Resources
from gridtide.pilot.description import JobDescription, from_json
from gridtide.pilot.endings import figure, missing_outputs, outcome
from gridtide.pilot.files import AttemptPlace
from gridtide.pilot.protocol import AttemptEnd, InputFile, JobId, JobState
from gridtide.pilot.tables import attempts, classes, jobs, outputs, submissions, usage, workers

HALF_LIFE: Final = 86400.0
"""Seconds after which what a user has used weighs half. Shorter forgets a heavy user overnight."""

_JOB_ID: Final = re.compile(r"([1-9][0-9]{0,14})\.(0|[1-9][0-9]{0,8})")


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt and its job, as stored."""

    row: int
    """The job's."""
    place: AttemptPlace
    worker: WorkerId
    state: JobState
    last_attempt: int
    started: float
    ended: float | None
    given_up: bool
    losses: int
    cancelling: bool
    class_id: int
    user: str
    need: Resources
    walltime: float

    @property
    def runs(self) -> bool:
        """Whether it is under way, as far as is known."""
        return self.ended is None

    @property
    def late(self) -> bool:
        """Given up, but nothing was started in its stead: what its worker still does is welcome."""
        return self.given_up and self.state is JobState.WAITING and self.last_attempt == self.place.attempt

    @property
    def wanted(self) -> bool:
        """Whether its worker may still send anything for it."""
        return self.runs or self.late


def job_id(submission: int, index: int) -> JobId:
    """``<submission>.<index>``."""
    return JobId(f"{submission}.{index}")


def parse_job_id(job: JobId) -> tuple[int, int]:
    """Submission and index. NotFound for anything else: no job has that name."""
    match = _JOB_ID.fullmatch(job)
    if match is None:
        raise NotFound(f"there is no job {job[:40]!r}", remedy="jobs are named SUBMISSION.INDEX, such as 12.0")
    return int(match[1]), int(match[2])


_ATTEMPT: Final = (
    select(
        jobs.c.id,
        submissions.c.number,
        (jobs.c.id - submissions.c.first).label("position"),
        attempts.c.attempt,
        attempts.c.worker,
        jobs.c.state,
        jobs.c.attempt.label("last_attempt"),
        attempts.c.started,
        attempts.c.ended,
        attempts.c.given_up,
        jobs.c.losses,
        jobs.c.cancelling,
        jobs.c.class_id,
        classes.c.user_name,
        classes.c.cores,
        classes.c.memory,
        classes.c.disk,
        classes.c.gpus,
        classes.c.walltime,
    )
    .select_from(attempts)
    .join(jobs, jobs.c.id == attempts.c.job)
    .join(submissions, submissions.c.number == jobs.c.submission)
    .join(classes, classes.c.id == jobs.c.class_id)
)
_ONE_ATTEMPT: Final = _ATTEMPT.where(
    submissions.c.number == bindparam("number"),
    attempts.c.job == submissions.c.first + bindparam("index"),
    attempts.c.attempt == bindparam("attempt"),
    bindparam("index") < submissions.c.size,
)
_RUNS: Final = attempts.c.ended.is_(None)
_RUNNING: Final = _ATTEMPT.where(_RUNS)
_RUNNING_ON: Final = _RUNNING.where(attempts.c.worker.in_(bindparam("workers", expanding=True)))
_OF_REQUESTS: Final = _ATTEMPT.add_columns(attempts.c.request).where(
    attempts.c.worker.in_(bindparam("workers", expanding=True)),
    attempts.c.request.in_(bindparam("requests", expanding=True)),
)


def _attempt(row: Row[Any]) -> Attempt:
    return Attempt(
        row=row.id,
        place=AttemptPlace(row.number, row.position, row.attempt),
        worker=WorkerId(row.worker),
        state=JobState(row.state),
        last_attempt=row.last_attempt,
        started=row.started,
        ended=row.ended,
        given_up=row.given_up,
        losses=row.losses,
        cancelling=row.cancelling,
        class_id=row.class_id,
        user=row.user_name,
        need=Resources(row.cores, row.memory, row.disk, row.gpus),
        walltime=row.walltime,
    )


def _all(connection: Connection, query: Select[Any], **values: object) -> list[Attempt]:
    return [_attempt(row) for row in connection.execute(query, values)]


def find_attempt(connection: Connection, worker: WorkerId, job: JobId, number: int) -> Attempt:
    """One attempt of this worker. NotFound, also when it is another worker's: no worker learns of others."""
    submission, index = parse_job_id(job)
    found = _all(connection, _ONE_ATTEMPT, number=submission, index=index, attempt=number)
    if not found or found[0].worker != worker:
        raise NotFound(f"worker {worker} was never given attempt {number} of job {job}")
    return found[0]


def wanted_attempt(connection: Connection, worker: WorkerId, job: JobId, number: int) -> Attempt:
    """An attempt that its worker may still send something for. NotFound or Conflict."""
    attempt = find_attempt(connection, worker, job, number)
    if not attempt.wanted:
        raise Conflict(f"attempt {number} of job {job} has ended or was given up", remedy="end it, if it still runs")
    return attempt


def running(connection: Connection, workers: Sequence[WorkerId] | None = None) -> list[Attempt]:
    """What runs now, on these workers or on all."""
    return _all(connection, _RUNNING) if workers is None else _all(connection, _RUNNING_ON, workers=workers)


def attempts_of_requests(
    connection: Connection, workers: Sequence[WorkerId], requests: Sequence[str]
) -> dict[tuple[WorkerId, str], Attempt]:
    """What these requests of these workers were answered with before."""
    rows = connection.execute(_OF_REQUESTS, {"workers": workers, "requests": requests})
    return {(WorkerId(row.worker), row.request): _attempt(row) for row in rows}


@dataclass(frozen=True, slots=True)
class Kept:
    """What a submission's jobs have in common."""

    description: JobDescription
    inputs: tuple[InputFile, ...]
    first: int
    """The row of its job 0."""


class Descriptions:
    """Reads what is kept of submissions, the last ones used from memory: it never changes."""

    def __init__(self) -> None:
        self._known: dict[int, Kept] = {}

    def get(self, connection: Connection, submission: int) -> Kept:
        """Of a submission that exists."""
        known = self._known.get(submission)
        if known is None:
            row = connection.execute(_KEPT, {"number": submission}).one()
            known = Kept(*from_json(row.description), row.first)
            if len(self._known) >= _MOST_DESCRIPTIONS:
                self._known.clear()
            self._known[submission] = known
        return known


# Each may take a few MiB (a sweep over 100 000 values).
_MOST_DESCRIPTIONS: Final = 64
_KEPT: Final = select(submissions.c.description, submissions.c.first).where(submissions.c.number == bindparam("number"))


def kept_outputs(connection: Connection, attempt: Attempt) -> frozenset[str]:
    """Names of the results that are kept."""
    values = {"row": attempt.row, "number": attempt.place.attempt}
    return frozenset(connection.execute(_OUTPUTS, values).scalars())


def keep_output(connection: Connection, attempt: Attempt, name: str, size: int, digest: str) -> None:
    """A result is complete; one of the same name before it is replaced."""
    key = and_(outputs.c.job == attempt.row, outputs.c.attempt == attempt.place.attempt, outputs.c.name == name)
    connection.execute(delete(outputs).where(key))
    values = {"job": attempt.row, "attempt": attempt.place.attempt, "name": name, "size": size, "digest": digest}
    connection.execute(insert(outputs), values)


# --- moving jobs between states


@functools.cache
def _count(before: JobState, after: JobState) -> Update:
    columns = submissions.c
    changes = {
        before.value: columns[before.value] - bindparam("jobs"),
        after.value: columns[after.value] + bindparam("jobs"),
    }
    return update(submissions).where(columns.number == bindparam("submission_number")).values(changes)


_COUNT_WAITING: Final = (
    update(classes)
    .where(classes.c.id == bindparam("class_number"))
    .values(waiting=classes.c.waiting + bindparam("change"))
)
_MOVE: Final = (
    update(jobs)
    .where(jobs.c.id == bindparam("row"), jobs.c.state == bindparam("before"))
    .values(
        state=bindparam("after"),
        attempt=bindparam("new_attempt"),
        losses=bindparam("new_losses"),
        ended=bindparam("new_ended"),
        reason=bindparam("new_reason"),
    )
)


def recount(
    connection: Connection, submission: int, class_id: int, before: JobState, after: JobState, number: int
) -> None:
    """Carry ``number`` jobs over in the counters."""
    connection.execute(_count(before, after), {"submission_number": submission, "jobs": number})
    change = number * ((after is JobState.WAITING) - (before is JobState.WAITING))
    if change:
        connection.execute(_COUNT_WAITING, {"class_number": class_id, "change": change})


def move(
    connection: Connection,
    row: int,
    submission: int,
    class_id: int,
    before: JobState,
    after: JobState,
    *,
    attempt: int,
    losses: int,
    ended: float | None,
    reason: str | None,
) -> None:
    """One job from ``before`` to ``after``, with the counters. Conflict when it is not in ``before``."""
    values = {"row": row, "before": before.value, "after": after.value, "new_attempt": attempt}
    rest = {"new_losses": losses, "new_ended": ended, "new_reason": reason}
    if connection.execute(_MOVE, {**values, **rest}).rowcount != 1:
        raise Conflict(f"a job of submission {submission} is not {before} any more", remedy="look at it again")
    recount(connection, submission, class_id, before, after, 1)


_START_USING: Final = (
    update(usage)
    .where(usage.c.user_name == bindparam("user"))
    .values(
        running_cores=usage.c.running_cores + bindparam("cores"),
        running_since=usage.c.running_since + bindparam("cores_since"),
    )
)
_USAGE: Final = select(usage).where(usage.c.user_name == bindparam("user")).with_for_update()
_SET_USAGE: Final = (
    update(usage)
    .where(usage.c.user_name == bindparam("user"))
    .values(
        core_seconds=bindparam("new_seconds"),
        at=bindparam("new_at"),
        running_cores=bindparam("new_cores"),
        running_since=bindparam("new_since"),
    )
)


def decayed(core_seconds: float, at: float, now: float) -> float:
    """What usage of the time ``at`` weighs now."""
    return core_seconds * math.pow(0.5, max(now - at, 0.0) / HALF_LIFE)


def start_using(connection: Connection, user: str, cores: int, since: float) -> None:
    """The user's job holds these cores since then."""
    connection.execute(_START_USING, {"user": user, "cores": cores, "cores_since": cores * since})


def stop_using(connection: Connection, user: str, cores: int, since: float, now: float) -> None:
    """It holds them no more: what it used joins the user's past."""
    row = connection.execute(_USAGE, {"user": user}).one()
    left = row.running_cores - cores
    values = {
        "user": user,
        "new_seconds": decayed(row.core_seconds, row.at, now) + cores * max(now - since, 0.0),
        "new_at": now,
        "new_cores": left,
        # Set to nothing where it must be nothing: rounding would otherwise add up over millions of jobs.
        "new_since": row.running_since - cores * since if left else 0.0,
    }
    connection.execute(_SET_USAGE, values)


def _take_back(connection: Connection, attempt: Attempt, now: float) -> None:
    """Undo :func:`stop_using` of an attempt that was given up and goes on."""
    row = connection.execute(_USAGE, {"user": attempt.user}).one()
    given_up = now if attempt.ended is None else attempt.ended
    charged = decayed(attempt.need.cores * max(given_up - attempt.started, 0.0), given_up, now)
    values = {
        "user": attempt.user,
        "new_seconds": max(decayed(row.core_seconds, row.at, now) - charged, 0.0),
        "new_at": now,
        "new_cores": row.running_cores + attempt.need.cores,
        "new_since": row.running_since + attempt.need.cores * attempt.started,
    }
    connection.execute(_SET_USAGE, values)


# --- ending attempts

_END: Final = (
    update(attempts)
    .where(attempts.c.job == bindparam("row"), attempts.c.attempt == bindparam("number"))
    .values(
        ended=bindparam("new_ended"),
        given_up=bindparam("new_given_up"),
        cause=bindparam("new_cause"),
        exit_code=bindparam("new_exit_code"),
        signal=bindparam("new_signal"),
        wall_seconds=bindparam("new_wall"),
        cpu_seconds=bindparam("new_cpu"),
        peak_memory=bindparam("new_peak"),
    )
)
_IDLE: Final = update(workers).where(workers.c.id == bindparam("worker")).values(idle_since=bindparam("now"))
_OUTPUTS: Final = select(outputs.c.name).where(
    outputs.c.job == bindparam("row"), outputs.c.attempt == bindparam("number")
)


def _close(connection: Connection, attempt: Attempt, now: float, end: AttemptEnd | None) -> None:
    """Mark the attempt ended, by its worker's report or, without one, given up."""
    values = {
        "row": attempt.row,
        "number": attempt.place.attempt,
        "new_ended": now,
        "new_given_up": end is None,
        "new_cause": None if end is None else end.cause.value,
        "new_exit_code": None if end is None else end.exit_code,
        "new_signal": None if end is None else end.signal,
        "new_wall": None if end is None else figure(end.wall_seconds),
        "new_cpu": None if end is None else figure(end.cpu_seconds),
        "new_peak": None if end is None else int(figure(end.peak_memory)),
    }
    connection.execute(_END, values)
    if attempt.runs:
        stop_using(connection, attempt.user, attempt.need.cores, attempt.started, now)
        connection.execute(_IDLE, {"worker": attempt.worker, "now": now})


@dataclass(frozen=True, slots=True)
class Ended:
    """What a report of an end came to."""

    accepted: bool
    requeued: bool = False


def finish(
    connection: Connection,
    worker: WorkerId,
    end: AttemptEnd,
    descriptions: Descriptions,
    now: float,
    maximum_losses: int,
) -> Ended:
    """Record the end of an attempt. A repeated report is accepted again and changes nothing."""
    attempt = find_attempt(connection, worker, end.job, end.attempt)
    if not attempt.wanted:
        return Ended(accepted=not attempt.given_up)
    before = JobState.RUNNING if attempt.runs else JobState.WAITING
    kept = descriptions.get(connection, attempt.place.submission)
    declared = kept.description.outputs_of(attempt.place.index)
    missing: list[str] = []
    if declared:
        missing = missing_outputs(declared, kept_outputs(connection, attempt))
    decided = outcome(
        end,
        cancelling=attempt.cancelling,
        memory=attempt.need.memory,
        walltime=attempt.walltime,
        missing=missing,
    )
    if decided is None:
        if attempt.runs:
            lose(connection, [attempt], f"worker {worker} ended it unasked", now, maximum_losses)
        return Ended(accepted=True, requeued=True)
    state, reason = decided
    _close(connection, attempt, now, end)
    move(
        connection,
        attempt.row,
        attempt.place.submission,
        attempt.class_id,
        before,
        state,
        attempt=end.attempt,
        losses=attempt.losses,
        ended=now,
        reason=reason,
    )
    return Ended(accepted=True)


def lose(connection: Connection, lost: Sequence[Attempt], why: str, now: float, maximum_losses: int) -> int:
    """Give attempts up: each job waits again in its old place, or fails when it was lost too often. How many wait."""
    waiting = 0
    for attempt in lost:
        losses = attempt.losses + 1
        if attempt.cancelling:
            after, reason = JobState.CANCELLED, f"cancelled while it ran; {why}"
        elif losses >= maximum_losses:
            after, reason = JobState.FAILED, f"lost {losses} times: {why}"
        else:
            after, reason = JobState.WAITING, f"waits again after attempt {attempt.place.attempt} was given up: {why}"
            waiting += 1
        _close(connection, attempt, now, None)
        move(
            connection,
            attempt.row,
            attempt.place.submission,
            attempt.class_id,
            JobState.RUNNING,
            after,
            attempt=attempt.last_attempt,
            losses=losses,
            ended=None if after is JobState.WAITING else now,
            reason=reason,
        )
    return waiting


_RESUME: Final = (
    update(attempts)
    .where(attempts.c.job == bindparam("row"), attempts.c.attempt == bindparam("number"))
    .values(ended=None, given_up=False)
)


def resume(connection: Connection, worker: WorkerId, job: JobId, number: int, now: float) -> None:
    """The worker of a given-up attempt is back and still runs it: it goes on, as if nothing had been lost."""
    attempt = find_attempt(connection, worker, job, number)
    if not attempt.late:
        return
    connection.execute(_RESUME, {"row": attempt.row, "number": number})
    _take_back(connection, attempt, now)
    move(
        connection,
        attempt.row,
        attempt.place.submission,
        attempt.class_id,
        JobState.WAITING,
        JobState.RUNNING,
        attempt=number,
        losses=attempt.losses - 1,
        ended=None,
        reason=None,
    )
