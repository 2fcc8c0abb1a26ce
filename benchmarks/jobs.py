"""A thousand small jobs, ten thousand waiting ones, a hundred heartbeats: what the product itself costs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from pathlib import Path

import httpx

from benchmarks.figures import Figure
from benchmarks.scale import processor_seconds
from gridtide.testing.live_site import LiveSite, site_text

THESIS_SECONDS = 6480.0
"""1 000 jobs on 3 workers in the 2017 thesis (seeds-digest section 2): 1 h 48 min."""


def thousand(directory: Path, *, quick: bool) -> Iterable[Figure]:
    """Jobs that print their number, on 3 one-slot workers, from submit to last result."""
    jobs, slots = (100, 3) if quick else (1000, 3)
    with LiveSite(directory, site_text(maximum=slots, idle_for="30 s")) as site:
        began = time.monotonic()
        submission = site.submit(f'Executable = "/bin/echo"; Arguments = "$(index)"; Array = {jobs};')
        counts = site.wait_for_jobs(submission, timeout=300)
        seconds = time.monotonic() - began
        wrong = 0 if counts["done"] == jobs else jobs - counts["done"]
        for index in (0, jobs // 2, jobs - 1):
            wrong += site.client.get(f"/v1/jobs/{submission}.{index}/log").text.strip() != str(index)
        busy = _worker_seconds(site, submission, jobs)
    yield Figure(
        "1 000 jobs on 3 workers: submit to last result", seconds * 1000 / jobs, "s", "<=", 20.0, f"{jobs} jobs"
    )
    yield Figure("1 000 jobs: wrong or missing results", wrong, "jobs", "==", 0)
    yield Figure("1 000 jobs: overhead per job", 1000 * (seconds * slots - busy) / jobs, "ms", "<=", 50.0)
    yield Figure("1 000 jobs: times faster than the thesis", THESIS_SECONDS * jobs / 1000 / seconds, "x", ">=", 324.0)


def _worker_seconds(site: LiveSite, submission: int, jobs: int) -> float:
    """Processor seconds that the jobs themselves used."""
    total, after = 0.0, ""
    while True:
        parameters: dict[str, str | int] = {"submission": submission, "limit": 1000}
        if after:
            parameters["after"] = after
        page = site.get("/v1/jobs", **parameters)["jobs"]
        if not page:
            return total
        total += sum(job["cpu_seconds"] or 0.0 for job in page)
        after = page[-1]["id"]


def waiting(directory: Path, *, quick: bool) -> Iterable[Figure]:
    """Submit many; then, with all of them waiting for a machine there is none of, submit to a group that has room."""
    jobs, tries = (1000, 5) if quick else (10_000, 100)
    extra = """
[groups.probes]
queue = "jobs"
clouds = ["local"]
maximum = 150
attributes = { Probe = true }
policy = { type = "queue", idle_for = "1 h" }
"""
    text = site_text(maximum=0, extra=extra).replace("machines = 16", "machines = 200")
    with LiveSite(directory, text) as site:
        began = time.monotonic()
        # Nothing runs these: the group that could has a maximum of 0.
        waiters = 'TARGET.GridtideGroup == \\"workers\\"'
        site.submit(f'Executable = "/bin/true"; Array = {jobs}; Requirements = {waiters.replace(chr(92), "")};')
        submitted = time.monotonic() - began
        delays = sorted(_launch_delay(site) for _ in range(tries))
    yield Figure(f"submit of {jobs} jobs", submitted, "s", "<=", 5.0)
    p99 = delays[min(len(delays) - 1, int(0.99 * len(delays)))]
    note = f"{tries} submissions with {jobs} jobs waiting; median {delays[len(delays) // 2]:.3f} s"
    yield Figure("job submitted -> launch call, p99", p99, "s", "<=", 1.0, note)


def _launch_delay(site: LiveSite) -> float:
    """Wall time from the submission to the launch call that it causes, both by the site's own clock."""
    after = 0
    while page := site.get("/v1/events", after=after, kind="worker", limit=1000)["events"]:
        after = page[-1]["number"]
    asked = time.time()
    site.submit('Executable = "/bin/sleep"; Arguments = "600"; Requirements = TARGET.Probe;')
    until = time.monotonic() + 20
    while time.monotonic() < until:
        for event in site.get("/v1/events", after=after, kind="worker")["events"]:
            if event["text"] == "launching":
                return float(event["at"]) - asked
        time.sleep(0.02)
    return 20.0


def heartbeats(directory: Path, *, quick: bool) -> Iterable[Figure]:
    """What a hundred agents that report every 10 s cost, as a share of one core."""
    agents, seconds = (100, 5.0) if quick else (100, 30.0)
    with LiveSite(directory, site_text(maximum=1)) as site:
        submission = site.submit('Executable = "/bin/sleep"; Arguments = "300";')
        site.wait_until(lambda: site.counts(submission)["running"] == 1, timeout=30, what="a worker")
        context = next((directory / "state" / "clouds" / "local").glob("workers-*/agent.json"))
        token = json.loads(context.read_text())["worker_token"]
        idle = processor_seconds(site.pid)
        time.sleep(seconds)
        idle = processor_seconds(site.pid) - idle
        before, began = processor_seconds(site.pid), time.monotonic()
        sent = _beat(str(site.client.base_url), token, agents, seconds)
        used = processor_seconds(site.pid) - before - idle
        elapsed = time.monotonic() - began
        site.client.post("/v1/jobs/cancel", json={"jobs": [], "submission": submission})
    rate = sent / elapsed
    share = 100 * used / elapsed * (agents / 10) / rate
    note = f"{sent} heartbeats at {rate:.0f}/s, scaled to {agents} agents every 10 s"
    yield Figure("100 agents heartbeating", max(share, 0.0), "% of a core", "<=", 5.0, note)


def _beat(url: str, token: str, agents: int, seconds: float) -> int:
    """Heartbeats ten times as often as 100 agents would send them, so that the cost stands out of the noise."""
    sent, began, step = 0, time.monotonic(), 10.0 / agents / 10
    body = {"load": 0.5, "running": [], "draining": False}
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}) as client:
        while time.monotonic() - began < seconds:
            client.post("/v1/worker/alive", json=body).raise_for_status()
            sent += 1
            time.sleep(max(0.0, began + sent * step - time.monotonic()))
    return sent
