"""One database, two lanes: writes are grouped into shared transactions on one thread, reads have their own.

SQLite allows one writer, and on either database a commit costs far more than a statement. So all writes that wait while
a commit is under way share the next one. When one of them fails, the group is done again with a savepoint for each, so
that only the failed one is undone. The caller hears of success only after the commit.

Both lanes see the database as if they were alone in it: writes are serialisable (SQLite: BEGIN IMMEDIATE; PostgreSQL:
SERIALIZABLE, done again once when the server asks for it), and a read sees one committed state from its first
statement to its last.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, Generic, TypeVar, cast

from sqlalchemy import Connection, Engine, RootTransaction, create_engine, event, make_url, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from gridtide.errors import StoreError, StoreUnavailable
from gridtide.store.trouble import concerns_one, explain, is_busy, may_help_to_retry, place

T = TypeVar("T")

# How many writes may share a commit. More makes the first of them wait for the last; fewer costs commits.
_GROUP: Final = 256
# Seconds after which no further write joins a group, however short it is: what is urgent waits for it. More lets a
# leader on a busy machine miss the renewal of its lease.
_LONGEST: Final = 0.25
_READERS: Final = 4
# Seconds before the one retry: a server that restarts refuses connections for a moment.
_PAUSE: Final = 0.25
# How often the server is asked about a commit whose answer was lost, _PAUSE apart. Fewer gives up on a restart.
_ASK: Final = 12
# Seconds that a connection waits for another one's lock. Longer holds up every write behind it.
_LOCK_WAIT: Final = 10

_POSTGRESQL_DEFAULTS: Final = {
    "connect_timeout": 5,
    # A server that vanished without a word is noticed after about 20 s instead of hours.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 20_000,
    # A process that is stopped in the middle of a transaction must not keep the lease's row from the next leader.
    "options": f"-c lock_timeout={_LOCK_WAIT}s -c idle_in_transaction_session_timeout=30s",
}

_Outcome = tuple[Any, BaseException | None]


class _Rank(IntEnum):
    """Which write comes first."""

    URGENT = 0
    USUAL = 1
    LAST = 2


def _nothing(_result: object) -> None:
    pass


@dataclass(slots=True, eq=False)
class _Write(Generic[T]):
    work: Callable[[Connection], T]
    ended: Callable[[T | None], None]
    loop: asyncio.AbstractEventLoop
    result: asyncio.Future[T]

    def settle(self, value: T | None, error: BaseException | None) -> None:
        """On the caller's loop."""
        self.ended(value)
        if self.result.done():  # cancelled meanwhile
            return
        if error is None:
            self.result.set_result(cast(T, value))
        else:
            self.result.set_exception(error)


