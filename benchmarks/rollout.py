"""A new context while 100 jobs run on 8 workers: capacity and running jobs, sampled and drawn."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.figures import Figure
from gridtide.testing.live_site import LiveSite, site_text

PICTURE = Path(__file__).parents[1] / "docs/images/rollout.png"
LIMIT = 300.0
"""Seconds after which a rollout counts as stuck."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at the site."""

    at: float
    capacity: int
    """Cores of workers that take jobs."""
    running: int
    older: int


def figures(directory: Path, *, quick: bool) -> Iterable[Figure]:
    """Start 8 workers (3 in small), change their context, and watch until all are new."""
    workers, cores, jobs = (3, 4, 10) if quick else (8, 13, 100)
    directory.mkdir(parents=True)
    context = directory / "hello.sh"
    context.write_text("#!/bin/sh\ntrue\n")
    text = site_text(maximum=workers + 2, cores=cores, idle_for="60 s", group=f"context = {{ files = ['{context}'] }}")

    with LiveSite(directory / "site", text) as site:
        feeding = threading.Event()
        feeder = threading.Thread(target=_feed, args=(site, jobs, feeding), daemon=True)
        feeder.start()
        site.wait_until(lambda: _look(site, 0.0).running >= jobs, timeout=60, what="the jobs to run")
        began = time.monotonic()
        samples = [_look(site, 0.0)]
        context.write_text("#!/bin/sh\ntrue # new\n")
        while time.monotonic() - began < LIMIT and (samples[-1].older or samples[-1].at < 5.0):
            time.sleep(0.25)
            samples.append(_look(site, time.monotonic() - began))
        feeding.set()
        feeder.join()
        counts = [site.counts(number["number"]) for number in site.get("/v1/submissions")["submissions"]]
    least = min(sample.capacity for sample in samples)
    note = f"{workers} workers of {cores} cores, {jobs} jobs running all the time"
    if not quick:
        _draw(samples, jobs)
    yield Figure("rollout: least capacity", 100.0 * least / jobs, "%", ">=", 90.0, note)
    yield Figure("rollout: workers left over-old", samples[-1].older, "workers", "==", 0, note)
    yield Figure("rollout: jobs lost", sum(count.get("failed", 0) for count in counts), "jobs", "==", 0, note)
    yield Figure("rollout: took", samples[-1].at, "s", "<=", LIMIT, note)


def _feed(site: LiveSite, jobs: int, stop: threading.Event) -> None:
    """So many jobs at any time, each of 8 to 16 seconds."""
    script = "sleep $((8 + $1 % 9))"
    while not stop.wait(0.5):
        states = site.get("/v1/status")["jobs"]
        missing = jobs - states.get("running", 0) - states.get("waiting", 0)
        if missing > 0:
            site.submit(
                f'Executable = "/bin/sh"; Arguments = {{"-c", "{script}", "job", "$(index)"}}; Memory = 64; '
                f"Array = {missing};"
            )


def _look(site: LiveSite, at: float) -> Sample:
    workers = site.get("/v1/workers")["workers"]
    rollout = site.get("/v1/groups/workers/rollout")
    capacity = sum(one["shape"]["resources"]["cores"] for one in workers if one["state"] == "joined")
    running = site.get("/v1/status")["jobs"].get("running", 0)
    return Sample(at, capacity, running, sum(rollout["older"].values()))


def _draw(samples: list[Sample], jobs: int) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4), layout="constrained")
    at = [sample.at for sample in samples]
    axes.step(at, [sample.capacity for sample in samples], where="post", label="cores that take jobs")
    axes.step(at, [sample.running for sample in samples], where="post", label="running jobs")
    axes.step(at, [sample.older for sample in samples], where="post", label="older workers")
    axes.axhline(0.9 * jobs, linestyle=":", color="grey", label=f"90 % of {jobs}")
    axes.set_xlabel("seconds since the context was changed")
    axes.set_ylim(bottom=0)
    axes.legend(loc="center right")
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(PICTURE, dpi=100)
    pyplot.close(figure)
