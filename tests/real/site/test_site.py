"""A real site: the real command, real workers, real HTTP."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from benchmarks import kill

from gridtide.testing.live_site import LiveSite, site_text

NUMBERS = 'Executable = "/bin/echo"; Arguments = "$(index)"; Array = %d;'


def test_jobs_bring_workers_and_their_end_takes_them_away(tmp_path: Path) -> None:
    with LiveSite(tmp_path, site_text(maximum=3)) as site:
        assert site.processes() == []
        submission = site.submit(NUMBERS % 30)
        assert site.wait_for_jobs(submission)["done"] == 30
        for index in (0, 17, 29):
            assert site.client.get(f"/v1/jobs/{submission}.{index}/log").text == f"{index}\n"
        site.wait_for_no_workers()
        site.wait_until(lambda: not site.processes(), timeout=120, what="the machines to end")
        past = site.get("/v1/workers", past="true")["workers"]
        assert len(past) <= 3
        assert list((site.state / "clouds" / "local").glob("workers-*")) == []


def settled_processes(site: LiveSite) -> list[int]:
    """When all that a job's start takes has been started."""
    before: list[int] = []
    while before != (before := site.processes()):
        time.sleep(0.5)
    return before


class Gate:
    """What jobs wait for, without a process of their own, until the test lets them go on."""

    def __init__(self, directory: Path) -> None:
        self._pipe = directory / "gate"
        os.mkfifo(self._pipe)

    def job(self, then: str) -> str:
        """The description of a job that waits, and then runs this."""
        return f'Executable = "/bin/sh"; Arguments = {{"-c", "read go < {self._pipe}; {then}"}};'

    def open(self) -> None:
        """For all that wait. Each opens the pipe by itself, so that it stays open for a while."""
        handle = os.open(self._pipe, os.O_RDWR)
        os.write(handle, b"go\n" * 8)
        self._handle = handle  # closed with the process: a job that is late finds it open


