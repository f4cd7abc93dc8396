"""Prices and budgets: amounts are strings, since a JSON number would be read as a float."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from flask import Blueprint, Response
from pydantic import AfterValidator, Field, StringConstraints

from bridge.api.contract import answer, csv_lines, no_content, view
from bridge.api.parts import now, parts
from bridge.api.strict import Answer, Body, Line, Query, Short
from bridge.api.tenant_shapes import Listing
from bridge.domain import costs
from bridge.domain.costs import Budget
from bridge.domain.csv_lines import Imported
from bridge.domain.errors import Invalid
from bridge.domain.numbers import parse_number
from bridge.services import budget_settings, prices
from bridge.services.access import ADMINISTRATORS, LEADERS, Access
from bridge.store.spending import PriceRow

blueprint = Blueprint("money", __name__, url_prefix="/api/v1")


def _amount(text: str) -> str:
    try:
        costs.read_money(text)
    except Invalid as error:
        raise ValueError(error.message) from None
    return text


Amount = Annotated[Line, StringConstraints(max_length=17), AfterValidator(_amount)]
Currency = Annotated[Line, StringConstraints(pattern=r"^[A-Z]{3}$")]
Step = Annotated[int, Field(ge=1, le=3600)]


class PriceSet(Body):
    """What calls to numbers of a prefix cost, billed in steps from the customer's answer on."""

    per_minute: Amount
    currency: Currency
    setup: Amount = "0"
    first_seconds: Step = 60
    next_seconds: Step = 60
    name: Short = ""


class PriceNow(Answer):
    prefix: str
    per_minute: str
    currency: str
    setup: str
    first_seconds: int
    next_seconds: int
    name: str
    changed_at: datetime


class PricePage(Answer):
    items: list[PriceNow]
    next: str | None


class PriceQuery(Listing):
    prefix: Short | None = None
    number: Line | None = Field(None, max_length=40, description="a number with its country code: its price")


class ImportFault(Answer):
    line: int
    code: str
    message: str


class ImportDone(Answer):
    """What became of each line; at most a hundred faults are told one by one."""

    taken: int
    already: int
    bad: int
    faults: list[ImportFault]


class PriceImport(Query):
    replace: bool = Field(False, description="in the place of the whole table that is there")


class BudgetSet(Body):
    """What a day's calls may come to: money, minutes, or both."""

    money: Amount | None = None
    currency: Currency | None = None
    minutes: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    call_minutes: Annotated[int, Field(ge=1, le=240)] = Field(
        10, description="how long a call is reckoned to talk at most, until it has ended"
    )


class BudgetNow(Answer):
    """A budget, and how far today's is used, on the clock of `timezone`."""

    id: str = Field(description="the site's id, or the client's")
    kind: str = Field(description="site or client")
    client_id: str
    name: str
    money: str | None
    currency: str | None
    minutes: int | None
    call_minutes: int
    day: str
    timezone: str
    resets_at: datetime
    money_spent: str
    money_held: str = Field(description="what calls in progress may come to")
    seconds_spent: int
    seconds_held: int
    grants: int = Field(description="how often the day's budget was given once more")
    told_at: datetime | None = Field(description="when the supervisor was told that it is spent")


class BudgetList(Answer):
    items: list[BudgetNow]


@blueprint.get("/prices")
@view("prices", roles=LEADERS, query=PriceQuery, answers=PricePage)
def find_prices(access: Access, query: PriceQuery) -> Response:
    """List prices, last changed first."""
    number = parse_number(query.number, "ZZ") if query.number is not None else None
    with parts().database.read() as db:
        page = prices.find(db, access, query.limit, query.cursor, number, query.prefix)
        items = [_price(row) for row in page.rows]
    return answer(PricePage(items=items, next=page.cursor))


@blueprint.put("/prices/<prefix>")
@view("prices", roles=ADMINISTRATORS, body=PriceSet, answers=PriceNow)
def put_price(access: Access, prefix: str, body: PriceSet) -> Response:
    """Set the price of a prefix; the longest one that fits a number counts. Once there is one, numbers that none fits
    are not called."""
    cells = {"prefix": prefix, **{name: str(value) for name, value in body.model_dump().items()}}
    with parts().writing() as db:
        shape = _price(prices.put(db, access, now(), cells))
    return answer(shape)


