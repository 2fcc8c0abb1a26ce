"""What the store grants and refuses, as pure functions. The SQL store and its in-memory twin both ask these."""

from __future__ import annotations

import hmac
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final

from gridtide.errors import AccessDenied, Conflict, LeaseLost
from gridtide.model.demand import Attribute
from gridtide.model.ids import GroupName, WorkerId
from gridtide.model.reasons import Reason
from gridtide.model.rules import Wishes
from gridtide.model.workers import MAY_JOIN, Worker, WorkerState, may
from gridtide.store.ports import (
    AddWorker,
    Change,
    Event,
    Join,
    JoinToken,
    Json,
    Lease,
    Owner,
    SetWishes,
    Traded,
    UpdateWorker,
)

NO_WISHES: Final = Wishes()
"""A group with these is as in the site file: nothing is kept of it."""

# Compared with when there is no digest, so that an unknown worker takes as long as a wrong secret.
_NO_DIGEST: Final = bytes(32)


@dataclass(slots=True)
class Effects:
    """What a commit comes down to: each worker's last record, each group's last wishes, all events."""

    added: dict[WorkerId, Worker] = field(default_factory=dict)
    updated: dict[WorkerId, Worker] = field(default_factory=dict)
    join_tokens: dict[WorkerId, JoinToken] = field(default_factory=dict)
    wishes: dict[GroupName, Wishes] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)


def fold(changes: Sequence[Change], stored: Callable[[WorkerId], WorkerState | None]) -> Effects:
    """The changes' common effect, in their order. ``stored`` tells a worker's present state, None for no such worker.

    Conflict when one of them may not be made; then none may.
    """
    effects = Effects()
    for change in changes:
        if isinstance(change, Event):
            effects.events.append(_storable_event(change))
        elif isinstance(change, UpdateWorker):
            _fold_update(change, effects, stored)
        elif isinstance(change, AddWorker):
            _fold_add(change.worker, effects, stored)
        else:
            effects.wishes[change.group] = change.wishes
    return effects


def named(changes: Sequence[Change]) -> list[WorkerId]:
    """The workers that changes speak of, each once."""
    return list({change.worker.id: None for change in changes if not isinstance(change, Event | SetWishes)})


def _fold_add(worker: Worker, effects: Effects, stored: Callable[[WorkerId], WorkerState | None]) -> None:
    if worker.state is not WorkerState.INTENDED:
        raise Conflict(f"worker {worker.id} cannot be added as {worker.state}: a worker begins as an intent")
    if worker.id in effects.added or stored(worker.id) is not None:
        raise Conflict(f"worker {worker.id} exists already")
    effects.added[worker.id] = _storable_worker(worker)


def _fold_update(change: UpdateWorker, effects: Effects, stored: Callable[[WorkerId], WorkerState | None]) -> None:
    worker = _storable_worker(change.worker)
    earlier = effects.added.get(worker.id) or effects.updated.get(worker.id)
    present = stored(worker.id) if earlier is None else earlier.state
    if present is None:
        raise Conflict(f"worker {worker.id} does not exist")
    if present is not change.before:
        raise Conflict(f"worker {worker.id} is {present}, not {change.before}: what was decided on has changed")
    if present is not worker.state and not may(present, worker.state):
        raise Conflict(f"worker {worker.id} may not go from {present} to {worker.state}")
    if change.join_token is not None:
        if worker.state not in MAY_JOIN:
            raise Conflict(f"worker {worker.id} may not be given a join token on the way to {worker.state}")
        effects.join_tokens[worker.id] = change.join_token
    (effects.added if worker.id in effects.added else effects.updated)[worker.id] = worker


