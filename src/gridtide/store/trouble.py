"""What a database's error means: one line for people, and whether asking again can help."""

from __future__ import annotations

import sqlite3
from typing import Final

from sqlalchemy.engine import URL
from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    IntegrityError,
    InterfaceError,
    NotSupportedError,
    ProgrammingError,
    SQLAlchemyError,
)

from gridtide.errors import StoreError, StoreUnavailable

_SQLITE: Final = {
    sqlite3.SQLITE_FULL: ("the disk is full, or the database has reached its allowed size", "make room"),
    sqlite3.SQLITE_READONLY: ("it may not be written", "check owner and mode of the file and of its directory"),
    sqlite3.SQLITE_CORRUPT: ("it is damaged", "stop the site and restore a backup: docs/reference/store.md"),
    sqlite3.SQLITE_NOTADB: ("it is not a SQLite database", "give the store another file"),
    sqlite3.SQLITE_CANTOPEN: (
        "it cannot be opened",
        "it must be a file, not a directory, in a directory that exists and may be written",
    ),
    sqlite3.SQLITE_PERM: ("access is not permitted", "check owner and mode of the file and of its directory"),
    sqlite3.SQLITE_BUSY: ("another process keeps it locked", "end that process, or wait for it"),
    sqlite3.SQLITE_LOCKED: ("another connection keeps it locked", "end what holds it, or wait"),
    sqlite3.SQLITE_IOERR: ("its disk reports an error", "check that it is a sound local disk with room left"),
}
_SQLITE_RETRY: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL})

# By SQLSTATE, or its first two characters (PostgreSQL's manual, appendix A).
_POSTGRESQL: Final = {
    "53100": ("the server's disk is full", "make room"),
    "53300": ("the server takes no more connections", "raise max_connections"),
    "25006": ("the server is read-only", "name the primary server, not a standby"),
    "42501": ("its user may not do this", "let the user own the database"),
    "3D000": ("there is no such database", "create it"),
    "28": ("the server refuses the user or the password", "check the store's URL"),
    "40": ("other writers got in the way twice", "wait; if it stays, see who else uses the database"),
    "55P03": ("another connection keeps it locked", "end what holds it, or wait"),
}
# 40: serialisation failure or deadlock. 57P0x: the server stops or starts. 08: connection failures. 25P03: the server
# ended a transaction that was idle for too long (this process was stopped meanwhile).
_POSTGRESQL_RETRY: Final = ("40", "57P0", "08", "25P03")

_OF_ONE_STATEMENT: Final = (DataError, IntegrityError, InterfaceError, NotSupportedError, ProgrammingError)


def place(url: URL) -> str:
    """The database's name for people, without its password."""
    return url.database or "" if url.get_backend_name() == "sqlite" else url.render_as_string(hide_password=True)


def concerns_one(error: SQLAlchemyError) -> bool:
    """Whether the error is about one statement and its values, so that a savepoint can undo it alone."""
    if not isinstance(error, DBAPIError):
        return True
    # SQLite's driver calls it operational when a table is missing; its code tells that from a full disk.
    of_one = isinstance(error.orig, sqlite3.Error) and _sqlite_code(error.orig) == sqlite3.SQLITE_ERROR
    return (of_one or isinstance(error, _OF_ONE_STATEMENT)) and not error.connection_invalidated


def may_help_to_retry(error: SQLAlchemyError) -> bool:
    """Whether the same work may well succeed when it is done again at once."""
    if not isinstance(error, DBAPIError) or error.orig is None:
        return False
    if error.connection_invalidated:
        return True
    if isinstance(error.orig, sqlite3.Error):
        return is_busy(error.orig)
    state = _sqlstate(error.orig)
    # No state at all: the server was not reached, so that it could give none.
    return not concerns_one(error) if state is None else state.startswith(_POSTGRESQL_RETRY)


def is_busy(error: sqlite3.Error) -> bool:
    """Whether SQLite refused because another connection was at work."""
    return _sqlite_code(error) in _SQLITE_RETRY


def explain(error: SQLAlchemyError, where: str) -> StoreError:
    """The error for the caller: what happened, where, what to do."""
    original = error.orig if isinstance(error, DBAPIError) and error.orig is not None else None
    if original is None or concerns_one(error):
        return StoreError(f"the database refused: {_first_line(original or error)}", where=where)
    if isinstance(original, sqlite3.Error):
        known = _SQLITE.get(_sqlite_code(original))
    else:
        state = _sqlstate(original) or ""
        known = _POSTGRESQL.get(state) or _POSTGRESQL.get(state[:2])
    what, remedy = known or (_first_line(original), "check that the database runs and can be reached")
    return StoreUnavailable(what, where=where, remedy=remedy)


def _sqlite_code(error: sqlite3.Error) -> int:
    # The low byte is the primary code; the driver sets none on errors of its own.
    code = getattr(error, "sqlite_errorcode", None)
    return sqlite3.SQLITE_ERROR if code is None else code & 0xFF


def _sqlstate(error: BaseException) -> str | None:
    state = getattr(error, "sqlstate", None)
    return state if isinstance(state, str) else None


def _first_line(error: BaseException) -> str:
    # Later lines may quote the statement and its values.
    return (str(error).splitlines() or [type(error).__name__])[0]
