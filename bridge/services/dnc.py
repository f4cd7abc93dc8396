"""The do-not-call list of each client company. Only a keyed hash of a number is kept: who is erased stays on it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from bridge.domain import csv_lines
from bridge.domain.csv_lines import Imported
from bridge.domain.errors import Conflict, Invalid, NotFound
from bridge.domain.keyed import keyed_hash
from bridge.domain.numbers import parse_number
from bridge.services import audit
from bridge.services.access import LEADERS, STAFF, Access
from bridge.services.paging import Page, page_of
from bridge.settings import Settings
from bridge.store.database import Sessions, changed
from bridge.store.models import Client, Dnc, new_id

_AT_ONCE = 2000


class DoNotCall(Invalid):
    """This number is not called, as its owner asked; call us instead."""

    code = "do_not_call"


def check(db: Session, settings: Settings, client: str, number: str) -> None:
    """Raises DoNotCall where the number (E.164) is on the client's list."""
    held = select(Dnc.id).where(Dnc.client_id == client, Dnc.number_hash == _hash(settings, number))
    if db.scalar(held) is not None:
        raise DoNotCall(field="number")


def add(
    db: Session, settings: Settings, access: Access, now: datetime, client: str, number: str, note: str
) -> Dnc:
    """Put a number on a client's list, as people write it there. Raises Invalid, NotFound, Conflict."""
    access.require(STAFF)
    access.check_client(client)
    company = db.get(Client, client)
    if company is None:
        raise Invalid("there is no such client", field="client_id")
    e164 = parse_number(number, company.region)
    digest = _hash(settings, e164)
    if db.scalar(select(Dnc.id).where(Dnc.client_id == client, Dnc.number_hash == digest)) is not None:
        raise Conflict("this number is on the list already", field="number")
    row = Dnc(created_at=now, client_id=client, number_hash=digest, ending=e164[-2:], note=note)
    db.add(row)
    db.flush()
    audit.record(db, now, access.username, "dnc.create", row.id, client)
    return row


def take(
    sessions: Sessions,
    settings: Settings,
    access: Access,
    now: datetime,
    client: str,
    lines: Iterable[str],
    first_line: int = 1,
) -> Imported:
    """Put the numbers of CSV lines (`number`, `note`) on a client's list, a batch at a time; a bad line stops no other.

    Safe to run again: who is on the list already stays as they are. Raises Invalid, NotFound.
    """
    access.require(STAFF)
    access.check_client(client)
    with sessions.read() as db:
        company = db.get(Client, client)
    if company is None:
        raise Invalid("there is no such client", field="client_id")
    done, batch = Imported(), []
    for found in csv_lines.read(lines, ("number", "note"), ("number",), first_line):
        if isinstance(found, csv_lines.Fault):
            done.note(found)
            continue
        try:
            e164, note = parse_number(found.cells["number"], company.region), _note(found.cells["note"])
        except Invalid as error:
            done.note(csv_lines.said(found.line, error))
            continue
        digest = _hash(settings, e164)
        batch.append(
            {"id": new_id(), "created_at": now, "client_id": client, "number_hash": digest, "ending": e164[-2:],
             "note": note}
        )  # fmt: skip
        if len(batch) >= _AT_ONCE:
            _put(sessions, access, now, batch, done)
            batch = []
    _put(sessions, access, now, batch, done)
    return done


def _put(sessions: Sessions, access: Access, now: datetime, batch: list[dict[str, Any]], done: Imported) -> None:
    if not batch:
        return
    client = str(batch[0]["client_id"])
    with sessions.begin() as db:
        made = (postgresql if db.get_bind().dialect.name == "postgresql" else sqlite).insert(Dnc)
        taken = changed(db, made.values(batch).on_conflict_do_nothing(index_elements=["client_id", "number_hash"]))
        audit.record(db, now, access.username, "dnc.import", client, client, {"rows": taken})
    done.taken += taken
    done.already += len(batch) - taken


def _note(text: str) -> str:
    if len(text) > 200 or not text.isprintable():
        raise Invalid("a note has at most 200 printable characters", field="note")
    return text


def find(
    db: Session,
    settings: Settings,
    access: Access,
    limit: int,
    cursor: str | None,
    client: str | None = None,
    number: str | None = None,
) -> Page:
    """A page of the list, newest first; with `number` (E.164), whether and where it is on it."""
    access.require(STAFF)
    statement = access.scope(select(Dnc), Dnc.client_id)
    if client is not None:
        statement = statement.where(Dnc.client_id == client)
    if number is not None:
        statement = statement.where(Dnc.number_hash == _hash(settings, number))
    return page_of(db, statement, Dnc.created_at, Dnc.id, limit, cursor)


def remove(db: Session, access: Access, now: datetime, row_id: str) -> None:
    """Take a number off the list. Raises NotFound."""
    access.require(LEADERS)
    row = db.scalar(access.scope(select(Dnc), Dnc.client_id).where(Dnc.id == row_id))
    if row is None:
        raise NotFound("there is no such entry")
    audit.record(db, now, access.username, "dnc.delete", row.id, row.client_id)
    db.delete(row)
    db.flush()


def _hash(settings: Settings, e164: str) -> str:
    return keyed_hash(settings.secret_key(), "dnc", e164)
