"""Thousands of agents: from none to all, back to none, and all of them just telling that they live.

The controller is the real one with its real store, run by ``gridtide up``; the agents are played in a process of their
own and speak the real protocol over real HTTP (:mod:`benchmarks.played_machines`). Their processor time is not the
controller's, but both share the machine.
"""

from __future__ import annotations

import contextlib
import http.client
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from benchmarks.figures import Figure
from benchmarks.played_cloud import SLOT, install
from benchmarks.played_machines import ask
from gridtide.testing.live_site import LiveSite

HERE = Path(__file__).resolve().parent.parent
LOOK_EVERY = 0.2


@dataclass(frozen=True, slots=True)
class Size:
    """Of one run."""

    workers: int
    boot: float
    """Seconds from the launch call to the agent's first word."""
    idle: float
    """Seconds of the idle rule."""
    heartbeat: float
    listening: float = 0.0
    """Seconds for which heartbeats are measured."""


def up_and_down(directory: Path, *, quick: bool) -> Iterable[Figure]:
    """As many jobs as workers are submitted; when all run they end within a few seconds, and nothing follows."""
    size = Size(50, 1.0, 1.0, 1.0) if quick else Size(4000, 20.0, 10.0, 10.0)
    with _played(directory, size) as (site, socket):
        used, began = processor_seconds(site.pid), time.monotonic()
        submission = site.submit(f'Executable = "/bin/sleep"; Arguments = "1000"; Array = {size.workers};')
        up = _until(site, socket, "joined", size.workers) - began
        joining = processor_seconds(site.pid) - used
        running = _until(site, socket, "running", size.workers) - began
        used = processor_seconds(site.pid)
        ask(socket, {"what": "end-jobs"})
        site.wait_until(lambda: site.counts(submission)["done"] == size.workers, timeout=600, what="the jobs to end")
        idle = time.monotonic()
        site.wait_until(lambda: not site.get("/v1/workers", limit=1)["total"], timeout=300, what="the workers to go")
        down = time.monotonic() - idle - size.idle
        leaving = processor_seconds(site.pid) - used
        counts, done = ask(socket, {"what": "counts"}), site.counts(submission)["done"]
        left = len(ask(socket, {"what": "machines"}))
    n = f"{size.workers:,}".replace(",", " ")
    note = (
        f"boot {size.boot:g} s; the last job runs after {running:.1f} s; {joining:.1f} s of the controller's processor"
    )
    yield Figure(f"0 -> {n} workers joined, beyond the boot time", up - size.boot, "s", "<=", 20.0, note)
    note = f"idle rule {size.idle:g} s, from the last job's end; {leaving:.1f} s of the controller's processor"
    yield Figure(f"{n} -> 0 workers, after the idle rule", down, "s", "<=", 30.0, note)
    yield Figure("scale: jobs killed", counts["killed"], "jobs", "==", 0)
    yield Figure("scale: jobs not done", size.workers - done, "jobs", "==", 0)
    yield Figure("scale: agents refused", counts["refused"], "agents", "==", 0)
    yield Figure("scale: machines left over", left, "machines", "==", 0)


