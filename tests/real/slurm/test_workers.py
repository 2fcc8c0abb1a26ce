"""A site gives a real cluster its workers: what users notice. The site file is that of the benchmarks."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.real.slurm.site import SAY, ClusterSite, cluster_site


def ended_once(one: ClusterSite, job: str) -> bool:
    """Whether Slurm says that the job ran to its end, and was never put back."""
    told = one.cluster.room.run("scontrol", "show", "job", job)
    return "JobState=COMPLETED" in told and "Restarts=0" in told


@pytest.mark.parametrize(("cloud", "patience"), [("process", 60), ("qemu", 180)])
def test_a_job_brings_its_machine_and_outlives_the_controller(tmp_path: Path, cloud: str, patience: float) -> None:
    with cluster_site(tmp_path / "site", cloud=cloud, maximum=1, idle_for="1 s") as one:
        job = one.cluster.submit(f"{SAY}; sleep 25")  # longer than a busy host takes to notice, kill and look
        one.wait(one.has_said, timeout=patience, what="the job to run")
        nodes = one.nodes()
        assert len(nodes) == 1
        one.site.kill()
        time.sleep(1)
        assert one.states() == ["RUNNING"]
        one.site.start()
        one.finish(timeout=patience)
        assert ended_once(one, job)
        one.wait(lambda: not one.nodes(), timeout=120, what="the idle node to go")
        one.site.wait_for_no_workers(timeout=120)


def test_a_wish_for_more_workers_than_jobs_need(tmp_path: Path) -> None:
    with cluster_site(tmp_path / "site", maximum=3, idle_for="1 s") as one:
        one.scale(minimum=2)
        one.wait(lambda: len(one.nodes()) == 2, timeout=120, what="two nodes")
        jobs = [one.cluster.submit("sleep 2") for _ in range(6)]
        one.wait(lambda: one.workers() == 3, timeout=120, what="the third worker")
        one.finish(timeout=120)
        assert all(ended_once(one, job) for job in jobs)
        one.wait(lambda: one.workers() == 2, timeout=120, what="the third worker to go")
        one.scale(minimum=None)
        one.site.wait_for_no_workers(timeout=120)
        one.wait(lambda: not one.nodes(), timeout=120, what="Slurm to forget them")
