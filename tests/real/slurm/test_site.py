"""docs/how-to/slurm-cluster.md, followed: a site brings machines to a real cluster, runs its jobs, takes them back."""

from __future__ import annotations

import re
import secrets
from pathlib import Path

from gridtide.testing.live_site import LiveSite
from tests.real.images import tree_store
from tests.real.slurm.cluster import Cluster, slurm_cluster, until
from tests.real.slurm.tree import slurm_tree

PAGE = Path(__file__).parents[3] / "docs/how-to/slurm-cluster.md"


def site_of(cluster: Cluster, directory: Path) -> str:
    """The page's site file, with addresses of the test and short times."""
    key = directory / "munge.key"
    key.write_bytes(cluster.munge_key)
    blocks = re.findall(r"```toml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    text: str = next(block for block in blocks if "[site]" in block)
    prefix = ", ".join(f'"{word}"' for word in cluster.prefix)
    more = f"prefix = [{prefix}]\nown_ports = true"
    for before, after in (
        ('name = "torino"', f'name = "slurm-{secrets.token_hex(4)}"\n[service]\nlisten = "127.0.0.1:0"'),
        ('"head.example.org"', f'"{cluster.room.address}"'),
        ('"/etc/munge/munge.key"', f'"munge.key"\n{more}'),
        ('type = "process"', f'type = "process"\nimages = "{tree_store("batch-tree").directory}"'),
        ('image = "slurm-worker"', 'image = "batch-tree"'),
        ('"5 min"', '"1 s"'),
    ):
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    return text + '\n[controller]\nqueue_refresh = "1 s"\n'


def test_jobs_bring_machines_and_idle_machines_go(tmp_path: Path) -> None:
    with slurm_cluster(slurm_tree("24.11"), shared=True) as cluster:
        site = LiveSite(tmp_path / "site", "")
        site.file.write_text(site_of(cluster, site.directory))
        with site:
            until(lambda: "TEMPLATE-grid-small-1" in cluster.room.run("sinfo", "-h", "-N"), why="no template")
            number = cluster.submit("sleep 2; srun hostname", "-n1", "-c2", "-C", "grid&ssd", "--array=1-6")
            until(lambda: "RUNNING" in cluster.room.run("squeue", "-h", "-o", "%T"), why="no job runs")
            until(lambda: not cluster.room.run("squeue", "-h"), patience=120, why="the jobs do not end")
            told = [cluster.room.run("scontrol", "show", "job", f"{number}_{task}") for task in range(1, 7)]
            assert all("JobState=COMPLETED" in each for each in told)
            until(
                lambda: cluster.room.run("sinfo", "-h", "-N", "-o", "%N").split() == ["TEMPLATE-grid-small-1"],
                patience=120,
                why="idle nodes are not taken away",
            )
