"""How long from a request to its start: what is known, from what, and what is in the way."""

from __future__ import annotations

from dataclasses import replace

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from gridtide.errors import Conflict, NotFound
from gridtide.model.ids import GroupName
from gridtide.planning.eta import eta_of
from gridtide.service import views
from gridtide.service.answers import answer
from gridtide.service.routing import UserRoute
from gridtide.service.state import service_of

router = APIRouter(route_class=UserRoute, tags=["fleet"])


@router.get("/v1/groups/{name}/eta")
async def eta(request: Request, name: str) -> Response:
    """How long a job submitted now would wait for its start, as far as machines go; jobs before it wait too."""
    control = service_of(request).control
    group = control.rules.groups.get(GroupName(name))
    if group is None:
        groups = ", ".join(sorted(control.rules.groups))
        raise NotFound(f"there is no group {name[:80]!r}", remedy=f"groups are {groups}")
    cycle = control.cycle
    if cycle is None:
        raise Conflict("the controller has not ended its first cycle yet", remedy="try again in a few seconds")
    # The readings of the last cycle, and what has become of the workers since.
    now = replace(cycle.snapshot, workers=dict(control.workers), boot_times=dict(control.boot_times))
    return answer(views.eta(group, eta_of(now, control.rules, group.name)))
