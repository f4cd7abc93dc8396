"""Budgets as administrators set and lift them, and as supervisors see them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from bridge.domain import costs
from bridge.domain.costs import Budget, Day
from bridge.domain.errors import Conflict, Invalid, NotFound
from bridge.services import audit, budgets
from bridge.services.access import ADMINISTRATORS, LEADERS, Access
from bridge.store.models import Client, Site
from bridge.store.queries import spending
from bridge.store.spending import BudgetDay, BudgetRow, PriceRow

_RING = 60
"""Seconds that a customer's phone rings, with some to spare."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose budget it is."""

    id: str
    site: str | None
    client: str
    name: str
    timezone: str


@dataclass(frozen=True, slots=True)
class View:
    """A budget, and how far its day is used."""

    owner: Owner
    row: BudgetRow
    day: Day
    used: BudgetDay | None


def find(db: Session, access: Access, now: datetime) -> list[View]:
    """Every budget in reach; few, since each was set by hand."""
    access.require(LEADERS)
    rows = db.scalars(access.scope(select(BudgetRow), BudgetRow.client_id).order_by(BudgetRow.owner_id))
    return [_view(db, _owner(db, access, row.owner_id), row, now) for row in rows]


def get(db: Session, access: Access, owner_id: str, now: datetime) -> View:
    """Raises NotFound."""
    access.require(LEADERS)
    owner = _owner(db, access, owner_id)
    return _view(db, owner, _row(db, owner), now)


def put(db: Session, access: Access, now: datetime, owner_id: str, budget: Budget) -> View:
    """Set the budget of a site or client; callbacks that wait for it are due again.

    Raises Invalid, NotFound, Conflict.
    """
    access.require(ADMINISTRATORS)
    owner = _owner(db, access, owner_id)
    before = db.get(BudgetRow, owner.id)
    _check(db, owner, before, budget, now)
    row: BudgetRow = db.merge(
        BudgetRow(
            owner_id=owner.id,
            client_id=owner.client,
            site_id=owner.site,
            money=budget.money,
            currency=budget.currency,
            seconds=budget.seconds,
            call_seconds=budget.call_seconds,
            changed_at=now,
        )
    )
    db.flush()
    _again(db, owner, now)
    detail = {
        "money": costs.write_money(budget.money) if budget.money is not None else None,
        "currency": budget.currency,
        "seconds": budget.seconds,
        "call_seconds": budget.call_seconds,
    }
    audit.record(db, now, access.username, "budgets.put", owner.id, owner.client, detail)
    return _view(db, owner, row, now)


def remove(db: Session, access: Access, now: datetime, owner_id: str) -> None:
    """Take the budget away. Raises NotFound."""
    access.require(ADMINISTRATORS)
    owner = _owner(db, access, owner_id)
    db.delete(_row(db, owner))
    db.flush()
    _again(db, owner, now)
    audit.record(db, now, access.username, "budgets.delete", owner.id, owner.client)


def lift(db: Session, access: Access, now: datetime, owner_id: str) -> View:
    """Give today's budget once more; callbacks that wait for it are due again. Raises NotFound."""
    access.require(ADMINISTRATORS)
    owner = _owner(db, access, owner_id)
    row = _row(db, owner)
    day = costs.day_of(now, owner.timezone)
    spending.begin_day(db, owner.id, day.name, owner.client)
    # Told again when it is spent again.
    db.execute(
        update(BudgetDay)
        .where(BudgetDay.owner_id == owner.id, BudgetDay.day == day.name)
        .values(grants=BudgetDay.grants + 1, told_at=None)
        .execution_options(synchronize_session=False)
    )
    _again(db, owner, now)
    audit.record(db, now, access.username, "budgets.lift", owner.id, owner.client, {"day": day.name})
    return _view(db, owner, row, now)


def _owner(db: Session, access: Access, owner_id: str) -> Owner:
    site = db.scalar(access.scope(select(Site), Site.client_id).where(Site.id == owner_id))
    if site is not None:
        return Owner(site.id, site.id, site.client_id, site.name, site.timezone)
    client = db.scalar(access.scope(select(Client), Client.id).where(Client.id == owner_id))
    if client is None:
        raise NotFound("there is no such site or client")
    return Owner(client.id, None, client.id, client.name, client.timezone)


def _row(db: Session, owner: Owner) -> BudgetRow:
    row = db.get(BudgetRow, owner.id)
    if row is None:
        raise NotFound("it has no budget")
    return row


def _view(db: Session, owner: Owner, row: BudgetRow, now: datetime) -> View:
    day = costs.day_of(now, owner.timezone)
    return View(owner, row, day, spending.day_row(db, owner.id, day.name))


def _check(db: Session, owner: Owner, before: BudgetRow | None, budget: Budget, now: datetime) -> None:
    if budget.money is None and budget.seconds is None:
        raise Invalid("a budget is of money, of minutes, or of both", field="money")
    if (budget.money is None) != (budget.currency is None):
        raise Invalid("money and its currency come together", field="currency")
    if budget.seconds is not None and budget.seconds < budget.call_seconds + _RING:
        raise Invalid("a day must have room for one call of `call_minutes` and its ringing", field="minutes")
    if budget.currency is not None:
        known: Any = select(PriceRow.prefix).where(PriceRow.currency == budget.currency).limit(1)
        if db.scalar(known) is None:
            raise Invalid("there are no prices in this currency; bring the table of prices first", field="currency")
    today = spending.day_row(db, owner.id, costs.day_of(now, owner.timezone).name)
    spent = today is not None and (today.money_spent or today.money_held)
    if before is not None and spent and before.currency != budget.currency:
        raise Conflict("money of another currency was spent today; change the currency tomorrow", field="currency")


def _again(db: Session, owner: Owner, now: datetime) -> None:
    sites = [owner.site] if owner.site else list(db.scalars(select(Site.id).where(Site.client_id == owner.client)))
    budgets.release(db, sites, now)

