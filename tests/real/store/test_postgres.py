"""What only a real PostgreSQL server can show: lost connections, lost answers, two processes at once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, text
from sqlalchemy.event import listen
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

import gridtide.store.database
from gridtide.errors import Conflict, LeaseLost, StoreError, StoreUnavailable
from gridtide.pilot.tables import jobs
from gridtide.store.database import Database, make_engine
from gridtide.store.migrate import migrate
from gridtide.store.opening import open_store
from gridtide.store.ports import AddWorker
from gridtide.store.sql import SqlFleetStore
from gridtide.store.tables import metadata
from tests.real.postgres import PostgresServer, running_postgres
from tests.unit.store.values import FIRST, NOW, SECOND, S, event, lead, step, worker

assert jobs.metadata is metadata  # the pilot queue's tables hang there too


@pytest.fixture
async def database(postgres_url: str) -> AsyncIterator[Database]:
    database = Database(postgres_url)
    await database.write(lambda connection: connection.execute(text("CREATE TABLE lines (words TEXT UNIQUE)")))
    yield database
    await database.close()


def add(words: str) -> Callable[[Connection], str]:
    def work(connection: Connection) -> str:
        connection.execute(text("INSERT INTO lines VALUES (:words)"), {"words": words})
        return words

    return work


def lines(connection: Connection) -> list[str]:
    return list(connection.execute(text("SELECT words FROM lines ORDER BY words")).scalars())


def kill_others(connection: Connection) -> None:
    """As if the network had cut every other connection."""
    others = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname IS NOT NULL"
    )
    connection.execute(text(others))


# --- migrations


def test_the_migrated_schema_is_the_programs(postgres_url: str) -> None:
    engine = make_engine(postgres_url)
    migrate(engine)
    migrate(engine)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
        assert connection.execute(text("SELECT count(*) FROM leadership")).scalar() == 1
    engine.dispose()


def test_many_that_migrate_at_once(postgres_url: str) -> None:
    def one(_number: int) -> None:
        engine = make_engine(postgres_url)
        migrate(engine)
        engine.dispose()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(one, range(4))) == [None] * 4


def test_a_newer_database_is_refused(postgres_url: str) -> None:
    engine = make_engine(postgres_url)
    migrate(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StoreError, match="has schema 9999"):
        migrate(engine)
    engine.dispose()


# --- the lanes


async def test_isolation(database: Database) -> None:
    def level(connection: Connection) -> object:
        return connection.execute(text("SHOW transaction_isolation")).scalar()

    assert await database.write(level) == "serializable"
    assert await database.read(level) == "repeatable read"
    with pytest.raises(StoreUnavailable, match="the server is read-only"):
        await database.read(add("x"))


async def test_a_failed_write_undoes_only_itself(database: Database) -> None:
    def fails(connection: Connection) -> None:
        add("half")(connection)
        raise Conflict("not now")

    works = [add("a"), fails, add("b"), add("a"), add("c")]
    answers = await asyncio.gather(*(database.write(work) for work in works), return_exceptions=True)
    assert answers[::2] == ["a", "b", "c"]
    assert isinstance(answers[1], Conflict)
    assert isinstance(answers[3], StoreError)
    assert await database.read(lines) == ["a", "b", "c"]


@pytest.mark.parametrize("others", [0, 2])
async def test_a_swallowed_error_is_not_taken_for_success(database: Database, others: int) -> None:
    """The server answers such a commit with a silent rollback."""
    await database.write(add("a"))

    def swallows(connection: Connection) -> None:
        add("lost")(connection)
        with contextlib.suppress(IntegrityError):
            add("a")(connection)

    works = [swallows, *(add(f"other {number}") for number in range(others))]
    answers = await asyncio.gather(*(database.write(work) for work in works), return_exceptions=True)
    assert isinstance(answers[0], StoreError)
    assert answers[1:] == [f"other {number}" for number in range(others)]
    assert await database.read(lines) == ["a", *(f"other {number}" for number in range(others))]


async def test_a_lost_connection_is_not_noticed(database: Database, postgres_url: str) -> None:
    await database.write(add("a"))
    await database.read(lines)
    other = make_engine(postgres_url)
    for _ in range(3):
        with other.connect() as connection:
            kill_others(connection)
        assert len(await database.read(lines)) >= 1
        with other.connect() as connection:
            kill_others(connection)
        await database.write(add(str(time.monotonic())))
    other.dispose()
    assert len(await database.read(lines)) == 4


@pytest.mark.parametrize("committed", [True, False])
async def test_a_lost_answer_to_a_commit(database: Database, monkeypatch: pytest.MonkeyPatch, committed: bool) -> None:
    """Whether it was made is asked, so that nothing is done twice and nothing is lost."""
    real = database.engine.dialect.do_commit
    tries = 0

    def cut(connection: object) -> None:
        nonlocal tries
        tries += 1
        if tries > 1:
            real(connection)  # type: ignore[arg-type]
            return
        driver = connection.driver_connection  # type: ignore[attr-defined]
        if committed:
            driver.commit()
        driver.close()
        raise psycopg.OperationalError("the connection is lost")

    monkeypatch.setattr(database.engine.dialect, "do_commit", cut)
    runs: list[int] = []

    def work(connection: Connection) -> str:
        runs.append(1)
        return add("once")(connection)

    assert await database.write(work) == "once"
    assert await database.read(lines) == ["once"]
    assert len(runs) == (1 if committed else 2)


async def test_a_lost_answer_when_nothing_was_written(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server then has no number for the transaction, so it is done again."""
    real = database.engine.dialect.do_commit
    tries = 0

    def cut(connection: object) -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            connection.driver_connection.close()  # type: ignore[attr-defined]
            raise psycopg.OperationalError("the connection is lost")
        real(connection)  # type: ignore[arg-type]

    monkeypatch.setattr(database.engine.dialect, "do_commit", cut)
    assert await database.write(lines) == []
    assert tries == 2


