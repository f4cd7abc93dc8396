"""Opening hours, and by which rules of its zone a callback's time was reckoned."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "calendars",
        sa.Column("client_id", sa.String(36), sa.ForeignKey("clients.id"), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("timezone", sa.String(64), nullable=False),
        sa.Column("weekly", sa.JSON(), nullable=False),
        sa.Column("special_days", sa.JSON(), nullable=False),
        sa.Column("country", sa.String(2), nullable=True),
        sa.Column("subdivision", sa.String(20), nullable=True),
        sa.Column("slot_minutes", sa.Integer(), nullable=False),
        sa.Column("agents", sa.Integer(), nullable=True),
        sa.Column("ahead_days", sa.Integer(), nullable=False),
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("ix_calendars_client_id", "calendars", ["client_id"])
    # What is there has no calendar, and calls at any hour as before.
    op.add_column("sites", sa.Column("calendar_id", sa.String(36), nullable=True))
    op.add_column("sites", sa.Column("queue_calendars", sa.JSON(), nullable=False, server_default="{}"))
    op.add_column("sites", sa.Column("when_closed", sa.String(10), nullable=False, server_default="next_open"))
    op.add_column("callbacks", sa.Column("tzdata", sa.String(20), nullable=True))
    op.add_column("callbacks", sa.Column("calendar_id", sa.String(36), nullable=True))
    of_calendar = sa.text("calendar_id IS NOT NULL")
    op.create_index(
        "ix_callbacks_slot", "callbacks", ["calendar_id", "due_at"],
        sqlite_where=of_calendar, postgresql_where=of_calendar,
    )


def downgrade() -> None:
    op.drop_index("ix_callbacks_slot", "callbacks")
    op.drop_column("callbacks", "calendar_id")
    op.drop_column("callbacks", "tzdata")
    for name in ("when_closed", "queue_calendars", "calendar_id"):
        op.drop_column("sites", name)
    op.drop_index("ix_calendars_client_id", "calendars")
    op.drop_table("calendars")
