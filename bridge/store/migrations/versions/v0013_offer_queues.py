"""Let a site call back who waits in a queue and presses a key."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("sites", sa.Column("offer_queues", sa.JSON(), nullable=False, server_default="[]"))


def downgrade() -> None:
    op.drop_column("sites", "offer_queues")
