"""The application: all routes, one gate, one shape of error."""

from __future__ import annotations

from typing import Final

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

import gridtide
from gridtide.clock import Clock, SystemClock
from gridtide.control.api import SiteControl
from gridtide.errors import GridtideError, InvalidRequest, NotFound
from gridtide.pilot.protocol import Pilot
from gridtide.service import aliec2, eta, fleet, health, jobs, pilot_routes, power, rollout, token_routes, worker
from gridtide.service.access import Gate
from gridtide.service.answers import refusal
from gridtide.service.metrics import Metrics
from gridtide.service.routing import FixedPaths
from gridtide.service.settings import ServiceSettings
from gridtide.service.state import PowerSaver, Service, Spawner

# The order is the order of matching: what workers ask all the time comes first, and fixed paths before patterns.
ROUTERS: Final = (
    pilot_routes.router,
    worker.router,
    jobs.thin,
    jobs.large,
    jobs.router,
    fleet.router,
    eta.router,
    rollout.router,
    power.router,
    token_routes.router,
    health.thin,
    health.router,
)


def make_app(
    control: SiteControl,
    pilot: Pilot | None,
    settings: ServiceSettings,
    *,
    spawner: Spawner | None = None,
    power_saver: PowerSaver | None = None,
    clock: Clock | None = None,
) -> FastAPI:
    """The service over a controller and, where the site has one, a pilot queue.

    ``spawner`` is needed when ``settings.aliec2_group`` is set: ValueError without it.
    """
    if settings.aliec2_group is not None and spawner is None:
        raise ValueError("aliec2_group is set, but there is nothing that could spawn workers")
    clock = clock or SystemClock()
    app = FastAPI(
        title="Gridtide",
        version=gridtide.__version__,
        description=f"Site {settings.site}. docs/reference/http-api.md says the same in words.",
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        exception_handlers={HTTPException: _no_route},
    )
    app.router.redirect_slashes = False
    for router in (*ROUTERS, *((aliec2.router,) if settings.aliec2_group is not None else ())):
        # Put in flat instead of include_router: one list to match against, and one for the tests to walk.
        app.router.routes.extend(router.routes)
    app.add_middleware(FixedPaths, routes=app.router.routes)
    app.state.service = Service(
        control=control,
        pilot=pilot,
        settings=settings,
        clock=clock,
        gate=Gate(control, clock, settings.trusted_proxies),
        metrics=Metrics(),
        spawner=spawner,
        power=power_saver,
    )
    return app


async def _no_route(request: Request, error: Exception) -> Response:
    """The answer when no route matched: 404, or 405 with what the path does understand."""
    path = request.scope["path"][:200]
    if isinstance(error, HTTPException) and error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        wrong: GridtideError = InvalidRequest(f"{request.method[:20]} is not understood here", where=path)
        response = refusal(wrong)
        response.status_code = 405
        response.headers["allow"] = allowed
        return response
    return refusal(NotFound("there is no such route", where=path, remedy="GET /v1/openapi.json lists them"))
