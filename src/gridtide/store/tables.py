"""The one MetaData of Gridtide's database, and the fleet's tables in it.

``gridtide.pilot.tables`` adds the pilot queue's tables. A change here wants a migration: a test compares the two.
All times are seconds since the epoch. Only digests of secrets are kept.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    false,
    text,
)

# Without fixed names a later migration could not name the constraint that it changes.
NAMING: Final = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}

metadata: Final = MetaData(naming_convention=NAMING)
"""Every table of the database hangs here, the pilot queue's too."""

# SQLite numbers rows by itself only in a column that is declared INTEGER, which holds 64 bits there.
RowNumber: Final = BigInteger().with_variant(Integer(), "sqlite")

leadership: Final = Table(
    "leadership",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("epoch", BigInteger, nullable=False),
    Column("host", Text),
    Column("boot", Text),
    Column("process", Integer),
    # Clock ticks since boot pass 31 bits after 248 days.
    Column("started", BigInteger),
    Column("expires", Double),
    CheckConstraint("id = 1", name="one_row"),
)
"""One row. The owner's columns are NULL when nobody leads; the epoch stays and grows."""

workers: Final = Table(
    "workers",
    metadata,
    Column("id", Text, primary_key=True),
    Column("group_name", Text, nullable=False),
    Column("cloud", Text, nullable=False),
    Column("shape", Text, nullable=False),
    Column("cores", Integer, nullable=False),
    Column("memory", BigInteger, nullable=False),
    Column("disk", BigInteger, nullable=False),
    Column("gpus", Integer, nullable=False),
    Column("price", Double, nullable=False),
    Column("zone", Text),
    Column("generation", Text, nullable=False),
    Column("single_use", Boolean, nullable=False),
    Column("state", Text, nullable=False),
    Column("since", Double, nullable=False),
    Column("created", Double, nullable=False),
    Column("cause", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("machine", Text),
    Column("launched", Double),
    Column("joined", Double),
    Column("drain_wanted", Boolean, nullable=False),
    Column("force_wanted", Boolean, nullable=False),
    Column("join_digest", LargeBinary),
    Column("join_expires", Double),
    Column("worker_digest", LargeBinary),
    Column("host", JSON(none_as_null=True)),
    # New columns come last: a migration can only add them there.
    Column("image", Text),
    Column("context_reader", LargeBinary),
    Column("queue", Text),
)
"""Every worker that ever was, with the digests of its two tokens and its machine's description of itself."""

# The living are few and the dead are many: each list has an index that holds nothing else, so that a change of state
# touches no index before the last one. The conditions must be literals, as they stand in the queries too.
ALIVE: Final = text("state <> 'gone'")
DEAD: Final = text("state = 'gone'")
Index("ix_workers_alive", workers.c.created, workers.c.id, sqlite_where=ALIVE, postgresql_where=ALIVE)
Index("ix_workers_dead", workers.c.since, workers.c.id, sqlite_where=DEAD, postgresql_where=DEAD)
Index(
    "ix_workers_dead_of_group",
    workers.c.group_name,
    workers.c.since,
    workers.c.id,
    sqlite_where=DEAD,
    postgresql_where=DEAD,
)

wishes: Final = Table(
    "wishes",
    metadata,
    Column("group_name", Text, primary_key=True),
    Column("minimum", Integer),
    Column("maximum", Integer),
    Column("desired", Integer),
    Column("hold", Boolean, nullable=False),
    Column("closing", Boolean, nullable=False),
    Column("rollout_paused", Boolean, nullable=False, server_default=false()),
)
"""What operators asked of groups. A group without a row is as in the site file."""

events: Final = Table(
    "events",
    metadata,
    Column("number", RowNumber, primary_key=True, autoincrement=True),
    Column("at", Double, nullable=False),
    Column("kind", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("group_name", Text),
    Column("cause", Text),
    Column("reason", Text),
    Column("text", Text, nullable=False),
    Column("evidence", JSON, nullable=False),
    Index("ix_events_subject_number", "subject", "number"),
    Index("ix_events_kind_number", "kind", "number"),
    # A number is never given twice, so that a reader's "after" stays true when old events are deleted.
    sqlite_autoincrement=True,
)
"""The audit log."""

boots: Final = Table(
    "boots",
    metadata,
    Column("worker", Text, primary_key=True),
    Column("cloud", Text, nullable=False),
    Column("shape", Text, nullable=False),
    Column("image", Text),
    Column("joined", Double, nullable=False),
    Column("seconds", Double, nullable=False),
    Column("phases", JSON, nullable=False),
    Index("ix_boots_joined_worker", "joined", "worker"),
)
"""How long each worker took from its launch call to its join, and in which phases: boot times are learned from it."""

tokens: Final = Table(
    "tokens",
    metadata,
    Column("id", Text, primary_key=True),
    Column("user_name", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("created", Double, nullable=False),
    Column("expires", Double),
    Column("revoked", Boolean, nullable=False),
)
"""Users' tokens."""
