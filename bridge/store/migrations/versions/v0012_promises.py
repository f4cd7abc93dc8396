"""Keep what was promised and when the phone rang, so that promises can be judged (old rows are not), and what page and
PBX last agreed on of an agent's state."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_INDEXES = {
    "ix_callbacks_judged": (["site_id", "expected_at"], "promise_kept IS NOT NULL"),
    "ix_callbacks_unjudged": (["expected_at"], "promise_kept IS NULL AND expected_at IS NOT NULL"),
}


def upgrade() -> None:
    op.add_column("callbacks", sa.Column("expected_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("callbacks", sa.Column("promise_kept", sa.Boolean(), nullable=True))
    op.add_column("callbacks", sa.Column("rang_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("agent_states", sa.Column("mirrored", sa.JSON(), nullable=True))
    for name, (columns, where) in _INDEXES.items():
        op.create_index(name, "callbacks", columns, sqlite_where=sa.text(where), postgresql_where=sa.text(where))


def downgrade() -> None:
    op.drop_column("agent_states", "mirrored")
    for name in _INDEXES:
        op.drop_index(name, "callbacks")
    for column in ("rang_at", "promise_kept", "expected_at"):
        op.drop_column("callbacks", column)
