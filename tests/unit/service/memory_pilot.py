"""A small real pilot queue in memory: jobs are lines of a description, ``NAME CORES``."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from gridtide.errors import AccessDenied, Conflict, InvalidRequest, JobDescriptionError, NotFound
from gridtide.model.demand import Attribute, Demand, Nodes, Offer
from gridtide.model.ids import GroupName, WorkerId
from gridtide.model.resources import Resources
from gridtide.pilot.protocol import (
    Assignment,
    AttemptEnd,
    EndCause,
    InputFile,
    JobAnswer,
    JobId,
    JobRecord,
    JobRequest,
    JobState,
    Order,
    OutputFile,
    SubmissionRecord,
)

ENDED = (JobState.DONE, JobState.FAILED, JobState.CANCELLED)


@dataclass
class Job:
    record: JobRecord
    files: Mapping[str, str]
    logs: dict[str, bytearray] = field(default_factory=lambda: {"stdout": bytearray(), "stderr": bytearray()})
    outputs: dict[str, OutputFile] = field(default_factory=dict)
    end: AttemptEnd | None = None


class MemoryPilot:
    """Implements ``gridtide.pilot.protocol.Pilot``; files lie in ``directory``."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.all: dict[JobId, Job] = {}
        self.names: dict[int, tuple[str, str]] = {}
        self.admitted: set[WorkerId] = set()
        self.remembering = False
        """Whether heartbeats are answered without a look."""
        self.draining: set[WorkerId] = set()
        self.answers: dict[tuple[WorkerId, str], JobAnswer] = {}
        self.departed: list[WorkerId] = []
        self.something = asyncio.Event()
        self.waiting = 0
        self.polled = asyncio.Event()

    async def demand(self, offers: Sequence[Offer]) -> Demand:
        return ()

    async def nodes(self) -> Nodes:
        return ()

    async def admit(
        self, worker: WorkerId, group: GroupName, host: Mapping[str, Attribute], *, single_use: bool
    ) -> None:
        self.admitted.add(worker)

    async def set_draining(self, workers: Sequence[WorkerId], draining: bool) -> Sequence[WorkerId]:
        self.draining = self.draining | set(workers) if draining else self.draining - set(workers)
        return list(workers)

    async def remove(self, workers: Sequence[WorkerId]) -> None:
        self.admitted -= set(workers)

    def _known(self, worker: WorkerId) -> None:
        if worker not in self.admitted:
            raise NotFound(f"worker {worker} is not of this queue")

    async def request(self, worker: WorkerId, request: JobRequest, *, wait: float) -> JobAnswer:
        self._known(worker)
        key = (worker, request.number)
        if key not in self.answers:
            found = self._match(worker, request)
            if found is None and wait > 0 and worker not in self.draining:
                self.waiting += 1
                self.polled.set()
                try:
                    async with asyncio.timeout(wait):
                        while (found := self._match(worker, request)) is None:
                            await self.something.wait()
                            self.something.clear()
                except TimeoutError:
                    found = None
                finally:
                    self.waiting -= 1
            order = Order.DRAIN if worker in self.draining else Order.CONTINUE
            self.answers[key] = JobAnswer(order, found)
        return self.answers[key]

    def _match(self, worker: WorkerId, request: JobRequest) -> Assignment | None:
        for job in self.all.values():
            record = job.record
            if record.state is JobState.WAITING and request.free.covers(record.need):
                job.record = replace(
                    record, state=JobState.RUNNING, worker=worker, attempt=record.attempt + 1, started=2.0
                )
                inputs = tuple(InputFile(name, digest, 1, False) for name, digest in job.files.items())
                return Assignment(
                    record.id, record.attempt + 1, "/bin/true", (), {}, inputs, ("out",), record.need.cores, 1, 60.0
                )
        return None

    def _running(self, worker: WorkerId, job: JobId, attempt: int) -> Job:
        found = self.all.get(job)
        if found is None:
            raise NotFound(f"there is no job {job}")
        record = found.record
        if (record.state, record.worker, record.attempt) != (JobState.RUNNING, worker, attempt):
            raise Conflict(f"attempt {attempt} of job {job} does not run on {worker}")
        return found

    async def alive(
        self, worker: WorkerId, running: Sequence[tuple[JobId, int]], *, draining: bool
    ) -> tuple[Order, Sequence[JobId]]:
        self._known(worker)
        return self._told(worker, running)

    def _told(self, worker: WorkerId, running: Sequence[tuple[JobId, int]]) -> tuple[Order, Sequence[JobId]]:
        ended = [job for job, _ in running if job not in self.all or self.all[job].record.state in ENDED]
        return (Order.DRAIN if worker in self.draining else Order.CONTINUE), ended

    def heard(
        self, worker: WorkerId, running: Sequence[tuple[JobId, int]], *, draining: bool
    ) -> tuple[Order, Sequence[JobId]] | None:
        return self._told(worker, running) if self.remembering and worker in self.admitted else None

    async def left(self, worker: WorkerId) -> None:
        self._known(worker)
        self.departed.append(worker)

    async def open_input(self, worker: WorkerId, job: JobId, attempt: int, name: str) -> Path:
        found = self._running(worker, job, attempt)
        if name not in found.files:
            raise NotFound(f"job {job} has no input {name!r}")
        return self.directory / found.files[name]

    async def append_log(
        self, worker: WorkerId, job: JobId, attempt: int, stream: str, offset: int, data: bytes
    ) -> int:
        kept = self._running(worker, job, attempt).logs[stream]
        if offset > len(kept):
            raise Conflict(f"{len(kept)} bytes are kept, the next piece begins at {offset}")
        kept += data[len(kept) - offset :]
        return len(kept)

    async def output_path(self, worker: WorkerId, job: JobId, attempt: int, name: str) -> Path:
        self._running(worker, job, attempt)
        return await self.file_path()

    async def keep_output(
        self, worker: WorkerId, job: JobId, attempt: int, name: str, written: Path, digest: str
    ) -> None:
        await self.keep_file(written, digest)
        size = (self.directory / digest).stat().st_size
        self._running(worker, job, attempt).outputs[name] = OutputFile(name, size, digest)

    async def finished(self, worker: WorkerId, end: AttemptEnd) -> bool:
        job = self.all.get(end.job)
        if job is None:
            raise NotFound(f"there is no job {end.job}")
        if job.end == end and job.record.worker == worker:
            return True
        if (job.record.state, job.record.worker, job.record.attempt) != (JobState.RUNNING, worker, end.attempt):
            return False
        good = end.cause is EndCause.EXITED and end.exit_code == 0
        job.end = end
        job.record = replace(
            job.record, state=JobState.DONE if good else JobState.FAILED, ended=3.0, exit_code=end.exit_code
        )
        return True

    async def has_files(self, digests: Sequence[str]) -> Sequence[str]:
        return [digest for digest in digests if (self.directory / digest).exists()]

    async def file_path(self) -> Path:
        with tempfile.NamedTemporaryFile(dir=self.directory, prefix="upload-", delete=False) as file:
            return Path(file.name)

    async def keep_file(self, written: Path, digest: str) -> None:
        found = await asyncio.to_thread(_digest_of, written)
        if found != digest:
            raise InvalidRequest(f"the digest is {found}, not {digest}")
        await asyncio.to_thread(written.replace, self.directory / digest)

    async def submit(self, user: str, description: str, files: Mapping[str, str]) -> SubmissionRecord:
        if set(files.values()) - set(await self.has_files(list(files.values()))):
            raise InvalidRequest("a file is missing")
        lines = [line.split() for line in description.splitlines()]
        if any(len(line) != 2 or not line[1].isdecimal() for line in lines):
            raise JobDescriptionError("must be NAME CORES", where="line 1")
        number = len(self.names) + 1
        self.names[number] = (user, lines[0][0])
        for index, (name, cores) in enumerate(lines):
            job = JobId(f"{number}.{index}")
            record = JobRecord(
                id=job,
                user=user,
                state=JobState.WAITING,
                name=name,
                need=Resources(cores=int(cores)),
                priority=0,
                submitted=1.0,
                started=None,
                ended=None,
                attempt=0,
                worker=None,
                exit_code=None,
                reason="no worker is free",
            )
            self.all[job] = Job(record, dict(files))
        self.something.set()
        return await self.submission(number)

    async def submissions(self, *, user: str | None, limit: int) -> Sequence[SubmissionRecord]:
        numbers = [number for number, (owner, _) in self.names.items() if user in (None, owner)]
        return [await self.submission(number) for number in sorted(numbers, reverse=True)[:limit]]

    async def submission(self, number: int) -> SubmissionRecord:
        if number not in self.names:
            raise NotFound(f"there is no submission {number}")
        user, name = self.names[number]
        counts = Counter(job.record.state for job in self._of(number))
        return SubmissionRecord(number, user, name, 1.0, counts)

    def _of(self, submission: int) -> list[Job]:
        return [job for job in self.all.values() if job.record.id.startswith(f"{submission}.")]

    async def jobs(
        self,
        *,
        submission: int | None = None,
        state: JobState | None = None,
        user: str | None = None,
        after: JobId | None = None,
        limit: int = 200,
    ) -> Sequence[JobRecord]:
        records = [job.record for job in self.all.values()]
        records.sort(key=lambda record: _place(record.id))
        return [
            record
            for record in records
            if (submission is None or record.id.startswith(f"{submission}."))
            and state in (None, record.state)
            and user in (None, record.user)
            and (after is None or _place(record.id) > _place(after))
        ][:limit]

    async def job(self, job: JobId) -> JobRecord:
        return self._job(job).record

    def _job(self, job: JobId) -> Job:
        if job not in self.all:
            raise NotFound(f"there is no job {job}")
        return self.all[job]

    async def counts(self) -> Mapping[JobState, int]:
        return Counter(job.record.state for job in self.all.values())

    async def cancel(self, *, jobs: Sequence[JobId], submission: int | None, user: str | None) -> int:
        chosen = [self._job(job) for job in jobs] if submission is None else self._of(submission)
        if any(user not in (None, job.record.user) for job in chosen):
            raise AccessDenied("one of these jobs is another user's")
        open_ones = [job for job in chosen if job.record.state not in ENDED]
        for job in open_ones:
            job.record = replace(job.record, state=JobState.CANCELLED)
        return len(open_ones)

    async def read_log(self, job: JobId, stream: str, *, offset: int, limit: int) -> bytes:
        return bytes(self._job(job).logs[stream][offset : offset + limit])

    async def outputs(self, job: JobId) -> Sequence[OutputFile]:
        return list(self._job(job).outputs.values())

    async def open_output(self, job: JobId, name: str) -> Path:
        outputs = self._job(job).outputs
        if name not in outputs:
            raise NotFound(f"job {job} has no output {name!r}")
        return self.directory / outputs[name].digest

    async def sweep(self) -> float | None:
        return None


def _place(job: JobId) -> tuple[int, int]:
    submission, index = job.split(".")
    return int(submission), int(index)


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
