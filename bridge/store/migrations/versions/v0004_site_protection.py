"""Give a site its protection, and its key a successor."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("sites", sa.Column("protection", sa.JSON(), nullable=False, server_default="{}"))
    op.add_column("sites", sa.Column("previous_key", sa.String(40), nullable=True))
    op.add_column("sites", sa.Column("previous_key_until", sa.DateTime(timezone=True), nullable=True))
    op.create_index("ix_sites_previous_key", "sites", ["previous_key"], unique=True)


def downgrade() -> None:
    op.drop_index("ix_sites_previous_key", "sites")
    op.drop_column("sites", "previous_key_until")
    op.drop_column("sites", "previous_key")
    op.drop_column("sites", "protection")
