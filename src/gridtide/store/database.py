"""One database, two lanes: writes are grouped into shared transactions on one thread, reads have their own.

SQLite allows one writer, and on either database a commit costs far more than a statement. So all writes that wait while
a commit is under way share the next one, each in a savepoint of its own: one that fails undoes only itself. The
caller hears of success only after the commit.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from gridtide.errors import GridtideError, StoreUnavailable

T = TypeVar("T")

# How many writes may share a commit. More makes the first of them wait for the last; fewer costs commits.
_GROUP = 256
_READERS = 4


@dataclass(slots=True)
class _Write(Generic[T]):
    work: Callable[[Connection], T]
    result: Future[T]


class Database:
    """``url`` is SQLAlchemy's: ``sqlite:////absolute/path`` or ``postgresql+psycopg://...``."""

    def __init__(self, url: str) -> None:
        self.engine = make_engine(url)
        self._writes: queue.SimpleQueue[_Write[Any] | None] = queue.SimpleQueue()
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="store-read")
        self._writer = threading.Thread(target=self._write_loop, name="store-write", daemon=True)
        self._writer.start()

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run ``work`` in a transaction and return its result after the commit.

        ``work`` runs on another thread and may run twice when the database asked for a retry: it must not touch
        anything but its connection. Raises what ``work`` raises, StoreUnavailable when the database does not answer.
        """
        pending = _Write(work, Future[T]())
        self._writes.put(pending)
        return await asyncio.wrap_future(pending.result)

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run ``work`` on a connection of its own that sees only committed data."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, work)

    async def close(self) -> None:
        """Finish the writes that were asked for, then close."""
        self._writes.put(None)
        await asyncio.get_running_loop().run_in_executor(None, self._writer.join)
        self._readers.shutdown()
        self.engine.dispose()

    def _read(self, work: Callable[[Connection], T]) -> T:
        try:
            with self.engine.connect() as connection:
                return work(connection)
        except SQLAlchemyError as error:
            raise _unavailable(error) from error

    def _write_loop(self) -> None:
        while (first := self._writes.get()) is not None:
            group = [first]
            closing = False
            while len(group) < _GROUP:
                try:
                    more = self._writes.get_nowait()
                except queue.Empty:
                    break
                if more is None:
                    closing = True
                    break
                group.append(more)
            self._commit(group)
            if closing:
                return

    def _commit(self, group: list[_Write[Any]]) -> None:
        done: list[tuple[_Write[Any], Any]] = []
        failed: list[tuple[_Write[Any], BaseException]] = []
        try:
            with self.engine.begin() as connection:
                for item in group:
                    savepoint = connection.begin_nested()
                    try:
                        value = item.work(connection)
                    except DBAPIError as error:
                        if error.connection_invalidated:
                            raise
                        savepoint.rollback()
                        failed.append((item, _unavailable(error)))
                    # The barrier of this thread: whatever one caller's work raises belongs to that caller alone.
                    except Exception as error:  # noqa: BLE001
                        savepoint.rollback()
                        failed.append((item, error))
                    else:
                        savepoint.commit()
                        done.append((item, value))
        except SQLAlchemyError as error:
            for item in group:
                item.result.set_exception(_unavailable(error))
            return
        for item, value in done:
            item.result.set_result(value)
        for item, problem in failed:
            item.result.set_exception(problem)


def _unavailable(error: SQLAlchemyError) -> GridtideError:
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    return StoreUnavailable(
        f"the database did not do as asked: {cause}", remedy="check that it runs and that its disk is not full"
    )


def make_engine(url: str) -> Engine:
    """An engine with the settings that the store relies on."""
    engine = create_engine(url, pool_pre_ping=not url.startswith("sqlite"), pool_size=_READERS + 1)
    if engine.dialect.name == "sqlite":

        @event.listens_for(engine, "connect")
        def _configure(connection: Any, _record: Any) -> None:
            connection.isolation_level = None  # SQLAlchemy's own BEGIN below decides, not the driver's guess
            cursor = connection.cursor()
            cursor.execute("PRAGMA journal_mode=WAL")
            # FULL: a commit survives a power cut. An intent that was lost while its machine was made would be found
            # by its tag, but a job's result that was acknowledged has no second copy.
            cursor.execute("PRAGMA synchronous=FULL")
            cursor.execute("PRAGMA foreign_keys=ON")
            cursor.execute("PRAGMA busy_timeout=10000")
            cursor.close()

        @event.listens_for(engine, "begin")
        def _begin(connection: Connection) -> None:
            connection.exec_driver_sql("BEGIN")

    return engine
