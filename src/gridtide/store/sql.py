"""The store on a SQL database: SQLite or PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any, Final

from sqlalchemy import (
    Connection,
    Double,
    LargeBinary,
    Row,
    Select,
    and_,
    bindparam,
    delete,
    func,
    insert,
    select,
    update,
)

from gridtide.errors import AccessDenied, Conflict, NotFound
from gridtide.model.boots import Boot
from gridtide.model.costs import Stay
from gridtide.model.demand import Attribute
from gridtide.model.ids import CloudName, GroupName, WorkerId
from gridtide.model.reasons import Cause
from gridtide.model.rules import Wishes
from gridtide.model.workers import Worker, WorkerState
from gridtide.store.database import Database
from gridtide.store.ports import AccessToken, Change, Join, JoinToken, Lease, Owner, RecordedEvent, Traded, no_check
from gridtide.store.rows import (
    WORKER_COLUMNS,
    boot_of,
    event_of,
    lease_of,
    row_of_boot,
    row_of_event,
    row_of_lease,
    row_of_token,
    row_of_wishes,
    row_of_worker,
    token_of,
    wishes_of,
    worker_of,
)
from gridtide.store.rules import NO_WISHES, Applicant, Effects, admit, attributes, fence, fold, grant, named, trade
from gridtide.store.tables import ALIVE, DEAD, boots, events, leadership, tokens, wishes, workers

# SQLite takes 32 766 parameters in a statement, PostgreSQL's protocol 65 535.
_AT_ONCE: Final = 10_000

_LEADER: Final = select(leadership)
# The row stays locked until the commit: a new leader must wait for what the one before is committing, or it would
# begin with a picture that is older than it thinks.
_LEADER_LOCKED: Final = _LEADER.with_for_update()
_STATES: Final = select(workers.c.id, workers.c.state).where(workers.c.id.in_(bindparam("ids", expanding=True)))
_JOINING: Final = select(*WORKER_COLUMNS, workers.c.join_digest, workers.c.join_expires, workers.c.worker_digest).where(
    workers.c.id.in_(bindparam("ids", expanding=True))
)
_READING: Final = select(
    *WORKER_COLUMNS, workers.c.join_digest, workers.c.join_expires, workers.c.worker_digest, workers.c.context_reader
).where(workers.c.id == bindparam("worker"))
_UPDATE_WORKER: Final = (
    update(workers)
    .where(workers.c.id == bindparam("worker"))
    .values(
        # A token is set on the way to LAUNCHING only; all other updates leave it as it is.
        join_digest=func.coalesce(bindparam("new_digest", type_=LargeBinary), workers.c.join_digest),
        join_expires=func.coalesce(bindparam("new_expires", type_=Double), workers.c.join_expires),
    )
)


class SqlFleetStore:
    """Implements :class:`~gridtide.store.ports.FleetStore` on a migrated database.

    Every method may raise StoreUnavailable besides what the port says. Closing it closes the database.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def take_lease(
        self, owner: Owner, *, now: float, seconds: float, owner_lives: bool | None, seen: Lease | None = None
    ) -> Lease:
        """See FleetStore."""

        def work(connection: Connection) -> Lease:
            row = connection.execute(_LEADER_LOCKED).one()
            lease = grant(
                lease_of(row),
                row.epoch,
                owner,
                now=now,
                seconds=seconds,
                owner_lives=owner_lives,
                seen=seen,
            )
            connection.execute(update(leadership), row_of_lease(lease))
            return lease

        return await self._database.write(work)

    async def current_lease(self) -> Lease | None:
        """See FleetStore."""
        return await self._database.read(lambda connection: _stored_lease(connection, locked=False))

    async def renew_lease(self, lease: Lease, *, now: float, seconds: float) -> Lease:
        """See FleetStore."""
        renewed = Lease(lease.owner, lease.epoch, now + seconds)

        def work(connection: Connection) -> None:
            fence(_stored_lease(connection), lease)
            connection.execute(update(leadership).values(expires=renewed.expires))

        # However much there is to write: a leader that cannot renew its lease in time is deposed by its own load.
        await self._database.write(work, urgent=True)
        return renewed

    async def release_lease(self, lease: Lease) -> None:
        """See FleetStore."""
        nobody = {"host": None, "boot": None, "process": None, "started": None, "expires": None}

        def work(connection: Connection) -> None:
            connection.execute(update(leadership).where(leadership.c.epoch == lease.epoch).values(nobody))

        await self._database.write(work)

    async def commit(self, lease: Lease, changes: Sequence[Change], check: Callable[[], None] = no_check) -> None:
        """See FleetStore."""

        def work(connection: Connection) -> None:
            fence(_stored_lease(connection), lease)
            _apply(connection, fold(changes, _states(connection, named(changes)).get))
            check()

        await self._database.write(work)

    async def workers(self) -> Sequence[Worker]:
        """See FleetStore. In the order of their creation."""
        query = select(*WORKER_COLUMNS).where(ALIVE).order_by(workers.c.created, workers.c.id)
        return await self._database.read(lambda connection: [worker_of(row) for row in connection.execute(query).all()])

    async def worker(self, worker: WorkerId) -> Worker | None:
        """See FleetStore."""
        row = await self._first(select(*WORKER_COLUMNS).where(workers.c.id == worker))
        return None if row is None else worker_of(row)

    async def past_workers(self, *, group: GroupName | None, limit: int) -> Sequence[Worker]:
        """See FleetStore."""
        query = select(*WORKER_COLUMNS).where(DEAD).order_by(workers.c.since.desc(), workers.c.id.desc())
        if group is not None:
            query = query.where(workers.c.group_name == group)
        query = query.limit(max(limit, 0))  # SQLite reads a negative one as "all"
        return await self._database.read(lambda connection: [worker_of(row) for row in connection.execute(query).all()])

    async def stays(self, *, since: float) -> Sequence[Stay]:
        """See FleetStore. In the order of their ends."""
        refused = and_(workers.c.cause == Cause.LAUNCH_REFUSED.value, workers.c.machine.is_(None))
        query = (
            select(workers.c.cloud, workers.c.price, workers.c.launched, workers.c.since)
            .where(DEAD, workers.c.since >= since, workers.c.price > 0.0, workers.c.launched.is_not(None), ~refused)
            .order_by(workers.c.since, workers.c.id)
        )
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        return [Stay(CloudName(cloud), price, launched, ended) for cloud, price, launched, ended in rows]

    async def wishes(self) -> Mapping[GroupName, Wishes]:
        """See FleetStore."""

        def work(connection: Connection) -> Mapping[GroupName, Wishes]:
            return {GroupName(row.group_name): wishes_of(row) for row in connection.execute(select(wishes))}

        return await self._database.read(work)

    async def join(self, lease: Lease, joins: Sequence[Join]) -> Sequence[Traded | AccessDenied | Conflict]:
        """See FleetStore."""

        def work(connection: Connection) -> Sequence[Traded | AccessDenied | Conflict]:
            fence(_stored_lease(connection), lease)
            rows = connection.execute(_JOINING, {"ids": list({each.worker: None for each in joins})}).all()
            trades = trade(joins, {WorkerId(row.id): _applicant(row) for row in rows})
            if trades.made:
                connection.execute(_UPDATE_WORKER, [_joined_row(*each) for each in trades.made.values()])
            boots_made = [row_of_boot(join.boot) for join, _ in trades.made.values() if join.boot is not None]
            if boots_made:
                connection.execute(insert(boots), boots_made)
            if trades.events:
                connection.execute(insert(events), [row_of_event(event) for event in trades.events])
            return trades.outcomes

        return await self._database.write(work)

    async def read_context(
        self, lease: Lease, worker: WorkerId, *, join_digest: bytes, reader_digest: bytes, now: float
    ) -> Worker:
        """See FleetStore."""

        def work(connection: Connection) -> Worker:
            fence(_stored_lease(connection), lease)
            row = connection.execute(_READING, {"worker": worker}).one_or_none()
            admitted = admit(
                None if row is None else worker_of(row),
                None if row is None or row.join_digest is None else JoinToken(row.join_digest, row.join_expires),
                None if row is None else row.context_reader,
                row is not None and row.worker_digest is not None,
                join_digest=join_digest,
                reader_digest=reader_digest,
                now=now,
            )
            connection.execute(update(workers).where(workers.c.id == worker).values(context_reader=reader_digest))
            return admitted

        return await self._database.write(work)

    async def boots(self, *, limit: int) -> Sequence[Boot]:
        """See FleetStore."""
        latest = select(boots).order_by(boots.c.joined.desc(), boots.c.worker.desc()).limit(limit)
        rows = await self._database.read(lambda connection: connection.execute(latest).all())
        return [boot_of(row) for row in reversed(rows)]

    async def boot(self, worker: WorkerId) -> Boot | None:
        """See FleetStore."""
        row = await self._first(select(boots).where(boots.c.worker == worker))
        return None if row is None else boot_of(row)

    async def worker_token(self, worker: WorkerId) -> bytes | None:
        """See FleetStore."""
        row = await self._first(select(workers.c.worker_digest).where(workers.c.id == worker, ALIVE))
        return None if row is None else row.worker_digest

    async def host(self, worker: WorkerId) -> Mapping[str, Attribute] | None:
        """See FleetStore."""
        row = await self._first(select(workers.c.host).where(workers.c.id == worker))
        return None if row is None else row.host

    async def events(
        self,
        *,
        after: int = 0,
        subject: str | None = None,
        kind: str | None = None,
        limit: int = 200,
        newest: bool = False,
    ) -> Sequence[RecordedEvent]:
        """See FleetStore."""
        query = select(events).where(events.c.number > after)
        if subject is not None:
            query = query.where(events.c.subject == subject)
        if kind is not None:
            query = query.where(events.c.kind == kind)
        query = query.order_by(events.c.number.desc() if newest else events.c.number).limit(max(limit, 0))
        found = await self._database.read(lambda connection: [event_of(row) for row in connection.execute(query).all()])
        return found[::-1] if newest else found

    async def add_token(self, token: AccessToken) -> None:
        """See FleetStore."""

        def work(connection: Connection) -> None:
            if connection.execute(select(tokens.c.id).where(tokens.c.id == token.id)).first() is not None:
                raise Conflict(f"a token named {token.id} exists already")
            connection.execute(insert(tokens), row_of_token(token))

        await self._database.write(work)

    async def token(self, token_id: str) -> AccessToken | None:
        """See FleetStore."""
        row = await self._first(select(tokens).where(tokens.c.id == token_id))
        return None if row is None else token_of(row)

    async def tokens(self) -> Sequence[AccessToken]:
        """See FleetStore."""
        query = select(tokens).order_by(tokens.c.created.desc(), tokens.c.id.desc())
        return await self._database.read(lambda connection: [token_of(row) for row in connection.execute(query).all()])

    async def revoke_token(self, token_id: str) -> None:
        """See FleetStore."""

        def work(connection: Connection) -> None:
            if connection.execute(update(tokens).where(tokens.c.id == token_id).values(revoked=True)).rowcount == 0:
                raise NotFound(f"there is no token {token_id}")

        await self._database.write(work)

    async def close(self) -> None:
        """See FleetStore."""
        await self._database.close()

    async def _first(self, query: Select[Any]) -> Row[Any] | None:
        return await self._database.read(lambda connection: connection.execute(query).first())


