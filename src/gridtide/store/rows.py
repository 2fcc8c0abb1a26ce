"""Between the database's rows and the model's values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from sqlalchemy import Row

from gridtide.model.boots import Boot, BootKey, Phase
from gridtide.model.ids import CloudName, GroupName, ShapeName, WorkerId
from gridtide.model.reasons import Cause, Reason
from gridtide.model.resources import Resources, Shape
from gridtide.model.rules import Wishes
from gridtide.model.workers import Worker, WorkerState
from gridtide.store.ports import AccessToken, Event, Lease, Owner, RecordedEvent, Role
from gridtide.store.tables import workers

WORKER_COLUMNS: Final = (
    workers.c.id,
    workers.c.group_name,
    workers.c.cloud,
    workers.c.shape,
    workers.c.cores,
    workers.c.memory,
    workers.c.disk,
    workers.c.gpus,
    workers.c.price,
    workers.c.zone,
    workers.c.generation,
    workers.c.single_use,
    workers.c.state,
    workers.c.since,
    workers.c.created,
    workers.c.cause,
    workers.c.reason,
    workers.c.machine,
    workers.c.launched,
    workers.c.joined,
    workers.c.drain_wanted,
    workers.c.force_wanted,
    workers.c.image,
    workers.c.queue,
)
"""A worker's own record, in the order that :func:`worker_of` reads."""

_STATES: Final = {state.value: state for state in WorkerState}
_CAUSES: Final = {cause.value: cause for cause in Cause}


@lru_cache(maxsize=1024)
def _shape(name: str, cores: int, memory: int, disk: int, gpus: int, price: float) -> Shape:
    # Thousands of workers have a handful of shapes.
    return Shape(ShapeName(name), Resources(cores, memory, disk, gpus), price)


def worker_of(row: Sequence[Any]) -> Worker:
    """A row that begins with WORKER_COLUMNS. Read by position: by name takes twice as long, and there are thousands."""
    (
        name, group, cloud, shape, cores, memory, disk, gpus, price, zone, generation, single_use, state, since,
        created, cause, reason, machine, launched, joined, drain_wanted, force_wanted, image, queue,
        *_more,
    ) = row  # fmt: skip
    return Worker(
        id=name,
        group=group,
        cloud=cloud,
        shape=_shape(shape, cores, memory, disk, gpus, price),
        zone=zone,
        generation=generation,
        single_use=single_use,
        state=_STATES[state],
        since=since,
        created=created,
        reason=Reason(_CAUSES[cause], reason),
        machine=machine,
        launched=launched,
        joined=joined,
        drain_wanted=drain_wanted,
        force_wanted=force_wanted,
        image=image,
        queue=queue,
    )


def row_of_worker(worker: Worker) -> dict[str, object]:
    """The columns of a worker's own record (its tokens and its host are others')."""
    resources = worker.shape.resources
    return {
        "id": worker.id,
        "group_name": worker.group,
        "cloud": worker.cloud,
        "shape": worker.shape.name,
        "cores": resources.cores,
        "memory": resources.memory,
        "disk": resources.disk,
        "gpus": resources.gpus,
        "price": worker.shape.price,
        "zone": worker.zone,
        "generation": worker.generation,
        "single_use": worker.single_use,
        "state": worker.state.value,
        "since": worker.since,
        "created": worker.created,
        "cause": worker.reason.cause.value,
        "reason": worker.reason.text,
        "machine": worker.machine,
        "launched": worker.launched,
        "joined": worker.joined,
        "drain_wanted": worker.drain_wanted,
        "force_wanted": worker.force_wanted,
        "image": worker.image,
        "queue": worker.queue,
    }


def lease_of(row: Row[Any]) -> Lease | None:
    """None when nobody leads."""
    if row.host is None:
        return None
    return Lease(Owner(row.host, row.boot, row.process, row.started), row.epoch, row.expires)


def row_of_lease(lease: Lease) -> dict[str, object]:
    """The one row of leadership."""
    return {
        "epoch": lease.epoch,
        "host": lease.owner.host,
        "boot": lease.owner.boot,
        "process": lease.owner.process,
        "started": lease.owner.started,
        "expires": lease.expires,
    }


def wishes_of(row: Row[Any]) -> Wishes:
    """What operators asked of one group."""
    return Wishes(row.minimum, row.maximum, row.desired, row.hold, row.closing, row.rollout_paused)


def row_of_wishes(group: GroupName, wishes: Wishes) -> dict[str, object]:
    """The row of a group."""
    return {
        "group_name": group,
        "minimum": wishes.minimum,
        "maximum": wishes.maximum,
        "desired": wishes.desired,
        "hold": wishes.hold,
        "closing": wishes.closing,
        "rollout_paused": wishes.rollout_paused,
    }


def event_of(row: Row[Any]) -> RecordedEvent:
    """One line of the audit log."""
    evidence: Mapping[str, Any] = row.evidence
    event = Event(
        at=row.at,
        kind=row.kind,
        subject=row.subject,
        actor=row.actor,
        reason=None if row.cause is None else Reason(Cause(row.cause), row.reason),
        text=row.text,
        evidence=evidence,
        group=None if row.group_name is None else GroupName(row.group_name),
    )
    return RecordedEvent(row.number, event)


def row_of_event(event: Event) -> dict[str, object]:
    """Without the number, which the database gives."""
    return {
        "at": event.at,
        "kind": event.kind,
        "subject": event.subject,
        "actor": event.actor,
        "group_name": event.group,
        "cause": None if event.reason is None else event.reason.cause.value,
        "reason": None if event.reason is None else event.reason.text,
        "text": event.text,
        "evidence": event.evidence,
    }


def token_of(row: Row[Any]) -> AccessToken:
    """A user's token."""
    return AccessToken(row.id, row.user_name, Role(row.role), row.digest, row.created, row.expires, row.revoked)


def row_of_token(token: AccessToken) -> dict[str, object]:
    """Its digest only: the store never sees a secret."""
    return {
        "id": token.id,
        "user_name": token.user,
        "role": token.role.value,
        "digest": token.digest,
        "created": token.created,
        "expires": token.expires,
        "revoked": token.revoked,
    }


def boot_of(row: Row[Any]) -> Boot:
    """How long one worker took to join."""
    phases = {Phase(name): float(seconds) for name, seconds in row.phases.items()}
    key = BootKey(CloudName(row.cloud), ShapeName(row.shape), row.image)
    return Boot(WorkerId(row.worker), key, row.joined, row.seconds, phases)


def row_of_boot(boot: Boot) -> dict[str, object]:
    """One row for each worker that joined."""
    return {
        "worker": boot.worker,
        "cloud": boot.key.cloud,
        "shape": boot.key.shape,
        "image": boot.key.image,
        "joined": boot.joined,
        "seconds": boot.seconds,
        "phases": {phase.value: seconds for phase, seconds in boot.phases.items()},
    }
