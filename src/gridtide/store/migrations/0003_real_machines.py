"""Real machines: images, boot times, large contexts, rollouts that can be paused."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the columns and the table."""
    op.create_table(
        "boots",
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("cloud", sa.Text(), nullable=False),
        sa.Column("shape", sa.Text(), nullable=False),
        sa.Column("image", sa.Text(), nullable=True),
        sa.Column("joined", sa.Double(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("phases", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("worker", name=op.f("pk_boots")),
    )
    op.create_index("ix_boots_joined_worker", "boots", ["joined", "worker"], unique=False)
    op.add_column("workers", sa.Column("image", sa.Text(), nullable=True))
    op.add_column("workers", sa.Column("context_reader", sa.LargeBinary(), nullable=True))
    op.add_column("wishes", sa.Column("rollout_paused", sa.Boolean(), nullable=False, server_default=sa.false()))
