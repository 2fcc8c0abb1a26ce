"""The queue that a worker was made for."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the column. Of workers that exist it is not known: their group's queue is taken for it."""
    op.add_column("workers", sa.Column("queue", sa.Text(), nullable=True))
