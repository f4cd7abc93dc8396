"""Reading prices and budgets, and the one UPDATE that lets no two claims pass a budget together."""

from __future__ import annotations

from functools import cache

from sqlalchemy import Executable, bindparam, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from bridge.domain.costs import Amount, Budget, Price, prefixes_of
from bridge.store.database import changed
from bridge.store.models import table
from bridge.store.spending import BudgetDay, BudgetRow, PriceRow, Reservation

_DAYS = table(BudgetDay)
_PRICES = table(PriceRow)
_PRICE_COLUMNS = [
    _PRICES.c[name] for name in ("prefix", "currency", "per_minute", "setup", "first_seconds", "next_seconds")
]

# Made once: to build a statement takes longer than to run it.
_ANY_PRICE = select(_PRICES.c.prefix).limit(1)
_BUDGETS = select(*table(BudgetRow).c).where(
    table(BudgetRow).c.owner_id.in_([bindparam("site"), bindparam("client")])
)
_BEST = (
    select(*_PRICE_COLUMNS)
    .where(_PRICES.c.prefix.in_(bindparam("prefixes", expanding=True)))
    .order_by(func.length(_PRICES.c.prefix).desc())
    .limit(1)
)


def any_price(session: Session) -> bool:
    """Whether there is a table of prices at all."""
    return session.connection().execute(_ANY_PRICE).first() is not None


def price_of(session: Session, e164: str) -> Price | None:
    """The price of the longest prefix that fits, as `domain.costs.longest_match` has it."""
    found = session.connection().execute(_BEST, {"prefixes": prefixes_of(e164)}).one_or_none()
    return Price(*found) if found is not None else None


def budgets_of(session: Session, site: str, client: str) -> list[tuple[str, Budget]]:
    """The budgets under which a site's calls are, by owner: the site's own before the client's."""
    found = session.connection().execute(_BUDGETS, {"site": site, "client": client}).all()
    ordered = sorted(found, key=lambda row: row.owner_id != site)
    return [(row.owner_id, Budget(row.money, row.currency, row.seconds, row.call_seconds)) for row in ordered]


def day_row(session: Session, owner: str, day: str) -> BudgetDay | None:
    """How far that day's budget is used; None where nothing is."""
    return session.get(BudgetDay, (owner, day), populate_existing=True)


def begin_day(session: Session, owner: str, day: str, client: str) -> None:
    """See that the day has its row."""
    session.execute(
        _new_day(session.get_bind().dialect.name),
        {
            "owner_id": owner,
            "day": day,
            "client_id": client,
            "money_spent": 0,
            "money_held": 0,
            "seconds_spent": 0,
            "seconds_held": 0,
            "grants": 0,
        },
    )


def hold(session: Session, owner: str, day: str, budget: Budget, wanted: Amount) -> bool:
    """Take `wanted` from the day's budget, unless it has no room for that.

    One conditional UPDATE: of many at once each sees what those before it took.
    """
    times = 1 + _DAYS.c.grants
    fits = [_DAYS.c.owner_id == owner, _DAYS.c.day == day]
    if budget.money is not None:
        fits.append(_DAYS.c.money_spent + _DAYS.c.money_held + wanted.money <= times * budget.money)
    if budget.seconds is not None:
        fits.append(_DAYS.c.seconds_spent + _DAYS.c.seconds_held + wanted.seconds <= times * budget.seconds)
    more = {"money_held": _DAYS.c.money_held + wanted.money, "seconds_held": _DAYS.c.seconds_held + wanted.seconds}
    return bool(changed(session, update(_DAYS).where(*fits).values(more)))


def keep(
    session: Session, attempt: str, owner: str, client: str, day: str, held: Amount, price: Price | None
) -> None:
    """Write down what an attempt holds, and by which price it will be settled."""
    session.execute(
        insert(Reservation).values(
            attempt_id=attempt,
            owner_id=owner,
            client_id=client,
            day=day,
            money=held.money,
            seconds=held.seconds,
            currency=price.currency if price else None,
            per_minute=price.per_minute if price else None,
            setup=price.setup if price else None,
            first_seconds=price.first_seconds if price else None,
            next_seconds=price.next_seconds if price else None,
        )
    )


def settle(session: Session, row: Reservation, spent: Amount) -> None:
    """Put what a call came to in the place of what was held for it."""
    session.execute(
        update(_DAYS)
        .where(_DAYS.c.owner_id == row.owner_id, _DAYS.c.day == row.day)
        .values(
            money_held=_DAYS.c.money_held - row.money,
            seconds_held=_DAYS.c.seconds_held - row.seconds,
            money_spent=_DAYS.c.money_spent + spent.money,
            seconds_spent=_DAYS.c.seconds_spent + spent.seconds,
        )
    )


@cache
def _new_day(dialect: str) -> Executable:
    made = (postgresql if dialect == "postgresql" else sqlite).insert(_DAYS)
    statement: Executable = made.on_conflict_do_nothing(index_elements=["owner_id", "day"])
    return statement
