"""What an administrator keeps for each client company: clients, DIDs, sites, customers, calendars, scripts."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Select, func, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from bridge.domain import hours
from bridge.domain.errors import Conflict, Invalid, NotFound
from bridge.domain.numbers import parse_number
from bridge.services import audit, calendars
from bridge.services.access import ADMINISTRATORS, EVERYONE, LEADERS, STAFF, Access, Role
from bridge.services.paging import Page, page_of
from bridge.store.models import Calendar, Client, Customer, CustomerNumber, Did, Script, Site

Row = Any
"""A row of one of the tables below; which one is the collection's business."""


@dataclass(frozen=True, slots=True)
class Collection:
    """A table that REST offers: who may read and change it, and by which columns a list is filtered."""

    name: str
    one: str
    table: type[Row]
    readers: frozenset[Role]
    writers: frozenset[Role]
    filters: tuple[str, ...] = ()
    numbers: tuple[str, ...] = field(default=())
    """Columns that hold a telephone number, read in the client's region."""

    @property
    def client_column(self) -> InstrumentedAttribute[Any]:
        """The column that says whose row it is; a client is its own."""
        column: InstrumentedAttribute[Any] = (
            self.table.id if self.table is Client else self.table.client_id
        )
        return column


CLIENTS = Collection("clients", "client", Client, EVERYONE, ADMINISTRATORS, ("name", "active"))
DIDS = Collection(
    "dids", "DID", Did, EVERYONE, ADMINISTRATORS, ("client_id", "number", "script_id"), ("number",)
)
SITES = Collection(
    "sites", "site", Site, EVERYONE, ADMINISTRATORS, ("client_id", "key", "active"), ("caller_id",)
)
CUSTOMERS = Collection(
    "customers", "customer", Customer, EVERYONE, STAFF, ("client_id", "name", "company", "email", "reference")
)
CALENDARS = Collection("calendars", "calendar", Calendar, EVERYONE, LEADERS, ("client_id", "name"))
SCRIPTS = Collection("scripts", "script", Script, EVERYONE, LEADERS, ("client_id", "name", "version"))

COLLECTIONS = (CLIENTS, DIDS, SITES, CUSTOMERS, CALENDARS, SCRIPTS)


def find(
    db: Session,
    access: Access,
    kind: Collection,
    limit: int,
    cursor: str | None,
    filters: Mapping[str, Any],
) -> Page:
    """A page of rows in reach, newest first. Customers may be found by `number` (E.164) too."""
    access.require(kind.readers)
    statement = _rows(access, kind)
    for name, value in filters.items():
        if value is None:
            continue
        if kind is CUSTOMERS and name == "number":
            holders = select(CustomerNumber.customer_id).where(CustomerNumber.number == value)
            statement = statement.where(Customer.id.in_(holders))
        elif name in kind.filters:
            statement = statement.where(getattr(kind.table, name) == value)
    return page_of(db, statement, kind.table.created_at, kind.table.id, limit, cursor)


def get(db: Session, access: Access, kind: Collection, row_id: str) -> Row:
    """One row in reach. Raises NotFound."""
    access.require(kind.readers)
    row = db.scalar(_rows(access, kind).where(kind.table.id == row_id))
    if row is None:
        raise NotFound(f"there is no such {kind.one}")
    return row


def create(
    db: Session, access: Access, kind: Collection, now: datetime, values: Mapping[str, Any]
) -> Row:
    """Add a row. Raises Invalid, NotFound (client out of reach), Conflict (something unique is taken)."""
    access.require(kind.writers)
    columns = dict(values)
    if kind is CLIENTS:
        if access.clients is not None:
            access.require(frozenset())
    else:
        access.check_client(columns["client_id"])
    numbers = columns.pop("numbers", None)
    _prepare(db, kind, columns, columns.get("client_id"), None)
    if kind is SCRIPTS:
        columns["version"] = _next_version(db, columns["client_id"], columns["name"])
    if kind is SITES:
        columns["key"] = secrets.token_urlsafe(18)
    row = kind.table(created_at=now, **columns)
    db.add(row)
    db.flush()
    if numbers is not None:
        _set_numbers(db, row, numbers)
    if kind is SCRIPTS:
        _use_newest(db, row)
    _record(db, access, kind, now, "create", row, values)
    return row


