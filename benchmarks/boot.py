"""Real virtual machines: from a request to its job running in a fresh one, twelve at once, and images of any size."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

from tests.real.qemu.images import image_store
from tests.real.qemu.site import finish, shell, virtual_site

from benchmarks.figures import Figure
from gridtide.images.building import build
from gridtide.images.recipe import read_recipe
from gridtide.images.store import ImageStore
from gridtide.model.boots import quantile
from gridtide.testing.live_site import LiveSite

PER_JOB = '{ type = "per_job" }'


def fresh(directory: Path, *, quick: bool) -> Iterable[Figure]:
    """One job after the other, each in a machine that is made for it and ended after it."""
    boots = 3 if quick else 20
    starts, errors = _starts(directory / "saved", boots)
    note = f"{boots} boots, thin image, emulated, from a saved state"
    yield Figure("boot: median", quantile(starts, 0.5), "s", "<=", 5.0, note)
    yield Figure("boot: p95", quantile(starts, 0.95), "s", "<=", 8.0, note)
    yield Figure(
        "boot: phases off", sum(error > 1e-6 for error in errors), "boots", "==", 0, "sum of phases = whole boot"
    )
    if not quick:
        cold, _ = _starts(directory / "cold", 5, cloud="saved_states = false")
        yield Figure("boot: cold median", quantile(cold, 0.5), "s", "<=", 15.0, "5 boots from the kernel's start")


def _starts(directory: Path, boots: int, *, cloud: str = "") -> tuple[list[float], list[float]]:
    """Seconds from submission to the job's start, sorted; and how far phases are from adding up."""
    with virtual_site(directory, policy=PER_JOB, cloud=cloud) as site:
        _warm(site)
        starts, errors = zip(*(_start(site) for _ in range(boots)), strict=True)
    return sorted(starts), list(errors)


def _warm(site: LiveSite) -> None:
    """The saved state is made, once per image and shape."""
    finish(site, site.submit(shell("true")), timeout=120)


def _start(site: LiveSite) -> tuple[float, float]:
    """One job in one fresh machine: seconds from submission to start, and how far phases are from adding up."""
    site.wait_for_no_workers()
    submission = site.submit(shell("hostname"))
    assert finish(site, submission, timeout=120) == {"done": 1}
    job = site.get(f"/v1/jobs/{submission}.0")
    host = site.client.get(f"/v1/jobs/{submission}.0/log").text.strip()
    boot = site.get(f"/v1/workers/{host}")["boot"]
    return job["started"] - job["submitted"], abs(sum(boot["phases"].values()) - boot["seconds"])


def twelve(directory: Path, *, quick: bool) -> Iterable[Figure]:
    """As many machines at once as the thesis's largest test had, and 40 jobs through them."""
    machines, jobs = (3, 6) if quick else (12, 40)
    with virtual_site(directory, maximum=machines) as site:
        finish(site, site.submit(shell("true")), timeout=120)
        site.wait_for_no_workers()
        began = time.monotonic()
        submission = site.submit(shell("sleep 5; hostname", jobs=jobs))
        site.wait_until(lambda: _joined(site) == machines, timeout=180, what="all machines to join")
        joined = time.monotonic() - began
        memory = _memory(site.processes())
        done = finish(site, submission, timeout=300).get("done", 0)
        took = time.monotonic() - began
        site.wait_for_no_workers()
        left = len(site.processes()) + len(list((site.state / "clouds/local").glob("[a-z]*")))
    note = f"{machines} machines at once, {jobs} jobs of 5 s"
    yield Figure("twelve: joined", joined, "s", "<=", 30.0, note)
    yield Figure("twelve: all done", took, "s", "<=", 90.0, note)
    yield Figure("twelve: jobs lost", jobs - done, "jobs", "==", 0, note)
    yield Figure("twelve: memory", memory, "GiB", "<=", 8.0, "resident, shared parts counted once")
    yield Figure("twelve: left over", left, "things", "==", 0, "processes, overlays, sockets")


def _joined(site: LiveSite) -> int:
    return sum(worker["state"] == "joined" for worker in site.get("/v1/workers")["workers"])


def _memory(processes: list[int]) -> float:
    """Proportional set size of them all, in GiB."""
    total = 0
    for process in processes:
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total / 2**20


def size(directory: Path, *, quick: bool) -> Iterable[Figure]:
    """The same image with more and more in it: neither copied nor read at a boot. They boot in turn, so that whatever
    else the host does is in both."""
    if quick:
        return
    directory.mkdir(parents=True)
    store = ImageStore(image_store().directory)
    names = {"300mb": 50, "3gb": 2800}
    starts: dict[str, list[float]] = {name: [] for name in names}
    with ExitStack() as stack:
        sites = {}
        for name, filler in names.items():
            _filled(directory, store, name, filler)
            stack.callback(store.remove, name, force=True)
            cold = virtual_site(directory / name, policy=PER_JOB, image=name, cloud="saved_states = false")
            sites[name] = stack.enter_context(cold)
            _warm(sites[name])
        for _ in range(7):
            for name, site in sites.items():
                starts[name].append(_start(site)[0])
    small, large = (quantile(sorted(starts[name]), 0.5) for name in names)
    note = f"7 cold boots of each, in turn: {small:.2f} s and {large:.2f} s"
    yield Figure("image of 3 GB / 300 MB", large / small, "x", "<=", 1.1, note)


def _filled(directory: Path, store: ImageStore, name: str, mebibytes: int) -> None:
    (directory / "fill.sh").write_text(f"#!/bin/sh\nhead -c {mebibytes << 20} /dev/urandom > /opt/filler\n")
    (directory / "thin.toml").write_text(read_recipe("thin")[1] + 'script = "fill.sh"\ndisk = "5 GiB"\n')
    recipe, text = read_recipe(str(directory / "thin.toml"))
    build(store, name, recipe, text)
