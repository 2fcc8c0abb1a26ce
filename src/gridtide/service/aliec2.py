"""AliEC2's own three routes, for contextualisation scripts that exist (seeds-digest section 1). Off by default.

They differ from the original in one thing: each needs a token, as Bearer or as the password of HTTP Basic, so that
``curl http://x:TOKEN@host/alive/ID`` in an old script is enough.
"""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from gridtide.errors import InvalidRequest, NotFound
from gridtide.service.answers import TooLarge
from gridtide.service.body import read_body
from gridtide.service.names import worker_id
from gridtide.service.routing import ThinRoute
from gridtide.service.state import Spawner, service_of, user_of

router = APIRouter(route_class=ThinRoute, tags=["AliEC2"])

LONGEST_SCRIPT: Final = 16_384
"""Bytes of user-data: what EC2 allows. More is cut off or refused by clouds."""
FORM_LIMIT: Final = 4 * LONGEST_SCRIPT
"""A form may spell each byte with three characters; and there is room for a multipart's borders."""

_FORM: Final = {
    "requestBody": {
        "required": True,
        "content": {
            "application/x-www-form-urlencoded": {
                "schema": {"type": "object", "required": ["script"], "properties": {"script": {"type": "string"}}}
            }
        },
    }
}


def _spawner(request: Request) -> Spawner:
    spawner = service_of(request).spawner
    if spawner is None:
        raise NotFound("this site does not speak AliEC2")
    return spawner


async def _script(request: Request) -> bytes:
    """The form's ``script``. InvalidRequest or TooLarge."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in ("application/x-www-form-urlencoded", "multipart/form-data"):
        raise InvalidRequest("the body is no form", remedy="send the user-data as form field 'script'")
    raw = await read_body(request, limit=FORM_LIMIT, patience=service_of(request).settings.body_patience)

    async def again() -> dict[str, object]:
        return {"type": "http.request", "body": raw, "more_body": False}

    try:
        async with Request(request.scope, again).form(max_files=1, max_fields=8, max_part_size=FORM_LIMIT) as form:
            field = form.get("script")
            script = await field.read() if isinstance(field, UploadFile) else (field or "").encode()
    except (HTTPException, UnicodeError):
        raise InvalidRequest("the form cannot be read") from None
    if not script:
        raise InvalidRequest("is missing or empty", where="form.script")
    if len(script) > LONGEST_SCRIPT:
        raise TooLarge(f"user-data has {len(script)} bytes, {LONGEST_SCRIPT} are possible", where="form.script")
    return script


@router.post("/spawn", openapi_extra=_FORM)
async def spawn(request: Request) -> Response:
    """Ask for one single-use worker with this user-data; answers its id. 409 at the limit of workers."""
    spawner = _spawner(request)
    worker = await spawner.spawn(await _script(request), actor=user_of(request).actor)
    return PlainTextResponse(worker)


@router.get("/alive/{worker}")
async def alive(request: Request) -> Response:
    """The worker's job agent still runs."""
    await _spawner(request).alive(worker_id(request.path_params["worker"]))
    return PlainTextResponse("OK")


@router.get("/done/{worker}")
async def done(request: Request) -> Response:
    """The worker's job agent has ended: the machine may go."""
    await _spawner(request).done(worker_id(request.path_params["worker"]))
    return PlainTextResponse("OK")
