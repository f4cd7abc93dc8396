"""The tables of money: prices, budgets, and what calls came to. Amounts are micro-units of a currency."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from bridge.store.models import Base


class PriceRow(Base):
    """What calls to numbers with this prefix cost; one table for all that is dialled here."""

    __tablename__ = "prices"
    prefix: Mapped[str] = mapped_column(String(15), primary_key=True)
    currency: Mapped[str] = mapped_column(String(3))
    per_minute: Mapped[int] = mapped_column(BigInteger)
    setup: Mapped[int] = mapped_column(BigInteger, default=0)
    first_seconds: Mapped[int] = mapped_column(default=60)
    next_seconds: Mapped[int] = mapped_column(default=60)
    name: Mapped[str] = mapped_column(String(200), default="")
    changed_at: Mapped[datetime]


class BudgetRow(Base):
    """What a day's calls of a site, or of all sites of a client, may come to."""

    __tablename__ = "budgets"
    owner_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    """The site's id, or the client's."""
    client_id: Mapped[str] = mapped_column(ForeignKey("clients.id", ondelete="CASCADE"), index=True)
    site_id: Mapped[str | None] = mapped_column(ForeignKey("sites.id", ondelete="CASCADE"))
    """None for a client's own."""
    money: Mapped[int | None] = mapped_column(BigInteger)
    currency: Mapped[str | None] = mapped_column(String(3))
    seconds: Mapped[int | None]
    call_seconds: Mapped[int]
    changed_at: Mapped[datetime]


class BudgetDay(Base):
    """How far a day's budget is used: what ended calls came to, and what calls in flight may come to."""

    __tablename__ = "budget_days"
    owner_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    """No foreign key: a budget that is taken away and given again in one day goes on where it was."""
    day: Mapped[str] = mapped_column(String(10), primary_key=True)
    """As its owner's clock has it."""
    client_id: Mapped[str] = mapped_column(ForeignKey("clients.id", ondelete="CASCADE"), index=True)
    money_spent: Mapped[int] = mapped_column(BigInteger, default=0)
    money_held: Mapped[int] = mapped_column(BigInteger, default=0)
    seconds_spent: Mapped[int] = mapped_column(BigInteger, default=0)
    seconds_held: Mapped[int] = mapped_column(BigInteger, default=0)
    grants: Mapped[int] = mapped_column(default=0)
    """How often an administrator gave the day's budget once more."""
    told_at: Mapped[datetime | None]
    """When the supervisor was told that it is spent."""


class Reservation(Base):
    """What one attempt holds of a budget from its claim to its end, and what it came to."""

    __tablename__ = "reservations"
    attempt_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    owner_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    client_id: Mapped[str] = mapped_column(ForeignKey("clients.id", ondelete="CASCADE"), index=True)
    day: Mapped[str] = mapped_column(String(10))
    money: Mapped[int] = mapped_column(BigInteger)
    seconds: Mapped[int]
    currency: Mapped[str | None] = mapped_column(String(3))
    """The price by which it is settled, as it was at the claim; None where there was none."""
    per_minute: Mapped[int | None] = mapped_column(BigInteger)
    setup: Mapped[int | None] = mapped_column(BigInteger)
    first_seconds: Mapped[int | None]
    next_seconds: Mapped[int | None]
    settled_at: Mapped[datetime | None]
    money_spent: Mapped[int | None] = mapped_column(BigInteger)
    seconds_spent: Mapped[int | None]
