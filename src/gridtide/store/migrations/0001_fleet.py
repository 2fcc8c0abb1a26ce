"""The fleet: workers, leadership, wishes, the audit log, users' tokens."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision: str | None = None


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "events",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("group_name", sa.Text(), nullable=True),
        sa.Column("cause", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("evidence", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_events")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_events_kind_number", "events", ["kind", "number"], unique=False)
    op.create_index("ix_events_subject_number", "events", ["subject", "number"], unique=False)
    leadership = op.create_table(
        "leadership",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("host", sa.Text(), nullable=True),
        sa.Column("boot", sa.Text(), nullable=True),
        sa.Column("process", sa.Integer(), nullable=True),
        sa.Column("started", sa.BigInteger(), nullable=True),
        sa.Column("expires", sa.Double(), nullable=True),
        sa.CheckConstraint("id = 1", name=op.f("ck_leadership_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_leadership")),
    )
    op.create_table(
        "tokens",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("user_name", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("expires", sa.Double(), nullable=True),
        sa.Column("revoked", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tokens")),
    )
    op.create_table(
        "wishes",
        sa.Column("group_name", sa.Text(), nullable=False),
        sa.Column("minimum", sa.Integer(), nullable=True),
        sa.Column("maximum", sa.Integer(), nullable=True),
        sa.Column("desired", sa.Integer(), nullable=True),
        sa.Column("hold", sa.Boolean(), nullable=False),
        sa.Column("closing", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("group_name", name=op.f("pk_wishes")),
    )
    op.create_table(
        "workers",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("group_name", sa.Text(), nullable=False),
        sa.Column("cloud", sa.Text(), nullable=False),
        sa.Column("shape", sa.Text(), nullable=False),
        sa.Column("cores", sa.Integer(), nullable=False),
        sa.Column("memory", sa.BigInteger(), nullable=False),
        sa.Column("disk", sa.BigInteger(), nullable=False),
        sa.Column("gpus", sa.Integer(), nullable=False),
        sa.Column("price", sa.Double(), nullable=False),
        sa.Column("zone", sa.Text(), nullable=True),
        sa.Column("generation", sa.Text(), nullable=False),
        sa.Column("single_use", sa.Boolean(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("since", sa.Double(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("machine", sa.Text(), nullable=True),
        sa.Column("launched", sa.Double(), nullable=True),
        sa.Column("joined", sa.Double(), nullable=True),
        sa.Column("drain_wanted", sa.Boolean(), nullable=False),
        sa.Column("force_wanted", sa.Boolean(), nullable=False),
        sa.Column("join_digest", sa.LargeBinary(), nullable=True),
        sa.Column("join_expires", sa.Double(), nullable=True),
        sa.Column("worker_digest", sa.LargeBinary(), nullable=True),
        sa.Column("host", sa.JSON(none_as_null=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workers")),
    )
    op.create_index(
        "ix_workers_alive",
        "workers",
        ["created", "id"],
        unique=False,
        sqlite_where=sa.text("state <> 'gone'"),
        postgresql_where=sa.text("state <> 'gone'"),
    )
    op.create_index(
        "ix_workers_dead",
        "workers",
        ["since", "id"],
        unique=False,
        sqlite_where=sa.text("state = 'gone'"),
        postgresql_where=sa.text("state = 'gone'"),
    )
    op.create_index(
        "ix_workers_dead_of_group",
        "workers",
        ["group_name", "since", "id"],
        unique=False,
        sqlite_where=sa.text("state = 'gone'"),
        postgresql_where=sa.text("state = 'gone'"),
    )
    # Nobody has led yet. The row is there from the start, so that two that want to be the first meet in it.
    op.bulk_insert(leadership, [{"id": 1, "epoch": 0}])
