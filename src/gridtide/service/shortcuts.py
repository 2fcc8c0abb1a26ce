"""Requests that come so often that the layers around their answer would cost more than the answer.

A shortcut answers a whole request at once, from memory alone, and only where its route would have answered the same.
Whatever is not plain it leaves to the route: who is refused, and how, is decided in one place.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from gridtide.service import worker
from gridtide.service.state import Service

Shortcut = Callable[[Service, Request, bytes], Response | None]
"""Of a request and its body. None, with nothing done, when the route must answer."""

SHORTCUTS: Final[Mapping[bytes, tuple[str, Shortcut]]] = {
    b"/v1/worker/alive": ("POST /v1/worker/alive", worker.alive_at_once),
}
"""Target of a POST request -> the name of its route, and its shortcut."""


class Shortcuts:
    """Those of one service."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def answer(self, target: bytes, scope: Scope, body: bytes) -> Response | None:
        """For a POST to a target in :data:`SHORTCUTS`. Never raises."""
        template, shortcut = SHORTCUTS[target]
        started = time.perf_counter()
        try:
            response = shortcut(self._service, Request(scope), body)
        except Exception:  # noqa: BLE001 - the route meets the same trouble, and tells of it
            return None
        if response is not None:
            self._service.metrics.observe(template, response.status_code, time.perf_counter() - started)
        return response
