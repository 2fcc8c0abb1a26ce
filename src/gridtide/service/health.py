"""For monitors: health, version, metrics, and the description of the interface itself."""

from __future__ import annotations

import asyncio
from typing import Final

from fastapi import APIRouter, FastAPI
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response

import gridtide
from gridtide.errors import StoreError
from gridtide.service.answers import answer
from gridtide.service.metrics import SiteFigures
from gridtide.service.routing import ThinRoute, UserRoute
from gridtide.service.state import service_of

router = APIRouter(route_class=UserRoute, tags=["monitoring"])
thin = APIRouter(route_class=ThinRoute, tags=["monitoring"])

STORE_PATIENCE: Final = 2.0
"""Seconds that the store may take before the service calls itself unwell."""


@thin.get("/healthz")
async def healthz(request: Request) -> Response:
    """Whether the store answers and the controller has ended a cycle. Says no more than that, to anybody."""
    control = service_of(request).control
    try:
        async with asyncio.timeout(STORE_PATIENCE):
            await control.store.current_lease()
        well = control.cycle is not None
    except (StoreError, TimeoutError):
        well = False
    return answer({"ok": well}, 200 if well else 503)


@router.get("/v1/version")
async def version(request: Request) -> Response:
    """The version of the package and the name of the site."""
    return answer({"version": gridtide.__version__, "site": service_of(request).settings.site})


@router.get("/v1/openapi.json")
async def openapi(request: Request) -> Response:
    """This interface in OpenAPI."""
    app: FastAPI = request.app
    return answer(app.openapi())


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """Metrics for Prometheus."""
    service = service_of(request)
    control = service.control
    figures = SiteFigures(
        now=service.clock.now(),
        rules=control.rules,
        workers=tuple(control.workers.values()),
        wishes=await control.store.wishes(),
        cycle=control.cycle,
        jobs=None if service.pilot is None else await service.pilot.counts(),
        token_failures=service.gate.failures,
    )
    return Response(service.metrics.render(figures), media_type=CONTENT_TYPE_LATEST)