def change(
    db: Session, access: Access, kind: Collection, now: datetime, row_id: str, values: Mapping[str, Any]
) -> Row:
    """Change some columns of a row. A script is never changed: its next version is returned."""
    access.require(kind.writers)
    row = get(db, access, kind, row_id)
    columns = dict(values)
    if kind is SCRIPTS:
        fresh = {"client_id": row.client_id, "name": row.name, "body": row.body, **columns}
        newer = create(db, access, kind, now, fresh)
        if newer.name != row.name:
            _move_script(db, row, newer)
        return newer
    numbers = columns.pop("numbers", None)
    _prepare(db, kind, columns, None if kind is CLIENTS else row.client_id, row.id)
    for name, value in columns.items():
        setattr(row, name, value)
    if numbers is not None:
        _set_numbers(db, row, numbers)
    db.flush()
    _record(db, access, kind, now, "change", row, values)
    return row


def renew_key(db: Session, access: Access, now: datetime, site_id: str, keep: timedelta) -> Site:
    """Give a site a new key; the one before it stays good for `keep`. Raises NotFound."""
    access.require(SITES.writers)
    site: Site = get(db, access, SITES, site_id)
    site.previous_key, site.previous_key_until = site.key, now + keep
    site.key = secrets.token_urlsafe(18)
    db.flush()
    hours = int(keep.total_seconds() // 3600)
    audit.record(db, now, access.username, "sites.key", site.id, site.client_id, {"keep_hours": hours})
    return site


def remove(db: Session, access: Access, kind: Collection, now: datetime, row_id: str) -> None:
    """Delete a row that nothing refers to; else the foreign keys refuse it, which the caller hears as Conflict."""
    access.require(kind.writers)
    row = get(db, access, kind, row_id)
    if kind is CALENDARS:
        _check_unused(db, row)
    _record(db, access, kind, now, "delete", row, {})
    db.delete(row)
    db.flush()


def numbers_of(db: Session, customers: Iterable[str]) -> dict[str, list[str]]:
    """The numbers of each customer id."""
    found: dict[str, list[str]] = {}
    rows = db.execute(
        select(CustomerNumber.customer_id, CustomerNumber.number)
        .where(CustomerNumber.customer_id.in_(list(customers)))
        .order_by(CustomerNumber.number)
    )
    for customer, number in rows:
        found.setdefault(customer, []).append(number)
    return found


def _rows(access: Access, kind: Collection) -> Select[Any]:
    return access.scope(select(kind.table), kind.client_column)


def _record(
    db: Session,
    access: Access,
    kind: Collection,
    now: datetime,
    what: str,
    row: Row,
    values: Mapping[str, Any],
) -> None:
    client = row.id if kind is CLIENTS else row.client_id
    detail = dict.fromkeys(values, "(changed)") if kind is CUSTOMERS else values
    audit.record(db, now, access.username, f"{kind.name}.{what}", row.id, client, detail)


def _prepare(
    db: Session, kind: Collection, columns: dict[str, Any], client_id: str | None, row_id: str | None
) -> None:
    """Read numbers in the client's region, and see that a script is the same client's."""
    client = db.get(Client, client_id) if client_id is not None else None
    if client_id is not None and client is None:
        raise Invalid("there is no such client", field="client_id")
    for name in kind.numbers:
        if columns.get(name) is not None:
            columns[name] = _number(columns[name], client, name)
    script_id = columns.get("script_id")
    if script_id is not None:
        script = db.get(Script, script_id)
        if script is None or script.client_id != client_id:
            raise Invalid("this client has no such script", field="script_id")
    if kind is SITES:
        _check_calendars(db, columns, client_id)
        _check_missed(db, columns, client)
        _check_order(db, columns, row_id)
    if kind is CALENDARS:
        _check_hours(db, columns, row_id)
    _check_unique(db, kind, columns, row_id)


def _check_calendars(db: Session, columns: Mapping[str, Any], client_id: str | None) -> None:
    queues = columns.get("queue_calendars") or {}
    named = [("calendar_id", columns.get("calendar_id"))]
    named += [(f"queue_calendars.{queue}", calendar) for queue, calendar in queues.items()]
    for name, calendar_id in named:
        if calendar_id is None:
            continue
        # Held until the commit, so that it is not deleted meanwhile.
        found = select(Calendar.id).where(Calendar.id == calendar_id, Calendar.client_id == client_id)
        if db.scalar(found.with_for_update()) is None:
            raise Invalid("this client has no such calendar", field=name[:200])


def _check_missed(db: Session, columns: dict[str, Any], client: Client | None) -> None:
    """A site calls back whom its own client's numbers missed."""
    missed = columns.get("missed") or {}
    if not missed.get("dids"):
        return
    dids = [_number(text, client, f"missed.dids.{i}") for i, text in enumerate(missed["dids"])]
    for i, number in enumerate(dids):
        if client is None or db.scalar(select(Did.id).where(Did.number == number, Did.client_id == client.id)) is None:
            raise Invalid("this client has no such DID", field=f"missed.dids.{i}")
    columns["missed"] = {**missed, "dids": list(dict.fromkeys(dids))}


def _check_order(db: Session, columns: Mapping[str, Any], row_id: str | None) -> None:
    """Only a customer who is called first can confirm; a change sees what stays too."""
    row = db.get(Site, row_id) if row_id is not None else None
    order = columns.get("order", row.order if row is not None else "agent_first")
    protection = columns.get("protection", row.protection if row is not None else {})
    if (protection or {}).get("press_1") and order != "customer_first":
        raise Invalid(
            "press_1 asks the customer before an agent is called, so it goes with order customer_first alone",
            field="protection.press_1" if "protection" in columns else "order",
        )


def _check_hours(db: Session, columns: Mapping[str, Any], row_id: str | None) -> None:
    """The calendar as it will be; a change sees what stays too."""
    row = db.get(Calendar, row_id) if row_id is not None else None
    before = {name: getattr(row, name) for name in calendars.COLUMNS} if row is not None else {}
    hours.read({**before, **columns})


def _check_unused(db: Session, row: Calendar) -> None:
    db.refresh(row, with_for_update=True)
    sites = db.scalars(select(Site).where(Site.client_id == row.client_id))
    if any(row.id == site.calendar_id or row.id in site.queue_calendars.values() for site in sites):
        raise Conflict("a site keeps these hours; give it other ones first", code="in_use")


def _number(text: str, client: Client | None, name: str) -> str:
    try:
        return parse_number(text, client.region if client is not None else "US")
    except Invalid as error:
        error.field = name
        raise


_UNIQUE = {"clients": ("name", Client.name), "dids": ("number", Did.number)}


def _check_unique(
    db: Session, kind: Collection, columns: Mapping[str, Any], row_id: str | None
) -> None:
    """Name the field that is taken; two at once are still caught by the database."""
    name, column = _UNIQUE.get(kind.name, ("", None))
    if column is None or name not in columns:
        return
    holder = db.scalar(select(kind.table.id).where(column == columns[name]))
    if holder is not None and holder != row_id:
        raise Conflict(f"there is a {kind.one} with this {name} already", field=name)


def _set_numbers(db: Session, customer: Customer, texts: list[str]) -> None:
    client = db.get(Client, customer.client_id)
    wanted = {_number(text, client, f"numbers.{i}"): None for i, text in enumerate(texts)}
    for row in db.scalars(select(CustomerNumber).where(CustomerNumber.customer_id == customer.id)):
        if row.number in wanted:
            del wanted[row.number]
        else:
            db.delete(row)
    for number in wanted:
        db.add(CustomerNumber(customer_id=customer.id, number=number, client_id=customer.client_id))
    db.flush()


def _next_version(db: Session, client_id: str, name: str) -> int:
    newest = db.scalar(
        select(func.max(Script.version)).where(Script.client_id == client_id, Script.name == name)
    )
    return (newest or 0) + 1


def _use_newest(db: Session, script: Script) -> None:
    """DIDs and sites that use an earlier version go over to this one; calls keep theirs."""
    earlier = select(Script.id).where(
        Script.client_id == script.client_id, Script.name == script.name, Script.id != script.id
    )
    for table in (Did, Site):
        db.execute(
            update(table)
            .where(table.script_id.in_(earlier))
            .values(script_id=script.id)
            .execution_options(synchronize_session=False)
        )


def _move_script(db: Session, old: Script, new: Script) -> None:
    for table in (Did, Site):
        db.execute(
            update(table)
            .where(table.script_id == old.id)
            .values(script_id=new.id)
            .execution_options(synchronize_session=False)
        )
