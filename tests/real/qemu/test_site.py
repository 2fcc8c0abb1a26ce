"""Whole sites with real virtual machines: jobs run, and nothing that existed is lost, whatever is killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gridtide.clouds.qemu_monitor import execute, monitor
from gridtide.testing.live_site import LiveSite
from tests.real.qemu.images import copy_of, image_store
from tests.real.qemu.site import finish, log_of, machine_home, shell, states, virtual_site, workers

FIND_AGENT = (
    "for p in /proc/[0-9]*; do "
    "read -r n c s q rest < $p/stat 2>/dev/null || continue; "
    '[ "$q" = 1 ] && [ -O $p ] && [ "${p#/proc/}" != "$$" ] && kill -9 ${p#/proc/}; done'
)
"""Kills the agent from inside a job: the process of the job's own user that process 1 started."""


def running(site: LiveSite, submission: int) -> bool:
    return site.counts(submission).get("running", 0) > 0


def qemu_processes(site: LiveSite) -> list[int]:
    return [number for number in site.processes() if Path(f"/proc/{number}/comm").read_text().startswith("qemu")]


def start_one(site: LiveSite, script: str) -> tuple[int, str]:
    """Submit a job; its submission and its worker once it runs."""
    submission = site.submit(shell(script))
    site.wait_until(lambda: running(site, submission), timeout=120, what="the job to run")
    return submission, str(workers(site)[0]["id"])


@pytest.fixture
def site(tmp_path: Path) -> Iterator[LiveSite]:
    with virtual_site(tmp_path) as site:
        yield site


def test_jobs_run_as_nobody_special_in_a_machine_of_their_own(site: LiveSite) -> None:
    submission = site.submit(shell("id -un; hostname; uname -r; cat /sys/class/dmi/id/sys_vendor"))
    assert finish(site, submission) == {"done": 1}
    user, host, kernel, vendor = log_of(site, submission).split("\n")[:4]
    assert (user, vendor) == ("gridtide", "QEMU")
    assert kernel != os.uname().release
    site.wait_for_no_workers()
    ended = site.get("/v1/workers/" + host)
    assert ended["state"] == "gone"
    boot = ended["boot"]
    assert set(boot["phases"]) == {"cloud", "firmware", "kernel", "user space", "context", "join"}
    assert sum(boot["phases"].values()) == pytest.approx(boot["seconds"], abs=1e-6)
    assert "after its launch: cloud" in json.dumps(site.get(f"/v1/explain/{host}"))
    eta = site.get("/v1/groups/workers/eta")
    assert (eta["shape"], eta["boot"]["count"], eta["boot"]["median"]) == ("slot", 1, boot["seconds"])
    console = site.client.get(f"/v1/workers/{host}/console").text
    assert "exited with 0" in console
    assert "gtj_" not in console
    assert qemu_processes(site) == []
    left = sorted(path.name for path in (site.state / "clouds/local").iterdir())
    assert left == [".ending", ".making", ".making.lock", ".past", ".states"]
    assert list((site.state / "clouds/local/.ending").iterdir()) == []


def test_two_machines_of_one_saved_state_are_two_machines(tmp_path: Path) -> None:
    script = "hostname; cat /proc/sys/kernel/random/boot_id; head -c 16 /dev/urandom | od -An -tx1; date +%s; sleep 3"
    with virtual_site(tmp_path, policy='{ type = "per_job" }') as site:
        submission = site.submit(shell(script, jobs=2))
        assert finish(site, submission) == {"done": 2}
        told = [log_of(site, submission, index).split("\n") for index in (0, 1)]
        assert told[0][0] != told[1][0], "host names"
        assert told[0][2] != told[1][2], "random numbers"
        for lines in told:
            assert abs(int(lines[3]) - time.time()) < 60, "the clock"


def test_a_controller_that_is_killed_finds_its_machines_again(site: LiveSite) -> None:
    submission, worker = start_one(site, "sleep 4; echo survived")
    before = qemu_processes(site)
    site.kill()
    site.start()
    assert finish(site, submission) == {"done": 1}
    assert log_of(site, submission) == "survived\n"
    assert [str(one["id"]) for one in workers(site)] in ([worker], [])
    assert set(qemu_processes(site)) <= set(before)


def test_a_killed_agent_delivers_the_result_after_all(site: LiveSite) -> None:
    submission, worker = start_one(site, f"{FIND_AGENT}; sleep 1; echo still here")
    assert finish(site, submission) == {"done": 1}
    assert "still here" in log_of(site, submission)
    assert site.get(f"/v1/jobs/{submission}.0")["attempt"] == 1, "it was not started twice"
    console = site.client.get(f"/v1/workers/{worker}/console").text
    assert "the agent ended: signal 9; it is started again" in console


