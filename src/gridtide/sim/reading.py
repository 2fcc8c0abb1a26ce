"""From what a user names on the command line to a workload."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from gridtide.sim.csv_log import read_csv
from gridtide.sim.grid_model import grid
from gridtide.sim.lublin import lublin
from gridtide.sim.swf import read_swf, start_of
from gridtide.sim.trace import Reading, Trace, TraceError, TraceJob, make_trace

Model = Callable[[int, int, float], Iterator[TraceJob]]
"""Seed, number of jobs, spread."""

MODELS: Final[dict[str, Model]] = {
    "lublin": lambda seed, jobs, spread: lublin(seed, jobs=jobs, spread=spread),
    "grid": lambda seed, jobs, spread: grid(seed, jobs=jobs, spread=spread),
}
"""Synthetic workloads by name."""


def read_trace(name: str, *, seed: int = 0, jobs: int | None = None, spread: float = 1.0) -> Trace:
    """A workload by file name (SWF, or CSV when the name ends so; ``.gz`` of either) or by the name of a model.

    ``jobs``: how many of a model (10 000 unless told otherwise), or the first ones of a log. ``spread``: by what the
    times between submissions are multiplied. TraceError when there is nothing to replay.
    """
    if name in MODELS and not Path(name).exists():
        number = 10_000 if jobs is None else jobs
        return make_trace(f"{name} model, seed {seed}", MODELS[name](seed, number, spread), Reading())
    trace = _read_log(Path(name))
    if spread != 1.0:
        trace = make_trace(
            trace.name,
            (job._replace(submit=job.submit * spread) for job in trace.jobs),
            Reading(dict(trace.header), dict(trace.skipped), list(trace.bad), trace.bad_count, list(trace.notes)),
            trace.epoch,
        )
    return trace if jobs is None else trace.first(jobs)


def _read_log(path: Path) -> Trace:
    reading = Reading()
    with _lines(path) as lines:
        if path.name.removesuffix(".gz").endswith(".csv"):
            return make_trace(path.name, read_csv(lines, reading, path.name), reading)
        jobs = list(read_swf(lines, reading))
        return make_trace(path.name, jobs, reading, start_of(reading))


@contextmanager
def _lines(path: Path) -> Iterator[IO[str]]:
    """The lines of a file, unpacked if need be. TraceError when it cannot be read."""
    remedy = f"name a file (.swf, .csv, .gz of either) or a model: {', '.join(sorted(MODELS))}"
    try:
        if path.name.endswith(".gz"):
            with gzip.open(path, "rt", encoding="utf-8", errors="replace") as packed:
                yield packed
        else:
            with path.open(encoding="utf-8-sig", errors="replace") as plain:
                yield plain
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise TraceError(f"it is damaged: {error}", where=str(path), remedy="fetch it again") from None
    except OSError as error:
        raise TraceError(f"it cannot be read: {error.strerror or error}", where=str(path), remedy=remedy) from None
