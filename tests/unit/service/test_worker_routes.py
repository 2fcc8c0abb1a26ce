"""The worker protocol as docs/worker-protocol.md has it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from pathlib import Path

from gridtide.model.ids import QueueName, WorkerId
from gridtide.model.workers import WorkerState
from gridtide.pilot.protocol import JobId, JobState, Order
from gridtide.service.settings import ServiceSettings
from gridtide.service.state import Service
from gridtide.store.ports import Role
from tests.unit.service.site import Site, make_site

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
        assert site.control.checked == 1
        del site.control.workers[WorkerId("grid-1")]
        assert (await agent.post("/v1/worker/alive", json=body)).status_code == 401
