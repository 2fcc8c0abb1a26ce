"""The pilot queue alone, without HTTP: what a job costs it, and what a million waiting jobs cost everybody else."""

from __future__ import annotations

import asyncio
import resource
import statistics
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from sqlalchemy import func, select

from benchmarks.figures import Figure
from gridtide.clock import SystemClock
from gridtide.model.demand import Attribute, Offer
from gridtide.model.ids import GroupName, ShapeName, WorkerId
from gridtide.model.resources import Resources, Shape
from gridtide.pilot.protocol import AttemptEnd, EndCause, JobRequest, JobState
from gridtide.pilot.queue import PilotQueue
from gridtide.pilot.tables import classes, jobs
from gridtide.store.database import Database
from gridtide.store.tables import metadata

WORKERS = 3
_ONE_CORE: Mapping[str, Attribute] = MappingProxyType(
    {"Cpus": 1, "Memory": 1024, "Disk": 10_000, "Gpus": 0, "Arch": "X86_64"}
)
_JDL = 'Executable = "/bin/echo"; Arguments = "$(index)"; Requirements = other.Arch == "X86_64"; Array = {};'


def figures(directory: Path, *, quick: bool) -> Iterable[Figure]:
    """All figures. ``quick`` uses a hundredth of the jobs: for correctness, not for time."""
    directory.mkdir(parents=True, exist_ok=True)
    return asyncio.run(_measure(directory, 10_000 if quick else 1_000_000, 100 if quick else 1000))


async def _measure(directory: Path, waiting: int, runs: int) -> list[Figure]:
    database = Database(f"sqlite:///{directory}/pilot.db")
    metadata.create_all(database.engine)
    pilot = PilotQueue(database, directory / "data", SystemClock(), wake=lambda _why: None)
    for number in range(WORKERS):
        await pilot.admit(WorkerId(f"w{number}"), GroupName("grid"), _ONE_CORE, single_use=False)
    try:
        return [
            *await _submissions(pilot, waiting),
            *await _reads(pilot, waiting),
            *await _jobs(pilot, waiting, runs),
            *await _cancel(pilot, database, waiting),
        ]
    finally:
        await database.close()


async def _seconds(work: Callable[[], Awaitable[object]]) -> float:
    began = time.perf_counter()
    await work()
    return time.perf_counter() - began


async def _submissions(pilot: PilotQueue, waiting: int) -> list[Figure]:
    small = await _seconds(lambda: pilot.submit("anna", _JDL.format(10_000), {}))
    await pilot.cancel(jobs=[], submission=1, user=None)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    large = await _seconds(lambda: pilot.submit("anna", _JDL.format(waiting), {}))
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return [
        Figure("pilot: submit 10 000 jobs", small, "s", "<=", 0.5),
        Figure(f"pilot: submit {waiting} jobs", large, "s", "<=", 20.0),
        Figure(f"pilot: memory for {waiting} waiting jobs", grown, "MiB", "<=", 100.0),
    ]


async def _reads(pilot: PilotQueue, waiting: int) -> list[Figure]:
    shape = Shape(ShapeName("small"), Resources(1, 1024, 10_000))
    offers = [Offer(GroupName("grid"), shape, {"Arch": "X86_64"})]
    found = []
    for name, work in (
        ("demand", lambda: pilot.demand(offers)),
        ("nodes", pilot.nodes),
        ("counts", pilot.counts),
        ("page of 200 jobs", pilot.jobs),
        ("failed jobs of all", lambda: pilot.jobs(state=JobState.FAILED)),
    ):
        times = [await _seconds(work) for _ in range(30)]
        found.append(Figure(f"pilot: {name} with {waiting} waiting", statistics.median(times) * 1000, "ms", "<=", 50.0))
    return found


async def _jobs(pilot: PilotQueue, waiting: int, runs: int) -> list[Figure]:
    asked: list[float] = []

    async def agent(name: WorkerId, count: int) -> None:
        for number in range(count):
            began = time.perf_counter()
            answer = await pilot.request(name, JobRequest(str(number), Resources(1, 1024, 10_000)), wait=10)
            asked.append(time.perf_counter() - began)
            assert answer.assignment is not None
            end = AttemptEnd(answer.assignment.job, answer.assignment.attempt, EndCause.EXITED, 0, None, "", 0, 0, 1)
            assert await pilot.finished(name, end)

    processor = time.process_time()
    elapsed = await _seconds(
        lambda: asyncio.gather(*(agent(WorkerId(f"w{number}"), runs // WORKERS) for number in range(WORKERS)))
    )
    done = runs // WORKERS * WORKERS
    cost = (time.process_time() - processor) / done * 1000
    return [
        Figure(f"pilot: match and finish a job, {WORKERS} agents", elapsed / done * 1000, "ms", "<=", 10.0),
        Figure("pilot: processor time of a job", cost, "ms", "<=", 3.0),
        Figure(
            f"pilot: request with {waiting} waiting, p99",
            statistics.quantiles(asked, n=100)[98] * 1000,
            "ms",
            "<=",
            50.0,
        ),
    ]


async def _cancel(pilot: PilotQueue, database: Database, waiting: int) -> list[Figure]:
    elapsed = await _seconds(lambda: pilot.cancel(jobs=[], submission=2, user=None))
    counter = await database.read(lambda connection: connection.execute(select(func.sum(classes.c.waiting))).scalar())
    counted = await database.read(
        lambda connection: connection.execute(select(func.count()).where(jobs.c.state == "waiting")).scalar()
    )
    assert counter == counted == 0
    return [Figure(f"pilot: cancel {waiting} waiting jobs", elapsed, "s", "<=", 20.0)]