def grant(
    stored: Lease | None,
    epoch: int,
    owner: Owner,
    *,
    now: float,
    seconds: float,
    owner_lives: bool | None,
    seen: Lease | None,
) -> Lease:
    """The lease for ``owner``, or Conflict. ``stored`` is None when nobody leads; ``epoch`` is the last one given."""
    if stored is None:
        return Lease(owner, epoch + 1, now + seconds)
    if stored.owner == owner:
        return Lease(owner, stored.epoch, now + seconds)
    dead = owner_lives is False and (seen is None or seen.epoch == stored.epoch)
    if stored.expires > now and not dead:
        until = datetime.fromtimestamp(stored.expires, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        raise Conflict(
            f"the controller with process number {stored.owner.process} on {stored.owner.host} leads until {until}",
            remedy="stop that one first, or wait",
        )
    return Lease(owner, epoch + 1, now + seconds)


def fence(stored: Lease | None, lease: Lease) -> None:
    """LeaseLost unless the lease is the one in force. Its time does not matter: nobody else has led since."""
    if stored is None:
        raise LeaseLost("this controller has given up its lease")
    if stored.epoch != lease.epoch:
        raise LeaseLost(
            f"the controller with process number {stored.owner.process} on {stored.owner.host} leads now (epoch "
            f"{stored.epoch}, not {lease.epoch})"
        )


@dataclass(frozen=True, slots=True)
class Applicant:
    """What is stored of somebody who wants to join."""

    worker: Worker | None = None
    token: JoinToken | None = None
    spent_on: bytes | None = None
    """Digest of the worker token that the join token was traded for; None while it was not."""


@dataclass(slots=True)
class Trades:
    """What joins come down to."""

    outcomes: list[Traded | AccessDenied | Conflict] = field(default_factory=list)
    """Of each, in their order."""
    made: dict[WorkerId, tuple[Join, Worker]] = field(default_factory=dict)
    """Those who have joined, as they are then."""
    events: list[Event] = field(default_factory=list)


def trade(joins: Sequence[Join], stored: Mapping[WorkerId, Applicant]) -> Trades:
    """Each join after those before it. Workers that do not exist are not in ``stored``."""
    trades = Trades()
    for join in joins:
        applicant = stored.get(join.worker, Applicant())
        if join.worker in trades.made:
            earlier, joined = trades.made[join.worker]
            applicant = Applicant(joined, applicant.token, earlier.worker_digest)
        try:
            after = _trade(applicant, join)
        except (AccessDenied, Conflict) as refusal:
            trades.outcomes.append(refusal)
            continue
        moved = after is not applicant.worker
        trades.outcomes.append(Traded(after, moved))
        if moved:
            trades.made[join.worker] = (join, after)
            trades.events += [] if join.event is None else [_storable_event(join.event)]
    return trades


def _trade(applicant: Applicant, join: Join) -> Worker:
    """The worker as it is after this join: the same object when this pair of tokens was traded before."""
    worker, token, spent_on = applicant.worker, applicant.token, applicant.spent_on
    right = hmac.compare_digest(join.join_digest, _NO_DIGEST if token is None else token.digest)
    same = hmac.compare_digest(join.worker_digest, _NO_DIGEST if spent_on is None else spent_on)
    usable = same if spent_on is not None else token is not None and join.now < token.expires
    if worker is None or token is None or not right or not usable:
        raise AccessDenied("this join token is not valid")
    if spent_on is not None and worker.state is not WorkerState.GONE:
        return worker
    if worker.state not in MAY_JOIN:
        raise Conflict(f"worker {worker.id} is {worker.state}: it may not join any more")
    reason = _storable_reason(join.reason)
    return replace(worker, state=WorkerState.JOINED, since=join.now, joined=join.now, reason=reason)


def admit(
    worker: Worker | None,
    token: JoinToken | None,
    reader: bytes | None,
    spent: bool,
    *,
    join_digest: bytes,
    reader_digest: bytes,
    now: float,
) -> Worker:
    """The worker whose context may be read. ``reader``: the digest of the first reader, None while there was none.

    AccessDenied otherwise.
    """
    right = hmac.compare_digest(join_digest, _NO_DIGEST if token is None else token.digest)
    same = hmac.compare_digest(reader_digest, reader_digest if reader is None else reader)
    usable = token is not None and now < token.expires and not spent
    if worker is None or not right or not same or not usable or worker.state not in MAY_JOIN:
        raise AccessDenied("this join token is not valid")
    return worker


def storable(words: str) -> str:
    """Words as every database takes them: no NUL, no lone surrogate. They may come from a broken machine."""
    if words.isascii() and "\0" not in words:
        return words
    return words.encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")


def plain(value: Json) -> Json:
    """A copy made of dicts and lists that every database takes. What JSON has no number for becomes its name."""
    if isinstance(value, str | float):
        return _attribute(value)
    if isinstance(value, Mapping):
        return {storable(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, Sequence):
        return [plain(inner) for inner in value]
    return value


def attributes(host: Mapping[str, Attribute]) -> dict[str, Attribute]:
    """A machine's description of itself, as every database takes it."""
    return {storable(name): value if isinstance(value, int) else _attribute(value) for name, value in host.items()}


def _attribute(value: str | float) -> str | float:
    if isinstance(value, str):
        return storable(value)
    return value if math.isfinite(value) else str(value)


def _storable_reason(reason: Reason) -> Reason:
    words = storable(reason.text)
    return reason if words is reason.text else Reason(reason.cause, words)


def _storable_worker(worker: Worker) -> Worker:
    reason = _storable_reason(worker.reason)
    return worker if reason is worker.reason else replace(worker, reason=reason)


def _storable_event(event: Event) -> Event:
    return Event(
        at=event.at,
        kind=event.kind,
        subject=storable(event.subject),
        actor=storable(event.actor),
        reason=None if event.reason is None else _storable_reason(event.reason),
        text=storable(event.text),
        evidence={storable(name): plain(value) for name, value in event.evidence.items()},
        group=event.group,
    )
