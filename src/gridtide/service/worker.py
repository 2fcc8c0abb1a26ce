"""A worker's life: join, alive, done (docs/worker-protocol.md)."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from gridtide.errors import AccessDenied, InvalidRequest, NotFound
from gridtide.model.ids import WorkerId
from gridtide.pilot.protocol import JobId, Order, Pilot
from gridtide.service.answers import BadToken, answer
from gridtide.service.body import SMALL, read_fields
from gridtide.service.describe import body_of
from gridtide.service.names import job_id
from gridtide.service.routing import ThinRoute
from gridtide.service.state import Service, joining_of, service_of, worker_of
from gridtide.service.tokens import TokenKind, parse

router = APIRouter(route_class=ThinRoute, tags=["workers"])

MOST_RUNNING: Final = 1024
"""Jobs that one worker may report as running: more than any machine has cores."""
_URGENCY: Final = (Order.CONTINUE, Order.DRAIN, Order.STOP)


@router.post("/v1/worker/join", openapi_extra=body_of("worker_token", "host", "agent"))
async def join(request: Request) -> Response:
    """Trade a join token for the rights of a worker. The machine makes its worker token itself."""
    service = service_of(request)
    machine = joining_of(request)
    fields = await read_fields(request, limit=SMALL, patience=service.settings.body_patience)
    fields.text("agent", longest=40)
    host = fields.fields("host").attributes()
    own = parse(fields.text("worker_token", longest=256))
    if own is None or own.kind is not TokenKind.WORKER or own.name != machine.worker:
        raise InvalidRequest(f"must be gtw_{machine.worker}.SECRET, made by the machine", where="body.worker_token")
    try:
        joined = await service.control.join(machine.worker, machine.secret, own.secret, host)
    except AccessDenied:
        service.gate.count_failure(service.gate.peer(request))
        raise BadToken("this join token is not good (any more)", remedy="the controller replaces the worker") from None
    return answer(
        {
            "worker": joined.worker.id,
            "group": joined.worker.group,
            "lease": joined.lease,
            "heartbeat": joined.heartbeat,
            "single_use": joined.worker.single_use,
            "queue": {
                "kind": joined.orders.kind,
                "settings": dict(joined.orders.settings),
                "secrets": dict(joined.orders.secrets),
            },
        }
    )


@router.post("/v1/worker/alive", openapi_extra=body_of("load", "running", "draining"))
async def alive(request: Request) -> Response:
    """A sign of life. The answer renews the lease and may say *drain* or *stop*, and which jobs to end."""
    service = service_of(request)
    worker = worker_of(request)
    fields = await read_fields(request, limit=SMALL, patience=service.settings.body_patience)
    load = fields.number("load")
    draining = fields.flag("draining")
    running = [
        (job_id(item.text("job", longest=40)), item.integer("attempt", least=1))
        for item in fields.each("running", most=MOST_RUNNING)
    ]
    told = await service.control.alive(worker, load=load, running=len(running), draining=draining)
    order, ended = await _ask_queue(service, worker, running, draining=draining)
    return answer(
        {
            "order": str(max(told.order, order, key=_URGENCY.index)),
            "lease": told.lease,
            "heartbeat": told.heartbeat,
            "cancel": list(ended),
        }
    )


async def _ask_queue(
    service: Service, worker: WorkerId, running: Sequence[tuple[JobId, int]], *, draining: bool
) -> tuple[Order, Sequence[JobId]]:
    """The pilot queue's word. That a worker of another queue is unknown to it is no order of any kind."""
    pilot = _pilot_of(service, worker)
    if pilot is None:
        return Order.CONTINUE, ()
    try:
        return await pilot.alive(worker, running, draining=draining)
    except NotFound:
        return Order.CONTINUE, ()


def _pilot_of(service: Service, worker: WorkerId) -> Pilot | None:
    """The pilot queue when it serves this worker, as far as is known."""
    known = service.control.workers.get(worker)
    group = None if known is None else service.control.rules.groups.get(known.group)
    served = service.settings.pilot_queues
    return None if served is not None and group is not None and group.queue not in served else service.pilot


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
