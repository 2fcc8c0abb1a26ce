"""kill -9 of the controller at random instants while jobs run: nothing may be lost, doubled or left over."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from benchmarks.figures import Figure
from gridtide.testing.live_site import LiveSite, site_text

MAXIMUM = 8


@dataclass(frozen=True, slots=True)
class Report:
    """What became of the jobs and machines."""

    kills: int
    jobs: int
    done: int
    ended_once: int
    started_once: int
    most_machines: int
    left_over: int
    bystanders_lost: int
    seconds: float


class _Watch:
    """Counts the machines that exist, all the time, from outside."""

    def __init__(self, site: LiveSite) -> None:
        self.most = 0
        self._site = site
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """No more counting."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.1):
            self.most = max(self.most, len(machines_of(self._site.processes())))


def machines_of(processes: Iterable[int]) -> set[bytes]:
    """The markers of these processes: one for each machine."""
    found: set[bytes] = set()
    for process in processes:
        try:
            environment = Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
        except OSError:
            continue
        found |= {each for each in environment if each.startswith(b"GRIDTIDE_MACHINE=")}
    return found


def run(directory: Path, *, kills: int, jobs: int, job_seconds: float, seed: int) -> Report:
    """Submit, kill, restart, kill ...; then let it end and count."""
    random, began = Random(seed), time.monotonic()
    marks = directory / "marks"
    marks.mkdir(parents=True)
    bystanders = [_bystander({"GRIDTIDE_MACHINE": "other/workers-2b3c4d5f"}), _bystander({})]
    site = LiveSite(directory, site_text(maximum=MAXIMUM, idle_for="2 s"))
    with site:
        watch = _Watch(site)
        script = f"echo start >> {marks}/$1; sleep {job_seconds}; echo end >> {marks}/$1; echo result $1"
        submission = site.submit(
            f'Executable = "/bin/sh"; Arguments = {{"-c", "{script}", "job", "$(index)"}}; Array = {jobs};'
        )
        for _ in range(kills):
            if random.random() < 0.7:  # most kills in full work, the others while it starts
                site.wait_for_service()
            time.sleep(random.uniform(0.0, 1.5))
            site.kill()
            site.start(wait=False)
        site.wait_for_service()
        counts = site.wait_for_jobs(submission, timeout=60 + 2 * jobs * job_seconds)
        site.wait_for_no_workers(timeout=60)
        site.wait_until(lambda: not site.processes(), timeout=10, what="the last machine to end")
        watch.stop()
        left_over = len(site.processes())
    lost = sum(each.poll() is not None for each in bystanders)
    for each in bystanders:
        each.kill()
        each.wait()
    written = [(marks / str(index)).read_text().split() for index in range(jobs) if (marks / str(index)).exists()]
    return Report(
        kills=kills,
        jobs=jobs,
        done=counts.get("done", 0),
        ended_once=sum(words.count("end") == 1 for words in written),
        started_once=sum(words.count("start") == 1 for words in written),
        most_machines=watch.most,
        left_over=left_over,
        bystanders_lost=lost,
        seconds=time.monotonic() - began,
    )


def _bystander(environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """A process that looks like one of ours, and is not."""
    code = "import time; time.sleep(3600)"
    return subprocess.Popen([sys.executable, "-I", "-c", code, "agent.py"], env={**os.environ, **environment})


def figures(directory: Path, *, quick: bool) -> Iterable[Figure]:
    """The figures of one run."""
    kills, jobs, seconds = (8, 40, 1.0) if quick else (100, 300, 7.0)
    report = run(directory, kills=kills, jobs=jobs, job_seconds=seconds, seed=11)
    note = f"{kills} x kill -9 of the controller, {jobs} jobs, maximum {MAXIMUM}, {report.seconds:.0f} s"
    yield Figure("kill -9: results", report.done, "jobs", "==", jobs, note)
    yield Figure("kill -9: jobs run to their end exactly once", report.ended_once, "jobs", "==", jobs, note)
    yield Figure("kill -9: jobs started exactly once", report.started_once, "jobs", "==", jobs, note)
    yield Figure("kill -9: most machines at once", report.most_machines, "machines", "<=", MAXIMUM, note)
    yield Figure("kill -9: processes left over", report.left_over, "processes", "==", 0, note)
    yield Figure("kill -9: foreign processes touched", report.bystanders_lost, "processes", "==", 0, note)
