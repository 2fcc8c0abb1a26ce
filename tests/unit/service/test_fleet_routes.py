"""What is, why, and operators' orders; tokens; AliEC2; health and metrics."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from gridtide.control.api import Cycle
from gridtide.errors import SiteFileError, StoreUnavailable
from gridtide.model.boots import BootKey, BootTimes
from gridtide.model.demand import DemandRow
from gridtide.model.ids import CloudName, GroupName, QueueName, WorkerId
from gridtide.model.readings import Fresh, Missing
from gridtide.model.resources import Resources
from gridtide.model.rules import Wishes
from gridtide.model.snapshot import CloudView, QueueView
from gridtide.service.app import make_app
from gridtide.service.settings import ServiceSettings
from gridtide.store.ports import Lease, Role
from tests.unit.service.site import GROUP, NOW, SHAPE, Site, cycle, make_site, worker


async def test_status_shows_groups_sources_and_the_cycle(site: Site) -> None:
    await site.join()
    async with site.as_role(Role.VIEWER) as viewer:
        status = (await viewer.get("/v1/status")).json()
    (group,) = status["groups"]
    assert status["site"] == "torino"
    assert (group["minimum"], group["maximum"], group["desired"]) == (1, 8, None)
    assert (group["workers"]["joined"], group["workers"]["launching"]) == (1, 1)
    assert group["reason"] == {"cause": "demand", "text": "two jobs wait"}
    assert status["cycle"] == {"number": 7, "seconds": 0.02, "age": 1.0}
    assert status["sources"] == [
        {"source": "queue/pilot/demand", "quality": "fresh", "age": 2.0, "error": None},
        {"source": "queue/pilot/nodes", "quality": "stale", "age": 90.0, "error": "503"},
        {"source": "cloud/local/machines", "quality": "fresh", "age": 2.0, "error": None},
        {"source": "cloud/local/shapes", "quality": "missing", "age": None, "error": "not read yet"},
    ]


async def test_workers_are_listed_filtered_and_shown_with_host_and_heartbeat(site: Site) -> None:
    await site.join()
    async with site.as_role(Role.VIEWER) as viewer:
        every = (await viewer.get("/v1/workers")).json()
        joined = (await viewer.get("/v1/workers", params={"state": "joined", "group": "grid"})).json()
        none = (await viewer.get("/v1/workers", params={"group": "other"})).json()
        past = (await viewer.get("/v1/workers", params={"past": "true"})).json()
        one = (await viewer.get("/v1/workers/grid-1")).json()
        other = (await viewer.get("/v1/workers/grid-2")).json()
    assert (every["total"], [item["id"] for item in joined["workers"]]) == (2, ["grid-1"])
    assert (none["workers"], past["workers"]) == ([], [])
    assert one["host"] == {"Cpus": 2, "Arch": "X86_64"}
    assert one["heartbeat"] == {"at": NOW - 4, "age": 4.0, "running": 1, "load": None, "draining": False}
    assert one["why"]["cause"] == "busy"
    assert (other["host"], other["heartbeat"]) == (None, None)


async def test_queues_clouds_and_plan(site: Site) -> None:
    async with site.as_role(Role.VIEWER) as viewer:
        (queue,) = (await viewer.get("/v1/queues")).json()["queues"]
        (cloud,) = (await viewer.get("/v1/clouds")).json()["clouds"]
        plan = (await viewer.get("/v1/plan")).json()
    assert (queue["waiting"], queue["demand"][0]["reason"]["cause"]) == (2, "starting")
    assert queue["nodes"][0]["running"] == 1
    assert (cloud["machines"], cloud["shapes"]) == ({"ours": 1, "foreign": 1}, None)
    assert cloud["refused"][0]["error"] == "sold out"
    assert [(item["action"], item["reason"]["cause"]) for item in plan["actions"]] == [
        ("launch", "demand"),
        ("drain", "idle"),
    ]
    assert plan["actions"][0]["count"] == 2
    assert plan["look_again"] is None, "infinity is not JSON"


async def test_eta_tells_from_which_boots_it_comes(site: Site) -> None:
    key = BootKey(CloudName("local"), SHAPE.name, None)
    site.control.boot_times[key] = BootTimes(12, 6.0, 9.5, NOW - 500, 9.5)
    site.control.cycle = calm_cycle(site)
    async with site.as_role(Role.VIEWER) as viewer:
        found = (await viewer.get("/v1/groups/grid/eta")).json()
    assert found == {
        "group": "grid",
        "free": False,
        "waiting": 0,
        "seconds": {"median": 6.0, "p95": 9.5},
        "cloud": "local",
        "shape": "small",
        "image": None,
        "policy_waits": 0.0,
        "boot": {"count": 12, "since": NOW - 500, "median": 6.0, "p95": 9.5, "shape": "small", "image": None},
        "obstacle": None,
    }


async def test_eta_counts_the_workers_of_this_moment(site: Site) -> None:
    site.control.cycle = calm_cycle(site)
    for number in range(8):
        site.control.workers[WorkerId(f"more-{number}")] = worker(f"more-{number}")
    async with site.as_role(Role.VIEWER) as viewer:
        found = (await viewer.get("/v1/groups/grid/eta")).json()
    assert (found["seconds"], found["boot"]) == (None, None)
    assert found["obstacle"] == {"cause": "at-maximum", "text": "group grid: 10 of at most 8 workers exist or start"}


async def test_eta_says_what_it_cannot_know(site: Site) -> None:
    async with site.as_role(Role.VIEWER) as viewer:
        doubtful = (await viewer.get("/v1/groups/grid/eta")).json()
        unknown = await viewer.get("/v1/groups/gird/eta")
        site.control.cycle = None
        early = await viewer.get("/v1/groups/grid/eta")
    assert (doubtful["free"], doubtful["seconds"], doubtful["waiting"]) == (False, None, 2)
    assert doubtful["obstacle"] == {"cause": "no-evidence", "text": "queue pilot, nodes: 503"}
    assert (unknown.status_code, unknown.json()["error"]["remedy"]) == (404, "groups are grid")
    assert early.status_code == 409


def calm_cycle(site: Site) -> Cycle:
    """Everything was read just now, nothing waits, nothing runs."""
    before = cycle(site.control.workers)
    queues = {QueueName("pilot"): QueueView(Fresh((), NOW - 2, NOW - 1), Fresh((), NOW - 2, NOW - 1))}
    clouds = {CloudName("local"): CloudView(Fresh((), NOW - 2, NOW - 1), Fresh((SHAPE,), NOW - 2, NOW - 1))}
    return replace(before, snapshot=replace(before.snapshot, queues=queues, clouds=clouds))


async def test_status_counts_what_each_new_cycle_saw(site: Site) -> None:
    row = DemandRow(Resources(1), 3, NOW, frozenset({(GROUP, SHAPE.name)}), "a core")
    async with site.as_role(Role.VIEWER) as viewer:
        for count in (3, 5):
            seen = calm_cycle(site)
            view = QueueView(Fresh((replace(row, count=count),), NOW - 2, NOW - 1), Missing("not read yet", NOW))
            site.control.cycle = replace(seen, snapshot=replace(seen.snapshot, queues={QueueName("pilot"): view}))
            told = (await viewer.get("/v1/status")).json()["groups"], (await viewer.get("/v1/groups")).json()["groups"]
            assert [group["waiting"] for groups in told for group in groups] == [count, count]


async def test_before_the_first_cycle_nothing_is_made_up(site: Site) -> None:
    site.control.cycle = None
    async with site.as_role(Role.VIEWER) as viewer:
        status = (await viewer.get("/v1/status")).json()
        queues = await viewer.get("/v1/queues")
        health = await viewer.get("/healthz")
    assert (status["cycle"], status["sources"]) == (None, [])
    assert queues.status_code == 409
    assert (health.status_code, health.json()) == (503, {"ok": False})


async def test_explain_finds_workers_groups_and_jobs(site: Site) -> None:
    async with site.as_role(Role.ADMIN) as admin:
        await admin.post("/v1/submissions", json={"description": "a 1"})
        assert (await admin.get("/v1/explain/grid-1")).json()["because"] == "it runs a job"
        assert (await admin.get("/v1/explain/grid")).json()["history"] == [{"at": NOW - 5, "text": "joined"}]
        job = (await admin.get("/v1/explain/1.0")).json()
        assert (await admin.get("/v1/explain/nothing/here")).status_code == 404
    assert (job["now"], job["because"]) == ("waiting", "no worker is free")
    assert job["history"] == [{"at": 1.0, "text": "submitted by admin-user"}]


async def test_scale_changes_what_is_given_and_null_takes_it_back(site: Site) -> None:
    async with site.as_role(Role.OPERATOR) as operator:
        first = await operator.post("/v1/groups/grid/scale", json={"minimum": 2, "desired": 5})
        second = await operator.post("/v1/groups/grid/scale", json={"desired": None, "hold": True})
        wrong = await operator.post("/v1/groups/grid/scale", json={"maximum": 1})
        unknown = await operator.post("/v1/groups/gird/scale", json={"maximum": 1})
    assert first.json() == {"group": "grid", "minimum": 2, "maximum": 8, "desired": 5, "hold": False, "closing": False}
    assert second.json()["hold"] is True
    assert (await site.control.store.wishes())[GROUP] == Wishes(minimum=2, hold=True)
    assert wrong.status_code == 400
    assert (unknown.status_code, unknown.json()["error"]["remedy"]) == (404, "groups are grid")


async def test_operators_at_the_same_time_do_not_undo_each_other(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    real = site.control.store.wishes

    async def slow() -> Mapping[GroupName, Wishes]:
        found = await real()
        await asyncio.sleep(0.01)
        return found

    monkeypatch.setattr(site.control.store, "wishes", slow)
    async with site.as_role(Role.OPERATOR) as operator:
        await asyncio.gather(
            operator.post("/v1/groups/grid/scale", json={"maximum": 4}),
            operator.post("/v1/groups/grid/scale", json={"minimum": 3}),
            operator.post("/v1/groups/grid/scale", json={"desired": 3}),
        )
    assert (await real())[GROUP] == Wishes(minimum=3, maximum=4, desired=3)


async def test_drain_undrain_close_and_reload_reach_the_controller(site: Site) -> None:
    async with site.as_role(Role.OPERATOR) as operator:
        names = ["grid-1", "grid-2", "grid-1"]
        assert (await operator.post("/v1/workers/drain", json={"workers": names, "force": True})).status_code == 200
        assert (await operator.post("/v1/workers/undrain", json={"workers": ["grid-1"]})).status_code == 200
        assert (await operator.post("/v1/workers/undrain", json={"workers": ["grid-2"]})).status_code == 409
        assert (await operator.post("/v1/workers/drain", json={"workers": ["grid-9"]})).status_code == 404
        assert (await operator.post("/v1/site/close")).json() == {"closing": True}
        assert (await operator.post("/v1/site/reload")).json() == {"changed": "nothing changed"}
        site.control.reload_error = SiteFileError("no such key", where="site.toml:3: [groups.grid] minimun")
        wrong = await operator.post("/v1/site/reload")
    assert site.control.calls == [
        "drain grid-1,grid-2 True user:operator-user",
        "undrain grid-1 user:operator-user",
        "close user:operator-user",
    ]
    assert (wrong.status_code, wrong.json()["error"]["kind"]) == (400, "SiteFileError")


async def test_events_come_in_order_and_filtered(site: Site) -> None:
    async with site.as_role(Role.OPERATOR) as operator:
        for count in (1, 2, 3):
            await operator.post("/v1/groups/grid/scale", json={"desired": count})
        latest = (await operator.get("/v1/events", params={"limit": 2})).json()
        rest = (await operator.get("/v1/events", params={"after": 1, "kind": "wishes"})).json()
        none = (await operator.get("/v1/events", params={"after": 3})).json()
    assert [event["number"] for event in latest["events"]] == [2, 3]
    assert [event["number"] for event in rest["events"]] == [2, 3]
    assert none == {"events": [], "next": 3}
    assert latest["events"][0]["evidence"] == {"queue/pilot/demand": {"quality": "fresh", "age": 1.5}}
    assert latest["events"][0]["actor"] == "user:operator-user"


async def test_a_token_is_shown_once_works_and_is_revoked_at_once(site: Site) -> None:
    async with site.as_role(Role.ADMIN) as admin:
        made = await admin.post("/v1/tokens", json={"user": "anna", "role": "viewer", "expires_in": 3600})
        token = made.json()["token"]
        listed = await admin.get("/v1/tokens")
        assert token not in listed.text
        assert token.partition(".")[2] not in listed.text
        assert made.json()["id"] in [item["id"] for item in listed.json()["tokens"]]
        async with site.client(token) as anna:
            assert (await anna.get("/v1/version")).status_code == 200
            assert (await admin.delete(f"/v1/tokens/{made.json()['id']}")).status_code == 204
            assert (await anna.get("/v1/version")).status_code == 401
        assert (await admin.delete("/v1/tokens/none")).status_code == 404


async def test_a_token_ends_when_its_time_is_over_even_while_cached(site: Site) -> None:
    async with site.as_role(Role.ADMIN) as admin:
        made = await admin.post("/v1/tokens", json={"user": "anna", "role": "viewer", "expires_in": 2})
    async with site.client(made.json()["token"]) as anna:
        assert (await anna.get("/v1/version")).status_code == 200
        site.clock.time += 2.5
        assert (await anna.get("/v1/version")).status_code == 401


async def test_aliec2_scripts_spawn_report_and_end(site: Site) -> None:
    token = site.tokens[Role.WORKER]
    script = b"#!/bin/sh\necho \xc3\xa9\n"
    userinfo = base64.b64encode(f"x:{token}".encode()).decode()
    async with site.client(token) as bearer, site.client() as bare:
        spawned = await bearer.post("/spawn", data={"script": script.decode()})
        file = await bearer.post("/spawn", files={"script": ("user-data", script)})
        full = await bearer.post("/spawn", data={"script": "x"})
        basic = {"authorization": f"Basic {userinfo}"}
        assert (await bare.get(f"/alive/{spawned.text}", headers=basic)).text == "OK"
        assert (await bare.get(f"/done/{spawned.text}", headers=basic)).text == "OK"
        assert (await bare.get("/alive/alien-9", headers=basic)).status_code == 404
        assert (await bare.get("/v1/version", headers=basic)).status_code == 401, "Basic is for AliEC2 alone"
    assert (spawned.text, file.text, full.status_code) == ("alien-0", "alien-1", 409)
    assert set(site.spawner.scripts.values()) == {script}
    assert site.spawner.ended == [WorkerId("alien-0")]


@pytest.mark.parametrize(("size", "status"), [(16_384, 200), (16_385, 413), (70_000, 413)])
async def test_aliec2_scripts_are_at_most_16_kib(site: Site, size: int, status: int) -> None:
    async with site.client(site.tokens[Role.WORKER]) as client:
        assert (await client.post("/spawn", data={"script": "x" * size})).status_code == status


async def test_aliec2_is_off_by_default(tmp_path: Path) -> None:
    site = await make_site(tmp_path, aliec2=False)
    async with site.client(site.tokens[Role.WORKER]) as client:
        assert (await client.post("/spawn", data={"script": "x"})).status_code == 404
    with pytest.raises(ValueError, match="spawn"):
        make_app(site.control, site.pilot, ServiceSettings("torino", GROUP))


async def test_health_says_only_ok_or_not(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    async with site.client() as anybody:
        assert (await anybody.get("/healthz")).json() == {"ok": True}

        async def broken() -> Lease | None:
            raise StoreUnavailable("the disk is full", where="/var/secret/place")

        monkeypatch.setattr(site.control.store, "current_lease", broken)
        answer = await anybody.get("/healthz")
    assert (answer.status_code, answer.json()) == (503, {"ok": False})


async def test_metrics_show_the_site_and_no_names_of_workers_jobs_or_users(site: Site) -> None:
    await site.join()
    async with site.as_role(Role.ADMIN) as admin:
        await admin.post("/v1/submissions", json={"description": "a 1\nb 1"})
        await admin.get("/v1/jobs/1.0")
        text = (await admin.get("/metrics")).text
    lines = set(text.splitlines())
    assert 'gridtide_workers{group="grid",state="joined"} 1.0' in lines
    assert 'gridtide_group_limit{group="grid",limit="maximum"} 8.0' in lines
    assert 'gridtide_jobs{state="waiting"} 2.0' in lines
    assert 'gridtide_source_fresh{source="queue/pilot/nodes"} 0.0' in lines
    assert 'gridtide_machines{cloud="local",whose="foreign"} 1.0' in lines
    assert 'gridtide_planned_actions{action="Launch"} 1.0' in lines
    assert "gridtide_cycles_total 7.0" in lines
    assert 'gridtide_http_requests_total{route="GET /v1/jobs/{job}",status="200"} 1.0' in lines
    for name in ("grid-1", '1.0"', "admin-user", "127.0.0.1"):
        assert name not in text


async def test_openapi_needs_a_token_and_names_the_routes(site: Site) -> None:
    async with site.as_role(Role.VIEWER) as viewer:
        described = json.loads((await viewer.get("/v1/openapi.json")).text)
    assert "/v1/worker/join" in described["paths"]
