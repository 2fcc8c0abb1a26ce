"""The pilot queue as an agent sees it (docs/worker-protocol.md)."""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from typing import Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from gridtide.errors import Conflict, InvalidRequest
from gridtide.model.ids import WorkerId
from gridtide.model.resources import Resources
from gridtide.pilot.protocol import AttemptEnd, EndCause, JobId, JobRequest, Order, Pilot
from gridtide.service import views
from gridtide.service.answers import answer, refusal
from gridtide.service.body import SMALL, Fields, read_body, read_fields
from gridtide.service.describe import body_of, bytes_of, query_of
from gridtide.service.names import digest, job_id
from gridtide.service.routing import ThinRoute
from gridtide.service.settings import MIB
from gridtide.service.state import service_of, worker_of
from gridtide.service.transfer import checked_name, receive_file, send_file, while_connected
from gridtide.store.ports import Json

router = APIRouter(route_class=ThinRoute, tags=["pilot queue"])

LONGEST_WAIT: Final = 60.0
"""Seconds of a long poll; more is cut to this. Must stay below the keep-alive time of :mod:`gridtide.service.server`
and of any proxy between."""
LOG_LIMIT: Final = MIB
"""Bytes of output in one request, as the protocol says."""
LAST_LOG: Final = 256 * 1024
"""Bytes a stream that may ride along with ``finished``."""
FINISHED_LIMIT: Final = 2 * (LAST_LOG * 4 // 3) + SMALL
"""Two streams in base64, and the rest."""


def _query(request: Request, name: str) -> str:
    values = request.query_params.getlist(name)
    if len(values) != 1:
        raise InvalidRequest("is missing" if not values else "is there twice", where=f"query.{name}")
    return values[0]


def _count(request: Request, name: str, least: int) -> int:
    text = _query(request, name)
    if not (text.isascii() and text.isdecimal() and len(text) < 19 and int(text) >= least):
        raise InvalidRequest(f"must be a whole number from {least}", where=f"query.{name}")
    return int(text)


def _stream(request: Request) -> str:
    stream = _query(request, "stream")
    if stream not in ("stdout", "stderr"):
        raise InvalidRequest("must be stdout or stderr", where="query.stream")
    return stream


def _job(request: Request) -> JobId:
    return job_id(request.path_params["job"])


def _wanted(fields: Fields) -> tuple[JobRequest, float]:
    """The question for a job, and how long it may wait."""
    free = fields.fields("free")
    resources = Resources(*(free.integer(name) for name in ("cores", "memory", "disk", "gpus")))
    number = fields.text("number", longest=128)
    if not number:
        raise InvalidRequest("must not be empty", where="body.number")
    return JobRequest(number, resources), min(fields.number("wait"), LONGEST_WAIT)


async def _next_job(request: Request, wanted: JobRequest, wait: float) -> dict[str, Json]:
    service = service_of(request)
    asked = service.queue.request(worker_of(request), wanted, wait=wait)
    answered = await (while_connected(service, request, asked) if wait > 0 else asked)
    return {"order": str(answered.order), "job": views.assignment(answered.assignment)}


@router.post("/v1/pilot/request", openapi_extra=body_of("number", "free", "wait"))
async def ask(request: Request) -> Response:
    """Ask for a job, and wait for one. The same ``number`` gets the same answer again."""
    service = service_of(request)
    fields = await read_fields(request, limit=SMALL, patience=service.settings.body_patience)
    wanted, wait = _wanted(fields)
    return answer(await _next_job(request, wanted, wait))


@router.get("/v1/pilot/jobs/{job}/inputs/{name:path}", openapi_extra=query_of("attempt"))
async def read_input(request: Request) -> Response:
    """An input file of a job that runs on this worker."""
    name = checked_name(request.path_params["name"])
    attempt = _count(request, "attempt", 1)
    path = await service_of(request).queue.open_input(worker_of(request), _job(request), attempt, name)
    return await send_file(path, name)


@router.post("/v1/pilot/jobs/{job}/log", openapi_extra=bytes_of("attempt", "stream", "offset"))
async def append_log(request: Request) -> Response:
    """Output of a running job, from ``offset``. 409 with ``length`` when bytes before it are missing."""
    service = service_of(request)
    job, stream = _job(request), _stream(request)
    attempt, offset = _count(request, "attempt", 1), _count(request, "offset", 0)
    data = await read_body(request, limit=LOG_LIMIT, patience=service.settings.body_patience)
    worker = worker_of(request)
    try:
        length = await service.queue.append_log(worker, job, attempt, stream, offset, data)
    except Conflict as error:
        return refusal(error, {"length": await _kept(service.queue, worker, job, attempt, stream)})
    return answer({"length": length})


async def _kept(pilot: Pilot, worker: WorkerId, job: JobId, attempt: int, stream: str) -> int | None:
    """How much of a stream is kept: appending nothing changes nothing and says so. None for a fenced attempt."""
    try:
        return await pilot.append_log(worker, job, attempt, stream, 0, b"")
    except Conflict:
        return None


@router.put("/v1/pilot/jobs/{job}/outputs/{name:path}", status_code=201, openapi_extra=bytes_of("attempt", "digest"))
async def write_output(request: Request) -> Response:
    """A result of a job that runs on this worker."""
    service = service_of(request)
    pilot, worker, job = service.queue, worker_of(request), _job(request)
    name = checked_name(request.path_params["name"])
    attempt, wanted = _count(request, "attempt", 1), digest(_query(request, "digest"))
    target = await pilot.output_path(worker, job, attempt, name)

    async def keep(written: Path) -> None:
        await pilot.keep_output(worker, job, attempt, name, written, wanted)

    size = await receive_file(service, request, target, keep)
    return answer({"name": name, "size": size}, 201)


def _end(job: JobId, fields: Fields) -> AttemptEnd:
    cause = fields.text("cause", longest=40)
    if cause not in set(EndCause):
        raise InvalidRequest(f"must be one of {', '.join(EndCause)}", where="body.cause")
    return AttemptEnd(
        job=job,
        attempt=fields.integer("attempt", least=1),
        cause=EndCause(cause),
        exit_code=fields.integer_or_none("exit_code"),
        signal=fields.integer_or_none("signal"),
        text=fields.text("text", longest=4000),
        wall_seconds=fields.number("wall_seconds"),
        cpu_seconds=fields.number("cpu_seconds"),
        peak_memory=fields.integer("peak_memory"),
    )


def _last_logs(fields: Fields) -> list[tuple[str, int, bytes]]:
    """The pieces of output that ride along: stream, offset, bytes."""
    logs = fields.fields_or_none("logs")
    pieces = []
    for stream in ("stdout", "stderr"):
        piece = logs.fields_or_none(stream) if logs is not None else None
        if piece is None:
            continue
        try:
            data = base64.b64decode(piece.text("data", longest=LAST_LOG * 4 // 3 + 4), validate=True)
        except (binascii.Error, ValueError):
            raise InvalidRequest("must be base64", where=f"body.logs.{stream}.data") from None
        pieces.append((stream, piece.integer("offset"), data))
    return pieces


@router.post(
    "/v1/pilot/jobs/{job}/finished",
    openapi_extra=body_of(
        "attempt", "cause", "exit_code", "signal", "text", "wall_seconds", "cpu_seconds", "peak_memory"
    ),
)
async def finished(request: Request) -> Response:
    """The end of an attempt, with the last of its output and the question for the next job."""
    service = service_of(request)
    pilot, worker, job = service.queue, worker_of(request), _job(request)
    fields = await read_fields(request, limit=FINISHED_LIMIT, patience=service.settings.body_patience)
    end = _end(job, fields)
    logs = _last_logs(fields)
    asked = fields.fields_or_none("request")
    wanted = None if asked is None else _wanted(asked)
    for stream, offset, data in logs:
        try:
            await pilot.append_log(worker, job, end.attempt, stream, offset, data)
        except Conflict as error:
            length = await _kept(pilot, worker, job, end.attempt, stream)
            # None: the attempt is fenced or ended already, and it is finished() that says which.
            if length is not None:
                return refusal(error, {"stream": stream, "length": length})
    accepted = await pilot.finished(worker, end)
    following: dict[str, Json] = {"order": str(Order.CONTINUE), "job": None}
    if wanted is not None:
        following = await _next_job(request, *wanted)
    return answer({"accepted": accepted, **following})
