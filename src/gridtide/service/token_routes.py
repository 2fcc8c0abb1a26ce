"""Users' tokens: made, listed and revoked by admins."""

from __future__ import annotations

from typing import Annotated

import structlog
from fastapi import APIRouter
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from gridtide.errors import NotFound
from gridtide.service import views
from gridtide.service.answers import answer
from gridtide.service.names import Body, UserName
from gridtide.service.routing import UserRoute
from gridtide.service.state import service_of, user_of
from gridtide.service.tokens import new_user_token
from gridtide.store.ports import Role

router = APIRouter(route_class=UserRoute, tags=["tokens"])
_log = structlog.get_logger("gridtide.service")

LONGEST_LIFE = 10 * 365 * 86400.0
"""Seconds. A token that should outlive ten years is better made without an end, knowingly."""


class NewToken(Body):
    """For whom, with which role, and for how many seconds (null: until revoked)."""

    user: UserName
    role: Annotated[Role, Field(strict=False)]
    expires_in: Annotated[float | None, Field(gt=0, le=LONGEST_LIFE, allow_inf_nan=False)] = None


@router.post("/v1/tokens", status_code=201)
async def make(request: Request, wanted: NewToken) -> Response:
    """Make a token. Its text is in this answer and nowhere else."""
    service = service_of(request)
    now = service.clock.now()
    expires = None if wanted.expires_in is None else now + wanted.expires_in
    token, kept = new_user_token(wanted.user, wanted.role, now=now, expires=expires)
    await service.control.store.add_token(kept)
    _log.info("token made", token=kept.id, user=kept.user, role=str(kept.role), actor=user_of(request).actor)
    return answer({**views.token(kept), "token": token.reveal()}, 201)


@router.get("/v1/tokens")
async def tokens(request: Request) -> Response:
    """All tokens, newest first, without anything that could be used in their place."""
    return answer({"tokens": [views.token(item) for item in await service_of(request).control.store.tokens()]})


@router.delete("/v1/tokens/{token}", status_code=204)
async def revoke(request: Request, token: str) -> Response:
    """Revoke a token: at once here, within seconds in other processes on the same store."""
    service = service_of(request)
    if await service.control.store.token(token) is None:
        raise NotFound(f"there is no token {token[:80]!r}", remedy="GET /v1/tokens lists their ids")
    await service.control.store.revoke_token(token)
    service.gate.revoked(token)
    _log.info("token revoked", token=token, actor=user_of(request).actor)
    return Response(status_code=204)
