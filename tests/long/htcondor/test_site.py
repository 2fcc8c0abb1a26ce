"""A real site on a real pool, when nothing is wrong: other nodes, several groups, operators' orders."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.real.htcondor.capsule import Capsule
from tests.real.htcondor.pool import DOMAIN, Pool, running_pool
from tests.real.htcondor.site import QUICK_POOL, PoolSite, pool_site

_FARM_NODE = """\
DAEMON_LIST = MASTER STARTD
COLLECTOR_HOST = {collector}
CONDOR_HOST = {address}
TRUST_DOMAIN = {domain}
UID_DOMAIN = {domain}
NETWORK_HOSTNAME = farm.{domain}
NETWORK_INTERFACE = 127.0.0.1
BIND_ALL_INTERFACES = False
NO_DNS = True
DEFAULT_DOMAIN_NAME = {domain}
ENABLE_IPV6 = False
SHARED_PORT_PORT = 0
CCB_ADDRESS = $(COLLECTOR_HOST)
SEC_USE_FAMILY_SESSION = False
SEC_DEFAULT_AUTHENTICATION_METHODS = FS, IDTOKENS
SEC_CLIENT_AUTHENTICATION_METHODS = FS, IDTOKENS
ALLOW_READ = *
ALLOW_WRITE = *@{domain} condor_pool@*
ALLOW_DAEMON = *@{domain} condor_pool@*
ALLOW_ADMINISTRATOR = condor@{domain} root@{domain}
NUM_CPUS = 2
MEMORY = 2048
NUM_SLOTS_TYPE_1 = 1
SLOT_TYPE_1 = 100%
SLOT_TYPE_1_PARTITIONABLE = True
START = True
RUNBENCHMARKS = False
ENABLE_KERNEL_TUNING = False
ENABLE_URL_TRANSFERS = False
STARTD_DETECT_GPUS = False
UPDATE_INTERVAL = 2
MASTER_UPDATE_INTERVAL = 2
FILETRANSFER_PLUGINS =
SINGULARITY =
DOCKER =
JAVA =
"""


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with running_pool(more=QUICK_POOL) as pool:
        yield pool


@contextmanager
def site_of(
    pool: Pool, directory: Path, maximum: int, idle_for: str, sizes: list[tuple[int, str]] | None = None
) -> Iterator[PoolSite]:
    try:
        with pool_site(
            directory, maximum=maximum, idle_for=idle_for, pool=pool, update_interval="1 s", sizes=sizes
        ) as one:
            yield one
    finally:
        pool.remove_all_jobs()


@contextmanager
def farm_node(pool: Pool, home: Path) -> Iterator[None]:
    """A machine with 2 cores that somebody else has in the pool."""
    home.mkdir()
    machine = Capsule(pool.tree, home, f"farm.{DOMAIN}")
    settings = _FARM_NODE.format(collector=pool.collector, address=pool.address, domain=DOMAIN)
    machine.write("/etc/condor/config.d/50-farm.config", settings)
    machine.write(
        "/etc/condor/tokens.d/farm",
        pool.token("condor", "ADVERTISE_STARTD", "ADVERTISE_MASTER", "READ", "WRITE", "DAEMON"),
        0o600,
    )
    for directory in ("tokens.d", "passwords.d"):
        (machine.upper / "etc/condor" / directory).mkdir(exist_ok=True)
        (machine.upper / "etc/condor" / directory).chmod(0o700)
    machine.write("/etc/condor/passwords.d/POOL", pool.pool_key.file_content(), 0o600)
    machine.write("/etc/hosts", f"127.0.0.1 localhost farm.{DOMAIN} farm\n")
    machine.start()
    try:
        made = "useradd alice; install -d -o condor -g condor"
        made += " /run/condor /run/lock/condor /var/log/condor /var/lib/condor/execute"
        machine.spawn(["sh", "-c", f"{made}; exec /usr/sbin/condor_master -f"])
        end = time.monotonic() + 30
        # HTCondor asks its starter what it can do, once; under load the answer may come too late.
        while pool.status("HasFileTransfer", constraint=f'Machine == "farm.{DOMAIN}"') != [["true"]]:
            assert time.monotonic() < end, "\n".join(
                path.read_text(errors="replace")[-2000:] for path in (machine.upper / "var/log/condor").glob("*Log")
            )
            time.sleep(0.5)
            machine.run("condor_reconfig", check=False)
        yield
    finally:
        machine.kill()
        pool.manager.run("condor_advertise", "INVALIDATE_STARTD_ADS", "-", stdin=_INVALID, check=False)


_INVALID = f'MyType = "Query"\nTargetType = "Machine"\nRequirements = Machine == "farm.{DOMAIN}"\n'


def test_free_slots_of_others_count_before_a_machine_is_launched(pool: Pool, tmp_path: Path) -> None:
    """Start: a node of others with 2 free cores. Do: submit 2 jobs, later 4; drain it.

    Expected: no machine for the first two; two for the next four; the node is shown, never touched, and no order to it
    is accepted. The jobs run.
    """
    with site_of(pool, tmp_path / "site", 6, "1 s") as one, farm_node(pool, tmp_path / "farm"):
        time.sleep(3)
        first = one.pool.sleep(4, 2)
        one.finish(timeout=60)
        assert one.happened("intended") == [], one.why("grid")
        farm = f'Machine == "farm.{DOMAIN}" && PartitionableSlot'
        one.wait(lambda: pool.status("NumDynamicSlots", constraint=farm) == [["0"]], timeout=60, what="free slots")
        time.sleep(3)
        second = one.pool.sleep(15, 4)
        one.wait(lambda: one.jobs() == [2, 2, 2, 2], timeout=60, what="all four to run")
        assert len(one.happened("intended")) == 2
        assert one.where().count("farm") == 2
        refused = one.command("drain", f"farm.{DOMAIN}", check=False)
        assert refused.returncode != 0
        assert "worker" in refused.stderr
        assert len(refused.stderr.strip().splitlines()) == 1
        one.finish(timeout=60)
        assert one.whole(first, second)
        one.wait(lambda: one.workers() == 0, timeout=60, what="our workers to leave")
        assert pool.status("State", constraint=f'Machine == "farm.{DOMAIN}"') == [["Unclaimed"]]


def test_jobs_go_to_the_group_that_can_run_them(pool: Pool, tmp_path: Path) -> None:
    """Start: a group of one-core and one of four-core workers. Do: submit small jobs, large ones, an impossible one.

    Expected: each kind gets workers of its group and no more; the impossible one is told, with what it lacks.
    """
    with site_of(pool, tmp_path, 4, "2 s", [(1, "1 GiB"), (4, "3 GiB")]) as one:
        # Without that HTCondor puts them on large machines too, when these come first.
        small = one.pool.sleep(6, 2, "requirements = TotalSlotCpus < 4")
        large = one.pool.sleep(6, 2, "request_cpus = 4", "request_memory = 2000")
        never = one.pool.sleep(6, 1, "request_cpus = 64")
        one.wait(lambda: one.jobs().count(2) == 4, timeout=60, what="four jobs to run")
        groups = sorted(name.rpartition("-")[0] for name in one.where())
        assert groups == ["grid", "grid", "grid-2", "grid-2"]
        stuck = one.site.get("/v1/status")["stuck"]
        assert "64" in json.dumps(stuck)
        assert "cores" in json.dumps(stuck)
        assert "64 cores" in one.why("grid")
        one.wait(lambda: one.jobs() == [1], timeout=60, what="the four to end")
        assert one.whole(small, large)
        one.wait(lambda: one.workers() == 0, timeout=60, what="the workers to leave")
        assert len(one.happened("intended")) == 4
        assert never


def test_a_drain_lets_the_job_end_and_can_be_taken_back(pool: Pool, tmp_path: Path) -> None:
    """Start: 2 workers with long jobs. Do: drain both; take one back; wait for the other with the command.

    Expected: the command returns when the job has ended and the worker is gone; the other one takes a job again.
    """
    with site_of(pool, tmp_path, 2, "1 min") as one:
        long = one.pool.sleep(14, 2)
        one.wait(lambda: one.jobs().count(2) == 2, timeout=60, what="two jobs to run")
        first, second = one.ids("joined")
        one.command("drain", first, second)
        one.wait(lambda: one.ids("draining") == [first, second], timeout=20, what="the drains")
        one.command("undrain", second)
        one.wait(lambda: one.ids("joined") == [second], timeout=20, what="the drain to be taken back")
        done = one.command("drain", first, "--wait", "--timeout", "60", "--json")
        assert first in done.stdout
        assert first not in one.ids()
        one.finish(timeout=60)
        assert one.whole(long)
        one.scale(maximum=1)
        later = one.pool.sleep(1)
        one.wait(lambda: second in one.where(), timeout=60, what="the other one to take a job")
        one.finish(timeout=60)
        assert one.whole(later)


def test_scaled_down_while_a_long_job_runs(pool: Pool, tmp_path: Path) -> None:
    """Start: 3 workers, one of them with a long job. Do: an operator wants none at all.

    Expected: the idle ones go at once; the busy one drains and goes after its job.
    """
    with site_of(pool, tmp_path, 3, "1 min") as one:
        long, short = one.pool.sleep(15), one.pool.sleep(1, 2)
        one.wait(lambda: one.jobs() == [2], timeout=60, what="the short ones to end")
        (busy,) = one.where()
        one.scale(minimum=0, maximum=0)
        one.wait(lambda: one.ids() == [busy], timeout=20, what="idle ones to go")
        one.wait(lambda: one.ids("draining") == [busy], timeout=20, what="the busy one to drain")
        one.finish(timeout=60)
        assert one.whole(long, short)
        one.wait(lambda: one.workers() == 0, timeout=30, what="the last to go")
