"""A real Slurm cluster and a real site that gives it workers, for tests and benchmarks."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gridtide.testing.live_site import LiveSite
from tests.real.images import image_store
from tests.real.slurm.cluster import Cluster, slurm_cluster
from tests.real.slurm.tree import slurm_tree

SAY = "scontrol update jobid=$SLURM_JOB_ID comment=runs"
"""First command of a job that :meth:`ClusterSite.has_said` waits for. Slurm calls a job RUNNING as soon as it has given
it a node, before anything runs there."""

_IMAGES = {"process": "batch-tree", "qemu": "batch"}
_MEMORY = {"process": "1 GiB", "qemu": "512 MiB"}
_NETWORK = {"process": "", "qemu": "forward = true"}


@dataclass(frozen=True, slots=True)
class ClusterSite:
    """A cluster and the site that gives it workers."""

    cluster: Cluster
    site: LiveSite

    def states(self) -> list[str]:
        """The state of each job that Slurm has not ended: ``PENDING``, ``CONFIGURING``, ``RUNNING``, ..."""
        return self.cluster.room.run("squeue", "-h", "-o", "%T").split()

    def has_said(self) -> bool:
        """Whether a job has run its first command, :data:`SAY`."""
        return "runs" in self.cluster.room.run("squeue", "-h", "-o", "%k").split()

    def nodes(self) -> list[str]:
        """Names of the cluster's nodes but templates."""
        listed = self.cluster.room.run("sinfo", "-h", "-N", "-o", "%N").split()
        return [name for name in listed if not name.startswith("TEMPLATE-")]

    def wait(self, holds: Callable[[], bool], *, timeout: float, what: str) -> float:
        """Seconds until it holds."""
        began = time.monotonic()
        self.site.wait_until(holds, timeout=timeout, what=what)
        return time.monotonic() - began

    def finish(self, *, timeout: float) -> float:
        """Seconds until no job is left."""
        return self.wait(lambda: not self.states(), timeout=timeout, what="the jobs to end")

    def workers(self, *states: str) -> int:
        """How many there are, of these states."""
        listed = self.site.get("/v1/workers", limit=1000)["workers"]
        return sum(not states or worker["state"] in states for worker in listed)

    def scale(self, **wishes: int | None) -> None:
        """What an operator does."""
        self.site.post("/v1/groups/grid/scale", wishes)

    def is_ready(self) -> bool:
        """Whether Slurm takes jobs for machines that are not there yet."""
        return "TEMPLATE-grid-small-1" in self.cluster.room.run("sinfo", "-h", "-N", "-o", "%N").split()


@contextmanager
def cluster_site(
    directory: Path, *, cloud: str = "process", maximum: int = 2, minimum: int = 0, idle_for: str = "10 s"
) -> Iterator[ClusterSite]:
    """A site with workers of one core, and a cluster of its own (24.11) in the host's network.

    ``cloud``: ``process``, or ``qemu`` in its user network. Leaving the block closes the site: its workers end.
    """
    # With TCG a machine's clock and its answers come late: the tests' cluster asks each node every few seconds.
    with slurm_cluster(slurm_tree("24.11"), shared=True, node_timeout=60 if cloud == "qemu" else 20) as cluster:
        directory.mkdir(parents=True, exist_ok=True)
        key = directory / "munge.key"
        key.write_bytes(cluster.munge_key)
        key.chmod(0o600)
        prefix = ", ".join(f'"{word}"' for word in cluster.prefix)
        text = f"""
[site]
name = "slurm-{secrets.token_hex(5)}"

[service]
listen = "127.0.0.1:0"

[controller]
queue_refresh = "1 s"

[queues.cluster]
type = "slurm"
controllers = ["{cluster.room.address}"]
munge_key = "munge.key"
prefix = [{prefix}]
own_ports = true

[clouds.here]
type = "{cloud}"
images = "{image_store(_IMAGES[cloud]).directory}"
quota = {{ machines = {2 * maximum + 2} }}
shapes = {{ small = {{ cores = 1, memory = "{_MEMORY[cloud]}" }} }}
{_NETWORK[cloud]}

[groups.grid]
queue = "cluster"
clouds = ["here"]
shapes = ["small"]
image = "{_IMAGES[cloud]}"
minimum = {minimum}
maximum = {maximum}
policy = {{ type = "queue", idle_for = "{idle_for}" }}
"""
        with LiveSite(directory, text) as site:
            one = ClusterSite(cluster, site)
            one.wait(one.is_ready, timeout=120, what="the cluster to know what could be launched")
            yield one
            site.client.post("/v1/site/close")
            site.wait_for_no_workers(timeout=120)
