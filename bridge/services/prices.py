"""The table of prices: kept by administrators who see all clients, since what calls cost is everybody's."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from bridge.domain import costs, csv_lines
from bridge.domain.csv_lines import Imported
from bridge.domain.errors import Forbidden, Invalid, NotFound
from bridge.services import audit
from bridge.services.access import ADMINISTRATORS, LEADERS, Access
from bridge.services.paging import Page, page_of
from bridge.store.database import Sessions, changed
from bridge.store.spending import PriceRow

COLUMNS = ("prefix", "per_minute", "currency", "setup", "first_seconds", "next_seconds", "name")
NEEDED = ("prefix", "per_minute", "currency")
_AT_ONCE = 500
_LONGEST_STEP = 3600


def read(cells: dict[str, str]) -> dict[str, Any]:
    """The columns of a price from what people write. Raises Invalid, whose field is the cell."""
    for name in NEEDED:
        if not cells[name]:
            raise Invalid(f"{name} is missing", field=name)
    return {
        "prefix": costs.read_prefix(cells["prefix"]),
        "per_minute": costs.read_money(cells["per_minute"], "per_minute"),
        "currency": costs.read_currency(cells["currency"]),
        "setup": costs.read_money(cells["setup"] or "0", "setup"),
        "first_seconds": _step(cells["first_seconds"], "first_seconds"),
        "next_seconds": _step(cells["next_seconds"], "next_seconds"),
        "name": _name(cells["name"]),
    }


def find(db: Session, access: Access, limit: int, cursor: str | None, number: str | None, prefix: str | None) -> Page:
    """A page of the table, last changed first; `number` (E.164) finds the one price that counts for it."""
    access.require(LEADERS)
    statement = select(PriceRow)
    if prefix is not None:
        statement = statement.where(PriceRow.prefix == costs.read_prefix(prefix))
    if number is not None:
        rows = db.scalars(statement.where(PriceRow.prefix.in_(costs.prefixes_of(number)))).all()
        return Page(sorted(rows, key=lambda row: len(row.prefix))[-1:], None)
    return page_of(db, statement, PriceRow.changed_at, PriceRow.prefix, limit, cursor)


def put(db: Session, access: Access, now: datetime, cells: dict[str, str]) -> PriceRow:
    """Set the price of a prefix. Raises Invalid."""
    _require(access)
    values = read(cells)
    row: PriceRow = db.merge(PriceRow(**values, changed_at=now))
    db.flush()
    shown = {name: value for name, value in cells.items() if value}
    audit.record(db, now, access.username, "prices.put", row.prefix, None, shown)
    return row


def remove(db: Session, access: Access, now: datetime, prefix: str) -> None:
    """Take a prefix out of the table. Raises NotFound."""
    _require(access)
    if not changed(db, delete(PriceRow).where(PriceRow.prefix == costs.read_prefix(prefix))):
        raise NotFound("there is no price for this prefix")
    audit.record(db, now, access.username, "prices.delete", prefix)


def take(
    sessions: Sessions, access: Access, now: datetime, lines: Iterable[str], *, replace: bool, first_line: int = 1
) -> Imported:
    """Take a table of CSV lines: all of it or, where one line is wrong, nothing.

    With a hole in it, a shorter and cheaper prefix would count for the numbers of the line left out. With
    `replace` it takes the place of the one that is there. Raises Invalid for columns that are none.
    """
    _require(access)
    done = Imported()
    rows: dict[str, dict[str, Any]] = {}
    for found in csv_lines.read(lines, COLUMNS, NEEDED, first_line):
        if isinstance(found, csv_lines.Fault):
            done.note(found)
            continue
        try:
            values = read(found.cells)
            if values["prefix"] in rows:
                raise Invalid("this prefix stands further up already", field="prefix", code="twice")
        except Invalid as error:
            code = str(error.details.get("code") or error.code)
            done.note(csv_lines.Fault(found.line, code, f"{error.field}: {error.message}"))
        else:
            rows[values["prefix"]] = {**values, "changed_at": now}
    if done.bad or not rows:
        return done
    with sessions.begin() as db:
        if replace:
            db.execute(delete(PriceRow))
        _write(db, list(rows.values()))
        audit.record(db, now, access.username, "prices.import", "prices", None, {"rows": len(rows), "replace": replace})
    done.taken = len(rows)
    return done


def _write(db: Session, rows: list[dict[str, Any]]) -> None:
    made = (postgresql if db.get_bind().dialect.name == "postgresql" else sqlite).insert(PriceRow)
    fresh = {name: made.excluded[name] for name in rows[0] if name != "prefix"}
    statement = made.on_conflict_do_update(index_elements=["prefix"], set_=fresh)
    for start in range(0, len(rows), _AT_ONCE):
        db.connection().execute(statement, rows[start : start + _AT_ONCE])


def _require(access: Access) -> None:
    access.require(ADMINISTRATORS)
    if access.clients is not None:
        raise Forbidden("prices are kept by an administrator of all clients")


def _step(text: str, field: str) -> int:
    if not text:
        return 60
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:5]) <= _LONGEST_STEP or len(text) > 4:
        raise Invalid(f"write whole seconds, 1 to {_LONGEST_STEP}", field=field)
    return int(text)


def _name(text: str) -> str:
    if len(text) > 200 or not text.isprintable():
        raise Invalid("a name has at most 200 printable characters", field="name")
    return text
