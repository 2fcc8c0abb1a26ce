"""Routes around real machines: the rest of a context, consoles, rollouts."""

from __future__ import annotations

import httpx
import pytest

from gridtide.store.ports import Role
from tests.unit.service.site import Site

READER = "n" * 32


async def fetch(site: Site, reader: str = READER, name: str = "grid-1") -> httpx.Response:
    async with site.client(site.join_tokens[name]) as client:
        return await client.get("/v1/worker/context", headers={"Gridtide-Reader": reader})


async def test_the_first_reader_may_ask_again_and_nobody_else(site: Site) -> None:
    for _ in range(2):
        answer = await fetch(site)
        assert (answer.status_code, answer.json()) == (200, {"scripts": []})
    assert (await fetch(site, "m" * 32)).status_code == 401
    assert (await fetch(site)).status_code == 200


async def test_after_the_join_nobody_reads_it(site: Site) -> None:
    assert (await site.join()).status_code == 200
    assert (await fetch(site)).status_code == 401


@pytest.mark.parametrize("reader", ["", "short", "x" * 257])
async def test_a_reader_must_have_a_name(site: Site, reader: str) -> None:
    assert (await fetch(site, reader)).status_code == 400
    assert (await fetch(site)).status_code == 200


async def test_operators_see_consoles_and_viewers_do_not(site: Site) -> None:
    async with site.client(site.tokens[Role.OPERATOR]) as client:
        shown = await client.get("/v1/workers/grid-1/console", params={"most": 12})
        assert (shown.status_code, shown.content) == (200, b"gridtide: up\n"[-12:])
        assert (await client.get("/v1/workers/grid-9/console")).status_code == 404
    async with site.client(site.tokens[Role.VIEWER]) as client:
        assert (await client.get("/v1/workers/grid-1/console")).status_code == 403


async def test_a_rollout_is_looked_at_by_all_and_paused_by_operators(site: Site) -> None:
    async with site.client(site.tokens[Role.VIEWER]) as client:
        seen = (await client.get("/v1/groups/grid/rollout")).json()
        assert (seen["group"], seen["paused"]) == ("grid", False)
        assert (await client.post("/v1/groups/grid/rollout", json={"paused": True})).status_code == 403
    async with site.client(site.tokens[Role.OPERATOR]) as client:
        assert (await client.post("/v1/groups/grid/rollout", json={"paused": True})).json()["paused"] is True
        assert (await client.get("/v1/groups/nobody/rollout")).status_code == 404
        assert (await client.post("/v1/groups/grid/rollout", json={"paused": 1})).status_code in (400, 422)
        assert (await client.post("/v1/groups/grid/rollout", json={"paused": False})).json()["paused"] is False
