"""Keep the numbers that must not be called, as keyed hashes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "dnc",
        sa.Column("client_id", sa.String(36), nullable=False),
        sa.Column("number_hash", sa.String(64), nullable=False),
        sa.Column("ending", sa.String(2), nullable=False),
        sa.Column("note", sa.String(200), nullable=False),
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["client_id"], ["clients.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("client_id", "number_hash"),
    )
    op.create_index("ix_dnc_client_id", "dnc", ["client_id"])


def downgrade() -> None:
    op.drop_index("ix_dnc_client_id", "dnc")
    op.drop_table("dnc")
