"""Answers: JSON out, and one shape for every error (docs/worker-protocol.md)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Final

from starlette.responses import Response

from gridtide import errors
from gridtide.errors import AccessDenied, GridtideError, InvalidRequest, StoreUnavailable, Throttled
from gridtide.store.ports import Json

RETRY_AFTER: Final = 5.0
"""Seconds a client is told to wait when the source of the trouble does not say. Longer makes agents idle after a
hiccup of the store; shorter makes them all knock again before it is over."""


class BadToken(AccessDenied):
    """No token, or not a good one: 401. What is wrong with it is told apart in no way."""


class TooLarge(InvalidRequest):
    """The body or the header is above its limit: 413 or 431."""

    def __init__(self, what: str, *, where: str = "", remedy: str = "", status: int = 413) -> None:
        super().__init__(what, where=where, remedy=remedy)
        self.status = status


class Stalled(InvalidRequest):
    """The body did not come: 400, and the connection is closed, because the rest of it may still come."""


class TryLater(GridtideError):
    """Nothing wrong with the request, but not now: ``status`` 429 or 503 with ``Retry-After``."""

    def __init__(self, what: str, *, retry_after: float, status: int = 503) -> None:
        super().__init__(what, remedy=f"try again in {math.ceil(retry_after)} s")
        self.retry_after = retry_after
        self.status = status


_STATUS: Final[tuple[tuple[type[GridtideError], int], ...]] = (
    (BadToken, 401),
    (AccessDenied, 403),
    (errors.NotFound, 404),
    (errors.Conflict, 409),
    (InvalidRequest, 400),
    (errors.JobDescriptionError, 400),
    (errors.SiteFileError, 400),
    (errors.StoreError, 503),
    (errors.SourceError, 503),
)


_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def status_of(error: GridtideError) -> int:
    """The HTTP status of an error; 500 for one that should not reach a client."""
    if isinstance(error, TooLarge | TryLater):
        return error.status
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def kind_of(error: GridtideError) -> str:
    """The error's name in :mod:`gridtide.errors`: what clients turn back into an exception."""
    if isinstance(error, TryLater):
        return StoreUnavailable.__name__ if error.status == 503 else AccessDenied.__name__
    return next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == errors.__name__)


def encode(value: Json) -> bytes:
    """Compact JSON. ValueError for NaN and infinities, which JSON does not have."""
    return _ENCODER.encode(value).encode()


def answer(value: Json, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer. Nothing that the service says may be kept by a cache on the way."""
    return Response(
        encode(value), status, {"cache-control": "no-store", **(headers or {})}, media_type="application/json"
    )


def refusal(error: GridtideError, extra: Mapping[str, Json] | None = None) -> Response:
    """The answer to a request that failed on purpose; ``extra`` goes beside the error object."""
    status = status_of(error)
    headers = {}
    if status == 401:
        headers["www-authenticate"] = 'Bearer realm="gridtide"'
    if isinstance(error, Stalled):
        headers["connection"] = "close"
    if status in (429, 503):
        wait = error.retry_after if isinstance(error, TryLater | Throttled) else None
        headers["retry-after"] = str(math.ceil(RETRY_AFTER if wait is None else wait))
    body = {"kind": kind_of(error), "what": error.what, "where": error.where, "remedy": error.remedy}
    return answer({"error": body, **(extra or {})}, status, headers)


def incident(number: str) -> Response:
    """The answer to a request that failed by a fault of ours: a number to find it in the log, and nothing else."""
    body = {
        "kind": "GridtideError",
        "what": f"the service failed (incident {number})",
        "where": "",
        "remedy": "tell the site's administrator the incident number; the log has the rest",
    }
    return answer({"error": body}, 500)
