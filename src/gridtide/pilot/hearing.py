"""What a heartbeat changes, and its answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, bindparam, select

from gridtide.errors import NotFound
from gridtide.model.ids import WorkerId
from gridtide.pilot.contacts import Listed
from gridtide.pilot.nodes import set_final
from gridtide.pilot.protocol import JobId, Order
from gridtide.pilot.scheduling import WorkerRow, order_of, worker_rows
from gridtide.pilot.sql import Attempt, find_attempt, job_id, resume, running
from gridtide.pilot.tables import workers


@dataclass(frozen=True, slots=True)
class Heard:
    """Of a worker that lists what it runs."""

    worker: WorkerRow | None
    order: Order
    cancel: tuple[JobId, ...]
    """Jobs that it must end: cancelled, or given up and taken by somebody else."""
    late: tuple[Listed, ...]
    """Given up, but still waiting: it goes on with them."""
    missing: tuple[Listed, ...]
    """It was given these and does not list them."""
    settled: bool
    """Nothing has to be written for this answer to be true."""


_WORKER: Final = select(workers).where(workers.c.id == bindparam("worker"))


def hear(connection: Connection, worker: WorkerId, listed: Sequence[Listed], *, insists: bool) -> Heard:
    """Only looks; :func:`settle` writes."""
    found = connection.execute(_WORKER, {"worker": worker}).one_or_none()
    row = None if found is None else WorkerRow.of(found)
    given = {_listed(attempt): attempt for attempt in running(connection, [worker])}
    cancel: list[JobId] = []
    late: list[Listed] = []
    for job, number in dict.fromkeys(listed):
        attempt = given.get((job, number)) or _given_up(connection, worker, job, number)
        if attempt is not None and attempt.late:
            late.append((job, number))
        elif attempt is None or not attempt.runs or attempt.cancelling:
            cancel.append(job)
    busy = bool(given) or bool(listed)
    order = Order.CONTINUE
    if row is None or row.draining:
        order = Order.DRAIN if busy else Order.STOP
    tells_stop = row is not None and order is Order.STOP and not row.final
    drains_itself = row is not None and insists and not row.final
    return Heard(
        worker=row,
        order=order,
        cancel=tuple(cancel),
        late=tuple(late) if row is not None else (),
        missing=tuple(given.keys() - set(listed)),
        settled=not (tells_stop or drains_itself or (late and row is not None)),
    )


def settle(
    connection: Connection, worker: WorkerId, listed: Sequence[Listed], heard: Heard, *, insists: bool, now: float
) -> Heard:
    """Resume what goes on, record a drain of the worker's own will or the order to stop, and look again."""
    for job, number in heard.late:
        resume(connection, worker, job, number, now)
    if insists:
        set_final(connection, worker)
    row = worker_rows(connection, [worker]).get(worker)
    busy = bool(listed) or bool(running(connection, [worker]))
    order_of(connection, row, busy=busy)
    return hear(connection, worker, listed, insists=False)


def _listed(attempt: Attempt) -> Listed:
    return job_id(attempt.place.submission, attempt.place.index), attempt.place.attempt


def _given_up(connection: Connection, worker: WorkerId, job: JobId, number: int) -> Attempt | None:
    try:
        return find_attempt(connection, worker, job, number)
    except NotFound:  # never given to it: it must end whatever it believes to run
        return None
