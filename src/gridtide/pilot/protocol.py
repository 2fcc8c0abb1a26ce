"""What the service and the queue driver ask of the pilot queue, and the values that pass.

Ideas: jobs that look alike to the scheduler share a *job class* (user, priority, needs, requirements); waiting jobs are
counted per class and never loaded. One run of a job is an *attempt*, numbered from 1; an attempt that was given up is
fenced: nothing that its worker still sends can change the job. A worker's request carries a number of its own making,
so that an answer that was lost is given again instead of a second job.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import NewType, Protocol

from gridtide.model.demand import Attribute, Demand, Nodes, Offer
from gridtide.model.ids import GroupName, WorkerId
from gridtide.model.resources import Resources

JobId = NewType("JobId", str)
"""``<submission>.<index>``, e.g. ``12.3``."""


class JobState(StrEnum):
    """Where a job is in its life."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    """Ended by itself with exit code 0, results kept."""
    FAILED = "failed"
    """Ended otherwise, or lost too often; the reason says which."""
    CANCELLED = "cancelled"


class EndCause(StrEnum):
    """How an attempt ended, says its agent."""

    EXITED = "exited"
    WALLTIME = "walltime"
    MEMORY = "memory"
    CANCELLED = "cancelled"
    NOT_STARTED = "not-started"
    """The executable could not be run, or an input could not be had."""
    OUTPUT_MISSING = "output-missing"
    """It exited with 0 but a declared output file was not there."""


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file that the agent puts into the job's directory before it starts."""

    name: str
    digest: str
    """SHA-256, hexadecimal."""
    size: int
    executable: bool


@dataclass(frozen=True, slots=True)
class Assignment:
    """One attempt, as handed to an agent. Placeholders are already replaced."""

    job: JobId
    attempt: int
    executable: str
    """An absolute path on the worker, or the name of an input file."""
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    inputs: tuple[InputFile, ...]
    outputs: tuple[str, ...]
    """Names or shell patterns, relative to the job's directory."""
    cores: int
    memory: int
    """MiB that it may use."""
    walltime: float
    """Seconds that it may run."""


class Order(StrEnum):
    """What the answer to a worker says beside its content."""

    CONTINUE = "continue"
    DRAIN = "drain"
    """Ask for no more jobs; finish those you run."""
    STOP = "stop"
    """Drained and empty: report done and shut the machine down."""


@dataclass(frozen=True, slots=True)
class JobRequest:
    """An agent asks for one job. ``number`` is unique per request, the same when it is repeated."""

    number: str
    free: Resources


@dataclass(frozen=True, slots=True)
class JobAnswer:
    """``assignment`` is None when nothing fits now, or the order is not CONTINUE."""

    order: Order
    assignment: Assignment | None

    @property
    def final(self) -> bool:
        """Whether the question is answered: it is pointless to wait for more."""
        return self.assignment is not None or self.order is not Order.CONTINUE


