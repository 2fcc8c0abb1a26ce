"""The pilot queue."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "pilot_attempts",
        sa.Column("job", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("attempt", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("request", sa.Text(), nullable=False),
        sa.Column("started", sa.Double(), nullable=False),
        sa.Column("ended", sa.Double(), nullable=True),
        sa.Column("given_up", sa.Boolean(), nullable=False),
        sa.Column("cause", sa.Text(), nullable=True),
        sa.Column("exit_code", sa.Integer(), nullable=True),
        sa.Column("signal", sa.Integer(), nullable=True),
        sa.Column("wall_seconds", sa.Double(), nullable=True),
        sa.Column("cpu_seconds", sa.Double(), nullable=True),
        sa.Column("peak_memory", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("job", "attempt", name=op.f("pk_pilot_attempts")),
    )
    op.create_index(
        "ix_pilot_attempts_running",
        "pilot_attempts",
        ["worker"],
        unique=False,
        sqlite_where=sa.text("ended IS NULL"),
        postgresql_where=sa.text("ended IS NULL"),
    )
    op.create_index("uq_pilot_attempts_worker_request", "pilot_attempts", ["worker", "request"], unique=True)
    op.create_table(
        "pilot_classes",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("user_name", sa.Text(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("cores", sa.Integer(), nullable=False),
        sa.Column("memory", sa.BigInteger(), nullable=False),
        sa.Column("disk", sa.BigInteger(), nullable=False),
        sa.Column("gpus", sa.Integer(), nullable=False),
        sa.Column("requirements", sa.Text(), nullable=False),
        sa.Column("walltime", sa.Double(), nullable=False),
        sa.Column("waiting", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_pilot_classes")),
        sa.UniqueConstraint("digest", name=op.f("uq_pilot_classes_digest")),
    )
    op.create_index(
        "ix_pilot_classes_waiting",
        "pilot_classes",
        ["id"],
        unique=False,
        sqlite_where=sa.text("waiting > 0"),
        postgresql_where=sa.text("waiting > 0"),
    )
    op.create_table(
        "pilot_jobs",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False),
        sa.Column("submission", sa.BigInteger(), nullable=False),
        sa.Column("class_id", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("losses", sa.Integer(), nullable=False),
        sa.Column("cancelling", sa.Boolean(), nullable=False),
        sa.Column("ended", sa.Double(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_pilot_jobs")),
    )
    op.create_index(
        "ix_pilot_jobs_started",
        "pilot_jobs",
        ["state", "id"],
        unique=False,
        sqlite_where=sa.text("state <> 'waiting'"),
        postgresql_where=sa.text("state <> 'waiting'"),
    )
    op.create_index(
        "ix_pilot_jobs_waiting",
        "pilot_jobs",
        ["class_id", "id"],
        unique=False,
        sqlite_where=sa.text("state = 'waiting'"),
        postgresql_where=sa.text("state = 'waiting'"),
    )
    op.create_table(
        "pilot_outputs",
        sa.Column("job", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("attempt", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("job", "attempt", "name", name=op.f("pk_pilot_outputs")),
    )
    op.create_table(
        "pilot_submissions",
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("user_name", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("submitted", sa.Double(), nullable=False),
        sa.Column("class_id", sa.BigInteger(), nullable=False),
        sa.Column("first", sa.BigInteger(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("waiting", sa.Integer(), nullable=False),
        sa.Column("running", sa.Integer(), nullable=False),
        sa.Column("done", sa.Integer(), nullable=False),
        sa.Column("failed", sa.Integer(), nullable=False),
        sa.Column("cancelled", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_pilot_submissions")),
    )
    op.create_index("ix_pilot_submissions_user", "pilot_submissions", ["user_name", "number"], unique=False)
    op.create_table(
        "pilot_usage",
        sa.Column("user_name", sa.Text(), nullable=False),
        sa.Column("core_seconds", sa.Double(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("running_cores", sa.Integer(), nullable=False),
        sa.Column("running_since", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("user_name", name=op.f("pk_pilot_usage")),
    )
    op.create_table(
        "pilot_workers",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("group_name", sa.Text(), nullable=False),
        sa.Column("host", sa.JSON(), nullable=False),
        sa.Column("host_digest", sa.Text(), nullable=False),
        sa.Column("cores", sa.Integer(), nullable=False),
        sa.Column("memory", sa.BigInteger(), nullable=False),
        sa.Column("disk", sa.BigInteger(), nullable=False),
        sa.Column("gpus", sa.Integer(), nullable=False),
        sa.Column("single_use", sa.Boolean(), nullable=False),
        sa.Column("draining", sa.Boolean(), nullable=False),
        sa.Column("final", sa.Boolean(), nullable=False),
        sa.Column("idle_since", sa.Double(), nullable=False),
        sa.Column("contact", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_pilot_workers")),
    )
