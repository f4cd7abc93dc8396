"""The do-not-call list: numbers go in and never come out, but for their last two digits."""

from __future__ import annotations

from datetime import datetime

from flask import Blueprint, Response
from pydantic import Field

from bridge.api.contract import answer, csv_lines, no_content, view
from bridge.api.money import ImportDone, imported
from bridge.api.parts import now, parts
from bridge.api.strict import Answer, Body, Line, Query, Short
from bridge.api.tenant_shapes import Id, Listing, Number
from bridge.domain.numbers import parse_number
from bridge.services import dnc
from bridge.services.access import LEADERS, STAFF, Access

blueprint = Blueprint("dnc", __name__, url_prefix="/api/v1")


class DncNew(Body):
    client_id: Id
    number: Number
    note: Short = ""


class DncRow(Answer):
    id: str
    created_at: datetime
    client_id: str
    ending: str = Field(description="the number's last two digits; no more of it is kept")
    note: str


class DncPage(Answer):
    items: list[DncRow]
    next: str | None


class DncQuery(Listing):
    client_id: Id | None = None
    number: Line | None = Field(None, max_length=40, description="a number with its country code: is it on the list?")


class DncImport(Query):
    client_id: Id
    first_line: int = Field(1, ge=1, le=1_000_000_000, description="the number of the first line that is sent")


@blueprint.get("/dnc")
@view("dnc", roles=STAFF, query=DncQuery, answers=DncPage)
def find(access: Access, query: DncQuery) -> Response:
    """List numbers that must not be called, newest first."""
    room = parts()
    # A region that no number has: only one with its country code says which it is.
    number = parse_number(query.number, "ZZ") if query.number is not None else None
    with room.database.read() as db:
        page = dnc.find(db, room.settings, access, query.limit, query.cursor, query.client_id, number)
        items = [DncRow.model_validate(row) for row in page.rows]
    return answer(DncPage(items=items, next=page.cursor))


@blueprint.post("/dnc")
@view("dnc", roles=STAFF, body=DncNew, answers=DncRow, status=201)
def add(access: Access, body: DncNew) -> Response:
    """Call this number for this client no more: no callback is taken for it, and none that waits is dialled."""
    room = parts()
    with room.writing("dnc") as db:
        row = dnc.add(db, room.settings, access, now(), body.client_id, body.number, body.note)
        shape = DncRow.model_validate(row)
    return answer(shape, 201)


@blueprint.post("/dnc/import")
@view("dnc", roles=STAFF, query=DncImport, answers=ImportDone)
def take(access: Access, query: DncImport) -> Response:
    """Put the numbers of a CSV (`number`, `note`) on a client's list; a bad line is named and stops no other.

    Of what is longer than 64 KiB send the next piece with its `first_line`, or use `ringbridge import dnc`.
    """
    room = parts()
    done = dnc.take(
        room.database, room.settings, access, now(), query.client_id, csv_lines(), first_line=query.first_line
    )
    return answer(imported(done))


@blueprint.delete("/dnc/<row_id>")
@view("dnc", roles=LEADERS, status=204)
def remove(access: Access, row_id: str) -> Response:
    """Let this number be called again."""
    with parts().writing("dnc") as db:
        dnc.remove(db, access, now(), row_id)
    return no_content()
