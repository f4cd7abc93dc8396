"""Say where a callback came from and when its customer joined the line; let a site call missed callers back."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("callbacks", sa.Column("source", sa.String(10), nullable=False, server_default="web"))
    op.add_column("callbacks", sa.Column("joined_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("sites", sa.Column("missed", sa.JSON(), nullable=False, server_default="{}"))


def downgrade() -> None:
    op.drop_column("sites", "missed")
    op.drop_column("callbacks", "joined_at")
    op.drop_column("callbacks", "source")
