"""A workload: jobs in the order of their submission, and what was left out on the way to it.

Where jobs come from is told in ``swf``, ``csv_log`` and the synthetic models; all of them end here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final, NamedTuple

from gridtide.errors import JobDescriptionError
from gridtide.model.resources import Resources

DAY: Final = 86_400.0

KEPT_BAD_LINES: Final = 20
"""Bad lines that are told one by one; of the others only the number is kept. A log that is no log has millions."""


class TraceError(JobDescriptionError):
    """A workload cannot be read; ``where`` names file and line."""


class TraceJob(NamedTuple):
    """One job of a workload. A tuple, since there are hundreds of thousands of them."""

    number: int
    """In the log."""
    submit: float
    """Seconds from the start of the workload."""
    runtime: float
    """Seconds that it runs once it was started."""
    cores: int = 1
    memory: int = 0
    """MiB of all cores together; 0 when the log does not say."""
    disk: int = 0
    gpus: int = 0
    walltime: float | None = None
    """Seconds that its user asked for; None when the log does not say."""
    priority: int = 0
    """Higher ones start first."""
    group: str = ""
    """The group of workers that it asks for; empty: any."""
    array: int = 0
    """Jobs of one array share a number; 0: in no array."""
    at_once: int = 0
    """How many jobs of its array may run at the same time; 0: any number."""

    @property
    def need(self) -> Resources:
        """What it takes of a machine."""
        return Resources(self.cores, self.memory, self.disk, self.gpus)


class Skip(StrEnum):
    """Why a job of a log is not replayed."""

    NEVER_RAN = "it never ran (cancelled before its start, or no run time in the log)"
    NO_CORES = "the log does not say how many cores it had"
    PART = "a part of a job whose whole has a line of its own"
    TOO_LARGE = "it fits on no machine of the site"


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that makes no sense."""

    number: int
    """In the file, counted from 1."""
    why: str


@dataclass(slots=True)
class Reading:
    """What happened while a log was read. It is filled as the jobs are drawn from the reader."""

    header: dict[str, str] = field(default_factory=dict)
    skipped: dict[Skip, int] = field(default_factory=dict)
    bad: list[BadLine] = field(default_factory=list)
    """The first few."""
    bad_count: int = 0
    notes: list[str] = field(default_factory=list)

    def skip(self, why: Skip, number: int = 1) -> None:
        """Leave a job out."""
        self.skipped[why] = self.skipped.get(why, 0) + number

    def reject(self, number: int, why: str) -> None:
        """A line that makes no sense."""
        self.bad_count += 1
        if len(self.bad) < KEPT_BAD_LINES:
            self.bad.append(BadLine(number, why))


@dataclass(frozen=True, slots=True)
class Trace:
    """A workload that can be replayed."""

    name: str
    jobs: tuple[TraceJob, ...]
    """In the order of their submission; the first one at second 0."""
    epoch: float = 0.0
    """When second 0 was, in seconds since 1970; 0 when the log does not say."""
    header: Mapping[str, str] = field(default_factory=dict)
    skipped: Mapping[Skip, int] = field(default_factory=dict)
    bad: tuple[BadLine, ...] = ()
    bad_count: int = 0
    notes: tuple[str, ...] = ()

    @property
    def span(self) -> float:
        """Seconds from the first to the last submission."""
        return self.jobs[-1].submit if self.jobs else 0.0

    @property
    def work(self) -> float:
        """Core-seconds of all jobs."""
        return sum(job.runtime * job.cores for job in self.jobs)

    def between(self, begin: float, end: float) -> Trace:
        """The jobs submitted from second ``begin`` on and before ``end``. TraceError when there is none."""
        kept = [job for job in self.jobs if begin <= job.submit < end]
        if not kept:
            raise TraceError("no job was submitted in that time", where=self.name, remedy="name other days")
        first = kept[0].submit
        return replace(
            self, jobs=tuple(job._replace(submit=job.submit - first) for job in kept), epoch=self.epoch + first
        )

    def first(self, number: int) -> Trace:
        """Its first jobs only."""
        return replace(self, jobs=self.jobs[:number])


def make_trace(name: str, jobs: Iterable[TraceJob], reading: Reading, epoch: float = 0.0) -> Trace:
    """Put jobs in order and let the first one be at second 0. TraceError when there is none."""
    ordered = sorted(jobs, key=lambda job: job.submit)
    if not ordered:
        first = f": line {reading.bad[0].number} {reading.bad[0].why}" if reading.bad else ""
        raise TraceError(f"there is no job in it{first}", where=name, remedy="docs/reference/traces.md tells the forms")
    start = ordered[0].submit
    if start:
        ordered = [job._replace(submit=job.submit - start) for job in ordered]
    return Trace(
        name=name,
        jobs=tuple(ordered),
        epoch=epoch + start if epoch else 0.0,
        header=dict(reading.header),
        skipped=dict(reading.skipped),
        bad=tuple(reading.bad),
        bad_count=reading.bad_count,
        notes=tuple(reading.notes),
    )
