"""``python -m tests.real.slurm.record`` records what real clusters say, for tests/unit/queues/slurm."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from gridtide.testing.queues import host, worker
from tests.real.slurm.cluster import Cluster, queue_of, slurm_cluster, until
from tests.real.slurm.tree import RELEASES, slurm_tree

SAMPLES = Path(__file__).parents[2] / "unit/queues/slurm/samples"

SUBMITTED = (
    ("-n1", "-J", "running"),
    ("-n1", "-J", "limited", "--array=1-1000%5", "-t", "10", "-c2", "--mem=200M"),
    ("-n1", "-J", "plain", "--array=1-9:2", "--mem-per-cpu=50", "-c2"),
    ("-n1", "-J", "constrained", "-C", "gridtide&conform", "-c2", "--mem=1G"),
    ("-n1", "-J", "dependent", "--dependency=afterok:1"),
    ("-n1", "-J", "held", "--hold"),
    ("-n1", "-J", "later", "--begin=now+1hour"),
    ("-n1", "-J", "alone", "--exclusive"),
    ("-N2", "-n4", "-J", "two", "--mem-per-cpu=10M"),
    ("-n1", "-J", "named", "-w", "conform-two"),
)


def record(cluster: Cluster, release: str) -> None:
    """Jobs and nodes in many states."""
    queue = queue_of(cluster)
    for name in ("conform-one", "conform-two", "conform-three", "conform-four"):
        orders = asyncio.run(queue.join(worker(name), host(name)))
        assert orders.batch is not None
        cluster.start_node(name, orders.batch)
    until(lambda: cluster.room.run("sinfo", "-h", "-N").count("idle") == 4)
    for options in SUBMITTED:
        cluster.submit("sleep 600", *options)
    cluster.room.run("scontrol", "update", "nodename=conform-three", "state=drain", "reason=gridtide: surplus")
    until(lambda: "conform-one" in cluster.room.run("squeue", "-h", "-t", "R"))
    cluster.nodes["conform-four"].kill("slurmd")
    cluster.room.run("scontrol", "update", "nodename=conform-four", "state=down", "reason=tested")
    commands = {
        "jobs": ("squeue", "--all", "--json"),
        "nodes": ("sinfo", "--all", "--json")
        if release == "22.05"
        else ("scontrol", "--all", "show", "nodes", "--json"),
    }
    for what, command in commands.items():
        said = json.loads(cluster.room.run(*command))
        (SAMPLES / f"{release}.{what}.json").write_text(json.dumps(said, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    for each in RELEASES:
        with slurm_cluster(slurm_tree(each)) as opened:
            record(opened, each)
