"""The two lanes of the database, on SQLite."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event, text
from sqlalchemy.exc import IntegrityError

import gridtide.store.database
from gridtide.errors import Conflict, StoreError, StoreUnavailable
from gridtide.store.database import Database


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gridtide.store.database, "_PAUSE", 0.0)
    monkeypatch.setattr(gridtide.store.database, "_LOCK_WAIT", 0)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = Database(f"sqlite:///{tmp_path}/test.db")
    await database.write(lambda connection: connection.execute(text("CREATE TABLE lines (words TEXT UNIQUE)")))
    yield database
    await database.close()


def add(words: str) -> Callable[[Connection], str]:
    def work(connection: Connection) -> str:
        connection.execute(text("INSERT INTO lines VALUES (:words)"), {"words": words})
        return words

    return work


def lines(connection: Connection) -> list[str]:
    return list(connection.execute(text("SELECT words FROM lines ORDER BY rowid")).scalars())


class Held:
    """Keeps the writer busy, so that what is asked meanwhile shares the next transaction."""

    def __init__(self, database: Database) -> None:
        self._go = threading.Event()
        self._begun = threading.Event()
        self._task = asyncio.ensure_future(database.write(self._work))

    def _work(self, _connection: Connection) -> None:
        self._begun.set()
        assert self._go.wait(10)

    async def begun(self) -> None:
        assert await asyncio.to_thread(self._begun.wait, 10)

    async def release(self) -> None:
        self._go.set()
        await self._task


async def together(database: Database, *works: Callable[[Connection], Any]) -> list[Any]:
    """Have all of them done in one group."""
    held = Held(database)
    await held.begun()
    tasks = [asyncio.ensure_future(database.write(work)) for work in works]
    await asyncio.sleep(0)
    await held.release()
    return await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_write_is_there_when_it_has_returned(database: Database) -> None:
    assert await database.write(add("a")) == "a"
    assert await database.read(lines) == ["a"]


async def test_writes_share_a_commit_in_their_order(database: Database) -> None:
    commits: list[object] = []
    event.listen(database.engine, "commit", commits.append)
    names = [f"{number:03}" for number in range(200)]
    assert await together(database, *(add(name) for name in names)) == names
    assert await database.read(lines) == names
    assert len(commits) == 2  # the one that held the writer, and the group


async def test_an_urgent_write_goes_before_those_that_wait(database: Database) -> None:
    held = Held(database)
    await held.begun()
    usual = [asyncio.ensure_future(database.write(add(str(number)))) for number in range(3)]
    await asyncio.sleep(0)
    urgent = asyncio.ensure_future(database.write(add("urgent"), urgent=True))
    await asyncio.sleep(0)
    await held.release()
    await asyncio.gather(urgent, *usual)
    assert await database.read(lines) == ["urgent", "0", "1", "2"]


@pytest.mark.parametrize("fails", [False, True])
async def test_a_group_that_takes_long_is_cut_short(
    database: Database, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    def refuses(_connection: Connection) -> None:
        raise Conflict("not now")

    monkeypatch.setattr(gridtide.store.database, "_LONGEST", 0.0)
    commits: list[object] = []
    event.listen(database.engine, "commit", commits.append)
    works = [add("a"), refuses if fails else add("b"), add("c")]
    answers = await together(database, *works)
    assert [answers[0], answers[2]] == ["a", "c"]
    assert isinstance(answers[1], Conflict) if fails else answers[1] == "b"
    assert await database.read(lines) == (["a", "c"] if fails else ["a", "b", "c"])
    assert len(commits) == 4, "each has a transaction of its own, and so has the one that held the writer"
    await database.close()


async def test_a_failed_write_undoes_only_itself(database: Database) -> None:
    def fails(connection: Connection) -> None:
        add("half")(connection)
        raise Conflict("not now")

    answers = await together(database, add("a"), fails, add("b"), add("a"), add("c"))
    assert answers[::2] == ["a", "b", "c"]
    assert isinstance(answers[1], Conflict)
    assert isinstance(answers[3], StoreError)
    assert await database.read(lines) == ["a", "b", "c"]


async def test_a_failed_write_alone_undoes_itself(database: Database) -> None:
    def fails(connection: Connection) -> None:
        add("half")(connection)
        raise Conflict("not now")

    with pytest.raises(Conflict, match="not now"):
        await database.write(fails)
    assert await database.read(lines) == []


async def test_a_refused_statement_is_one_line_without_its_values(database: Database) -> None:
    await database.write(add("a-secret"))
    with pytest.raises(StoreError) as caught:
        await database.write(add("a-secret"))
    assert not isinstance(caught.value, StoreUnavailable)
    assert str(caught.value).endswith("the database refused: UNIQUE constraint failed: lines.words")
    assert isinstance(caught.value.__cause__, IntegrityError)
    assert "a-secret" not in str(caught.value.__cause__)


class Odd(BaseException):
    """Not an Exception: what the writer's barrier might let through."""


