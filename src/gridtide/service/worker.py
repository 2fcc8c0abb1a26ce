"""A worker's life: join, alive, done (docs/worker-protocol.md)."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from gridtide.control.api import AliveAnswer
from gridtide.errors import AccessDenied, InvalidRequest, NotFound
from gridtide.model.boots import BootReport
from gridtide.model.ids import WorkerId
from gridtide.pilot.protocol import JobId, Order, Pilot
from gridtide.queues.protocol import Batch, JoinOrders
from gridtide.service.answers import BadToken, answer
from gridtide.service.body import SMALL, Fields, decode_fields, read_fields
from gridtide.service.describe import body_of
from gridtide.service.names import job_id
from gridtide.service.routing import ThinRoute
from gridtide.service.state import Service, joining_of, service_of, worker_of
from gridtide.service.tokens import TokenKind, parse
from gridtide.store.ports import Json

router = APIRouter(route_class=ThinRoute, tags=["workers"])

MOST_RUNNING: Final = 1024
"""Jobs that one worker may report as running: more than any machine has cores."""
_URGENCY: Final = (Order.CONTINUE, Order.DRAIN, Order.STOP)
_NO_WORD: Final[tuple[Order, Sequence[JobId]]] = (Order.CONTINUE, ())


@router.post("/v1/worker/join", openapi_extra=body_of("worker_token", "host", "agent", "boot"))
async def join(request: Request) -> Response:
    """Trade a join token for the rights of a worker. The machine makes its worker token itself."""
    service = service_of(request)
    machine = joining_of(request)
    fields = await read_fields(request, limit=SMALL, patience=service.settings.body_patience)
    fields.text("agent", longest=40)
    host = fields.fields("host").attributes()
    report = _boot_report(fields.fields_or_none("boot"))
    own = parse(fields.text("worker_token", longest=256))
    if own is None or own.kind is not TokenKind.WORKER or own.name != machine.worker:
        raise InvalidRequest(f"must be gtw_{machine.worker}.SECRET, made by the machine", where="body.worker_token")
    try:
        joined = await service.control.join(machine.worker, machine.secret, own.secret, host, report)
    except AccessDenied:
        service.gate.count_failure(service.gate.peer(request))
        raise BadToken("this join token is not good (any more)", remedy="the controller replaces the worker") from None
    service.gate.remember(machine.worker, own.digest)
    if joined.boot is not None:
        service.metrics.observe_boot(joined.boot)
    return answer(
        {
            "worker": joined.worker.id,
            "group": joined.worker.group,
            "lease": joined.lease,
            "heartbeat": joined.heartbeat,
            "single_use": joined.worker.single_use,
            "queue": _told(joined.orders),
        }
    )


def _told(orders: JoinOrders) -> dict[str, Json]:
    """The orders as the protocol has them."""
    told: dict[str, Json] = {
        "kind": orders.kind,
        "settings": dict(orders.settings),
        "secrets": dict(orders.secrets),
    }
    if orders.batch is not None:
        told["batch"] = _batch(orders.batch)
    return told


def _batch(batch: Batch) -> dict[str, Json]:
    return {
        "files": [
            {"path": file.path, "content": file.content, "mode": f"{file.mode:04o}", "owner": file.owner}
            for file in batch.files
        ],
        "prepare": [list(command) for command in batch.prepare],
        "services": [
            {"name": one.name, "command": list(one.command), "environment": dict(one.environment)}
            for one in batch.services
        ],
        "busy": list(batch.busy),
        "drain": list(batch.drain),
        "resume": list(batch.resume),
    }


@router.get("/v1/worker/context")
async def context(request: Request) -> Response:
    """What did not fit into the machine's user-data: to the first reader alone, until the machine has joined."""
    service = service_of(request)
    machine = joining_of(request)
    reader = request.headers.get("gridtide-reader", "")
    if not 16 <= len(reader) <= 256:
        raise InvalidRequest("must name the reader: 16 to 256 characters of its own making", where="Gridtide-Reader")
    try:
        content = await service.control.context(machine.worker, machine.secret, reader)
    except AccessDenied:
        service.gate.count_failure(service.gate.peer(request))
        raise BadToken("this join token is not good (any more)", remedy="the controller replaces the worker") from None
    return Response(content, media_type="application/json")


