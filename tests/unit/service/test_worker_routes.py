"""The worker protocol as docs/worker-protocol.md has it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import math
from pathlib import Path

import pytest

from gridtide.agent.agent import BatchOrders
from gridtide.model.boots import Boot, BootKey, BootReport, Phase
from gridtide.model.ids import CloudName, QueueName, ShapeName, WorkerId
from gridtide.model.workers import WorkerState
from gridtide.pilot.protocol import JobId, JobState, Order
from gridtide.queues.protocol import Batch, JoinOrders, OrderedFile, OrderedService
from gridtide.service import access
from gridtide.service.settings import ServiceSettings
from gridtide.service.state import Service
from gridtide.store.ports import Role
from tests.unit.service.site import NOW, Site, make_site

FREE = {"cores": 2, "memory": 2048, "disk": 4096, "gpus": 0}
END = {
    "attempt": 1,
    "cause": "exited",
    "exit_code": 0,
    "signal": None,
    "text": "",
    "wall_seconds": 1.5,
    "cpu_seconds": 1.0,
    "peak_memory": 10,
}


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


async def running(site: Site, lines: str = "a 1") -> None:
    """Join grid-1 and let it take the first job of a submission."""
    await site.join()
    async with site.as_role(Role.SUBMITTER) as user:
        assert (await user.post("/v1/submissions", json={"description": lines})).status_code == 201
    async with site.as_worker() as agent:
        answer = await agent.post("/v1/pilot/request", json={"number": "1", "free": FREE, "wait": 0})
        assert answer.json()["job"]["job"] == "1.0"


async def test_join_trades_the_token_and_may_be_repeated_with_the_same_pair(site: Site) -> None:
    first = await site.join()
    again = await site.join()
    assert first.status_code == 200
    assert first.json() == again.json()
    assert first.json() == {
        "worker": "grid-1",
        "group": "grid",
        "lease": 600.0,
        "heartbeat": 10.0,
        "single_use": False,
        "queue": {"kind": "pilot", "settings": {"a": "b"}, "secrets": {"password": "hush"}},
    }
    assert site.control.workers[WorkerId("grid-1")].state is WorkerState.JOINED
    assert await site.control.store.host(WorkerId("grid-1")) == {"Cpus": 2, "Arch": "X86_64"}


async def test_a_batch_node_is_told_all_that_it_needs(site: Site) -> None:
    file = OrderedFile("/etc/pool/token", "SECRET", owner="condor")
    service = OrderedService("master", ("/usr/sbin/condor_master", "-f"), {"CONDOR_CONFIG": "/etc/pool/config"})
    site.control.orders = JoinOrders(
        "batch",
        batch=Batch(
            files=(file, OrderedFile("/etc/pool/config", "A = 1\n", mode=0o644)),
            prepare=(("/bin/mkdir", "-p", "/run/pool"),),
            services=(service,),
            busy=("condor_starter",),
            drain=("/bin/drain",),
            resume=("/bin/resume", "now"),
        ),
    )
    told = (await site.join()).json()["queue"]
    assert told == {
        "kind": "batch",
        "settings": {},
        "secrets": {},
        "batch": {
            "files": [
                {"path": "/etc/pool/token", "content": "SECRET", "mode": "0600", "owner": "condor"},
                {"path": "/etc/pool/config", "content": "A = 1\n", "mode": "0644", "owner": "root"},
            ],
            "prepare": [["/bin/mkdir", "-p", "/run/pool"]],
            "services": [
                {
                    "name": "master",
                    "command": ["/usr/sbin/condor_master", "-f"],
                    "environment": {"CONDOR_CONFIG": "/etc/pool/config"},
                }
            ],
            "busy": ["condor_starter"],
            "drain": ["/bin/drain"],
            "resume": ["/bin/resume", "now"],
        },
    }
    read = BatchOrders.from_json(told["batch"])
    assert [(one.path, one.content, one.mode, one.owner) for one in read.files] == [
        ("/etc/pool/token", b"SECRET", 0o600, "condor"),
        ("/etc/pool/config", b"A = 1\n", 0o644, "root"),
    ]
    assert (read.prepare, read.busy, read.drain, read.resume) == (
        told["batch"]["prepare"],
        ["condor_starter"],
        ["/bin/drain"],
        ["/bin/resume", "now"],
    )
    assert (read.services[0].name, tuple(read.services[0].command)) == ("master", service.command)
    assert read.services[0].environment == dict(service.environment)


async def test_jobs_of_a_batch_system_are_counted_and_no_matter_of_the_pilot_queue(tmp_path: Path) -> None:
    site = await make_site(tmp_path, settings=ServiceSettings("torino", pilot_queues=frozenset()))
    await site.join()
    jobs = [{"job": "condor_starter 4194304", "attempt": 1}, {"job": "slurmstepd 812", "attempt": 1}]
    async with site.as_worker() as agent:
        answer = await agent.post("/v1/worker/alive", json={"load": 0.5, "running": jobs, "draining": False})
    assert (answer.status_code, answer.json()["order"], answer.json()["cancel"]) == (200, "continue", [])
    assert "alive grid-1 0.5 2 False" in site.control.calls


async def test_a_pilot_lists_no_processes(site: Site) -> None:
    await site.join()
    body = {"load": 0, "running": [{"job": "condor_starter 812", "attempt": 1}], "draining": False}
    async with site.as_worker() as agent:
        assert (await agent.post("/v1/worker/alive", json=body)).status_code == 400


@pytest.mark.parametrize(
    ("boot", "report"),
    [
        (None, None),
        ({}, BootReport()),
        ({"user_space": 1, "context": 2.5, "agent": 3, "now": 4.25}, BootReport(1.0, 2.5, 3.0, 4.25)),
        ({"user_space": None, "now": 4.25, "else": "x"}, BootReport(now=4.25)),
        ({"user_space": -3, "now": -0.5}, BootReport(user_space=-3.0, now=-0.5)),
        ({"now": 10**400}, BootReport(now=math.inf)),
    ],
    ids=["none", "empty", "whole", "in part", "before the kernel", "for ever"],
)
async def test_a_machine_with_whatever_clock_joins(
    site: Site, boot: dict[str, object] | None, report: BootReport | None
) -> None:
    assert (await site.join(boot=boot)).status_code == 200
    assert site.control.reports == [report]


@pytest.mark.parametrize("boot", [[], "soon", 3, {"now": "4.25"}, {"context": True}, {"agent": [1]}])
async def test_boot_times_of_the_wrong_type_are_refused_by_name(site: Site, boot: object) -> None:
    answer = await site.join(boot=boot)
    assert (answer.status_code, answer.json()["error"]["kind"]) == (400, "InvalidRequest")
    assert answer.json()["error"]["where"].startswith("body.boot")
    assert site.control.reports == []


async def test_a_boot_is_shown_and_counted_once(site: Site) -> None:
    phases = {Phase.CLOUD: 0.5, Phase.USER_SPACE: 4.0, Phase.JOIN: 2.0}
    key = BootKey(CloudName("local"), ShapeName("small"), "thin")
    site.control.boot = Boot(WorkerId("grid-1"), key, NOW, 6.5, phases)
    await site.join()
    site.control.boot = None
    await site.join()
    async with site.as_role(Role.VIEWER) as viewer:
        one = (await viewer.get("/v1/workers/grid-1")).json()
        other = (await viewer.get("/v1/workers/grid-2")).json()
        metrics = (await viewer.get("/metrics")).text.splitlines()
    assert one["boot"] == {"seconds": 6.5, "phases": {"cloud": 0.5, "user space": 4.0, "join": 2.0}}
    assert other["boot"] is None
    assert 'gridtide_boot_seconds_sum{cloud="local",image="thin"} 6.5' in metrics
    assert 'gridtide_boot_seconds_count{cloud="local",image="thin"} 1.0' in metrics
    assert 'gridtide_boot_seconds_bucket{cloud="local",image="thin",le="5.0"} 0.0' in metrics
    assert 'gridtide_boot_seconds_bucket{cloud="local",image="thin",le="10.0"} 1.0' in metrics
    assert 'gridtide_boot_phase_seconds_total{cloud="local",image="thin",phase="user space"} 4.0' in metrics


async def test_a_spent_join_token_with_another_worker_token_is_401(site: Site) -> None:
    await site.join()
    site.worker_tokens["grid-1"] = site.worker_tokens["grid-1"][:-4] + "AAAA"
    answer = await site.join()
    assert answer.status_code == 401
    assert answer.json()["error"]["kind"] == "AccessDenied"


async def test_a_machine_cannot_make_the_token_of_another_worker(site: Site) -> None:
    site.worker_tokens["grid-1"] = site.worker_tokens["grid-2"]
    answer = await site.join()
    assert answer.status_code == 400
    assert answer.json()["error"]["where"] == "body.worker_token"


async def test_alive_passes_on_orders_and_the_jobs_to_end(site: Site) -> None:
    await running(site)
    body = {"load": 0.7, "running": [{"job": "1.0", "attempt": 1}], "draining": False}
    async with site.as_worker() as agent:
        assert (await agent.post("/v1/worker/alive", json=body)).json() == {
            "order": "continue",
            "lease": 600.0,
            "heartbeat": 10.0,
            "cancel": [],
        }
        await site.pilot.cancel(jobs=[JobId("1.0")], submission=None, user=None)
        assert (await agent.post("/v1/worker/alive", json=body)).json()["cancel"] == ["1.0"]
    assert "alive grid-1 0.7 1 False" in site.control.calls


async def test_the_more_urgent_order_of_queue_and_controller_wins(site: Site) -> None:
    await site.join()
    body = {"load": 0, "running": [], "draining": False}
    async with site.as_worker() as agent:
        await site.pilot.set_draining([WorkerId("grid-1")], True)
        assert (await agent.post("/v1/worker/alive", json=body)).json()["order"] == "drain"
        site.control.order = Order.STOP
        assert (await agent.post("/v1/worker/alive", json=body)).json()["order"] == "stop"


async def test_a_worker_of_another_queue_gets_the_controllers_word_alone(site: Site) -> None:
    await site.join()
    await site.pilot.remove([WorkerId("grid-1")])
    async with site.as_worker() as agent:
        answer = await agent.post("/v1/worker/alive", json={"load": 0, "running": [], "draining": False})
        assert answer.json()["order"] == "continue"
        assert (await agent.post("/v1/worker/done", json={"text": "bye"})).status_code == 204


async def test_the_pilot_queue_is_not_asked_about_workers_of_other_queues(tmp_path: Path) -> None:
    settings = ServiceSettings("torino", pilot_queues=frozenset({QueueName("another")}))
    site = await make_site(tmp_path, settings=settings, aliec2=False)
    await site.join()
    await site.pilot.set_draining([WorkerId("grid-1")], True)
    async with site.as_worker() as agent:
        answer = await agent.post("/v1/worker/alive", json={"load": 0, "running": [], "draining": False})
        await agent.post("/v1/worker/done", json={"text": "bye"})
    assert answer.json()["order"] == "continue"
    assert site.pilot.departed == []


async def test_done_tells_queue_and_controller(site: Site) -> None:
    await site.join()
    async with site.as_worker() as agent:
        answer = await agent.post("/v1/worker/done", json={"text": "drained and empty"})
    assert answer.status_code == 204
    assert answer.content == b""
    assert site.pilot.departed == ["grid-1"]
    assert "done grid-1 drained and empty" in site.control.calls


async def test_a_request_with_the_same_number_gets_the_same_job(site: Site) -> None:
    await running(site, "a 1\nb 1")
    async with site.as_worker() as agent:
        again = await agent.post("/v1/pilot/request", json={"number": "1", "free": FREE, "wait": 0})
        other = await agent.post("/v1/pilot/request", json={"number": "2", "free": FREE, "wait": 0})
    assert again.json()["job"]["job"] == "1.0"
    assert other.json()["job"]["job"] == "1.1"
    assert set(other.json()["job"]) == {
        "job",
        "attempt",
        "executable",
        "arguments",
        "environment",
        "inputs",
        "outputs",
        "cores",
        "memory",
        "walltime",
    }


async def test_a_long_poll_is_answered_when_a_job_comes(site: Site) -> None:
    await site.join()
    async with site.as_worker() as agent, site.as_role(Role.SUBMITTER) as user:
        asked = asyncio.create_task(agent.post("/v1/pilot/request", json={"number": "1", "free": FREE, "wait": 30}))
        await site.pilot.polled.wait()
        await user.post("/v1/submissions", json={"description": "a 1"})
        assert (await asked).json()["job"]["job"] == "1.0"


async def test_stopping_ends_long_polls_with_503(site: Site) -> None:
    await site.join()
    service: Service = site.app.state.service
    async with site.as_worker() as agent:
        asked = asyncio.create_task(agent.post("/v1/pilot/request", json={"number": "1", "free": FREE, "wait": 30}))
        await site.pilot.polled.wait()
        service.stop()
        answer = await asked
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "2"
    await asyncio.sleep(0)
    assert site.pilot.waiting == 0
    assert not service.polls


async def test_a_log_gap_is_409_with_the_length_that_is_kept(site: Site) -> None:
    await running(site)
    route = "/v1/pilot/jobs/1.0/log"
    async with site.as_worker() as agent:
        first = await agent.post(route, params={"attempt": 1, "stream": "stdout", "offset": 0}, content=b"abc")
        again = await agent.post(route, params={"attempt": 1, "stream": "stdout", "offset": 0}, content=b"abcd")
        gap = await agent.post(route, params={"attempt": 1, "stream": "stdout", "offset": 9}, content=b"x")
        fenced = await agent.post(route, params={"attempt": 2, "stream": "stdout", "offset": 0}, content=b"x")
    assert (first.json(), again.json()) == ({"length": 3}, {"length": 4})
    assert (gap.status_code, gap.json()["length"], gap.json()["error"]["kind"]) == (409, 4, "Conflict")
    assert (fenced.status_code, fenced.json()["length"]) == (409, None)


async def test_inputs_and_outputs_travel_whole_and_are_checked(site: Site) -> None:
    data = b"events" * 1000
    digest = hashlib.sha256(data).hexdigest()
    async with site.as_role(Role.SUBMITTER) as user:
        assert (await user.put(f"/v1/files/{digest}", content=data)).status_code == 201
        body = {"description": "a 1", "files": {"in/data.root": digest}}
        assert (await user.post("/v1/submissions", json=body)).status_code == 201
    await site.join()
    async with site.as_worker() as agent:
        await agent.post("/v1/pilot/request", json={"number": "1", "free": FREE, "wait": 0})
        got = await agent.get("/v1/pilot/jobs/1.0/inputs/in/data.root", params={"attempt": 1})
        assert got.content == data
        route = "/v1/pilot/jobs/1.0/outputs/out/mass.json"
        wrong = await agent.put(route, params={"attempt": 1, "digest": "0" * 64}, content=data)
        right = await agent.put(route, params={"attempt": 1, "digest": digest}, content=data)
    assert (wrong.status_code, wrong.json()["error"]["kind"]) == (400, "InvalidRequest")
    assert right.status_code == 201
    assert not list(site.pilot.directory.glob("upload-*")), "a refused upload leaves no file behind"


async def test_finished_keeps_the_last_logs_and_brings_the_next_job(site: Site) -> None:
    await running(site, "a 1\nb 1")
    logs = {"stdout": {"offset": 0, "data": encoded(b"42\n")}, "stderr": {"offset": 0, "data": ""}}
    body = {**END, "logs": logs, "request": {"number": "2", "free": FREE, "wait": 0}}
    async with site.as_worker() as agent:
        answer = await agent.post("/v1/pilot/jobs/1.0/finished", json=body)
        again = await agent.post("/v1/pilot/jobs/1.0/finished", json=body)
    assert answer.json()["accepted"] is True
    assert answer.json()["job"]["job"] == "1.1"
    assert again.json() == answer.json(), "a repeated report gets the same answer"
    assert await site.pilot.read_log(JobId("1.0"), "stdout", offset=0, limit=10) == b"42\n"
    assert (await site.pilot.job(JobId("1.0"))).state is JobState.DONE


async def test_finished_of_a_fenced_attempt_is_told_so(site: Site) -> None:
    await running(site)
    await site.pilot.cancel(jobs=[JobId("1.0")], submission=None, user=None)
    body = {**END, "logs": {"stdout": {"offset": 0, "data": encoded(b"late")}}, "request": None}
    async with site.as_worker() as agent:
        answer = await agent.post("/v1/pilot/jobs/1.0/finished", json=body)
    assert answer.json() == {"accepted": False, "order": "continue", "job": None}
    assert await site.pilot.read_log(JobId("1.0"), "stdout", offset=0, limit=10) == b""


async def test_finished_with_a_gap_in_the_log_ends_nothing(site: Site) -> None:
    await running(site)
    body = {**END, "logs": {"stdout": {"offset": 5, "data": encoded(b"late")}}, "request": None}
    async with site.as_worker() as agent:
        answer = await agent.post("/v1/pilot/jobs/1.0/finished", json=body)
    assert (answer.status_code, answer.json()["stream"], answer.json()["length"]) == (409, "stdout", 0)
    assert (await site.pilot.job(JobId("1.0"))).state is JobState.RUNNING


async def test_another_worker_cannot_touch_the_job(site: Site) -> None:
    await running(site)
    await site.join("grid-2")
    async with site.as_worker("grid-2") as thief:
        log = await thief.post(
            "/v1/pilot/jobs/1.0/log", params={"attempt": 1, "stream": "stdout", "offset": 0}, content=b"x"
        )
        end = await thief.post("/v1/pilot/jobs/1.0/finished", json=END)
        read = await thief.get("/v1/pilot/jobs/1.0/inputs/a", params={"attempt": 1})
    assert (log.status_code, end.json()["accepted"], read.status_code) == (409, False, 409)
    assert (await site.pilot.job(JobId("1.0"))).state is JobState.RUNNING


async def test_a_worker_token_is_checked_once_and_dies_with_its_worker(site: Site) -> None:
    await site.join()
    body = {"load": 0, "running": [], "draining": False}
    async with site.as_worker() as agent:
        for _ in range(3):
            assert (await agent.post("/v1/worker/alive", json=body)).status_code == 200
        assert site.control.checked == 0, "the join has shown that it is good"
        site.clock.time += access.WORKER_CACHE
        for _ in range(3):
            assert (await agent.post("/v1/worker/alive", json=body)).status_code == 200
        assert site.control.checked == 1
        del site.control.workers[WorkerId("grid-1")]
        assert (await agent.post("/v1/worker/alive", json=body)).status_code == 401
