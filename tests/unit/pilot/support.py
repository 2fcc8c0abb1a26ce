"""A pilot queue on a database in a temporary directory, with a clock that the test moves."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from sqlalchemy import Connection, func, select

from gridtide.model.demand import Attribute
from gridtide.model.ids import GroupName, WorkerId
from gridtide.model.resources import Resources
from gridtide.pilot.protocol import Assignment, AttemptEnd, EndCause, JobAnswer, JobId, JobRequest, JobState
from gridtide.pilot.queue import PilotQueue
from gridtide.pilot.tables import classes, jobs, submissions, usage
from gridtide.store.database import Database
from gridtide.store.tables import metadata

ONE_CORE: Mapping[str, Attribute] = MappingProxyType(
    {"Cpus": 1, "Memory": 1024, "Disk": 10_000, "Gpus": 0, "Arch": "X86_64", "OpSys": "LINUX"}
)
EVERYTHING = Resources(1000, 1_000_000, 1_000_000, 1000)
LEASE = 600.0


class HandClock:
    """Stands still until it is moved."""

    def __init__(self, at: float = 1_000_000.0) -> None:
        self.at = at

    def now(self) -> float:
        """The present time."""
        return self.at


@dataclass
class Site:
    """A queue and the hands of its users and workers."""

    directory: Path
    url: str = ""
    clock: HandClock = field(default_factory=HandClock)
    woken: list[str] = field(default_factory=list)
    numbers: int = 0
    alone: bool = True

    def __post_init__(self) -> None:
        self.url = self.url or f"sqlite:///{self.directory}/pilot.db"
        self.database = Database(self.url)
        metadata.create_all(self.database.engine)
        self.restart()

    def restart(self) -> None:
        """A new process on the same database and directory."""
        self.queue = PilotQueue(
            self.database,
            self.directory / "data",
            self.clock,
            lease=LEASE,
            wake=self.woken.append,
            alone=lambda: self.alone,
        )

    async def listen(self, seconds: float) -> None:
        """Time passes, and silent workers are looked for often enough; not any more at its end."""
        steps = int(3 * seconds / LEASE) + 1
        for step in range(steps):
            if step:
                await self.queue.sweep()
            self.clock.at += seconds / steps

    async def admit(self, name: str, host: Mapping[str, Attribute] = ONE_CORE, *, single_use: bool = False) -> WorkerId:
        """A worker that may ask."""
        await self.queue.admit(WorkerId(name), GroupName("grid"), host, single_use=single_use)
        return WorkerId(name)

    async def submit(self, text: str = 'Executable = "/bin/true";', user: str = "anna") -> int:
        """Returns the submission's number."""
        return (await self.queue.submit(user, text, {})).number

    async def ask(
        self, worker: str, number: str | None = None, *, free: Resources = EVERYTHING, wait: float = 0.0
    ) -> JobAnswer:
        """One question; a new number each time unless one is given."""
        self.numbers += 1
        request = JobRequest(number or f"n{self.numbers}", free)
        return await self.queue.request(WorkerId(worker), request, wait=wait)

    async def take(self, worker: str) -> Assignment:
        """A job that must be there."""
        answer = await self.ask(worker)
        assert answer.assignment is not None, answer
        return answer.assignment

    async def finish(self, worker: str, job: Assignment, code: int = 0, cause: EndCause = EndCause.EXITED) -> bool:
        """Report its end."""
        return await self.queue.finished(WorkerId(worker), end(job.job, job.attempt, code, cause))

    async def state(self, job: str) -> JobState:
        """Of one job."""
        return (await self.queue.job(JobId(job))).state

    async def reason(self, job: str) -> str:
        """Of one job."""
        return (await self.queue.job(JobId(job))).reason

    async def upload(self, worker: str, job: Assignment, name: str, data: bytes) -> None:
        """Send a result."""
        path = await self.queue.output_path(WorkerId(worker), job.job, job.attempt, name)
        await asyncio.to_thread(path.write_bytes, data)
        digest = hashlib.sha256(data).hexdigest()
        await self.queue.keep_output(WorkerId(worker), job.job, job.attempt, name, path, digest)

    async def store(self, data: bytes) -> str:
        """Make an input known; returns its digest."""
        path = await self.queue.file_path()
        await asyncio.to_thread(path.write_bytes, data)
        digest = hashlib.sha256(data).hexdigest()
        await self.queue.keep_file(path, digest)
        return digest

    async def check_counters(self) -> None:
        """Every counter is what counting would give."""
        await self.database.read(counters_are_right)


def end(job: str, attempt: int, code: int | None = 0, cause: EndCause = EndCause.EXITED) -> AttemptEnd:
    """A report."""
    return AttemptEnd(JobId(job), attempt, cause, code, None, "", 2.0, 1.5, 30)


def counters_are_right(connection: Connection) -> None:
    """Compare counters of submissions, classes and users with the jobs' rows."""
    found = {
        (row.submission, row.state): row.n
        for row in connection.execute(
            select(jobs.c.submission, jobs.c.state, func.count().label("n")).group_by(jobs.c.submission, jobs.c.state)
        )
    }
    for row in connection.execute(select(submissions)):
        for state in JobState:
            assert getattr(row, state.value) == found.get((row.number, state.value), 0), (row.number, state)
    for entry in connection.execute(select(classes)):
        waiting = select(func.count()).where(jobs.c.class_id == entry.id, jobs.c.state == "waiting")
        assert entry.waiting == connection.execute(waiting).scalar_one()
    for user in connection.execute(select(usage)):
        held = (
            select(func.coalesce(func.sum(classes.c.cores), 0))
            .select_from(jobs)
            .join(classes, classes.c.id == jobs.c.class_id)
            .where(classes.c.user_name == user.user_name, jobs.c.state == "running")
        )
        assert user.running_cores == connection.execute(held).scalar_one()
        assert user.core_seconds >= 0
        assert user.running_cores > 0 or user.running_since == 0
