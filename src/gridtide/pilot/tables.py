"""The pilot queue's tables. A change here wants a migration.

Sized for 1 000 000 waiting jobs: what a submission's jobs have in common is kept once, what the scheduler looks at
once per class, and a job that waits is a row of a few bytes. ``waiting`` of a class and the five counters of a
submission are kept in the same transactions as the jobs' states, so that nothing ever counts jobs.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import JSON, BigInteger, Boolean, Column, Double, Index, Integer, Table, Text, text

from gridtide.store.tables import metadata

submissions: Final = Table(
    "pilot_submissions",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("user_name", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("submitted", Double, nullable=False),
    Column("class_id", BigInteger, nullable=False),
    # The jobs of a submission are numbered in one piece: job row = first + index.
    Column("first", BigInteger, nullable=False),
    Column("size", Integer, nullable=False),
    Column("description", Text, nullable=False),
    Column("waiting", Integer, nullable=False),
    Column("running", Integer, nullable=False),
    Column("done", Integer, nullable=False),
    Column("failed", Integer, nullable=False),
    Column("cancelled", Integer, nullable=False),
    Index("ix_pilot_submissions_user", "user_name", "number"),
)
"""One text that was submitted, parsed, with the number of its jobs in each state."""

classes: Final = Table(
    "pilot_classes",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("digest", Text, nullable=False, unique=True),
    Column("user_name", Text, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("cores", Integer, nullable=False),
    Column("memory", BigInteger, nullable=False),
    Column("disk", BigInteger, nullable=False),
    Column("gpus", Integer, nullable=False),
    Column("requirements", Text, nullable=False),
    Column("walltime", Double, nullable=False),
    Column("waiting", Integer, nullable=False),
)
"""Jobs that look alike to the scheduler. ``digest`` is of all columns but ``id`` and ``waiting``."""

jobs: Final = Table(
    "pilot_jobs",
    metadata,
    Column("id", BigInteger().with_variant(Integer(), "sqlite"), primary_key=True, autoincrement=False),
    Column("submission", BigInteger, nullable=False),
    Column("class_id", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("losses", Integer, nullable=False),
    Column("cancelling", Boolean, nullable=False),
    Column("ended", Double),
    Column("reason", Text),
)
"""``attempt`` is the number of the last one, 0 before the first. ``cancelling``: its worker is told to end it."""

attempts: Final = Table(
    "pilot_attempts",
    metadata,
    Column("job", BigInteger, primary_key=True, autoincrement=False),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("worker", Text, nullable=False),
    Column("request", Text, nullable=False),
    Column("started", Double, nullable=False),
    Column("ended", Double),
    Column("given_up", Boolean, nullable=False),
    Column("cause", Text),
    Column("exit_code", Integer),
    Column("signal", Integer),
    Column("wall_seconds", Double),
    Column("cpu_seconds", Double),
    Column("peak_memory", BigInteger),
    # One request of a worker is answered with one job, however often and in whatever process it is asked.
    Index("uq_pilot_attempts_worker_request", "worker", "request", unique=True),
)
"""One run of a job. ``given_up``: it ended because its worker was lost; ``ended`` is NULL while it runs."""

outputs: Final = Table(
    "pilot_outputs",
    metadata,
    Column("job", BigInteger, primary_key=True, autoincrement=False),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("name", Text, primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("digest", Text, nullable=False),
)
"""Results that are kept completely."""

workers: Final = Table(
    "pilot_workers",
    metadata,
    Column("id", Text, primary_key=True),
    Column("group_name", Text, nullable=False),
    Column("host", JSON, nullable=False),
    Column("host_digest", Text, nullable=False),
    Column("cores", Integer, nullable=False),
    Column("memory", BigInteger, nullable=False),
    Column("disk", BigInteger, nullable=False),
    Column("gpus", Integer, nullable=False),
    Column("single_use", Boolean, nullable=False),
    Column("draining", Boolean, nullable=False),
    # Its drain cannot be taken back: it was told to stop, drains of its own will, or was single-use and is used.
    Column("final", Boolean, nullable=False),
    Column("idle_since", Double, nullable=False),
    Column("contact", Double, nullable=False),
)
"""Admitted workers. ``idle_since`` counts while nothing runs; ``contact`` is behind by a few seconds."""

usage: Final = Table(
    "pilot_usage",
    metadata,
    Column("user_name", Text, primary_key=True),
    Column("core_seconds", Double, nullable=False),
    Column("at", Double, nullable=False),
    Column("running_cores", Integer, nullable=False),
    # The sum of cores times start over what runs: what it has used until now is cores * now - this.
    Column("running_since", Double, nullable=False),
)
"""What each user has used, decayed to the time ``at``, and what the user's jobs hold now."""

# Partial indexes, so that the million waiting jobs cost one entry each and the ended ones none here. SQLite uses such
# an index only for a query that repeats the condition literally.
WAITING: Final = text("state = 'waiting'")
STARTED: Final = text("state <> 'waiting'")
UNENDED: Final = text("ended IS NULL")
SOME_WAIT: Final = text("waiting > 0")
Index("ix_pilot_jobs_waiting", jobs.c.class_id, jobs.c.id, sqlite_where=WAITING, postgresql_where=WAITING)
Index("ix_pilot_jobs_started", jobs.c.state, jobs.c.id, sqlite_where=STARTED, postgresql_where=STARTED)
Index("ix_pilot_attempts_running", attempts.c.worker, sqlite_where=UNENDED, postgresql_where=UNENDED)
Index("ix_pilot_classes_waiting", classes.c.id, sqlite_where=SOME_WAIT, postgresql_where=SOME_WAIT)