@blueprint.delete("/prices/<prefix>")
@view("prices", roles=ADMINISTRATORS, status=204)
def remove_price(access: Access, prefix: str) -> Response:
    """Take a prefix out of the table."""
    with parts().writing() as db:
        prices.remove(db, access, now(), prefix)
    return no_content()


@blueprint.post("/prices/import")
@view("prices", roles=ADMINISTRATORS, query=PriceImport, answers=ImportDone)
def import_prices(access: Access, query: PriceImport) -> Response:
    """Take a table as CSV, all of it or nothing; `ringbridge import prices` takes larger ones.

    Columns: prefix, per_minute, currency, setup, first_seconds, next_seconds, name.
    """
    return answer(imported(prices.take(parts().database, access, now(), csv_lines(), replace=query.replace)))


@blueprint.get("/budgets")
@view("budgets", roles=LEADERS, answers=BudgetList)
def find_budgets(access: Access) -> Response:
    """List the budgets of sites and clients, and how far today's are used."""
    with parts().database.read() as db:
        return answer(BudgetList(items=[_budget(each) for each in budget_settings.find(db, access, now())]))


@blueprint.get("/budgets/<owner_id>")
@view("budgets", roles=LEADERS, answers=BudgetNow)
def read_budget(access: Access, owner_id: str) -> Response:
    """Read the budget of a site or client."""
    with parts().database.read() as db:
        return answer(_budget(budget_settings.get(db, access, owner_id, now())))


@blueprint.put("/budgets/<owner_id>")
@view("budgets", roles=ADMINISTRATORS, body=BudgetSet, answers=BudgetNow)
def put_budget(access: Access, owner_id: str, body: BudgetSet) -> Response:
    """Set what a day's calls of a site, or of all sites of a client, may come to. Then nothing more is dialled."""
    budget = Budget(
        money=costs.read_money(body.money) if body.money is not None else None,
        currency=body.currency,
        seconds=body.minutes * 60 if body.minutes is not None else None,
        call_seconds=body.call_minutes * 60,
    )
    with parts().writing() as db:
        shape = _budget(budget_settings.put(db, access, now(), owner_id, budget))
    return answer(shape)


@blueprint.delete("/budgets/<owner_id>")
@view("budgets", roles=ADMINISTRATORS, status=204)
def remove_budget(access: Access, owner_id: str) -> Response:
    """Take a budget away."""
    with parts().writing() as db:
        budget_settings.remove(db, access, now(), owner_id)
    return no_content()


@blueprint.post("/budgets/<owner_id>/lift")
@view("budgets", roles=ADMINISTRATORS, answers=BudgetNow)
def lift_budget(access: Access, owner_id: str) -> Response:
    """Give today's budget once more, and let the callbacks that wait for it go on."""
    with parts().writing() as db:
        shape = _budget(budget_settings.lift(db, access, now(), owner_id))
    return answer(shape)


def imported(done: Imported) -> ImportDone:
    """What became of an import, as it goes out."""
    faults = [ImportFault(line=each.line, code=each.code, message=each.message) for each in done.faults]
    return ImportDone(taken=done.taken, already=done.already, bad=done.bad, faults=faults)


def _price(row: PriceRow) -> PriceNow:
    return PriceNow(
        prefix=row.prefix,
        per_minute=costs.write_money(row.per_minute),
        currency=row.currency,
        setup=costs.write_money(row.setup),
        first_seconds=row.first_seconds,
        next_seconds=row.next_seconds,
        name=row.name,
        changed_at=row.changed_at,
    )


def _budget(each: budget_settings.View) -> BudgetNow:
    row, used, owner = each.row, each.used, each.owner
    return BudgetNow(
        id=owner.id,
        kind="client" if owner.site is None else "site",
        client_id=owner.client,
        name=owner.name,
        money=costs.write_money(row.money) if row.money is not None else None,
        currency=row.currency,
        minutes=row.seconds // 60 if row.seconds is not None else None,
        call_minutes=row.call_seconds // 60,
        day=each.day.name,
        timezone=owner.timezone,
        resets_at=each.day.ends,
        money_spent=costs.write_money(used.money_spent if used else 0),
        money_held=costs.write_money(used.money_held if used else 0),
        seconds_spent=used.seconds_spent if used else 0,
        seconds_held=used.seconds_held if used else 0,
        grants=used.grants if used else 0,
        told_at=used.told_at if used else None,
    )
