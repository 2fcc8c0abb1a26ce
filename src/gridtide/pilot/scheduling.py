"""Who gets which job. One call serves many workers that ask at the same time, from one look at the waiting classes.

Order: the user who has used least (core-seconds with a half-life of a day, plus what the user's jobs hold now), then
priority, then age. A class whose need does not fit a worker's free resources, or whose requirements the machine does
not satisfy, is passed over for this worker only.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Row, bindparam, func, insert, select, update

from gridtide.model.demand import Attribute
from gridtide.model.ids import WorkerId
from gridtide.model.resources import Resources
from gridtide.pilot.files import AttemptPlace
from gridtide.pilot.matching import Verdict, Verdicts
from gridtide.pilot.protocol import Assignment, JobAnswer, JobRequest, JobState, Order
from gridtide.pilot.sql import (
    Attempt,
    Descriptions,
    attempts_of_requests,
    decayed,
    job_id,
    recount,
    running,
    start_using,
)
from gridtide.pilot.tables import SOME_WAIT, WAITING, attempts, classes, jobs, usage, workers

HEAD_START: Final = 60.0
"""Core-seconds that a held core counts from its first moment. Without it, a user whose jobs have only just begun has
used nothing yet and would get every slot of a burst."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A worker's question."""

    worker: WorkerId
    request: JobRequest


@dataclass(slots=True)
class _Class:
    id: int
    user: str
    priority: int
    need: Resources
    requirements: str
    walltime: float
    waiting: int
    oldest: int
    """The row of its oldest job; at least a lower limit of it when ``exact`` is False."""
    exact: bool = True

    def begun(self, place: AttemptPlace, worker: WorkerId, losses: int, now: float) -> Attempt:
        """An attempt at its oldest job."""
        return Attempt(
            row=self.oldest,
            place=place,
            worker=worker,
            state=JobState.RUNNING,
            last_attempt=place.attempt,
            started=now,
            ended=None,
            given_up=False,
            losses=losses,
            cancelling=False,
            class_id=self.id,
            user=self.user,
            need=self.need,
            walltime=self.walltime,
        )


@dataclass(slots=True)
class _Share:
    """A user's weight at one moment."""

    used: float

    @classmethod
    def of(cls, row: Row[Any], now: float) -> _Share:
        past = decayed(row.core_seconds, row.at, now)
        present = row.running_cores * (now + HEAD_START) - row.running_since
        return cls(past + max(present, 0.0))


_OLDEST: Final = (
    select(func.min(jobs.c.id)).where(jobs.c.class_id == classes.c.id, WAITING).correlate(classes).scalar_subquery()
)
_WAITING_CLASSES: Final = select(
    classes.c.id,
    classes.c.user_name,
    classes.c.priority,
    classes.c.cores,
    classes.c.memory,
    classes.c.disk,
    classes.c.gpus,
    classes.c.requirements,
    classes.c.walltime,
    classes.c.waiting,
    _OLDEST.label("oldest"),
).where(SOME_WAIT)
_SHARES: Final = select(usage).where(
    usage.c.user_name.in_(select(classes.c.user_name).where(SOME_WAIT).scalar_subquery())
)
_NEXT: Final = select(func.min(jobs.c.id)).where(jobs.c.class_id == bindparam("class_number"), WAITING)
_WORKERS: Final = (
    select(workers)
    .where(workers.c.id.in_(bindparam("workers", expanding=True)))
    .order_by(workers.c.id)  # locked in one order, so that two writers cannot wait for each other
    .with_for_update()
)
_TAKE: Final = (
    update(jobs)
    .where(jobs.c.id == bindparam("row"), jobs.c.state == JobState.WAITING.value)
    .values(state=JobState.RUNNING.value, attempt=jobs.c.attempt + 1, reason=None)
    .returning(jobs.c.attempt, jobs.c.submission, jobs.c.losses)
)
_USED_UP: Final = update(workers).where(workers.c.id == bindparam("worker")).values(draining=True, final=True)
_STOPPED: Final = update(workers).where(workers.c.id == bindparam("worker")).values(final=True)


class Scheduler:
    """Gives jobs to workers. Holds caches of pure functions only, so that a repeated transaction does no harm."""

    def __init__(self, verdicts: Verdicts, descriptions: Descriptions) -> None:
        self._verdicts = verdicts
        self._descriptions = descriptions

    def assign(self, connection: Connection, asks: Sequence[Ask], now: float) -> list[JobAnswer]:
        """Answer all, in their order. An answer without job and with CONTINUE means that nothing fits now."""
        desk = _Desk(connection, asks, now)
        return [self._answer(desk, ask) for ask in asks]

    def _answer(self, desk: _Desk, ask: Ask) -> JobAnswer:
        before = desk.answered.get((ask.worker, ask.request.number))
        if before is not None and before.runs:
            return JobAnswer(Order.CONTINUE, self._words(desk.connection, before.place))
        worker = desk.workers.get(ask.worker)
        order = order_of(desk.connection, worker, busy=bool(desk.running.get(ask.worker)))
        if worker is None or order is not Order.CONTINUE or before is not None:
            return JobAnswer(order, None)
        host = self._verdicts.host(worker.host, worker.host_digest)
        free = at_most(ask.request.free, desk.unclaimed(worker))
        for entry in desk.board.classes:
            if free.covers(entry.need) and self._verdicts.judge(entry.requirements, entry.need, host) is Verdict.YES:
                return JobAnswer(order, self._start(desk, entry, worker, ask.request))
        return JobAnswer(order, None)

    def _start(self, desk: _Desk, chosen: _Class, worker: WorkerRow, request: JobRequest) -> Assignment:
        connection = desk.connection
        if not chosen.exact:
            chosen.oldest = connection.execute(_NEXT, {"class_number": chosen.id}).scalar_one()
        taken = connection.execute(_TAKE, {"row": chosen.oldest}).one()
        values = {"job": chosen.oldest, "attempt": taken.attempt, "worker": worker.id, "request": request.number}
        connection.execute(insert(attempts), {**values, "started": desk.now, "given_up": False})
        recount(connection, taken.submission, chosen.id, JobState.WAITING, JobState.RUNNING, 1)
        start_using(connection, chosen.user, chosen.need.cores, desk.now)
        if worker.single_use:
            connection.execute(_USED_UP, {"worker": worker.id})
            worker.draining = worker.final = True
        first = self._descriptions.get(connection, taken.submission).first
        place = AttemptPlace(taken.submission, chosen.oldest - first, taken.attempt)
        desk.started(chosen.begun(place, worker.id, taken.losses, desk.now), request)
        desk.board.took(chosen)
        return self._words(connection, place)

    def _words(self, connection: Connection, place: AttemptPlace) -> Assignment:
        kept = self._descriptions.get(connection, place.submission)
        job = job_id(place.submission, place.index)
        return kept.description.assignment(job, place.index, place.attempt, kept.inputs)


