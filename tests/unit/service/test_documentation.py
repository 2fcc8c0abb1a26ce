"""The reference pages against the code."""

from __future__ import annotations

import re
from pathlib import Path

from fastapi.routing import APIRoute
from prometheus_client import CollectorRegistry

from gridtide.model.boots import Boot, BootKey, Phase
from gridtide.model.ids import CloudName, ShapeName, WorkerId
from gridtide.pilot.protocol import JobState
from gridtide.service.metrics import Metrics, SiteFigures, site_metrics
from gridtide.service.roles import MAY, ROUTES, Audience
from gridtide.store.ports import Role
from tests.unit.service.site import NOW, Site, cycle, rules, worker

DOCUMENTS = Path(__file__).parents[3] / "docs"


def rows(page: str) -> list[list[str]]:
    """Cells of all tables' rows of a page."""
    lines = (DOCUMENTS / page).read_text().splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]


def test_the_http_page_lists_every_route_with_its_audience() -> None:
    listed = {row[0].strip("`"): row[1] for row in rows("reference/http-api.md") if re.match(r"`[A-Z]+ /", row[0])}
    assert listed == {route: str(audience) for route, audience in ROUTES.items()}


async def test_the_http_page_names_every_parameter(site: Site) -> None:
    cells = {row[0].strip("`"): row[2] for row in rows("reference/http-api.md") if len(row) > 2}
    for route in site.app.routes:
        assert isinstance(route, APIRoute)
        (method,) = route.methods or {""}
        described = cells[f"{method} {route.path}"]
        names = [field.alias for field in route.dependant.query_params]
        names += [item["name"] for item in (route.openapi_extra or {}).get("parameters", ())]
        for name in names:
            assert f"`{name}`" in described, f"{name} of {route.path}"


def test_the_roles_page_says_what_the_table_says() -> None:
    table = rows("reference/roles.md")
    (head,) = (row for row in table if row[:2] == ["audience", "viewer"])
    listed = {
        row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in table if len(row) == 6 and row[0] in set(Audience)
    }
    expected = {
        str(audience): {str(role): "yes" if role in roles else "no" for role in Role}
        for audience, roles in MAY.items()
        if roles
    }
    assert listed == expected
    for audience in set(MAY) - {audience for audience, roles in MAY.items() if roles}:
        assert [str(audience)] in [row[:1] for row in table]


def test_the_metrics_page_lists_every_metric_with_its_labels() -> None:
    figures = SiteFigures(
        now=NOW,
        rules=rules(),
        workers=(worker("grid-1"),),
        wishes={},
        cycle=cycle({}),
        jobs={JobState.WAITING: 1},
        token_failures=1,
    )
    metrics = Metrics()
    metrics.observe("GET /metrics", 200, 0.1)
    key = BootKey(CloudName("local"), ShapeName("small"), "thin")
    metrics.observe_boot(Boot(WorkerId("grid-1"), key, NOW, 3.0, {Phase.CLOUD: 1.0, Phase.JOIN: 2.0}))
    found: dict[str, set[str]] = {}
    assert isinstance(metrics.registry, CollectorRegistry)
    for family in [*site_metrics(figures), *metrics.registry.collect()]:
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = {label for sample in family.samples for label in sample.labels}
        found[name] = labels - {"le"}
    listed = {
        row[0].strip("`"): set(re.findall(r"`(\w+)`", row[1]))
        for row in rows("reference/metrics.md")
        if row[0].startswith("`gridtide_")
    }
    assert listed == found


def test_the_security_page_has_the_figures_of_the_code() -> None:
    from gridtide.service import access, body, certificates, connection, pilot_routes, server, settings

    text = " ".join((DOCUMENTS / "explanation/security.md").read_text().split())
    for figure in (
        f"users {access.USER_CACHE:g} s, workers {access.WORKER_CACHE:g} s",
        f"more than {access.FAILURES} bad tokens",
        f"{certificates.SERVER_DAYS} days; renewed {certificates.RENEW_DAYS} days before",
        f"{connection.HEAD_LIMIT // 1024} KiB, {connection.HEAD_PATIENCE:g} s",
        f"{settings.ServiceSettings('x').body_patience:g} s without a byte",
        f"JSON: {body.DEEPEST} levels",
        f"Long polls: {pilot_routes.LONGEST_WAIT:g} s",
        f"Followed streams: {settings.ServiceSettings('x').followers}.",
    ):
        assert figure in text, figure
    assert server.KEEP_ALIVE > pilot_routes.LONGEST_WAIT
