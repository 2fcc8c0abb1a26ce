"""Slurm's power saving: which of its nodes are to be there."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter
from pydantic import Field, StringConstraints
from starlette.requests import Request
from starlette.responses import Response

from gridtide.errors import NotFound
from gridtide.model.ids import GroupName
from gridtide.service.answers import answer
from gridtide.service.names import Body
from gridtide.service.routing import UserRoute
from gridtide.service.state import PowerSaver, service_of, user_of
from gridtide.store.ports import Json

router = APIRouter(route_class=UserRoute, tags=["fleet"])

MOST_NODES: Final = 20_000
"""Nodes in one order, as workers in one."""

NodeName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]


class Nodes(Body):
    """Nodes of slurm.conf by name."""

    nodes: Annotated[list[NodeName], Field(min_length=1, max_length=MOST_NODES)]


def _power(request: Request) -> PowerSaver:
    power = service_of(request).power
    if power is None:
        raise NotFound("this site has no Slurm cluster with power_saving")
    return power


@router.post("/v1/groups/{name}/resume")
async def resume(request: Request, name: str, wanted: Nodes) -> Response:
    """Launch a worker for each of these nodes that has none. 409 when that is not possible for all of them."""
    lent = await _power(request).resume(GroupName(name), wanted.nodes, actor=user_of(request).actor)
    workers: dict[str, Json] = dict(lent)
    return answer({"group": name, "workers": workers})


@router.post("/v1/groups/{name}/suspend")
async def suspend(request: Request, name: str, wanted: Nodes) -> Response:
    """Drain the workers that stand for these nodes; nodes that have none are left out."""
    lent = await _power(request).suspend(GroupName(name), wanted.nodes, actor=user_of(request).actor)
    workers: dict[str, Json] = dict(lent)
    return answer({"group": name, "workers": workers})
