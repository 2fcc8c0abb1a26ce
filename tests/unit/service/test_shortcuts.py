"""Heartbeats that are answered on the spot: the same answers as the route's, or none."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import httpx
import pytest
from starlette.responses import Response
from starlette.routing import Route

from gridtide.model.ids import WorkerId
from gridtide.pilot.protocol import JobId, Order
from gridtide.service import access
from gridtide.service.shortcuts import SHORTCUTS, Shortcuts
from gridtide.store.ports import Role
from tests.unit.service.site import Site

ALIVE = b"/v1/worker/alive"
BODY: Mapping[str, object] = {"load": 0.7, "running": [{"job": "1.0", "attempt": 1}], "draining": False}
JSON = "application/json"


@dataclass(frozen=True)
class Beat:
    """A heartbeat as it may come in."""

    body: object = field(default_factory=lambda: BODY)
    peer: str = "127.0.0.1"
    scheme: str = "http"
    kind: str = JSON
    token: str = ""
    """grid-1's own when empty."""

    def content(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()

    def at_once(self, site: Site) -> Response | None:
        token = self.token or site.worker_tokens["grid-1"]
        headers = [(b"authorization", b"Bearer " + token.encode()), (b"content-type", self.kind.encode())]
        scope = {"type": "http", "headers": headers, "client": (self.peer, 1), "scheme": self.scheme}
        return Shortcuts(site.app.state.service).answer(ALIVE, scope, self.content())

    async def by_the_route(self, site: Site) -> httpx.Response:
        token = self.token or site.worker_tokens["grid-1"]
        async with site.client(token, peer=self.peer, url=f"{self.scheme}://site") as agent:
            headers = {"content-type": self.kind}
            return await agent.post(ALIVE.decode(), content=self.content(), headers=headers)


async def ready(site: Site) -> None:
    """grid-1 has joined and runs a job, and the queue answers from memory."""
    await site.join()
    async with site.as_role(Role.SUBMITTER) as user:
        assert (await user.post("/v1/submissions", json={"description": "a 1"})).status_code == 201
    async with site.as_worker() as agent:
        free = {"cores": 2, "memory": 2048, "disk": 4096, "gpus": 0}
        await agent.post("/v1/pilot/request", json={"number": "1", "free": free, "wait": 0})
    site.pilot.remembering = True


async def same(site: Site, beat: Beat = Beat()) -> Mapping[str, object]:
    """Both answer the same; returns what."""
    site.control.calls.clear()
    short = beat.at_once(site)
    assert short is not None
    noted = list(site.control.calls)
    site.control.calls.clear()
    long = await beat.by_the_route(site)
    assert noted == site.control.calls
    assert (short.status_code, bytes(short.body)) == (long.status_code, long.content)
    assert [(name.decode(), value.decode()) for name, value in short.raw_headers] == long.headers.multi_items()
    told: Mapping[str, object] = long.json()
    return told


async def test_every_shortcut_is_of_a_route(site: Site) -> None:
    posted = [route for route in site.app.routes if isinstance(route, Route) and "POST" in (route.methods or ())]
    routes = {f"POST {route.path}" for route in posted}
    for target, (template, _) in SHORTCUTS.items():
        assert template == f"POST {target.decode()}"
        assert template in routes


async def test_it_answers_as_the_route_does(site: Site) -> None:
    await ready(site)
    assert await same(site) == {"order": "continue", "lease": 600.0, "heartbeat": 10.0, "cancel": []}
    assert (await same(site, Beat({**BODY, "load": 0, "draining": True, "more": 1})))["order"] == "continue"
    await same(site, Beat(kind="application/json; charset=utf-8"))
    await same(site, Beat(peer="192.0.2.7", scheme="https"))
    await site.pilot.cancel(jobs=[JobId("1.0")], submission=None, user=None)
    assert (await same(site))["cancel"] == ["1.0"]
    await site.pilot.set_draining([WorkerId("grid-1")], True)
    assert (await same(site))["order"] == "drain"
    site.control.order = Order.STOP
    assert (await same(site))["order"] == "stop"


@pytest.mark.parametrize(
    "beat",
    [
        Beat(b""),
        Beat(b"{"),
        Beat(b"\xff"),
        Beat([]),
        Beat({**BODY, "load": -1}),
        Beat({**BODY, "load": "0.7"}),
        Beat({**BODY, "draining": None}),
        Beat({**BODY, "running": [{"job": "x", "attempt": 1}]}),
        Beat({**BODY, "running": [{"job": "1.0", "attempt": 0}]}),
        Beat({**BODY, "running": [{"job": "1.0", "attempt": 1}] * 2000}),
        Beat(kind="text/plain"),
        Beat(peer="192.0.2.7"),
        Beat(token="gtw_grid-1." + "A" * 43),
        Beat(token="gtw_grid-9." + "A" * 43),
        Beat(token="nonsense"),
    ],
    ids=str,
)
async def test_what_the_route_refuses_is_left_to_it(site: Site, beat: Beat) -> None:
    await ready(site)
    site.control.calls.clear()
    assert beat.at_once(site) is None
    assert (await beat.by_the_route(site)).status_code in (400, 401, 413)
    assert site.control.calls == []


async def test_a_long_body_is_left_to_the_route(site: Site) -> None:
    await ready(site)
    beat = Beat(json.dumps(BODY).encode() + b" " * 65_536)
    assert beat.at_once(site) is None
    assert (await beat.by_the_route(site)).status_code == 413


async def test_tokens_of_other_kinds_are_left_to_the_route(site: Site) -> None:
    await ready(site)
    for token in (site.tokens[Role.ADMIN], site.tokens[Role.WORKER], site.join_tokens["grid-1"]):
        assert Beat(token=token).at_once(site) is None
        assert (await Beat(token=token).by_the_route(site)).status_code == 401


async def test_a_worker_that_is_gone_is_refused_at_once(site: Site) -> None:
    await ready(site)
    await same(site)
    del site.control.workers[WorkerId("grid-1")]
    assert Beat().at_once(site) is None
    assert (await Beat().by_the_route(site)).status_code == 401


async def test_a_token_is_looked_up_again_when_it_was_not_for_long(site: Site) -> None:
    await ready(site)
    assert site.control.checked == 0, "what has just joined is known"
    await same(site)
    site.clock.time += access.WORKER_CACHE + 1
    assert Beat().at_once(site) is None
    assert (await Beat().by_the_route(site)).status_code == 200
    assert site.control.checked == 1
    await same(site)


async def test_without_an_answer_at_hand_the_route_answers(site: Site) -> None:
    await ready(site)
    site.pilot.remembering = False
    site.control.calls.clear()
    assert Beat().at_once(site) is None
    assert site.control.calls == [], "nothing is noted twice"


async def test_trouble_of_ours_is_left_to_the_route(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_given: object, **_named: object) -> None:
        raise RuntimeError("out of order")

    await ready(site)
    monkeypatch.setattr(site.pilot, "heard", broken)
    assert Beat().at_once(site) is None


async def test_it_is_counted_as_the_route_is(site: Site) -> None:
    await ready(site)
    Beat().at_once(site)
    await Beat().by_the_route(site)
    Beat(b"").at_once(site)
    async with site.as_role(Role.VIEWER) as viewer:
        lines = (await viewer.get("/metrics")).text.splitlines()
    assert 'gridtide_http_requests_total{route="POST /v1/worker/alive",status="200"} 2.0' in lines
    assert 'gridtide_http_request_seconds_count{route="POST /v1/worker/alive"} 2.0' in lines