@pytest.mark.parametrize(("raised", "met"), [(Odd, Odd), (StopIteration, RuntimeError), (ZeroDivisionError,) * 2])
@pytest.mark.parametrize("others", [0, 3])
async def test_the_writer_outlives_anything(
    database: Database, raised: type[BaseException], met: type[BaseException], others: int
) -> None:
    def fails(_connection: Connection) -> None:
        raise raised

    answers = await together(database, fails, *(add(str(number)) for number in range(others)))
    assert isinstance(answers[0], met)
    assert len(await database.read(lines)) == others
    assert await database.write(add("after")) == "after"


async def test_a_write_that_nobody_waits_for_is_not_begun(database: Database) -> None:
    held = Held(database)
    await held.begun()
    cancelled = asyncio.ensure_future(database.write(add("cancelled")))
    wanted = asyncio.ensure_future(database.write(add("wanted")))
    await asyncio.sleep(0)
    cancelled.cancel()
    await asyncio.sleep(0)
    await held.release()
    await wanted
    assert cancelled.cancelled()
    assert await database.read(lines) == ["wanted"]


async def test_the_end_of_a_write_is_told_before_its_caller_goes_on(database: Database) -> None:
    heard: list[object] = []

    def fails(_connection: Connection) -> str:
        raise Conflict("not now")

    heard.append(await database.write(add("a"), lambda words: heard.append(f"{words} is kept")))
    with pytest.raises(Conflict):
        await database.write(fails, lambda words: heard.append(f"{words} is told of a failure"))
    assert heard == ["a is kept", "a", "None is told of a failure"]


async def test_the_end_of_a_write_is_told_although_its_caller_has_gone(database: Database) -> None:
    held, heard = Held(database), []
    await held.begun()
    begun, go, told = threading.Event(), threading.Event(), asyncio.Event()

    def slow(connection: Connection) -> str:
        begun.set()
        assert go.wait(10)
        return add("a")(connection)

    def ended(words: str | None) -> None:
        heard.append(words)
        told.set()

    never = asyncio.ensure_future(database.write(add("b"), heard.append))
    caller = asyncio.ensure_future(database.write(slow, ended))
    await asyncio.sleep(0)
    never.cancel()
    await held.release()
    assert await asyncio.to_thread(begun.wait, 10)
    caller.cancel()
    go.set()
    await told.wait()
    assert caller.cancelled()
    assert heard == ["a"], "the one that was never begun is not told of"
    assert await database.read(lines) == ["a"]