def test_sigterm_leaves_workers_and_jobs_alone(tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    with LiveSite(tmp_path, site_text(maximum=2)) as site:
        submission = site.submit(f"{gate.job('echo survived')} Array = 2;")
        site.wait_until(lambda: site.counts(submission)["running"] == 2, timeout=120, what="both jobs to run")
        before = settled_processes(site)
        assert site.stop() == 0
        assert set(before) <= set(site.processes())
        site.start()
        gate.open()
        assert site.wait_for_jobs(submission)["done"] == 2
        jobs = site.get("/v1/jobs", submission=submission)["jobs"]
        assert [job["attempt"] for job in jobs] == [1, 1]


def test_a_second_controller_waits_and_takes_over(tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    with LiveSite(tmp_path, site_text(maximum=2)) as site:
        url = str(site.client.base_url)
        second = subprocess.Popen(
            [sys.executable, "-m", "gridtide.cli.main", "up", str(site.file)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        try:
            assert second.stderr is not None
            said = b""
            while b"waiting for the lease" not in said:
                said += second.stderr.readline()
            submission = site.submit(f"{gate.job('exit 0')} Array = 2;")
            site.wait_until(lambda: site.counts(submission)["running"] == 2, timeout=120, what="both jobs to run")
            token = site.client.headers["Authorization"]
            site.kill()
            gate.open()
            until = time.monotonic() + 180
            counts: dict[str, int] = {}
            while counts.get("done") != 2 and time.monotonic() < until:
                time.sleep(0.1)
                try:
                    answer = httpx.get(f"{url}/v1/submissions/{submission}", headers={"Authorization": token})
                except httpx.HTTPError:
                    continue
                counts = answer.json()["jobs"]
            assert counts.get("done") == 2, f"{counts} of {url}"
        finally:
            second.send_signal(signal.SIGTERM)
            second.communicate(timeout=120)


def test_the_site_file_is_followed_and_a_bad_one_is_not(tmp_path: Path) -> None:
    text = site_text(maximum=1)
    with LiveSite(tmp_path, text) as site:
        submission = site.submit('Executable = "/bin/sleep"; Arguments = "60"; Array = 3;')
        site.wait_until(lambda: site.counts(submission)["running"] == 1, timeout=120, what="the first job")
        site.file.write_text(text.replace("maximum = 1", "maximun = 3"))
        site.wait_until(
            lambda: "the changed site file is not used" in site.log.read_text(), timeout=120, what="the refusal"
        )
        assert "maximum" in site.log.read_text()
        assert site.counts(submission)["running"] == 1
        site.file.write_text(text.replace("maximum = 1", "maximum = 3"))
        site.wait_until(lambda: site.counts(submission)["running"] == 3, timeout=120, what="three workers")
        site.post("/v1/jobs/cancel", {"jobs": [], "submission": submission})
        site.wait_for_no_workers()


def test_a_drained_worker_finishes_its_job_first(tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    with LiveSite(tmp_path, site_text(maximum=1, idle_for="1 h")) as site:
        submission = site.submit(gate.job("echo whole"))
        site.wait_until(lambda: site.counts(submission)["running"] == 1, timeout=120, what="the job to run")
        worker = site.get("/v1/workers")["workers"][0]["id"]
        site.post("/v1/workers/drain", {"workers": [worker], "force": False})
        time.sleep(1.0)
        assert site.counts(submission)["running"] == 1
        gate.open()
        assert site.wait_for_jobs(submission)["done"] == 1
        assert site.client.get(f"/v1/jobs/{submission}.0/log").text == "whole\n"
        site.wait_for_no_workers()


def test_a_lost_machine_s_job_runs_again(tmp_path: Path) -> None:
    with LiveSite(tmp_path, site_text(maximum=1)) as site:
        flag = tmp_path / "first"
        script = f"test -e {flag} && echo second || (touch {flag}; sleep 60)"
        submission = site.submit(f'Executable = "/bin/sh"; Arguments = {{"-c", "{script}"}};')
        site.wait_until(flag.exists, timeout=120, what="the first attempt")
        for process in site.processes():
            os.kill(process, signal.SIGKILL)
        assert site.wait_for_jobs(submission, timeout=180)["done"] == 1
        job = site.get(f"/v1/jobs/{submission}.0")
        assert job["attempt"] == 2
        assert site.client.get(f"/v1/jobs/{submission}.0/log").text == "second\n"


ALIEC2 = """
[queues.requests]
type = "aliec2"

[groups.spawned]
queue = "requests"
clouds = ["local"]
maximum = 2
"""


def test_aliec2_scripts_spawn_live_and_end(tmp_path: Path) -> None:
    text = site_text(extra=ALIEC2).replace(
        'listen = "127.0.0.1:0"', 'listen = "127.0.0.1:0"\naliec2 = { group = "spawned" }'
    )
    with LiveSite(tmp_path, text) as site:
        url = str(site.client.base_url)
        secret = site.client.headers["Authorization"].removeprefix("Bearer ")
        # An existing script: the token rides in the address, the machine knows its own name.
        host = url.removeprefix("http://")
        call = f"{sys.executable} -c \"import base64,sys,urllib.request as u;r=u.Request('{url}'+sys.argv[1]);"
        call += f"r.add_header('Authorization','Basic '+base64.b64encode(b'x:{secret}').decode());u.urlopen(r)\""
        script = f"#!/bin/sh\nID=${{GRIDTIDE_MACHINE##*/}}\n{call} /alive/$ID\necho agent > agent.ran\n"
        script += f"sleep 2\n{call} /done/$ID\n"
        assert httpx.post(f"{url}/spawn", data={"script": script}).status_code == 401
        answer = httpx.post(f"http://x:{secret}@{host}/spawn", data={"script": script})
        assert answer.status_code == 200
        worker = answer.text
        site.wait_until(
            lambda: [w["state"] for w in site.get("/v1/workers")["workers"]] == ["joined"], timeout=120, what="its life"
        )
        ran = site.state / "clouds" / "local" / worker / "agent.ran"
        site.wait_until(ran.exists, timeout=120, what="its work")
        site.wait_for_no_workers(timeout=120)
        assert not (site.state / "queues" / "requests" / worker).exists()
        assert site.client.get(f"/alive/{worker}").status_code == 404


def test_aliec2_refuses_more_than_the_maximum_and_is_off_by_default(tmp_path: Path) -> None:
    with LiveSite(tmp_path / "off", site_text()) as site:
        assert site.client.post("/spawn", data={"script": "#!/bin/sh\n"}).status_code == 404
    text = site_text(extra=ALIEC2).replace(
        'listen = "127.0.0.1:0"', 'listen = "127.0.0.1:0"\naliec2 = { group = "spawned" }'
    )
    with LiveSite(tmp_path / "on", text) as site:
        script = {"script": "#!/bin/sh\nexec sleep 30\n"}
        site.wait_until(lambda: site.client.post("/spawn", data=script).is_success, timeout=120, what="the first")
        assert site.client.post("/spawn", data=script).status_code == 200
        refused = site.client.post("/spawn", data=script)
        assert refused.status_code == 409
        assert "2 of at most 2" in refused.json()["error"]["what"]


@pytest.mark.parametrize("seed", [1])
def test_kill_9_of_the_controller_loses_and_doubles_nothing(tmp_path: Path, seed: int) -> None:
    report = kill.run(tmp_path, kills=6, jobs=30, job_seconds=1.0, seed=seed)
    assert (report.done, report.ended_once, report.started_once) == (30, 30, 30)
    assert report.most_machines <= kill.MAXIMUM
    assert (report.left_over, report.bystanders_lost) == (0, 0)
