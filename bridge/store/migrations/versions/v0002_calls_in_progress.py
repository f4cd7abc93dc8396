"""Find the calls in progress, and those that became part of another, without reading every call there ever was."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    open_only, merged_only = sa.text("ended_at IS NULL"), sa.text("merged_into IS NOT NULL")
    op.create_index(
        "ix_calls_open", "calls", ["started_at"], sqlite_where=open_only, postgresql_where=open_only
    )
    op.create_index(
        "ix_calls_merged_into", "calls", ["merged_into"], sqlite_where=merged_only, postgresql_where=merged_only
    )


def downgrade() -> None:
    op.drop_index("ix_calls_merged_into", "calls")
    op.drop_index("ix_calls_open", "calls")