def _boot_report(said: Fields | None) -> BootReport | None:
    """What the machine says of its boot, if it says anything. Whether it can be true is looked at later: a machine with
    a wrong clock joins like any other."""
    if said is None:
        return None
    return BootReport(
        user_space=said.any_number_or_none("user_space"),
        context=said.any_number_or_none("context"),
        agent=said.any_number_or_none("agent"),
        now=said.any_number_or_none("now"),
    )


@router.post("/v1/worker/alive", openapi_extra=body_of("load", "running", "draining"))
async def alive(request: Request) -> Response:
    """A sign of life. The answer renews the lease and may say *drain* or *stop*, and which jobs to end."""
    service = service_of(request)
    worker = worker_of(request)
    fields = await read_fields(request, limit=SMALL, patience=service.settings.body_patience)
    pilot = _pilot_of(service, worker)
    sign = _sign_of(fields, pilot)
    told = service.control.alive(worker, load=sign.load, running=len(sign.running), draining=sign.draining)
    return _heard(told, await _ask_queue(pilot, worker, sign))


def alive_at_once(service: Service, request: Request, body: bytes) -> Response | None:
    """The answer of :func:`alive` where nothing has to be asked for it: a shortcut."""
    worker = service.gate.known_worker(request)
    if worker is None or len(body) > SMALL:
        return None
    pilot = _pilot_of(service, worker)
    sign = _sign_of(decode_fields(request, body), pilot)
    word = _NO_WORD if pilot is None else pilot.heard(worker, sign.running, draining=sign.draining)
    if word is None:
        return None
    told = service.control.alive(worker, load=sign.load, running=len(sign.running), draining=sign.draining)
    return _heard(told, word)


@dataclass(frozen=True, slots=True)
class _Sign:
    """Of life."""

    load: float
    running: Sequence[tuple[JobId, int]]
    draining: bool


def _sign_of(fields: Fields, pilot: Pilot | None) -> _Sign:
    """Of a worker that this pilot queue serves, if any."""
    load, draining = fields.number("load"), fields.flag("draining")
    name = _process if pilot is None else job_id
    running = [
        (name(item.text("job", longest=40)), item.integer("attempt", least=1))
        for item in fields.each("running", most=MOST_RUNNING)
    ]
    return _Sign(load, running, draining)


def _heard(told: AliveAnswer, word: tuple[Order, Sequence[JobId]]) -> Response:
    """The controller's word and the queue's."""
    order, ended = word
    return answer(
        {
            "order": str(max(told.order, order, key=_URGENCY.index)),
            "lease": told.lease,
            "heartbeat": told.heartbeat,
            "cancel": list(ended),
        }
    )


def _process(text: str) -> JobId:
    """A batch system's jobs go by the processes that run them ("condor_starter 812"); here they are only counted."""
    return JobId(text)


async def _ask_queue(pilot: Pilot | None, worker: WorkerId, sign: _Sign) -> tuple[Order, Sequence[JobId]]:
    """The pilot queue's word. That a worker of another queue is unknown to it is no order of any kind."""
    if pilot is None:
        return _NO_WORD
    try:
        return await pilot.alive(worker, sign.running, draining=sign.draining)
    except NotFound:
        return _NO_WORD


def _pilot_of(service: Service, worker: WorkerId) -> Pilot | None:
    """The pilot queue when it serves this worker, as far as is known."""
    known = service.control.workers.get(worker)
    queue = None if known is None else service.control.rules.queue_of(known)
    served = service.settings.pilot_queues
    return None if served is not None and queue is not None and queue not in served else service.pilot


@router.post("/v1/worker/done", status_code=204, openapi_extra=body_of("text"))
async def done(request: Request) -> Response:
    """The agent runs nothing, asks for nothing more, and shuts its machine down."""
    service = service_of(request)
    worker = worker_of(request)
    fields = await read_fields(request, limit=SMALL, patience=service.settings.body_patience)
    text = fields.text("text", longest=1000)
    pilot = _pilot_of(service, worker)
    if pilot is not None:
        with contextlib.suppress(NotFound):  # a worker of another queue
            await pilot.left(worker)
    await service.control.done(worker, text)
    return Response(status_code=204)