async def test_a_caller_may_be_cancelled_while_its_write_is_under_way(database: Database) -> None:
    begun, go = threading.Event(), threading.Event()

    def slow(connection: Connection) -> None:
        begun.set()
        assert go.wait(10)
        add("made all the same")(connection)

    held = Held(database)
    await held.begun()
    task = asyncio.ensure_future(database.write(slow))
    neighbour = asyncio.ensure_future(database.write(add("in the same group")))
    await asyncio.sleep(0)
    await held.release()
    assert await asyncio.to_thread(begun.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go.set()
    async with asyncio.timeout(10):
        assert await neighbour == "in the same group"
    assert await database.read(lines) == ["made all the same", "in the same group"]


def test_a_callers_loop_may_be_gone(tmp_path: Path) -> None:
    begun, go = threading.Event(), threading.Event()

    def slow(connection: Connection) -> None:
        begun.set()
        assert go.wait(10)
        connection.execute(text("CREATE TABLE made (x)"))

    async def leave(database: Database) -> None:
        task = asyncio.ensure_future(database.write(slow))
        assert await asyncio.to_thread(begun.wait, 10)
        task.cancel()

    async def come_back(database: Database) -> object:
        found = await database.read(lambda connection: connection.execute(text("SELECT count(*) FROM made")).scalar())
        await database.close()
        return found

    database = Database(f"sqlite:///{tmp_path}/test.db")
    asyncio.run(leave(database))
    go.set()

    async def use() -> object:
        await database.write(lambda connection: None)
        return await come_back(database)

    assert asyncio.run(use()) == 0


async def test_a_read_sees_one_state_and_changes_nothing(database: Database) -> None:
    begun, go = threading.Event(), threading.Event()

    def twice(connection: Connection) -> tuple[list[str], list[str]]:
        first = lines(connection)
        begun.set()
        assert go.wait(10)
        return first, lines(connection)

    reading = asyncio.ensure_future(database.read(twice))
    assert await asyncio.to_thread(begun.wait, 10)
    await database.write(add("meanwhile"))
    go.set()
    assert await reading == ([], [])
    await database.read(add("lost"))
    assert await database.read(lines) == ["meanwhile"]


async def test_a_read_raises_what_its_work_raises(database: Database) -> None:
    def fails(_connection: Connection) -> None:
        raise Conflict("no")

    with pytest.raises(Conflict, match="no"):
        await database.read(fails)
    with pytest.raises(StoreError, match="the database refused: no such table: missing"):
        await database.read(lambda connection: connection.execute(text("SELECT * FROM missing")))


async def test_closing_finishes_what_was_asked(tmp_path: Path, database: Database) -> None:
    held = Held(database)
    await held.begun()
    pending = [asyncio.ensure_future(database.write(add(str(number)))) for number in range(300)]
    await asyncio.sleep(0)
    closing = asyncio.ensure_future(database.close())
    await held.release()
    await closing
    assert len(await asyncio.gather(*pending)) == 300
    with sqlite3.connect(tmp_path / "test.db") as connection:
        assert connection.execute("SELECT count(*) FROM lines").fetchone() == (300,)
    connection.close()


async def test_after_closing_it_says_so(database: Database) -> None:
    await database.close()
    await database.close()
    with pytest.raises(StoreUnavailable, match="the store is closed"):
        await database.write(add("late"))
    with pytest.raises(StoreUnavailable, match="the store is closed"):
        await database.read(lines)


async def test_a_commit_survives_a_power_cut(database: Database) -> None:
    def settings(connection: Connection) -> list[object]:
        names = ("journal_mode", "synchronous", "foreign_keys")
        return [connection.execute(text(f"PRAGMA {name}")).scalar() for name in names]

    assert await database.read(settings) == await database.write(settings) == ["wal", 2, 1]


# --- what goes wrong


async def test_a_locked_database_is_tried_twice(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    other = sqlite3.connect(database.where, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    with pytest.raises(StoreUnavailable, match=r"test\.db: another process keeps it locked"):
        await database.write(add("a"))
    assert pauses == [0.0]
    monkeypatch.setattr(time, "sleep", lambda _seconds: other.execute("COMMIT"))
    assert await database.write(add("b")) == "b"
    other.close()
    assert await database.read(lines) == ["b"]


async def test_of_a_locked_group_each_has_its_own_error(database: Database) -> None:
    other = sqlite3.connect(database.where, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    answers = await asyncio.gather(*(database.write(add(name)) for name in "abc"), return_exceptions=True)
    other.close()
    assert [type(answer) for answer in answers] == [StoreUnavailable] * 3
    assert len({id(answer) for answer in answers}) == 3
    assert await database.read(lines) == []


async def test_a_full_disk_spares_the_writes_that_fit(database: Database) -> None:
    def limit(connection: Connection) -> None:
        pages = connection.execute(text("PRAGMA page_count")).scalar()
        assert isinstance(pages, int)
        connection.execute(text(f"PRAGMA max_page_count={pages + 2}"))

    await database.write(limit)
    answers = await together(database, add("a"), add("x" * 100_000), add("b"))
    assert answers[0::2] == ["a", "b"]
    assert isinstance(answers[1], StoreUnavailable)
    assert "test.db: the disk is full" in str(answers[1])
    assert await database.read(lines) == ["a", "b"]


async def refused(url: str) -> str:
    """What people are told of a store that cannot be used, by a write and by a read alike."""
    database = Database(url)
    with pytest.raises(StoreUnavailable) as of_write:
        await database.write(lambda connection: connection.execute(text("CREATE TABLE a (b)")))
    with pytest.raises(StoreUnavailable) as of_read:
        await database.read(lambda connection: connection.execute(text("SELECT * FROM lines")))
    await database.close()
    assert str(of_write.value) == str(of_read.value)
    assert "\n" not in str(of_write.value)
    return str(of_write.value)


async def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("not a database, by far" * 100)
    assert f"{file}: it is not a SQLite database (" in await refused(f"sqlite:///{file}")


async def test_a_directory_as_the_file(tmp_path: Path) -> None:
    assert f"{tmp_path}: it cannot be opened (it must be a file, not a directory" in await refused(
        f"sqlite:///{tmp_path}"
    )


async def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    assert "it cannot be opened" in await refused(f"sqlite:///{tmp_path}/nowhere/test.db")


async def test_a_damaged_file(tmp_path: Path, database: Database) -> None:
    for number in range(500):
        await database.write(add(f"{number:0100}"))
    await database.close()
    file = tmp_path / "test.db"
    with file.open("r+b") as stream:  # the header stays, what follows is lost
        stream.seek(4096)
        stream.write(os.urandom(file.stat().st_size - 4096))
    damaged = Database(f"sqlite:///{file}")
    with pytest.raises(StoreUnavailable, match=r"test.db: it is damaged \(stop the site and restore a backup"):
        await damaged.write(add("more"))
    with pytest.raises(StoreUnavailable, match="it is damaged"):
        await damaged.read(lines)
    await damaged.close()


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("", "the store's URL cannot be read"),
        ("nonsense", "the store's URL cannot be read"),
        ("mysql://eve:geheim@db/site", "no store is made for 'mysql'"),
        ("sqlite://", "SQLite needs a file"),
        ("sqlite:///:memory:", "SQLite needs a file"),
    ],
)
async def test_an_unusable_url(url: str, told: str) -> None:
    with pytest.raises(StoreError, match=told) as caught:
        Database(url)
    assert "geheim" not in str(caught.value)


async def test_the_password_is_not_shown() -> None:
    database = Database("postgresql://eve:geheim@127.0.0.1:1/site")
    with pytest.raises(StoreUnavailable) as caught:
        await database.write(lambda connection: None)
    await database.close()
    assert "eve:***@127.0.0.1:1/site" in str(caught.value)
    assert "geheim" not in str(caught.value)
    assert "\n" not in str(caught.value)
