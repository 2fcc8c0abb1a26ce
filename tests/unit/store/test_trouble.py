"""What a database's error means."""

from __future__ import annotations

import sqlite3

import psycopg
import pytest
from psycopg import errors
from sqlalchemy.engine import make_url
from sqlalchemy.exc import (
    DatabaseError,
    DBAPIError,
    IntegrityError,
    InterfaceError,
    OperationalError,
    SQLAlchemyError,
    StatementError,
)

from gridtide.errors import StoreError, StoreUnavailable
from gridtide.store.trouble import concerns_one, explain, may_help_to_retry, place


def sqlite(code: int, kind: type[DBAPIError] = OperationalError) -> DBAPIError:
    original = sqlite3.OperationalError("words")
    original.sqlite_errorcode = code
    return kind("statement", {}, original)


def postgres(original: psycopg.Error, kind: type[DBAPIError] = OperationalError, *, lost: bool = False) -> DBAPIError:
    return kind("statement", {}, original, connection_invalidated=lost)


NOT_REACHED = psycopg.OperationalError("connection failed\nmore")


@pytest.mark.parametrize(
    ("error", "one", "again", "told"),
    [
        (sqlite(sqlite3.SQLITE_BUSY), False, True, "another process keeps it locked"),
        (sqlite(sqlite3.SQLITE_LOCKED), False, True, "another connection keeps it locked"),
        (sqlite(sqlite3.SQLITE_PROTOCOL), False, True, "words"),
        (sqlite(sqlite3.SQLITE_FULL), False, False, "the disk is full"),
        (sqlite(sqlite3.SQLITE_IOERR | (3 << 8)), False, False, "its disk reports an error"),
        (sqlite(sqlite3.SQLITE_READONLY | (1 << 8)), False, False, "it may not be written"),
        (sqlite(sqlite3.SQLITE_CORRUPT, DatabaseError), False, False, "it is damaged"),
        (sqlite(sqlite3.SQLITE_ERROR), True, False, "the database refused: words"),
        (sqlite(sqlite3.SQLITE_CONSTRAINT, IntegrityError), True, False, "the database refused: words"),
        (postgres(errors.SerializationFailure("x")), False, True, "other writers got in the way twice"),
        (postgres(errors.DeadlockDetected("x")), False, True, "other writers got in the way twice"),
        (postgres(errors.AdminShutdown("x")), False, True, "x"),
        (postgres(errors.CannotConnectNow("x")), False, True, "x"),
        (postgres(errors.IdleInTransactionSessionTimeout("x")), False, True, "x"),
        (postgres(NOT_REACHED), False, True, "connection failed"),
        (postgres(psycopg.InterfaceError("closed"), InterfaceError, lost=True), False, True, "closed"),
        (postgres(errors.DiskFull("x")), False, False, "the server's disk is full"),
        (postgres(errors.LockNotAvailable("x")), False, False, "another connection keeps it locked"),
        (postgres(errors.InvalidPassword("x")), False, False, "the server refuses the user or the password"),
        (postgres(errors.UniqueViolation("x\nDETAIL: y"), IntegrityError), True, False, "the database refused: x"),
        (StatementError("cannot bind", "statement", {}, ValueError("a value")), True, False, "cannot bind"),
    ],
)
def test_what_it_means(error: SQLAlchemyError, one: bool, again: bool, told: str) -> None:
    assert concerns_one(error) is one
    assert may_help_to_retry(error) is again
    explained = explain(error, "here")
    assert str(explained).startswith("here: ")
    assert told in str(explained)
    assert "\n" not in str(explained)
    assert "DETAIL" not in str(explained)
    assert type(explained) is (StoreError if one else StoreUnavailable)


def test_a_place_for_people() -> None:
    assert place(make_url("sqlite:////var/lib/store.db")) == "/var/lib/store.db"
    assert place(make_url("postgresql://eve:geheim@db/site")) == "postgresql://eve:***@db/site"
