"""What a large HTCondor pool costs the controller, and what the controller costs the pool: a real schedd, real ads."""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Iterable, Sequence
from pathlib import Path

from tests.real.htcondor.pool import Pool, queue_of, running_pool, settled

from benchmarks.figures import Figure
from gridtide.model.demand import Demand, Offer
from gridtide.model.ids import GroupName, ShapeName
from gridtide.model.resources import Resources, Shape
from gridtide.queues.htcondor.queue import HTCondorQueue

REFRESH = 5.0
"""Seconds: the default of controller.queue_refresh."""

_SUBMIT = """
import htcondor2, sys
schedd = htcondor2.Schedd(htcondor2.Collector().query(htcondor2.AdType.Schedd)[0])
for number in range(int(sys.argv[1]) // 1000):
    schedd.submit(htcondor2.Submit({
        "executable": "/bin/sleep", "transfer_executable": "false", "arguments": "5", "initialdir": "/tmp",
        "request_cpus": str(1 + number % 4), "request_memory": str(256 * (1 + number % 5)),
        "should_transfer_files": "yes",
        "requirements": ["true", "HasGhost", "OpSysMajorVer > 10"][number % 3],
    }), count=1000)
"""
_ADVERTISE = """
import htcondor2, classad2, sys
ads = []
for number in range(int(sys.argv[1])):
    ads.append(classad2.ClassAd({
        "MyType": "Machine", "Name": f"slot1@node{number}.else.where", "Machine": f"node{number}.else.where",
        "MyAddress": f"<127.0.0.1:{number + 1}>", "StartdIpAddr": f"<127.0.0.1:{number + 1}>", "State": "Unclaimed",
        "Activity": "Idle", "SlotType": "Partitionable", "Cpus": 8, "Memory": 16384, "Disk": 10**8, "TotalSlots": 1,
        "TotalSlotCpus": 8, "TotalSlotMemory": 16384, "TotalSlotDisk": 10**8, "Start": True, "Arch": "X86_64",
        **{f"Filler{each}": "something that real ads have many of" for each in range(150)},
    }))
htcondor2.Collector().advertise(ads, "UPDATE_STARTD_AD", True)
"""


def figures(_directory: Path, *, quick: bool) -> Iterable[Figure]:
    """All figures. ``quick`` uses a hundredth of the jobs: for correctness, not for time."""
    with running_pool(more="CLASSAD_LIFETIME = 3600\n") as pool:
        return asyncio.run(_measure(pool, 1_000 if quick else 100_000, 100 if quick else 2_000))


async def _measure(pool: Pool, jobs: int, slots: int) -> list[Figure]:
    queue = queue_of(pool, pool.home / "queue", deadline=60.0)
    offers = [
        Offer(GroupName("grid"), Shape(ShapeName(f"{cores}core"), Resources(cores, 4096 * cores, 100_000)), {})
        for cores in (1, 2, 4)
    ]
    await settled(queue)
    await queue.demand(offers)
    idle = _memory(queue)
    await asyncio.to_thread(_run, pool.client("alice"), _SUBMIT, jobs)
    quiet = await _busy(pool, asyncio.sleep(4 * REFRESH if jobs > 10_000 else 1.0))
    seconds: list[float] = []
    most = 0.0
    rows: Demand = ()

    async def ask() -> None:
        nonlocal most, rows
        for _ in range(9):
            started = time.monotonic()
            taken, peak, rows = await _watched(queue, offers)
            most = max(most, peak - idle)
            seconds.append(taken)
            await asyncio.sleep(max(0.0, REFRESH - (time.monotonic() - started)))

    asked = await _busy(pool, ask())
    # Between two questions that are too close, the last answer is given: those are not what is measured.
    real = [each for each in seconds if each > statistics.fmean(seconds) / 2]
    counted = sum(row.count for row in rows)
    await asyncio.to_thread(_run, pool.client("condor", pool.token("condor", "ADVERTISE_STARTD")), _ADVERTISE, slots)
    listed, nodes = [], 0
    for _ in range(5):
        started = time.monotonic()
        nodes = len(await queue.nodes())
        listed.append(time.monotonic() - started)
    await queue.close()
    return [
        Figure(f"htcondor: jobs counted of {jobs}", counted, "", "==", jobs),
        Figure(
            f"htcondor: demand with {jobs} idle jobs",
            statistics.median(real),
            "s",
            "<=",
            0.5,
            f"{len(real)} of {len(seconds)} asked the schedd; the slowest took {max(seconds):.2f} s",
        ),
        Figure(f"htcondor: memory for demand with {jobs} idle jobs", most, "MiB", "<=", 60.0),
        Figure("htcondor: the schedd's own time for it", 100 * max(0.0, asked[0] - quiet[0]), "%", "<=", 5.0),
        Figure("htcondor: processor of processes that it forks", 100 * max(0.0, asked[1] - quiet[1]), "%", "<=", 25.0),
        Figure(f"htcondor: nodes listed of {slots}", nodes, "", "==", slots),
        Figure(f"htcondor: {slots} slots listed", statistics.median(listed), "s", "<=", 1.0),
    ]


async def _watched(queue: HTCondorQueue, offers: Sequence[Offer]) -> tuple[float, float, Demand]:
    """Seconds, the most memory meanwhile of this process and its askers in MiB, the answer."""
    most = 0.0
    started = time.monotonic()
    task = asyncio.ensure_future(queue.demand(offers))
    while not task.done():
        most = max(most, _memory(queue))
        await asyncio.sleep(0.02)
    return time.monotonic() - started, most, task.result()


def _memory(queue: HTCondorQueue) -> float:
    """MiB of this process and all that ask for it, shared pages shared out."""
    asker = queue._asker._process
    below = [os.getpid(), *([asker.pid, *_children(asker.pid)] if asker is not None else [])]
    return sum(_share(process) for process in below) / 1024


def _share(process: int) -> int:
    try:
        text = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="ascii")
    except OSError:  # it has just ended
        return 0
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))


def _children(process: int) -> list[int]:
    try:
        return [int(each) for each in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except OSError:  # it has just ended
        return []


async def _busy(pool: Pool, work: Awaitable[object]) -> tuple[float, float]:
    """How much of a processor the schedd itself used while this was done, and the processes that it forked."""
    before, began = _processor(pool), time.monotonic()
    await work
    after, elapsed = _processor(pool), time.monotonic() - began
    return (after[0] - before[0]) / elapsed, (after[1] - before[1]) / elapsed


def _processor(pool: Pool) -> tuple[float, float]:
    """Seconds of processor of the schedd itself, and of the processes that it forked and that have ended."""
    # The schedd is older than what it forks.
    schedd = min(pool.manager.processes("condor_schedd"))
    fields = Path(f"/proc/{schedd}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    tick = os.sysconf("SC_CLK_TCK")
    return (int(fields[11]) + int(fields[12])) / tick, (int(fields[13]) + int(fields[14])) / tick


def _run(configuration: Path, code: str, number: int) -> None:
    subprocess.run(
        [sys.executable, "-c", code, str(number)],
        env={**os.environ, "CONDOR_CONFIG": str(configuration)},
        check=True,
        timeout=600,
    )
