"""A real site on a real pool whose daemons and machines fail. No job is ever ended by us.

Times are scaled: a worker reports each second instead of each half minute, and "ten minutes" are twenty seconds.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.real.htcondor.pool import Pool, running_pool
from tests.real.htcondor.site import QUICK_POOL, PoolSite, pool_site

_ENDS = ("draining", "drained", "terminating", "gone")


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with running_pool(more=QUICK_POOL) as pool:
        yield pool


@contextmanager
def site_of(
    pool: Pool, directory: Path, maximum: int, idle_for: str = "2 s", *, closes: bool = True
) -> Iterator[PoolSite]:
    try:
        with pool_site(
            directory, maximum=maximum, idle_for=idle_for, pool=pool, update_interval="1 s", closes=closes
        ) as one:
            yield one
    finally:
        pool.remove_all_jobs()


@contextmanager
def stopped(pool: Pool, *names: str) -> Iterator[None]:
    """These daemons answer nobody meanwhile, though their ports are open."""
    for name in names:
        pool.manager.signal(name, signal.SIGSTOP)
    try:
        yield
    finally:
        for name in names:
            pool.manager.signal(name, signal.SIGCONT)


@contextmanager
def dead(pool: Pool, name: str) -> Iterator[None]:
    """The daemon is gone meanwhile; condor_master starts it again afterwards."""
    pool.manager.signal("condor_master", signal.SIGSTOP)
    try:
        pool.manager.signal(name, signal.SIGKILL)
        yield
    finally:
        pool.manager.signal("condor_master", signal.SIGCONT)


def busy(one: PoolSite, count: int) -> None:
    """Wait until so many jobs really run. The schedd says so before a shadow has reached the machine, through CCB."""

    def run() -> bool:
        started = sum(len(one.processes(worker, "sleep")) for worker in set(one.where()))
        return one.jobs().count(2) == count == started

    one.wait(run, timeout=60, what=f"{count} jobs to run")


def untouched(one: PoolSite) -> None:
    """No worker was ever ordered to end or ended."""
    assert one.happened(*_ENDS) == []


@pytest.mark.parametrize("how", ["hangs", "is dead"])
def test_a_collector_that_is_down_while_the_controller_restarts(pool: Pool, tmp_path: Path, how: str) -> None:
    """Start: 6 workers, 6 jobs. Do: the collector is down for 20 s; the controller is killed and started meanwhile.

    Expected: the readings are not fresh and say why; no worker is drained; each job runs once. Then the workers leave;
    but after a crash HTCondor may keep claims that nobody uses until their lease is over, and a claim is never idle.
    """
    with site_of(pool, tmp_path, maximum=6, closes=how == "hangs") as one:
        cluster = one.pool.sleep(30, 6)
        busy(one, 6)
        began = time.monotonic()
        with stopped(pool, "condor_collector") if how == "hangs" else dead(pool, "condor_collector"):
            time.sleep(6)
            one.site.kill()
            time.sleep(1)
            one.site.start()
            one.wait(lambda: one.sources()["nodes"][0] != "fresh", timeout=20, what="the silence to be noticed")
            time.sleep(max(0.0, began + 20 - time.monotonic()))
            for what, (quality, error) in one.sources().items():
                assert quality in ("stale", "missing")
                assert error is not None
                waits = what == "demand" and error == "not read yet"  # the jobs are asked for after the nodes
                assert waits or pool.collector in error or "no answer within" in error
            assert one.workers("joined") == 6
        one.finish(timeout=60)
        assert one.whole(cluster)
        assert time.monotonic() - began >= 25
        if how == "hangs":
            one.wait(lambda: one.workers() == 0, timeout=60, what="idle workers to leave")
        assert len(one.happened("intended")) == 6, "none was launched for jobs that were not seen"


def test_a_collector_that_comes_back_empty(pool: Pool, tmp_path: Path) -> None:
    """Start: 3 workers, 3 jobs. Do: the collector is killed and comes back with nothing in it.

    Expected: nothing is read as idle or gone while it fills; another job gets its worker afterwards.
    """
    with site_of(pool, tmp_path, maximum=5, closes=False) as one:
        cluster = one.pool.sleep(20, 3)
        busy(one, 3)
        pool.manager.signal("condor_collector", signal.SIGKILL)
        one.wait(lambda: not one.is_seen(), timeout=20, what="the restart to be noticed")
        more = one.pool.sleep(1)
        one.wait(one.is_seen, timeout=30, what="the collector to fill")
        untouched(one)
        one.wait(lambda: len(one.happened("intended")) >= 4, timeout=20, what="the fourth worker")
        one.finish(timeout=60)
        assert one.whole(cluster, more)


def test_a_schedd_that_is_started_again(pool: Pool, tmp_path: Path) -> None:
    """Start: 2 workers, 2 jobs. Do: kill the schedd, which takes its shadows with it, and it comes back.

    Expected: no worker is touched while it is away. HTCondor finds its jobs again or runs them again, as it likes; none
    is lost, and the workers leave when all is done.
    """
    with site_of(pool, tmp_path, maximum=4, idle_for="1 s") as one:
        cluster = one.pool.sleep(15, 2)
        busy(one, 2)
        with dead(pool, "condor_schedd"):
            one.wait(lambda: one.sources()["demand"][0] == "stale", timeout=20, what="the silence to be noticed")
            time.sleep(4)
            untouched(one)
            assert one.workers("joined") == 2
        one.wait(one.is_seen, timeout=40, what="the schedd to be back")
        one.finish(timeout=90)
        said = pool.manager.run(
            "condor_history", "-constraint", f"ClusterId == {cluster}", "-af", "JobStatus", "ExitCode"
        )
        assert said.split() == ["4", "0"] * 2
        one.wait(lambda: one.workers() == 0, timeout=60, what="idle workers to leave")


def test_a_schedd_that_hangs(pool: Pool, tmp_path: Path) -> None:
    """Start: a worker with a job, and one whose job has ended. Do: the schedd is stopped before it is idle for long.

    Expected: demand is stale, and said to be; nobody is drained on it; afterwards all goes on.
    """
    with site_of(pool, tmp_path, maximum=4, idle_for="4 s") as one:
        long, short = one.pool.sleep(30), one.pool.sleep(1)
        one.wait(lambda: one.jobs() == [2], timeout=60, what="the short job to end")
        with stopped(pool, "condor_schedd"):
            one.wait(lambda: one.sources()["demand"][0] != "fresh", timeout=30, what="the silence to be noticed")
            time.sleep(8)
            quality, error = one.sources()["demand"]
            assert quality == "stale"
            assert error is not None
            assert "pool" in error
            untouched(one)
            assert one.workers("joined") == 2
        one.wait(one.is_seen, timeout=40, what="the schedd's answer")
        one.wait(lambda: one.workers() == 1, timeout=60, what="the idle worker to leave")
        one.finish(timeout=60)
        assert one.whole(long, short)


def test_a_negotiator_that_is_down(pool: Pool, tmp_path: Path) -> None:
    """Start: an idle site. Do: the negotiator hangs, 2 jobs are submitted.

    Expected: two workers come and wait for it, longer than idle ones may; no third; then the jobs run on these two.
    """
    with site_of(pool, tmp_path, maximum=6, idle_for="1 s") as one:
        with stopped(pool, "condor_negotiator"):
            cluster = one.pool.sleep(2, 2)
            one.wait(lambda: one.workers("joined") == 2, timeout=30, what="two workers")
            time.sleep(12)
            assert one.jobs() == [1, 1]
            untouched(one)
            assert one.workers() == 2
        one.finish(timeout=60)
        assert one.whole(cluster)
        one.wait(lambda: one.workers() == 0, timeout=60, what="idle workers to leave")
        assert len(one.happened("intended")) == 2


def test_daemons_of_a_worker_are_killed(pool: Pool, tmp_path: Path) -> None:
    """Start: 2 workers, 2 jobs. Do: kill the startd of one, and condor_master of the other.

    Expected: they are started again and the workers are in the pool as before. The jobs end, by HTCondor's rules: one
    that lost its starter waits again when its lease is over.
    """
    with site_of(pool, tmp_path, maximum=2, idle_for="1 min") as one:
        one.pool.sleep(12, 2, "job_lease_duration = 20")
        busy(one, 2)
        first, second = one.ids("joined")
        old = one.processes(first, "condor_startd")
        one.signal(first, "condor_startd", signal.SIGKILL)
        one.signal(second, "condor_master", signal.SIGKILL)
        one.wait(
            lambda: bool(one.processes(second, "condor_master"))
            and one.processes(first, "condor_startd") not in ([], old),
            timeout=30, what="the daemons to be started again",
        )  # fmt: skip
        one.finish(timeout=90)
        later = one.pool.sleep(2, 2)
        one.wait(lambda: one.where() == [first, second], timeout=60, what="both to run jobs again")
        one.finish(timeout=60)
        assert one.whole(later)
        assert len(one.happened("intended")) == 2, "no other worker was needed"


def test_a_machine_that_dies_with_its_job(pool: Pool, tmp_path: Path) -> None:
    """Start: a worker with a job whose lease is short. Do: pull the machine's plug.

    Expected: its ads go as soon as we know; the job runs again on another worker; it is said what became of it.
    """
    with site_of(pool, tmp_path, maximum=2) as one:
        one.pool.sleep(8, 1, "job_lease_duration = 20")
        busy(one, 1)
        (lost,) = one.ids("joined")
        one.pull_the_plug(lost)
        took = one.wait(lambda: lost not in one.ids(), timeout=60, what="the loss to be noticed")
        assert took < 45
        one.wait(
            lambda: not pool.status("Name", constraint=f'GridtideWorker == "{lost}"'), timeout=3, what="its ads to go"
        )
        assert "the cloud says" in one.why(lost) or "machine" in one.why(lost)
        one.wait(lambda: one.where() not in ([], [lost]), timeout=90, what="the job to run again")
        one.finish(timeout=60)
        assert pool.manager.run("condor_history", "-limit", "1", "-af", "ExitCode").strip() == "0"


def test_a_worker_that_hangs_with_its_job(pool: Pool, tmp_path: Path) -> None:
    """Start: a worker with a job. Do: stop its agent and its daemons for longer than an ad lives; the job runs on.

    Expected: it is not drained and not ended; the job ends as it would have; then the worker leaves.
    """
    with site_of(pool, tmp_path, maximum=2) as one:
        cluster = one.pool.sleep(70, 1, "job_lease_duration = 600")
        busy(one, 1)
        (worker,) = one.ids("joined")
        names = ("python3", "condor_master", "condor_startd", "condor_shared_port")
        for name in names:
            one.signal(worker, name, signal.SIGSTOP)
        one.wait(lambda: not pool.status("Name"), timeout=60, what="the collector to forget it")
        time.sleep(5)
        untouched(one)
        assert one.ids("joined") == [worker]
        assert one.processes(worker, "sleep"), "the job runs on"
        for name in names:
            one.signal(worker, name, signal.SIGCONT)
        one.finish(timeout=60)
        assert one.whole(cluster)
        one.wait(lambda: one.workers() == 0, timeout=60, what="the idle worker to leave")
        assert len(one.happened("intended")) == 1
