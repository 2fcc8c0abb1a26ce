"""Jobs, files, logs and outputs for their users."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace
from pathlib import Path

from gridtide.model.ids import WorkerId
from gridtide.model.resources import Resources
from gridtide.pilot.protocol import JobId, JobRequest, JobState
from gridtide.service.settings import ServiceSettings
from gridtide.service.state import Service
from gridtide.service.tokens import new_user_token
from gridtide.store.ports import Role
from tests.unit.service.site import NOW, Site, make_site

WORKER = WorkerId("grid-1")


async def submit(site: Site, lines: str = "a 1", role: Role = Role.SUBMITTER) -> None:
    async with site.as_role(role) as user:
        assert (await user.post("/v1/submissions", json={"description": lines})).status_code == 201


async def run_first(site: Site) -> None:
    await site.join()
    answer = await site.pilot.request(WORKER, JobRequest("1", Resources(1)), wait=0)
    assert answer.assignment is not None


def end(site: Site, job: str = "1.0") -> None:
    found = site.pilot.all[JobId(job)]
    found.record = replace(found.record, state=JobState.DONE, ended=3.0)


async def test_only_what_is_missing_is_uploaded(site: Site) -> None:
    data = b"x" * 10
    have, lack = hashlib.sha256(data).hexdigest(), "f" * 64
    async with site.as_role(Role.SUBMITTER) as user:
        stored = await user.put(f"/v1/files/{have}", content=data)
        asked = await user.post("/v1/files/missing", json={"digests": [have, lack, lack]})
    assert stored.json() == {"digest": have, "size": 10}
    assert asked.json() == {"missing": [lack]}


async def test_a_submission_wakes_the_controller_and_is_listed(site: Site) -> None:
    await submit(site, "a 1\nb 2")
    assert "wake submission 1" in site.control.calls
    async with site.as_role(Role.VIEWER) as viewer:
        one = (await viewer.get("/v1/submissions/1")).json()
        assert (await viewer.get("/v1/submissions")).json() == {"submissions": [one]}
        assert (await viewer.get("/v1/submissions", params={"user": "nobody"})).json() == {"submissions": []}
    assert one["user"] == "submitter-user"
    assert one["jobs"] == {"waiting": 2, "running": 0, "done": 0, "failed": 0, "cancelled": 0}


async def test_jobs_come_in_pages_and_by_state(site: Site) -> None:
    await submit(site, "\n".join(f"j{index} 1" for index in range(12)))
    async with site.as_role(Role.VIEWER) as viewer:
        first = (await viewer.get("/v1/jobs", params={"limit": 10})).json()
        rest = (await viewer.get("/v1/jobs", params={"limit": 10, "after": first["next"]})).json()
        done = (await viewer.get("/v1/jobs", params={"state": "done"})).json()
        one = (await viewer.get("/v1/jobs/1.11")).json()
    assert [job["id"] for job in first["jobs"]] == [f"1.{index}" for index in range(10)]
    assert [job["id"] for job in rest["jobs"]] == ["1.10", "1.11"]
    assert (rest["next"], done["jobs"], one) == (None, [], rest["jobs"][1])


async def test_submitters_cancel_their_own_jobs_and_operators_any(site: Site) -> None:
    await submit(site, "a 1\nb 1")
    await submit(site, "c 1", Role.ADMIN)
    async with site.as_role(Role.SUBMITTER) as user, site.as_role(Role.OPERATOR) as operator:
        theirs = await user.post("/v1/jobs/cancel", json={"jobs": ["2.0"]})
        own = await user.post("/v1/jobs/cancel", json={"submission": 1})
        any_ = await operator.post("/v1/jobs/cancel", json={"jobs": ["2.0", "2.0"]})
    assert (theirs.status_code, theirs.json()["error"]["kind"]) == (403, "AccessDenied")
    assert own.json() == {"cancelled": 2}
    assert any_.json() == {"cancelled": 1}
    assert site.control.calls.count("wake 2 jobs cancelled") == 1


async def test_logs_and_outputs_are_for_owner_operator_and_admin(site: Site) -> None:
    await submit(site)
    other, kept = new_user_token("somebody", Role.SUBMITTER, now=NOW)
    await site.control.store.add_token(kept)
    for token, good in (
        (site.tokens[Role.SUBMITTER], True),
        (site.tokens[Role.OPERATOR], True),
        (site.tokens[Role.ADMIN], True),
        (site.tokens[Role.VIEWER], False),
        (other.reveal(), False),
    ):
        async with site.client(token) as client:
            for path in ("log", "outputs"):
                assert (await client.get(f"/v1/jobs/1.0/{path}")).status_code == (200 if good else 403)
            assert (await client.get("/v1/jobs/1.0/outputs/x")).status_code == (404 if good else 403)


async def test_a_log_is_read_from_an_offset(site: Site) -> None:
    await submit(site)
    site.pilot.all[JobId("1.0")].logs["stderr"] += b"0123456789"
    async with site.as_role(Role.SUBMITTER) as user:
        answer = await user.get("/v1/jobs/1.0/log", params={"stream": "stderr", "offset": 4})
    assert answer.content == b"456789"
    assert answer.headers["x-next-offset"] == "10"
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_a_followed_log_ends_with_its_job_and_misses_nothing(site: Site) -> None:
    await submit(site)
    await run_first(site)
    log = site.pilot.all[JobId("1.0")].logs["stdout"]

    async def work() -> None:
        for index in range(20):
            log.extend(f"{index}\n".encode())
            await asyncio.sleep(0.003)
        # The last line and the end come in the same step: the tail must not be lost.
        log.extend(b"the end\n")
        end(site)

    async with site.as_role(Role.SUBMITTER) as user, asyncio.TaskGroup() as group:
        group.create_task(work())
        answer = await user.get("/v1/jobs/1.0/log", params={"follow": "true"})
    assert answer.text == "".join(f"{index}\n" for index in range(20)) + "the end\n"


async def test_a_followed_log_goes_on_with_the_next_attempt(site: Site) -> None:
    await submit(site)
    await run_first(site)
    job = site.pilot.all[JobId("1.0")]
    job.logs["stdout"] += b"first attempt, lost\n"

    async def next_attempt() -> None:
        await asyncio.sleep(0.05)
        job.logs["stdout"] = bytearray(b"second\n")
        job.record = replace(job.record, attempt=2, state=JobState.DONE)

    async with site.as_role(Role.SUBMITTER) as user, asyncio.TaskGroup() as group:
        group.create_task(next_attempt())
        answer = await user.get("/v1/jobs/1.0/log", params={"follow": "true"})
    assert answer.text == "first attempt, lost\nsecond\n"


async def test_too_many_followers_are_told_to_come_back(tmp_path: Path) -> None:
    site = await make_site(tmp_path, settings=ServiceSettings("torino", followers=0), aliec2=False)
    await submit(site)
    async with site.as_role(Role.SUBMITTER) as user:
        answer = await user.get("/v1/jobs/1.0/log", params={"follow": "true"})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "30")


async def test_outputs_are_sent_whole_or_in_part(site: Site) -> None:
    await submit(site)
    await run_first(site)
    data = bytes(range(256)) * 1000
    digest = hashlib.sha256(data).hexdigest()
    async with site.as_worker() as agent:
        await agent.put("/v1/pilot/jobs/1.0/outputs/a/b.bin", params={"attempt": 1, "digest": digest}, content=data)
    async with site.as_role(Role.SUBMITTER) as user:
        listed = await user.get("/v1/jobs/1.0/outputs")
        whole = await user.get("/v1/jobs/1.0/outputs/a/b.bin")
        part = await user.get("/v1/jobs/1.0/outputs/a/b.bin", headers={"range": "bytes=10-19"})
        (site.pilot.directory / digest).unlink()
        gone = await user.get("/v1/jobs/1.0/outputs/a/b.bin")
    assert listed.json() == {"outputs": [{"name": "a/b.bin", "size": len(data), "digest": digest}]}
    assert whole.content == data
    assert whole.headers["content-disposition"] == 'attachment; filename="b.bin"'
    assert (part.status_code, part.content) == (206, data[10:20])
    assert gone.status_code == 404


async def test_an_upload_above_the_limit_is_413_and_leaves_nothing(tmp_path: Path) -> None:
    site = await make_site(tmp_path, settings=ServiceSettings("torino", largest_file=1000), aliec2=False)

    async def pieces() -> object:
        for _ in range(11):
            yield b"x" * 100

    async with site.as_role(Role.SUBMITTER) as user:
        announced = await user.put(f"/v1/files/{'a' * 64}", content=b"x" * 1001)
        streamed = await user.put(f"/v1/files/{'a' * 64}", content=pieces())  # type: ignore[arg-type]
    assert (announced.status_code, streamed.status_code) == (413, 413)
    assert announced.json()["error"]["kind"] == "InvalidRequest"
    assert list(site.pilot.directory.iterdir()) == []


async def test_a_site_without_a_pilot_queue_says_so(site: Site) -> None:
    service: Service = site.app.state.service
    service.pilot = None
    async with site.as_role(Role.ADMIN) as user:
        answer = await user.get("/v1/jobs")
        status = await user.get("/v1/status")
    assert (answer.status_code, status.json()["jobs"]) == (404, None)
    assert "no pilot queue" in answer.json()["error"]["what"]
