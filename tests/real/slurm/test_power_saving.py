"""Slurm's own power saving with Gridtide's two commands as its programs: nodes come for jobs and go when idle."""

from __future__ import annotations

import secrets
import subprocess
import sys
from pathlib import Path

import gridtide
from gridtide.testing.live_site import LiveSite
from tests.real.images import tree_store
from tests.real.slurm.cluster import Cluster, Room, slurm_cluster, until
from tests.real.slurm.tree import slurm_tree

PROGRAMS = ("/usr/local/sbin/resume", "/usr/local/sbin/suspend")
CODE = Path(gridtide.__file__).parents[1]

POWER = """
SuspendTime=5
SuspendTimeout=10
ResumeTimeout=60
ResumeProgram=/usr/local/sbin/resume
SuspendProgram=/usr/local/sbin/suspend
NodeName=cloud[1-2] CPUs=1 RealMemory=500 NodeAddr=127.0.0.1 Port=[{first}-{last}] State=CLOUD
"""


def show(room: Room, *paths: str) -> None:
    """Let the room see directories of the host, at the same place."""
    for path in paths:
        inside = f"{room.home}/root{path}"
        script = 'mkdir -p "$2"; mount --rbind "$1" "$2"'
        subprocess.run(
            ("nsenter", "--target", str(room.pid), "--mount", "sh", "-ec", script, "show", path, inside), check=True
        )


def site_text(cluster: Cluster, key: Path) -> str:
    prefix = ", ".join(f'"{word}"' for word in cluster.prefix)
    return f"""
[site]
name = "power-{secrets.token_hex(4)}"
[service]
listen = "127.0.0.1:0"
[controller]
queue_refresh = "1 s"
[queues.cluster]
type = "slurm"
controllers = ["{cluster.room.address}"]
munge_key = "{key}"
prefix = [{prefix}]
power_saving = true
[clouds.here]
type = "process"
images = "{tree_store("batch-tree").directory}"
shapes = {{ small = {{ cores = 1, memory = "1 GiB" }} }}
[groups.grid]
queue = "cluster"
clouds = ["here"]
image = "batch-tree"
maximum = 2
policy = {{ type = "queue", idle_for = "1 s" }}
"""


def test_slurm_says_which_nodes_are_there(tmp_path: Path) -> None:
    first = 20_000 + secrets.randbelow(10_000)
    power = POWER.format(first=first, last=first + 1)
    with slurm_cluster(slurm_tree("24.11"), shared=True, more=power, programs=PROGRAMS) as cluster:
        key = tmp_path / "munge.key"
        key.write_bytes(cluster.munge_key)
        with LiveSite(tmp_path / "site", site_text(cluster, key)) as site:
            show(cluster.room, str(CODE), sys.prefix, sys.base_prefix, str(tmp_path))
            for name in ("resume", "suspend"):
                command = f'{sys.executable} -m gridtide.cli.main slurm-{name} "$1" --group grid --site {site.file}'
                script = f"#!/bin/sh\nexport PYTHONPATH={CODE} HOME=/root\nexec {command} >>/var/log/power 2>&1\n"
                cluster.room.write(f"/usr/local/sbin/{name}", script, 0o755)
            first_worker = run_one(cluster, site)
            cluster.submit("true", "-w", "cloud1")
            assert resumed(site) != first_worker, "an ended machine is taken for the new one"


def resumed(site: LiveSite) -> str:
    """The one worker there is."""
    until(lambda: site.get("/v1/workers")["workers"], why="no worker is launched")
    (worker,) = site.get("/v1/workers")["workers"]
    return str(worker["id"])


def run_one(cluster: Cluster, site: LiveSite) -> str:
    """The worker that ran a job, and is gone."""
    job = cluster.submit("true", "-w", "cloud1")

    def told() -> str:
        return cluster.room.run("scontrol", "show", "job", job)

    worker = resumed(site)
    until(lambda: "JobState=COMPLETED" in told(), patience=180, why="the job does not end")
    assert "Restarts=0" in told()
    until(lambda: not site.get("/v1/workers")["workers"], patience=120, why="the worker does not go")
    until(lambda: "DRAIN" not in cluster.room.run("sinfo", "-h", "-n", "cloud1", "-o", "%T").upper())
    return worker