@dataclass(slots=True)
class WorkerRow:
    """An admitted worker, as far as matching is concerned."""

    id: WorkerId
    host: Mapping[str, Attribute]
    host_digest: str
    total: Resources
    single_use: bool
    draining: bool
    final: bool

    @classmethod
    def of(cls, row: Row[Any]) -> WorkerRow:
        """From a row of the table."""
        total = Resources(row.cores, row.memory, row.disk, row.gpus)
        return cls(WorkerId(row.id), row.host, row.host_digest, total, row.single_use, row.draining, row.final)


class _Desk:
    """All that is needed to answer a batch, read at once and kept right while it is answered."""

    def __init__(self, connection: Connection, asks: Sequence[Ask], now: float) -> None:
        self.connection = connection
        self.now = now
        names = sorted({ask.worker for ask in asks})
        self.workers = worker_rows(connection, names)
        self.answered = attempts_of_requests(connection, names, [ask.request.number for ask in asks])
        self.running: dict[WorkerId, list[Attempt]] = {}
        for attempt in running(connection, names):
            self.running.setdefault(attempt.worker, []).append(attempt)

    @functools.cached_property
    def board(self) -> _Board:
        """Read only when somebody may be given a job."""
        return _Board(self.connection, self.now)

    def unclaimed(self, worker: WorkerRow) -> Resources:
        """What no job of ours holds, whatever the agent thinks is free."""
        free = worker.total
        for attempt in self.running.get(worker.id, ()):
            free = free.minus(at_most(attempt.need, free))
        return free

    def started(self, attempt: Attempt, request: JobRequest) -> None:
        """A job was given away: the same worker may ask again in this batch."""
        self.running.setdefault(attempt.worker, []).append(attempt)
        self.answered[(attempt.worker, request.number)] = attempt


class _Board:
    """The waiting classes at the beginning of a transaction, kept right while it hands out jobs."""

    def __init__(self, connection: Connection, now: float) -> None:
        #: In the order in which they are to be tried.
        self.classes = [
            _Class(
                row.id,
                row.user_name,
                row.priority,
                Resources(row.cores, row.memory, row.disk, row.gpus),
                row.requirements,
                row.walltime,
                row.waiting,
                row.oldest,
            )
            for row in connection.execute(_WAITING_CLASSES)
        ]
        self._shares = {row.user_name: _Share.of(row, now) for row in connection.execute(_SHARES)}
        self._sort()

    def _sort(self) -> None:
        shares = self._shares
        self.classes.sort(key=lambda entry: (shares[entry.user].used, entry.user, -entry.priority, entry.oldest))

    def took(self, taken: _Class) -> None:
        """The oldest job of the class was given away. The next one is looked up only when it is wanted."""
        self._shares[taken.user].used += taken.need.cores * HEAD_START
        taken.waiting -= 1
        taken.oldest, taken.exact = taken.oldest + 1, False
        if not taken.waiting:
            self.classes.remove(taken)
        self._sort()


def at_most(amount: Resources, limit: Resources) -> Resources:
    """Component by component, the smaller one."""
    return Resources(
        min(amount.cores, limit.cores),
        min(amount.memory, limit.memory),
        min(amount.disk, limit.disk),
        min(amount.gpus, limit.gpus),
    )


def order_of(connection: Connection, worker: WorkerRow | None, *, busy: bool) -> Order:
    """The order to a worker. STOP is recorded, for whoever was told to stop cannot be taken back.

    A worker that is not known is one whose machine was reported gone: it is to end, as soon as it runs nothing.
    """
    if worker is None:
        return Order.DRAIN if busy else Order.STOP
    if not worker.draining:
        return Order.CONTINUE
    if busy:
        return Order.DRAIN
    if not worker.final:
        connection.execute(_STOPPED, {"worker": worker.id})
        worker.final = True
    return Order.STOP


def worker_rows(connection: Connection, names: Sequence[WorkerId]) -> dict[WorkerId, WorkerRow]:
    """The admitted ones of these, locked for this transaction."""
    return {worker.id: worker for worker in map(WorkerRow.of, connection.execute(_WORKERS, {"workers": names}))}