async def test_an_answer_that_stays_unknown(
    database: Database, monkeypatch: pytest.MonkeyPatch, postgres_url: str
) -> None:
    monkeypatch.setattr(gridtide.store.database, "_PAUSE", 0.0)

    def cut(connection: object) -> None:
        connection.driver_connection.close()  # type: ignore[attr-defined]
        raise psycopg.OperationalError("the connection is lost")

    def silent(*_: object, **__: object) -> Connection:
        raise SQLAlchemyError("no server")

    monkeypatch.setattr(database.engine.dialect, "do_commit", cut)
    monkeypatch.setattr(database._reading, "connect", silent)
    answers = await asyncio.gather(*(database.write(add(name)) for name in "abc"), return_exceptions=True)
    assert all("does not say whether it was made" in str(answer) for answer in answers)
    assert {type(answer) for answer in answers} == {StoreUnavailable}


async def test_two_processes_that_write_what_the_other_read(database: Database, postgres_url: str) -> None:
    """Each adds a line if there is none: alone each would be right, together they would be wrong."""
    other = Database(postgres_url)
    barrier = threading.Barrier(2)
    runs: list[int] = []

    def if_none(connection: Connection, name: str) -> None:
        runs.append(1)
        if lines(connection):
            raise Conflict("there is one")
        if len(runs) <= 2:
            barrier.wait(10)
        add(name)(connection)

    answers = await asyncio.gather(
        database.write(lambda connection: if_none(connection, "a")),
        other.write(lambda connection: if_none(connection, "b")),
        return_exceptions=True,
    )
    await other.close()
    assert sorted(str(answer) for answer in answers) == ["None", "there is one"]
    assert len(await database.read(lines)) == 1
    assert len(runs) == 3


# --- leadership


async def test_a_commit_under_way_is_finished_before_the_next_leader_leads(postgres_url: str) -> None:
    """Otherwise the new leader could read the workers first and miss one that is then made."""
    database, old = await open_store(postgres_url)
    new = SqlFleetStore(Database(postgres_url))
    lease = await lead(old)
    begun, go = threading.Event(), threading.Event()

    def wait(connection: Connection, *_: object) -> None:
        begun.set()
        assert go.wait(10)

    listen(database.engine, "commit", wait)
    commit = asyncio.ensure_future(old.commit(lease, [AddWorker(worker())]))
    assert await asyncio.to_thread(begun.wait, 10)
    take = asyncio.ensure_future(new.take_lease(SECOND, now=NOW, seconds=60.0, owner_lives=False))
    await asyncio.sleep(0.3)
    assert not take.done()
    go.set()
    await commit
    assert (await take).epoch == lease.epoch + 1
    assert await new.workers() == [worker()]
    with pytest.raises(LeaseLost):
        await old.commit(lease, [event()])
    await old.close()
    await new.close()


async def test_many_processes_that_want_to_lead(postgres_url: str) -> None:
    _database, first = await open_store(postgres_url)
    stores = [first, *(SqlFleetStore(Database(postgres_url)) for _ in range(3))]
    for turn in range(10):
        answers = await asyncio.gather(
            *(
                store.take_lease(
                    replace(FIRST, process=10 * turn + number), now=NOW + 100 * turn, seconds=60.0, owner_lives=None
                )
                for number, store in enumerate(stores)
            ),
            return_exceptions=True,
        )
        assert sorted(type(answer).__name__ for answer in answers) == ["Conflict"] * 3 + ["Lease"], answers
    lease = await first.current_lease()
    assert lease is not None
    assert lease.epoch == 10
    for store in stores:
        await store.close()


# --- a server that stops


async def test_a_server_that_stops_and_comes_back() -> None:
    with running_postgres() as server:
        url = server.new_database()
        _database, store = await open_store(url)
        lease = await lead(store)
        await store.commit(lease, [AddWorker(worker())])
        await asyncio.to_thread(server.stop)
        with pytest.raises(StoreUnavailable) as caught:
            await store.commit(lease, [step(worker(), S.LAUNCHING)])
        assert "\n" not in str(caught.value)
        assert "check that the database runs and can be reached" in str(caught.value)
        with pytest.raises(StoreUnavailable):
            await store.workers()
        await asyncio.to_thread(server.start)
        await store.commit(lease, [step(worker(), S.LAUNCHING)])
        assert [one.state for one in await store.workers()] == [S.LAUNCHING]
        await _crash_while_writing(server, store)
        await store.close()


async def _crash_while_writing(server: PostgresServer, store: SqlFleetStore) -> None:
    """The server loses power again and again while events are written: each is there once if it was acknowledged."""
    lease = await store.current_lease()
    assert lease is not None
    acknowledged: list[str] = []
    stop = asyncio.Event()

    async def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            try:
                await store.commit(lease, [event(str(number))])
            except StoreUnavailable:
                continue
            acknowledged.append(str(number))

    writing = asyncio.ensure_future(write())
    for _ in range(3):
        await asyncio.sleep(0.3)
        os.kill(server.process(), signal.SIGQUIT)
        while True:
            await asyncio.sleep(0.1)
            try:
                os.kill(server.process(), 0)
            except (ProcessLookupError, FileNotFoundError):
                break
        await asyncio.to_thread(server.start)
        await asyncio.sleep(0.3)
    stop.set()
    await writing
    stored = [recorded.event.text for recorded in await store.events(limit=1_000_000)]
    assert len(stored) == len(set(stored))
    assert set(acknowledged) <= set(stored)
    assert len(acknowledged) >= 10
