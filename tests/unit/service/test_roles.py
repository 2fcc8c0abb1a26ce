"""Who may use which route: the table against the app, and every kind of caller against every route."""

from __future__ import annotations

import re

import pytest
from fastapi.routing import APIRoute

from gridtide.service.roles import MAY, ROUTES, Audience
from gridtide.store.ports import Role
from tests.unit.service.site import Site

FILLED = {"job": "1.0", "worker": "grid-1", "name": "grid", "number": "1", "token": "nobody", "subject": "grid"}


def routes_of(site: Site) -> set[str]:
    """Every route of the app, however it was made."""
    found = set()
    for route in site.app.routes:
        assert isinstance(route, APIRoute), f"{route} is not made by gridtide.service.routing"
        for method in route.methods or ():
            found.add(f"{method} {route.path}")
    return found


def path_of(route: str) -> str:
    path = route.partition(" ")[2]
    return re.sub(r"\{(\w+)(:path)?\}", lambda match: FILLED.get(match[1], "0" * 64), path)


async def test_the_table_names_every_route_and_no_other(site: Site) -> None:
    assert routes_of(site) == set(ROUTES)


async def test_every_route_is_in_openapi(site: Site) -> None:
    described = {
        f"{method.upper()} {path}" for path, methods in site.app.openapi()["paths"].items() for method in methods
    }
    assert described == {route.replace(":path", "") for route in ROUTES}


async def _call(site: Site, route: str, token: str | None) -> int:
    async with site.client(token) as client:
        return (await client.request(route.partition(" ")[0], path_of(route), json={})).status_code


async def _prepare(site: Site) -> None:
    await site.join()
    async with site.as_role(Role.SUBMITTER) as user:
        assert (await user.post("/v1/submissions", json={"description": "a 1"})).status_code == 201


@pytest.mark.parametrize("route", sorted(ROUTES))
async def test_each_role_on_each_route(site: Site, route: str) -> None:
    await _prepare(site)
    audience = ROUTES[route]
    for role in Role:
        status = await _call(site, route, site.tokens[role])
        if audience is Audience.ANYBODY or role in MAY[audience]:
            assert status not in (401, 403), f"{role} on {route}"
        elif audience in (Audience.WORKER, Audience.MACHINE):
            assert status == 401, f"{role} on {route}: a user's token is no token here"
        else:
            assert status == 403, f"{role} on {route}"


@pytest.mark.parametrize("route", sorted(ROUTES))
async def test_worker_and_join_tokens_open_their_own_routes_only(site: Site, route: str) -> None:
    await _prepare(site)
    audience = ROUTES[route]
    for token, own in ((site.worker_tokens["grid-1"], Audience.WORKER), (site.join_tokens["grid-2"], Audience.MACHINE)):
        status = await _call(site, route, token)
        assert (status != 401) == (audience in (own, Audience.ANYBODY)), f"{own} on {route}: {status}"
        assert status != 403


@pytest.mark.parametrize("route", sorted(set(ROUTES) - {"GET /healthz"}))
async def test_without_a_token_there_is_nothing(site: Site, route: str) -> None:
    async with site.client() as client:
        answer = await client.request(route.partition(" ")[0], path_of(route), json={})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert set(answer.json()["error"]) == {"kind", "what", "where", "remedy"}


def test_roles_grow_as_the_page_says() -> None:
    viewer = {route for route, audience in ROUTES.items() if Role.VIEWER in MAY[audience]}
    for role in (Role.SUBMITTER, Role.OPERATOR):
        assert viewer < {route for route, audience in ROUTES.items() if role in MAY[audience]}
    users = {route for route, audience in ROUTES.items() if MAY[audience]}
    assert users == {route for route, audience in ROUTES.items() if Role.ADMIN in MAY[audience]}


def test_a_token_of_role_worker_opens_aliec2_and_nothing_else() -> None:
    opened = {route for route, audience in ROUTES.items() if Role.WORKER in MAY[audience]}
    assert opened == {"POST /spawn", "GET /alive/{worker}", "GET /done/{worker}"}
