"""Slurm's power saving over HTTP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx
import pytest

from gridtide.errors import Conflict
from gridtide.model.ids import GroupName, WorkerId
from gridtide.service.state import Service
from gridtide.store.ports import Role

from .site import Site, make_site


class Power:
    """Notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.full = False

    async def resume(self, group: GroupName, nodes: Sequence[str], *, actor: str) -> Mapping[str, WorkerId]:
        if self.full:
            raise Conflict("not resumed: n2: at its maximum", where=f"group {group}")
        self.asked.append(f"resume {group} {','.join(nodes)} {actor}")
        return {node: WorkerId(f"{group}-{node}") for node in nodes}

    async def suspend(self, group: GroupName, nodes: Sequence[str], *, actor: str) -> Mapping[str, WorkerId]:
        self.asked.append(f"suspend {group} {','.join(nodes)} {actor}")
        return {}


@pytest.fixture
async def site(tmp_path: Path) -> Site:
    return await make_site(tmp_path)


async def post(site: Site, what: str, *nodes: object) -> httpx.Response:
    async with site.as_role(Role.OPERATOR) as operator:
        return await operator.post(f"/v1/groups/grid/{what}", json={"nodes": list(nodes)})


async def test_a_site_without_it(site: Site) -> None:
    assert (await post(site, "resume", "n1")).status_code == 404
    assert (await post(site, "suspend", "n1")).status_code == 404


async def test_both_reach_the_controller(site: Site) -> None:
    service: Service = site.app.state.service
    service.power = power = Power()
    resumed = await post(site, "resume", "n1", "n2")
    assert resumed.json() == {"group": "grid", "workers": {"n1": "grid-n1", "n2": "grid-n2"}}
    assert (await post(site, "suspend", "n1")).json() == {"group": "grid", "workers": {}}
    assert power.asked == ["resume grid n1,n2 user:operator-user", "suspend grid n1 user:operator-user"]
    power.full = True
    refused = await post(site, "resume", "n1", "n2")
    assert refused.status_code == 409
    assert "at its maximum" in refused.text


@pytest.mark.parametrize("node", ["", "../x", ".", "a b", "a/b", "x" * 64, 3])
async def test_what_is_no_node(site: Site, node: object) -> None:
    service: Service = site.app.state.service
    service.power = power = Power()
    assert (await post(site, "resume", node)).status_code in (400, 422)
    assert power.asked == []