class Database:
    """``url`` is SQLAlchemy's: ``sqlite:////absolute/path`` or ``postgresql+psycopg://...``.

    StoreError when the URL is unusable. Nothing is opened before the first read or write.
    """

    def __init__(self, url: str) -> None:
        self.engine = make_engine(url)
        self.where = place(self.engine.url)
        self._postgresql = self.engine.dialect.name == "postgresql"
        self._writing, self._reading = _lanes(self.engine)
        self._writes: queue.PriorityQueue[tuple[_Rank, int, _Write[Any] | None]] = queue.PriorityQueue()
        self._numbers = itertools.count()
        # Held while a write is queued or the store is closed, so that no write can end up behind the last one.
        self._gate = threading.Lock()
        self._closed = False
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="store-read")
        self._writer = threading.Thread(target=self._write_loop, name="store-write", daemon=True)
        self._writer.start()

    async def write(
        self, work: Callable[[Connection], T], ended: Callable[[T | None], None] = _nothing, *, urgent: bool = False
    ) -> T:
        """Run ``work`` in a transaction and return its result after the commit.

        ``work`` runs on another thread and may run again when the transaction must be repeated: it must not touch
        anything but its connection. Raises what ``work`` raises (then nothing was changed), StoreError when the
        database refuses a statement, StoreUnavailable when it does not answer or is closed. A caller that is
        cancelled while its write is under way does not know whether it was made.

        ``ended`` does: it is called on the caller's loop, before the caller goes on and also when it is gone, with the
        result, or with None when the write failed or may have failed. Only a write that was never begun is not told of.

        One that is ``urgent`` goes before all that wait.
        """
        loop = asyncio.get_running_loop()
        result: asyncio.Future[T] = loop.create_future()
        with self._gate:
            if self._closed:
                raise self._is_closed()
            rank = _Rank.URGENT if urgent else _Rank.USUAL
            self._writes.put((rank, next(self._numbers), _Write(work, ended, loop, result)))
        return await result

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run ``work`` on a connection of its own that sees one committed state. What it changes is undone.

        Raises what ``work`` raises, and StoreError and StoreUnavailable as :meth:`write`.
        """
        with self._gate:
            if self._closed:
                raise self._is_closed()
            result = asyncio.get_running_loop().run_in_executor(self._readers, self._read, work)
        return await result

    async def close(self) -> None:
        """Finish what was asked for, then close. Closing twice is harmless."""
        with self._gate:
            if not self._closed:
                self._closed = True
                self._writes.put((_Rank.LAST, next(self._numbers), None))
        await asyncio.get_running_loop().run_in_executor(None, self._finish)

    def _finish(self) -> None:
        self._writer.join()
        self._readers.shutdown()
        self.engine.dispose()

    def _is_closed(self) -> StoreUnavailable:
        return StoreUnavailable("the store is closed", where=self.where)

    def _read(self, work: Callable[[Connection], T]) -> T:
        try:
            with self._reading.connect() as connection:
                return work(connection)
        except SQLAlchemyError as error:
            if not may_help_to_retry(error):
                raise explain(error, self.where) from error
        time.sleep(_PAUSE)
        try:
            with self._reading.connect() as connection:
                return work(connection)
        except SQLAlchemyError as error:
            raise explain(error, self.where) from error

    def _write_loop(self) -> None:
        while (first := self._writes.get())[-1] is not None:
            group = [first]
            while len(group) < _GROUP and group[-1][-1] is not None:
                try:
                    group.append(self._writes.get_nowait())
                except queue.Empty:
                    break
            served = self._serve([write for _, _, write in group if write is not None])
            for left in group[served:]:
                self._writes.put(left)

    def _serve(self, waiting: Sequence[_Write[Any]]) -> int:
        """How many of them are settled; the others are to be served later."""
        group = [write for write in waiting if not write.result.cancelled()]
        if not group:
            return len(waiting)
        try:
            outcomes = self._outcomes(group)
        # The barrier of this thread: were it to die, every later caller would wait for ever.
        except BaseException as error:  # noqa: BLE001
            outcomes = [(None, error)] * len(group)
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[_Write[Any], _Outcome]]] = {}
        for write, outcome in zip(group, outcomes, strict=False):
            by_loop.setdefault(write.loop, []).append((write, outcome))
        for loop, settled in by_loop.items():
            with contextlib.suppress(RuntimeError):  # that loop is closed: nobody waits there any more
                loop.call_soon_threadsafe(_settle, settled)
        return len(waiting) if len(outcomes) == len(group) else waiting.index(group[len(outcomes)])

    def _outcomes(self, group: Sequence[_Write[Any]], *, again: bool = False) -> Sequence[_Outcome]:
        try:
            return self._attempt(group)
        except SQLAlchemyError as error:
            if may_help_to_retry(error):
                if not again:
                    time.sleep(_PAUSE)
                    return self._outcomes(group, again=True)
            elif len(group) > 1:
                # One of them (too large for the disk, say) took the others along: each gets its own transaction.
                return [self._outcomes([write])[0] for write in group]
            return [(None, explain(error, self.where)) for _ in group]

    def _attempt(self, group: Sequence[_Write[Any]]) -> Sequence[_Outcome]:
        """One transaction, of as many as have the time. Raises what concerns all of them; then nothing was changed."""
        until = time.monotonic() + _LONGEST
        with self._writing.connect() as connection:
            transaction = connection.begin()
            try:
                # Without savepoints at first: failures are rare, and a savepoint costs more than most writes.
                outcomes: list[_Outcome] = [(write.work(connection), None) for write in _in_time(group, until)]
            # Whatever one caller's work raises belongs to that caller alone.
            except BaseException as error:  # noqa: BLE001
                problem = self._of_one(error)
                transaction.rollback()
                if len(group) == 1:
                    return [(None, problem)]
                transaction = connection.begin()
                until = time.monotonic() + _LONGEST
                outcomes = [self._guarded(write, connection) for write in _in_time(group, until)]
            self._commit(connection, transaction)
            return outcomes

    def _guarded(self, write: _Write[Any], connection: Connection) -> _Outcome:
        savepoint = connection.begin_nested()
        try:
            value = write.work(connection)
            savepoint.commit()
        except BaseException as error:  # noqa: BLE001
            problem = self._of_one(error)
            savepoint.rollback()
            return None, problem
        return value, None

    def _of_one(self, error: BaseException) -> BaseException:
        """What the caller is told, when the error is its own. Otherwise raises it again."""
        if isinstance(error, StopIteration):
            return RuntimeError("a work for the store raised StopIteration")  # which no future can carry
        if not isinstance(error, SQLAlchemyError):
            return error
        if not concerns_one(error):
            raise error
        problem = explain(error, self.where)
        problem.__cause__ = error
        return problem

    def _commit(self, connection: Connection, transaction: RootTransaction) -> None:
        ticket: str | None = None
        if self._postgresql:
            # Also fails when a work swallowed an error: the server would answer the commit with a silent rollback.
            ticket = connection.execute(text("SELECT CAST(pg_current_xact_id_if_assigned() AS text)")).scalar()
        try:
            transaction.commit()
        except DBAPIError as error:
            if ticket is None or not error.connection_invalidated or not self._was_made(ticket):
                raise

    def _was_made(self, ticket: str) -> bool:
        """Whether a commit whose answer was lost with the connection took place, says the server."""
        ask = text("SELECT pg_xact_status(CAST(:ticket AS xid8))")
        for _ in range(_ASK):
            time.sleep(_PAUSE)
            with contextlib.suppress(SQLAlchemyError), self._reading.connect() as connection:
                status = connection.execute(ask, {"ticket": ticket}).scalar()
                if status in ("committed", "aborted"):
                    return bool(status == "committed")
        raise StoreUnavailable(
            "the connection was lost during a commit and the server does not say whether it was made",
            where=self.where,
            remedy="check that the database runs and can be reached",
        )


def _in_time(group: Sequence[_Write[Any]], until: float) -> Iterator[_Write[Any]]:
    """The first one, and more until it is late."""
    yield group[0]
    for write in group[1:]:
        if time.monotonic() >= until:
            return
        yield write


def _settle(settled: Sequence[tuple[_Write[Any], _Outcome]]) -> None:
    for write, outcome in settled:
        write.settle(*outcome)


def make_engine(url: str) -> Engine:
    """An engine with the settings that the store relies on. StoreError when the URL is unusable."""
    try:
        address = make_url(url)
    except ArgumentError:
        raise StoreError(
            "the store's URL cannot be read", remedy="write sqlite:////absolute/path or postgresql://user@host/name"
        ) from None
    backend = address.get_backend_name()
    if backend == "sqlite":
        return _sqlite_engine(address)
    if backend == "postgresql":
        return _postgresql_engine(address)
    raise StoreError(f"no store is made for {backend!r}", remedy="use sqlite or postgresql")


def _sqlite_engine(address: URL) -> Engine:
    if address.database in (None, "", ":memory:"):
        raise StoreError("SQLite needs a file", remedy="write sqlite:////absolute/path")
    # Parameters are hidden in errors: a digest or a user's text has no place in a log.
    engine = create_engine(address, pool_size=_READERS + 1, hide_parameters=True)

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the BEGIN below decides, not the driver's guess
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout={_LOCK_WAIT * 1000}")
        _switch_to_log(cursor)
        # FULL: a commit survives a power cut. An intent that was lost while its machine was made would be found
        # by its tag, but a job's result that was acknowledged has no second copy.
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA foreign_keys=ON")
        # A log that a long read made large is cut to this size when it is next used up. Without it, it stays.
        cursor.execute("PRAGMA journal_size_limit=67108864")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A write that began as a read would fail at once, not wait, if another process wrote in between.
        reads = connection.get_execution_options().get("gridtide_reads", False)
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    return engine


def _switch_to_log(cursor: sqlite3.Cursor) -> None:
    """Write-ahead logging. While another process switches a new file to it, SQLite refuses this without waiting."""
    deadline = time.monotonic() + _LOCK_WAIT
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if not is_busy(error) or time.monotonic() >= deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _postgresql_engine(address: URL) -> Engine:
    arguments = {name: value for name, value in _POSTGRESQL_DEFAULTS.items() if name not in address.query}
    try:
        return create_engine(
            address.set(drivername="postgresql+psycopg"),
            pool_size=_READERS + 1,
            hide_parameters=True,
            connect_args=arguments,
        )
    except ModuleNotFoundError:
        raise StoreError(
            "the PostgreSQL driver is not installed", remedy="install gridtide[postgresql], or use SQLite"
        ) from None


def _lanes(engine: Engine) -> tuple[Engine, Engine]:
    if engine.dialect.name == "postgresql":
        return (
            engine.execution_options(isolation_level="SERIALIZABLE"),
            engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True),
        )
    return engine, engine.execution_options(gridtide_reads=True)
