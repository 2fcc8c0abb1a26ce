"""How every route is made: found in the table of roles, guarded, measured, and its errors turned into answers."""

from __future__ import annotations

import asyncio
import secrets
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final

import structlog
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from gridtide.errors import GridtideError, InvalidRequest
from gridtide.service import body
from gridtide.service.answers import incident, refusal
from gridtide.service.roles import ROUTES
from gridtide.service.state import service_of
from gridtide.store.ports import Json

_log = structlog.get_logger("gridtide.service")

Handler = Callable[[Request], Coroutine[Any, Any, Response]]
LONGEST_PATH: Final = 2048
"""Characters of a path. Names of files inside a job's directory are shorter than this on every file system."""


class JsonRequest(Request):
    """A request whose JSON body is read within limits and decoded strictly, before FastAPI looks at it."""

    _raw = b""
    _value: Json = None

    async def load(self, *, limit: int, patience: float) -> None:
        """Read and decode. InvalidRequest or TooLarge."""
        body.check_json_type(self)
        self._raw = await body.read_body(self, limit=limit, patience=patience)
        self._value = body.decode(self._raw)

    async def body(self) -> bytes:
        """What :meth:`load` read."""
        return self._raw

    async def json(self) -> Json:
        """What :meth:`load` decoded."""
        return self._value


class ThinRoute(APIRoute):
    """A route whose handler takes the request as it is: for hot routes, and for bodies that are not JSON.

    It is described in OpenAPI like any other, but FastAPI's machinery for parameters is not run.
    """

    direct: Handler | None = None
    """What answers a request for this route without FastAPI's layers; None where they are needed."""

    def get_route_handler(self) -> Handler:
        """The guarded handler."""
        handler = guarded(self, self.inner_handler())
        if type(self) is ThinRoute and "{" not in self.path:
            self.direct = handler
        return handler

    def inner_handler(self) -> Handler:
        """What is run once the gate is open."""
        endpoint: Handler = self.endpoint
        return endpoint


class UserRoute(ThinRoute):
    """A route whose parameters and JSON body FastAPI checks. Unknown query parameters are errors."""

    limit = body.SMALL

    def inner_handler(self) -> Handler:
        """FastAPI's own handler, after a bounded and strict reading of the body."""
        parsed = APIRoute.get_route_handler(self)
        known = frozenset(parameter.alias for parameter in self.dependant.query_params)
        has_body = self.body_field is not None

        async def handle(request: Request) -> Response:
            unknown = sorted(set(request.query_params) - known)
            if unknown:
                there_are = f"there are {', '.join(sorted(known))}" if known else "there are none"
                raise InvalidRequest(f"no such parameter: {unknown[0][:80]!r}", where="query", remedy=there_are)
            if has_body:
                request = JsonRequest(request.scope, request.receive)
                await request.load(limit=self.limit, patience=service_of(request).settings.body_patience)
            return await parsed(request)

        return handle


class LargeBodyRoute(UserRoute):
    """The same for the few that take lists of digests or a job description."""

    limit = body.LARGE


class FixedPaths:
    """Hands requests for thin routes without path parameters straight to their guarded handlers.

    These are what every agent asks all the time. Matching patterns and FastAPI's exit stacks would cost as much again
    as the answer; the guard turns every error into an answer, so nothing of theirs is missed.
    """

    def __init__(self, app: ASGIApp, routes: Sequence[BaseRoute]) -> None:
        self._app = app
        self._handlers = {
            (method, route.path): route.direct
            for route in routes
            if isinstance(route, ThinRoute) and route.direct is not None
            for method in route.methods or ()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        handler = self._handlers.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        if handler is None:
            await self._app(scope, receive, send)
            return
        response = await handler(Request(scope, receive, send))
        await response(scope, receive, send)


def guarded(route: APIRoute, inner: Handler) -> Handler:
    """Gate before, measurement around, errors turned into answers. KeyError for a route that no table names."""
    (method,) = route.methods or {""}
    template = f"{method} {route.path}"
    audience = ROUTES[template]

    async def handle(request: Request) -> Response:
        service = service_of(request)
        loop = asyncio.get_running_loop()
        started = loop.time()
        response = await _answered(template, _admitted(request))
        service.metrics.observe(template, response.status_code, loop.time() - started)
        return response

    async def _admitted(request: Request) -> Response:
        path = request.scope["path"]
        # U+FFFD is what the server puts for bytes that are not UTF-8: two files must not become one by it.
        if len(path) > LONGEST_PATH or not path.isprintable() or "\ufffd" in path:
            raise InvalidRequest("the path is too long, not UTF-8, or holds control characters")
        request.state.caller = await service_of(request).gate.admit(request, audience)
        return await inner(request)

    return handle


async def _answered(template: str, work: Awaitable[Response]) -> Response:
    try:
        return await work
    except GridtideError as error:
        return refusal(error)
    except RequestValidationError as error:
        return refusal(_first_of(error))
    except HTTPException as error:
        return refusal(InvalidRequest(error.detail))
    except Exception as error:  # noqa: BLE001 - the barrier: one failed request must not become a dropped connection
        number = secrets.token_hex(4)
        # Plain text on purpose: renderers that show local variables would show tokens.
        text = "".join(traceback.format_exception(error))
        _log.error("a request failed", incident=number, route=template, failure=text)
        return incident(number)


def _first_of(error: RequestValidationError) -> InvalidRequest:
    """The first finding in one line: where and what, without echoing what was sent."""
    findings = error.errors()
    where = ".".join(str(part) for part in findings[0]["loc"])
    more = f"{len(findings) - 1} more like this" if len(findings) > 1 else ""
    what = str(findings[0]["msg"])
    return InvalidRequest(what[:1].lower() + what[1:], where=where[:200], remedy=more)