def _stored_lease(connection: Connection, *, locked: bool = True) -> Lease | None:
    return lease_of(connection.execute(_LEADER_LOCKED if locked else _LEADER).one())


def _states(connection: Connection, names: Sequence[WorkerId]) -> dict[WorkerId, WorkerState]:
    states: dict[WorkerId, WorkerState] = {}
    remaining = iter(names)
    while some := list(islice(remaining, _AT_ONCE)):
        for name, state in connection.execute(_STATES, {"ids": some}):
            states[WorkerId(name)] = WorkerState(state)
    return states


def _apply(connection: Connection, effects: Effects) -> None:
    given = effects.join_tokens
    if effects.added:
        connection.execute(insert(workers), [_insert_row(new, given.get(new.id)) for new in effects.added.values()])
    if effects.updated:
        rows = [_update_row(worker, given.get(worker.id)) for worker in effects.updated.values()]
        connection.execute(_UPDATE_WORKER, rows)
    if effects.wishes:
        # Out with the old first: one statement then serves those that had wishes and those that had none.
        connection.execute(delete(wishes).where(wishes.c.group_name.in_(list(effects.wishes))))
        kept = [row_of_wishes(group, wish) for group, wish in effects.wishes.items() if wish != NO_WISHES]
        if kept:
            connection.execute(insert(wishes), kept)
    if effects.events:
        connection.execute(insert(events), [row_of_event(event) for event in effects.events])


def _applicant(row: Sequence[Any]) -> Applicant:
    """A row of the question for those who want to join."""
    digest, expires, spent_on = row[-3:]
    return Applicant(worker_of(row), None if digest is None else JoinToken(digest, expires), spent_on)


def _joined_row(join: Join, joined: Worker) -> dict[str, object]:
    return _update_row(joined, None) | {"worker_digest": join.worker_digest, "host": attributes(join.host)}


def _insert_row(worker: Worker, token: JoinToken | None) -> dict[str, object]:
    row = row_of_worker(worker)
    row["join_digest"] = None if token is None else token.digest
    row["join_expires"] = None if token is None else token.expires
    return row


def _update_row(worker: Worker, token: JoinToken | None) -> dict[str, object]:
    row = row_of_worker(worker)
    row["worker"] = row.pop("id")
    row["new_digest"] = None if token is None else token.digest
    row["new_expires"] = None if token is None else token.expires
    return row