def heartbeats(directory: Path, *, quick: bool) -> Iterable[Figure]:
    """What the controller uses while all agents tell that they live, and while none does."""
    size = Size(50, 0.5, 60.0, 1.0, 2.0) if quick else Size(10_000, 5.0, 60.0, 30.0, 60.0)
    with _played(directory, size) as (site, socket):
        site.submit(f'Executable = "/bin/sleep"; Arguments = "1000"; Array = {size.workers};')
        _until(site, socket, "running", size.workers)
        time.sleep(2 * size.heartbeat)  # until nothing of the start is left to be done
        told = _listen(site, socket, size.listening)
        ask(socket, {"what": "beat", "on": False})
        time.sleep(1.0)
        silent = _listen(site, socket, size.listening)
        ask(socket, {"what": "beat", "on": True})
        lost = size.workers - ask(socket, {"what": "counts"})["running"]
    rate = size.workers / size.heartbeat
    share = (told.processor - silent.processor) / told.beats * rate
    note = (
        f"{told.beats} heartbeats at {told.beats / size.listening:.0f}/s: {1000 * share / rate:.2f} ms each; "
        f"all that the controller does: {100 * told.processor / size.listening:.0f} % of a core, "
        f"{100 * silent.processor / size.listening:.0f} % without them"
    )
    name = f"{size.workers:,} agents heartbeating every {size.heartbeat:g} s".replace(",", " ")
    yield Figure(name, 100 * max(share, 0.0), "% of a core", "<=", 10.0, note)
    note = f"{len(told.looks)} looks; median {1000 * statistics.median(told.looks):.1f} ms"
    yield Figure("API meanwhile, p99", statistics.quantiles(told.looks, n=100)[98], "s", "<=", 0.05, note)
    yield Figure("heartbeats: jobs lost", lost, "jobs", "==", 0)


@dataclass(frozen=True, slots=True)
class _Heard:
    """In a while of listening."""

    processor: float
    """Seconds of the controller."""
    beats: int
    looks: list[float]
    """Seconds that each took."""


def _listen(site: LiveSite, socket: str, seconds: float) -> _Heard:
    """While somebody looks at the site five times a second."""
    address = httpx.URL(str(site.client.base_url))
    connection = http.client.HTTPConnection(address.host, address.port)
    headers = {"Authorization": str(site.client.headers["authorization"])}
    looks: list[float] = []
    used, beats = processor_seconds(site.pid), ask(socket, {"what": "counts"})["heartbeats"]
    until = time.monotonic() + seconds
    while (began := time.monotonic()) < until:
        path = ("/v1/status", "/v1/groups", "/v1/workers?limit=100")[len(looks) % 3]
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        answer.read()
        if answer.status != httpx.codes.OK:
            raise RuntimeError(f"GET {path} was answered with {answer.status}")
        looks.append(time.monotonic() - began)
        time.sleep(max(0.0, began + LOOK_EVERY - time.monotonic()))
    connection.close()
    beats = ask(socket, {"what": "counts"})["heartbeats"] - beats
    return _Heard(processor_seconds(site.pid) - used, beats, looks)


def processor_seconds(process: int) -> float:
    """Of user and system together, since it began."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def _until(site: LiveSite, socket: str, what: str, number: int) -> float:
    """When the player had counted so many; RuntimeError when that takes ten minutes."""
    site.wait_until(lambda: ask(socket, {"what": "counts"})[what] >= number, timeout=600, what=f"{number} {what}")
    return time.monotonic()


@contextlib.contextmanager
def _played(directory: Path, size: Size) -> Iterator[tuple[LiveSite, str]]:
    """A site on a cloud of played machines, and where their player listens."""
    directory.mkdir(parents=True)
    install(directory / "packages")
    socket = directory / "player"
    text = f"""
[site]
name = "scale"

[service]
listen = "127.0.0.1:0"

[queues.jobs]
type = "pilot"

[clouds.played]
type = "played"
socket = "{socket}"
settle = "0 s"

[groups.workers]
queue = "jobs"
clouds = ["played"]
shapes = ["{SLOT.name}"]
maximum = {size.workers}
heartbeat = "{size.heartbeat:g} s"
policy = {{ type = "queue", idle_for = "{size.idle:g} s" }}
"""
    command = [sys.executable, "-m", "benchmarks.played_machines", str(socket), str(size.boot)]
    with subprocess.Popen(command, cwd=HERE) as player:
        try:
            while not socket.exists():
                if player.poll() is not None:
                    raise RuntimeError("the player did not start")
                time.sleep(0.05)
            with LiveSite(directory, text, path=[directory / "packages", HERE]) as site:
                yield site, str(socket)
        finally:
            player.terminate()