@dataclass(frozen=True, slots=True)
class AttemptEnd:
    """An agent's report of an ended attempt. ``exit_code`` is None when there is none (killed: see ``signal``)."""

    job: JobId
    attempt: int
    cause: EndCause
    exit_code: int | None
    signal: int | None
    text: str
    wall_seconds: float
    cpu_seconds: float
    peak_memory: int
    """MiB."""


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A job for people: what ``gridtide jobs`` shows."""

    id: JobId
    user: str
    state: JobState
    name: str
    need: Resources
    priority: int
    submitted: float
    started: float | None
    """Of the last attempt."""
    ended: float | None
    attempt: int
    """0 while none was made."""
    worker: WorkerId | None
    exit_code: int | None
    reason: str
    """Why it is as it is, one sentence."""
    cpu_seconds: float | None = None
    peak_memory: int | None = None


@dataclass(frozen=True, slots=True)
class SubmissionRecord:
    """A submission for people."""

    number: int
    user: str
    name: str
    submitted: float
    counts: Mapping[JobState, int]


@dataclass(frozen=True, slots=True)
class OutputFile:
    """A kept result."""

    name: str
    size: int
    digest: str


class Pilot(Protocol):
    """All operations. Each is one transaction; each may be repeated after a lost answer without harm."""

    # --- the queue's side, for queues/pilot.py

    async def demand(self, offers: Sequence[Offer]) -> Demand:
        """Waiting jobs per class (classes that look alike from outside are joined into one row)."""
        ...

    async def nodes(self) -> Nodes:
        """Admitted workers with what runs on them, from the same transaction as the jobs' states."""
        ...

    async def admit(
        self, worker: WorkerId, group: GroupName, host: Mapping[str, Attribute], *, single_use: bool
    ) -> None:
        """From now on the worker may ask for jobs."""
        ...

    async def set_draining(self, workers: Sequence[WorkerId], draining: bool) -> Sequence[WorkerId]:
        """Returns those that took it. Once committed, no job is assigned to a draining worker.

        A worker that was already told to stop cannot be taken back.
        """
        ...

    async def remove(self, workers: Sequence[WorkerId]) -> None:
        """Their machines are gone: what they still ran is requeued, or failed after too many losses."""
        ...

    # --- workers

    async def request(self, worker: WorkerId, request: JobRequest, *, wait: float) -> JobAnswer:
        """Match a job to the worker; without one, wait up to ``wait`` seconds for it."""
        ...

    async def alive(
        self, worker: WorkerId, running: Sequence[tuple[JobId, int]], *, draining: bool
    ) -> tuple[Order, Sequence[JobId]]:
        """Contact. Returns the order, and the jobs of ``running`` that it must end (cancelled, or given up)."""
        ...

    def heard(
        self, worker: WorkerId, running: Sequence[tuple[JobId, int]], *, draining: bool
    ) -> tuple[Order, Sequence[JobId]] | None:
        """The same at once, where the answer is known without a look. None: nothing was noted, :meth:`alive` has it."""
        ...

    async def left(self, worker: WorkerId) -> None:
        """The agent says that it runs nothing, asks for nothing more and shuts down."""
        ...

    async def open_input(self, worker: WorkerId, job: JobId, attempt: int, name: str) -> Path:
        """Where an input of a job that runs on this worker lies. NotFound or Conflict otherwise."""
        ...

    async def append_log(
        self, worker: WorkerId, job: JobId, attempt: int, stream: str, offset: int, data: bytes
    ) -> int:
        """Keep output of ``stdout`` or ``stderr``; returns the length now kept.

        Bytes that are already there are ignored; a gap is a Conflict that names the length kept.
        """
        ...

    async def output_path(self, worker: WorkerId, job: JobId, attempt: int, name: str) -> Path:
        """Where to write an uploaded output (a temporary file beside its final place)."""
        ...

    async def keep_output(
        self, worker: WorkerId, job: JobId, attempt: int, name: str, written: Path, digest: str
    ) -> None:
        """Move a completely uploaded output to its place. InvalidRequest when the digest differs."""
        ...

    async def finished(self, worker: WorkerId, end: AttemptEnd) -> bool:
        """Record the end of an attempt. False when the attempt is fenced: its result is not wanted any more.

        A repeated report of the same end is True again.
        """
        ...

    # --- users

    async def has_files(self, digests: Sequence[str]) -> Sequence[str]:
        """Which of these are stored already."""
        ...

    async def file_path(self) -> Path:
        """A new temporary file to write an upload to."""
        ...

    async def keep_file(self, written: Path, digest: str) -> None:
        """Make an upload known under its digest. InvalidRequest when it differs."""
        ...

    async def submit(self, user: str, description: str, files: Mapping[str, str]) -> SubmissionRecord:
        """Parse a JDL text and make its jobs. ``files`` maps the names it uses to digests of stored files.

        JobDescriptionError, or InvalidRequest when a file is missing; then nothing was made.
        """
        ...

    async def submissions(self, *, user: str | None, limit: int) -> Sequence[SubmissionRecord]:
        """Newest first."""
        ...

    async def submission(self, number: int) -> SubmissionRecord:
        """NotFound when there is none."""
        ...

    async def jobs(
        self,
        *,
        submission: int | None = None,
        state: JobState | None = None,
        user: str | None = None,
        after: JobId | None = None,
        limit: int = 200,
    ) -> Sequence[JobRecord]:
        """In order of submission and index, from the one after ``after``."""
        ...

    async def job(self, job: JobId) -> JobRecord:
        """NotFound when there is none."""
        ...

    async def counts(self) -> Mapping[JobState, int]:
        """Over all jobs."""
        ...

    async def cancel(self, *, jobs: Sequence[JobId], submission: int | None, user: str | None) -> int:
        """Cancel waiting and running jobs; with ``user``, AccessDenied if one is another's. Returns how many."""
        ...

    async def read_log(self, job: JobId, stream: str, *, offset: int, limit: int) -> bytes:
        """Of the last attempt."""
        ...

    async def outputs(self, job: JobId) -> Sequence[OutputFile]:
        """Kept results of a job that ended."""
        ...

    async def open_output(self, job: JobId, name: str) -> Path:
        """NotFound when there is none."""
        ...

    # --- upkeep

    async def sweep(self) -> float | None:
        """Give up attempts whose worker has been silent longer than the lease *while this service was up*.

        Their jobs are requeued, or failed after too many losses. Returns when to look again.
        """
        ...
