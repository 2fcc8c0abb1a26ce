"""Rolling updates: how far they are, and operators' pauses."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from gridtide.control.api import SiteControl
from gridtide.errors import NotFound
from gridtide.model.ids import GroupName
from gridtide.model.rules import Wishes
from gridtide.service import views
from gridtide.service.answers import answer
from gridtide.service.names import Body
from gridtide.service.routing import UserRoute
from gridtide.service.state import service_of, user_of
from gridtide.store.ports import Json

router = APIRouter(route_class=UserRoute, tags=["fleet"])


class Pause(Body):
    """Whether workers may be replaced for their age."""

    paused: bool


@router.get("/v1/groups/{name}/rollout")
async def rollout(request: Request, name: str) -> Response:
    """How many workers are of the present generation, how many older ones are left, and what is waited for."""
    control = service_of(request).control
    group = _group(control, name)
    wishes = (await control.store.wishes()).get(group, Wishes())
    return answer(_document(control, group, wishes))


@router.post("/v1/groups/{name}/rollout")
async def pause(request: Request, name: str, wanted: Pause) -> Response:
    """Pause or resume the replacing of older workers."""
    service = service_of(request)
    control = service.control
    group = _group(control, name)
    async with service.wishes:
        present = (await control.store.wishes()).get(group, Wishes())
        wishes = replace(present, rollout_paused=wanted.paused)
        await control.set_wishes(group, wishes, actor=user_of(request).actor)
    return answer(_document(control, group, wishes))


def _group(control: SiteControl, name: str) -> GroupName:
    group = GroupName(name)
    if group not in control.rules.groups:
        known = ", ".join(sorted(control.rules.groups))
        raise NotFound(f"there is no group {name[:80]!r}", remedy=f"groups are {known}")
    return group


def _document(control: SiteControl, group: GroupName, wishes: Wishes) -> dict[str, Json]:
    rules = control.rules.groups[group]
    mine = [worker for worker in control.workers.values() if worker.group == group]
    older = [worker for worker in mine if worker.generation != rules.generation]
    step = None if control.cycle is None else control.cycle.plan.rollouts.get(group)
    return {
        "group": group,
        "generation": rules.generation,
        "image": rules.image,
        "paused": wishes.rollout_paused,
        "done": not older,
        "present": _states([worker.state for worker in mine if worker.generation == rules.generation]),
        "older": _states([worker.state for worker in older]),
        "capacity": None if step is None else step.capacity,
        "wanted": None if step is None else step.wanted,
        "why": None if step is None else views.reason(step.why),
    }


def _states(states: list[str]) -> dict[str, Json]:
    return {str(state): number for state, number in sorted(Counter(states).items())}
