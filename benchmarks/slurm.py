"""A real Slurm cluster (24.11) whose workers come and go: how long a job waits for its machine.

Machines are those of the process cloud with an image (name spaces of their own), or virtual ones (QEMU, user network).
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from statistics import median

from tests.real.slurm.site import SAY, ClusterSite, cluster_site

from benchmarks.figures import Figure

_LIMIT = 12.0
"""Seconds. What is promised for the light flavour, a start of Slurm's own daemons included."""


def start(directory: Path, *, quick: bool) -> Iterable[Figure]:
    """Submitted -> running on a fresh worker; and on one that is there, which is Slurm's own part."""
    for cloud in ("process",) if quick else ("process", "qemu"):
        fresh, there = _starts(directory.with_name(f"start-{cloud}"), cloud, 2 if quick else 10)
        note = (
            f"median of {len(fresh)}, longest {max(fresh):.1f} s; "
            f"on a worker that is there {median(there):.1f} s (Slurm's own part)"
        )
        yield Figure(f"slurm: start on a fresh worker ({cloud})", median(fresh), "s", "<=", _LIMIT, note)


def _starts(directory: Path, cloud: str, times: int) -> tuple[list[float], list[float]]:
    fresh: list[float] = []
    there: list[float] = []
    with cluster_site(directory, cloud=cloud, maximum=1, idle_for="2 s") as one:
        for number in range(times + 1):
            one.wait(lambda: not one.nodes(), timeout=30, what="Slurm to forget the last worker")
            fresh_took = _run_one(one)
            one.scale(minimum=1)
            there_took = _run_one(one)
            if number:  # the first makes the saved state of a virtual machine
                fresh.append(fresh_took)
                there.append(there_took)
            one.scale(minimum=None)
            one.site.wait_for_no_workers()
    return fresh, there


def _run_one(one: ClusterSite) -> float:
    """Seconds from its submission until the job says that it runs; returns after its end."""
    began = time.monotonic()
    one.cluster.submit(f"{SAY}; sleep 1")
    one.wait(one.has_said, timeout=120, what="the job to run")
    took = time.monotonic() - began
    one.finish(timeout=60)
    return took
