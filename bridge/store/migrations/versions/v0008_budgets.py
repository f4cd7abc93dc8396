"""Prices by prefix, and budgets of a day that survive everything."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "prices",
        sa.Column("prefix", sa.String(15), nullable=False),
        sa.Column("currency", sa.String(3), nullable=False),
        sa.Column("per_minute", sa.BigInteger(), nullable=False),
        sa.Column("setup", sa.BigInteger(), nullable=False),
        sa.Column("first_seconds", sa.Integer(), nullable=False),
        sa.Column("next_seconds", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("prefix"),
    )
    op.create_table(
        "budgets",
        sa.Column("owner_id", sa.String(36), nullable=False),
        sa.Column("client_id", sa.String(36), nullable=False),
        sa.Column("site_id", sa.String(36), nullable=True),
        sa.Column("money", sa.BigInteger(), nullable=True),
        sa.Column("currency", sa.String(3), nullable=True),
        sa.Column("seconds", sa.Integer(), nullable=True),
        sa.Column("call_seconds", sa.Integer(), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["client_id"], ["clients.id"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["site_id"], ["sites.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("owner_id"),
    )
    op.create_index("ix_budgets_client_id", "budgets", ["client_id"])
    op.create_table(
        "budget_days",
        sa.Column("owner_id", sa.String(36), nullable=False),
        sa.Column("day", sa.String(10), nullable=False),
        sa.Column("client_id", sa.String(36), nullable=False),
        sa.Column("money_spent", sa.BigInteger(), nullable=False),
        sa.Column("money_held", sa.BigInteger(), nullable=False),
        sa.Column("seconds_spent", sa.BigInteger(), nullable=False),
        sa.Column("seconds_held", sa.BigInteger(), nullable=False),
        sa.Column("grants", sa.Integer(), nullable=False),
        sa.Column("told_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["client_id"], ["clients.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("owner_id", "day"),
    )
    op.create_index("ix_budget_days_client_id", "budget_days", ["client_id"])
    op.create_table(
        "reservations",
        sa.Column("attempt_id", sa.String(36), nullable=False),
        sa.Column("owner_id", sa.String(36), nullable=False),
        sa.Column("client_id", sa.String(36), nullable=False),
        sa.Column("day", sa.String(10), nullable=False),
        sa.Column("money", sa.BigInteger(), nullable=False),
        sa.Column("seconds", sa.Integer(), nullable=False),
        sa.Column("currency", sa.String(3), nullable=True),
        sa.Column("per_minute", sa.BigInteger(), nullable=True),
        sa.Column("setup", sa.BigInteger(), nullable=True),
        sa.Column("first_seconds", sa.Integer(), nullable=True),
        sa.Column("next_seconds", sa.Integer(), nullable=True),
        sa.Column("settled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("money_spent", sa.BigInteger(), nullable=True),
        sa.Column("seconds_spent", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(["client_id"], ["clients.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("attempt_id", "owner_id"),
    )
    op.create_index("ix_reservations_client_id", "reservations", ["client_id"])


def downgrade() -> None:
    op.drop_table("reservations")
    op.drop_table("budget_days")
    op.drop_table("budgets")
    op.drop_table("prices")
