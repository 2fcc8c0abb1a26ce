"""From a URL to a store that is ready."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from sqlalchemy import update
from sqlalchemy.exc import SQLAlchemyError

from gridtide.errors import StoreUnavailable
from gridtide.store.database import Database
from gridtide.store.migrate import migrate
from gridtide.store.sql import SqlFleetStore
from gridtide.store.tables import leadership
from gridtide.store.trouble import explain


async def open_store(url: str) -> tuple[Database, SqlFleetStore]:
    """Open the database, make what is missing of it, and bring it to this program's schema.

    A SQLite file that is not there is made with mode 0600, its directories with 0700: jobs and the audit log are not
    for every user of the machine. Closing either of the two closes both. StoreError or StoreUnavailable when it cannot
    be used; then nothing is left open.
    """
    database = Database(url)
    try:
        await asyncio.to_thread(_prepare, database)
    except BaseException:
        await database.close()
        raise
    return database, SqlFleetStore(database)


def _prepare(database: Database) -> None:
    address = database.engine.url
    if address.get_backend_name() == "sqlite" and address.database is not None and "uri" not in address.query:
        _make_private(Path(address.database))
    migrate(database.engine)
    _try_to_write(database)


def _try_to_write(database: Database) -> None:
    """Whether it may be written is better learnt now than when the first worker has to be recorded."""
    try:
        with database.engine.connect() as connection:
            connection.execute(update(leadership).values(epoch=leadership.c.epoch))
            connection.rollback()
    except SQLAlchemyError as error:
        raise explain(error, database.where) from error


def _make_private(file: Path) -> None:
    if file.exists():
        return
    try:
        for directory in reversed(file.absolute().parents):
            if not directory.exists():
                directory.mkdir(mode=0o700, exist_ok=True)
        # SQLite gives the files that it puts beside this one the same mode.
        os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise StoreUnavailable(
            f"the database cannot be made: {error.strerror}",
            where=str(file),
            remedy="give the store a file in a directory that may be written",
        ) from error
