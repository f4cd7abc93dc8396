"""Let supervisors give a callback to one agent, and begin an ended one anew."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("callbacks", sa.Column("assigned_to", sa.String(36), nullable=True))
    op.add_column("callbacks", sa.Column("requeued_from", sa.String(36), nullable=True))
    only = sa.text("requeued_from IS NOT NULL")
    op.create_index(
        "ix_callbacks_requeued_from",
        "callbacks",
        ["requeued_from"],
        unique=True,
        sqlite_where=only,
        postgresql_where=only,
    )


def downgrade() -> None:
    op.drop_index("ix_callbacks_requeued_from", "callbacks")
    op.drop_column("callbacks", "requeued_from")
    op.drop_column("callbacks", "assigned_to")
