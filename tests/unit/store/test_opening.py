"""From a URL to a store; migrations on SQLite."""

from __future__ import annotations

import sqlite3
import stat
import threading
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, Engine, text
from sqlalchemy.event import listen, remove

from gridtide.errors import GridtideError, StoreError, StoreUnavailable
from gridtide.model.ids import GroupName
from gridtide.pilot.tables import jobs
from gridtide.store.database import make_engine
from gridtide.store.migrate import migrate
from gridtide.store.opening import open_store
from gridtide.store.tables import metadata
from tests.unit.store.values import event, lead

assert jobs.metadata is metadata  # the pilot queue's tables hang there too


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_what_is_made_is_private(tmp_path: Path) -> None:
    file = tmp_path / "var" / "site" / "store.db"
    _database, store = await open_store(f"sqlite:///{file}")
    lease = await lead(store)
    made = sorted(path.name for path in file.parent.iterdir())
    assert made == ["store.db", "store.db-shm", "store.db-wal"]
    assert {mode(path) for path in file.parent.iterdir()} == {0o600}
    assert mode(file.parent) == mode(file.parent.parent) == 0o700
    await store.close()
    _database, store = await open_store(f"sqlite:///{file}")
    assert await store.current_lease() == lease
    await store.close()


async def test_an_existing_file_keeps_its_mode(tmp_path: Path) -> None:
    file = tmp_path / "store.db"
    file.touch(mode=0o640)
    file.chmod(0o640)
    database, _store = await open_store(f"sqlite:///{file}")
    await database.close()
    assert mode(file) == 0o640


async def test_closing_either_closes_both(tmp_path: Path) -> None:
    database, store = await open_store(f"sqlite:///{tmp_path}/store.db")
    await database.close()
    with pytest.raises(StoreUnavailable, match="the store is closed"):
        await store.workers()
    await store.close()


async def test_a_file_in_the_way_of_the_directory(tmp_path: Path) -> None:
    (tmp_path / "var").touch()
    with pytest.raises(StoreUnavailable, match=r"var/store\.db: the database cannot be made: Not a directory \(give"):
        await open_store(f"sqlite:///{tmp_path}/var/store.db")
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("store-")]


async def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    file = tmp_path / "store.db"
    file.write_text("a shopping list" * 100)
    with pytest.raises(StoreUnavailable, match="it is not a SQLite database"):
        await open_store(f"sqlite:///{file}")
    assert file.read_text() == "a shopping list" * 100


def schema(engine: Engine) -> dict[str, str]:
    """Every statement that SQLite keeps of its tables and indexes, in one spelling."""
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"))
        found = {name: " ".join(sql.split()) for name, sql in rows}
    return {name: sql for name, sql in found.items() if name not in ("alembic_version", "sqlite_sequence")}


def test_the_migrated_schema_is_the_programs(tmp_path: Path) -> None:
    migrated, created = make_engine(f"sqlite:///{tmp_path}/a.db"), make_engine(f"sqlite:///{tmp_path}/b.db")
    migrate(migrated)
    metadata.create_all(created)
    assert schema(migrated) == schema(created)
    with migrated.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    for engine in (migrated, created):
        engine.dispose()


def test_migrating_again_changes_nothing(tmp_path: Path) -> None:
    engine = make_engine(f"sqlite:///{tmp_path}/a.db")
    migrate(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE leadership SET epoch = 7"))
    before = schema(engine)
    migrate(engine)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT epoch FROM leadership")).scalars().all() == [7]
    assert schema(engine) == before
    engine.dispose()


def test_a_newer_database_is_refused(tmp_path: Path) -> None:
    engine = make_engine(f"sqlite:///{tmp_path}/a.db")
    migrate(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    before = schema(engine)
    with pytest.raises(
        StoreError, match=r"a\.db: the database has schema 9999, which this version .* \(start the newer"
    ):
        migrate(engine)
    assert schema(engine) == before
    engine.dispose()


def test_a_migration_that_fails_leaves_nothing(tmp_path: Path) -> None:
    file = tmp_path / "a.db"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE workers (somebody_elses INTEGER)")
    connection.close()
    engine = make_engine(f"sqlite:///{file}")
    with pytest.raises(StoreError, match="the database refused: table workers already exists"):
        migrate(engine)
    assert list(schema(engine)) == ["workers"]
    engine.dispose()


def test_many_that_migrate_at_once(tmp_path: Path) -> None:
    problems: list[GridtideError] = []

    def one() -> None:
        engine = make_engine(f"sqlite:///{tmp_path}/a.db")
        try:
            migrate(engine)
        except GridtideError as error:
            problems.append(error)
        finally:
            engine.dispose()

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert problems == []
    assert not any(thread.is_alive() for thread in threads)
    engine = make_engine(f"sqlite:///{tmp_path}/a.db")
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM leadership")).scalar() == 1
    engine.dispose()


async def test_a_backup_of_a_running_store(tmp_path: Path) -> None:
    """As docs/reference/store.md has it."""
    _database, store = await open_store(f"sqlite:///{tmp_path}/store.db")
    lease = await lead(store)
    await store.commit(lease, [event("before")])
    other = sqlite3.connect(tmp_path / "store.db")
    other.execute(f"VACUUM INTO '{tmp_path}/backup.db'")
    other.close()
    await store.commit(lease, [event("after")])
    await store.close()
    _database, restored = await open_store(f"sqlite:///{tmp_path}/backup.db")
    assert [recorded.event.text for recorded in await restored.events()] == ["before"]
    assert await restored.current_lease() == lease
    await restored.close()


async def test_event_numbers_are_never_given_twice(tmp_path: Path) -> None:
    database, store = await open_store(f"sqlite:///{tmp_path}/store.db")
    lease = await lead(store)
    await store.commit(lease, [event("1"), event("2")])
    await database.write(lambda connection: connection.execute(text("DELETE FROM events")) and None)
    await store.commit(lease, [event("3")])
    assert [recorded.number for recorded in await store.events()] == [3]
    await store.close()


async def test_lists_are_read_by_their_indexes(tmp_path: Path) -> None:
    """A site of years has a million dead workers and events: no list may look at all of them."""
    database, store = await open_store(f"sqlite:///{tmp_path}/store.db")
    asked: list[tuple[str, tuple[object, ...]]] = []

    def note(_connection: object, _cursor: object, statement: str, parameters: tuple[object, ...], *_: object) -> None:
        if statement.startswith("SELECT"):
            asked.append((statement, parameters))

    listen(database.engine, "before_cursor_execute", note)
    await store.workers()
    await store.past_workers(group=None, limit=9)
    await store.past_workers(group=GroupName("grid"), limit=9)
    await store.events(after=5)
    await store.events(after=5, subject="grid-a", newest=True)
    await store.events(after=5, kind="launch")
    remove(database.engine, "before_cursor_execute", note)
    plans = []
    for statement, parameters in asked:

        def work(connection: Connection, query: str = statement, values: tuple[object, ...] = parameters) -> list[str]:
            return [row.detail for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}", values)]

        plans.append(await database.read(work))
    assert plans == [
        ["SCAN workers USING INDEX ix_workers_alive"],
        ["SCAN workers USING INDEX ix_workers_dead"],
        ["SEARCH workers USING INDEX ix_workers_dead_of_group (group_name=?)"],
        ["SEARCH events USING INTEGER PRIMARY KEY (rowid>?)"],
        ["SEARCH events USING INDEX ix_events_subject_number (subject=? AND number>?)"],
        ["SEARCH events USING INDEX ix_events_kind_number (kind=? AND number>?)"],
    ]
    await store.close()
