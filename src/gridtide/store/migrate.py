"""Brings a database to this program's schema.

The steps are the files of ``migrations/``, numbered in their order. A step that was released is never changed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.script.revision import ResolutionError
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError

from gridtide.errors import StoreError
from gridtide.store.trouble import explain, place

_STEPS: Final = Path(__file__).parent / "migrations"
# Any number that no other program uses for an advisory lock in the same database.
_LOCK: Final = 4_736_201_911


def migrate(engine: Engine) -> None:
    """Upgrade to the newest schema, in one transaction. Nothing is done when it is there already.

    StoreError when a newer Gridtide made the database; StoreUnavailable when it does not answer. Two processes may
    call this at once: one works, the other waits and finds it done.
    """
    try:
        with engine.begin() as connection:
            if engine.dialect.name == "postgresql":
                # Given back at the end of the transaction. SQLite's BEGIN IMMEDIATE is such a lock by itself.
                connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            _upgrade(connection, place(engine.url))
    except SQLAlchemyError as error:
        raise explain(error, place(engine.url)) from error


def _upgrade(connection: Connection, where: str) -> None:
    steps = ScriptDirectory(str(_STEPS), version_locations=[str(_STEPS)])

    def to_head(present: Any, _context: Any) -> Any:
        return steps._upgrade_revs("heads", present)

    context = MigrationContext.configure(connection, opts={"fn": to_head})
    present = context.get_current_heads()
    try:
        steps.get_revisions(present)
    except (CommandError, ResolutionError):
        raise StoreError(
            f"the database has schema {', '.join(present)}, which this version of Gridtide does not know",
            where=where,
            remedy="start the newer version that made it, or restore a backup from before the upgrade",
        ) from None
    with Operations.context(context):
        context.run_migrations()
