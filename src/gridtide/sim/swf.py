"""The Standard Workload Format, version 2.2, of the Parallel Workloads Archive.

Chapin, Cirne, Feitelson, Jones, Leutenegger, Schwiegelshohn, Smith, Talby: "Benchmarks and Standards for the Evaluation
of Parallel Job Schedulers" (JSSPP 1999), and the archive's page on the format: 18 numbers a line, -1 for what is not
known, header comments that begin with a semicolon. What is made of each field is told in docs/reference/traces.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from gridtide.sim.trace import Reading, Skip, TraceJob

FIELDS: Final = 18

SHORTEST: Final = 1.0
"""Seconds. Logs count whole seconds: a job that ran and is said to have taken 0 took less than one."""

_CANCELLED: Final = 5
_PARTS: Final = frozenset({2, 3, 4})
"""Partial executions of a job that was checkpointed; the whole job has a line of its own with status 0 or 1."""

_LATEST: Final = 1e11
"""Seconds: a submission later than 3 000 years after the start of the log is nonsense."""


def read_swf(lines: Iterable[str], reading: Reading) -> Iterator[TraceJob]:
    """The jobs of a log, one after the other. What is left out, and why, is noted in ``reading``."""
    for number, line in enumerate(lines, 1):
        fields = line.split()
        if not fields:
            continue
        if fields[0][0] == ";":
            _header(line, reading)
            continue
        if len(fields) < FIELDS:
            reading.reject(number, f"has {len(fields)} fields, {FIELDS} are needed")
            continue
        try:
            submit, runtime = float(fields[1]), float(fields[3])
            allocated, wanted = int(fields[4]), int(fields[7])
            walltime, status = float(fields[8]), int(fields[10])
            used_memory, wanted_memory = float(fields[6]), float(fields[9])
            name = int(fields[0])
        except ValueError:
            reading.reject(number, "holds something that is no number")
            continue
        if not (0.0 <= submit < _LATEST and runtime < _LATEST):
            reading.reject(number, f"has a submission at {submit:g} and a run time of {runtime:g}")
            continue
        cores = allocated if allocated > 0 else wanted
        why = _left_out(runtime, cores, status)
        if why is not None:
            reading.skip(why)
            continue
        kib = wanted_memory if wanted_memory > 0 else used_memory
        yield TraceJob(
            name,
            submit,
            runtime if runtime > 0.0 else SHORTEST,
            cores,
            -int(-kib * cores // 1024) if 0 < kib < _LATEST else 0,
            walltime=walltime if 0.0 < walltime < _LATEST else None,
        )


def _left_out(runtime: float, cores: int, status: int) -> Skip | None:
    if status in _PARTS:
        return Skip.PART
    if not runtime >= 0.0 or (runtime == 0.0 and status == _CANCELLED):
        return Skip.NEVER_RAN
    return Skip.NO_CORES if cores <= 0 else None


def start_of(reading: Reading) -> float:
    """When the log began, in seconds since 1970; 0 when its header does not say."""
    try:
        return max(float(reading.header.get("UnixStartTime", "0").split()[0]), 0.0)
    except (ValueError, IndexError):
        return 0.0


def _header(line: str, reading: Reading) -> None:
    """``; Name: value``. The first of several lines of one name counts (partitions and queues are not of interest)."""
    name, colon, value = line.lstrip("; \t").partition(":")
    if colon and value.strip() and " " not in name.strip():
        reading.header.setdefault(name.strip(), value.strip())