def test_a_killed_qemu_is_told_and_its_job_runs_elsewhere(tmp_path: Path) -> None:
    with virtual_site(tmp_path, group='lease = "4 s"\nheartbeat = "1 s"') as site:
        submission, worker = start_one(site, "sleep 3; hostname")
        for process in qemu_processes(site):
            os.kill(process, signal.SIGKILL)
        assert finish(site, submission, timeout=180) == {"done": 1}
        assert log_of(site, submission).strip() != worker
        site.wait_until(
            lambda: "its process has ended" in json.dumps(site.get(f"/v1/explain/{worker}")),
            timeout=120,
            what="the reason",
        )
        site.wait_for_no_workers()
        assert qemu_processes(site) == []


def test_a_damaged_image_boots_nothing(tmp_path: Path) -> None:
    mine = copy_of("thin", tmp_path / "images")
    with virtual_site(tmp_path / "site", images=mine) as site:
        disk = (mine / os.readlink(mine / "thin")) / "disk.qcow2"
        disk.chmod(0o644)
        with disk.open("r+b") as file:
            file.seek(5_000_000)
            file.write(b"damage")
        submission = site.submit(shell("true"))

        def told() -> bool:
            return "image thin is damaged: disk.qcow2" in json.dumps(site.get("/v1/explain/workers"))

        site.wait_until(told, timeout=120, what="the reason")
        assert states(site, submission) == {"waiting": 1}
        assert qemu_processes(site) == []


def test_a_guest_that_never_boots_is_given_up_and_ended(tmp_path: Path) -> None:
    with virtual_site(tmp_path, image="blank", maximum=1, group='join_deadline = "3 s"') as site:
        site.submit(shell("true"))
        site.wait_until(
            lambda: "never-joined" in json.dumps(site.get("/v1/events", limit=1000)), timeout=120, what="the reason"
        )
        site.wait_until(lambda: not qemu_processes(site) or len(qemu_processes(site)) == 1, timeout=120, what="its end")


async def test_a_guest_without_network_finishes_its_job_and_delivers_it_later(site: LiveSite) -> None:
    submission, worker = start_one(site, "sleep 8; echo alone")
    home = machine_home(site, worker)
    async with monitor(home) as client:
        await execute(client, "set_link", {"name": "network", "up": False})
    await asyncio.sleep(12)  # the job ends meanwhile
    assert states(site, submission) == {"running": 1}, "silence is no evidence"
    async with monitor(home) as client:
        await execute(client, "set_link", {"name": "network", "up": True})
    assert finish(site, submission, timeout=180) == {"done": 1}
    assert log_of(site, submission) == "alone\n"


def test_a_full_disk_stops_the_guest_and_room_lets_it_go_on(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=320m", "tmpfs", str(small)], check=True)
    try:
        with virtual_site(tmp_path / "site", machines=small, maximum=1) as site:
            script = "head -c 1048576 /dev/urandom > a; for i in $(seq 400); do cat a; done > big; sync; stat -c %s big"
            submission = site.submit(shell(script))
            site.wait_until(
                lambda: "the host's disk is full" in json.dumps(site.get("/v1/workers")),
                timeout=120,
                what="the guest to stand still",
            )
            assert states(site, submission) == {"running": 1}
            subprocess.run(["mount", "-o", "remount,size=3g", str(small)], check=True)
            assert finish(site, submission, timeout=120) == {"done": 1}
            assert log_of(site, submission) == f"{400 << 20}\n"
            site.wait_for_no_workers()
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


def test_the_context_of_the_site_file_reaches_the_machine(tmp_path: Path) -> None:
    (tmp_path / "hello.sh").write_text("#!/bin/sh\necho {{ word }} to {{ worker }} > /etc/hello\n")
    files = f"files = ['{tmp_path / 'hello.sh'}']"
    context = f'context = {{ {files}, variables = {{ word = "welcome" }} }}'
    with virtual_site(tmp_path / "site", group=context) as site:
        submission = site.submit(shell("cat /etc/hello; hostname"))
        assert finish(site, submission) == {"done": 1}
        greeting, host = log_of(site, submission).split("\n")[:2]
        assert greeting == f"welcome to {host}"


def test_a_machine_with_cloud_init_is_told_and_joins(tmp_path: Path) -> None:
    (tmp_path / "worker.yaml").write_text(
        "#cloud-config\nwrite_files:\n- {path: /etc/hello, content: from cloud-init}\n"
    )
    context = f"context = {{ files = ['{tmp_path / 'worker.yaml'}'] }}"
    store = image_store("cloud")
    with virtual_site(
        tmp_path / "site", image="cloud", images=store.directory, maximum=1, group=context, memory="768 MiB"
    ) as site:
        submission = site.submit(shell("cat /etc/hello; cat /proc/1/comm; id -un"))
        assert finish(site, submission, timeout=300) == {"done": 1}
        assert log_of(site, submission) == "from cloud-initsystemd\ngridtide\n"
