"""Callbacks for supervisors: found, cancelled, begun anew, given to an agent, taken away as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Any
from zoneinfo import ZoneInfo

from flask import Blueprint, Response

from bridge.api.callback_shapes import (
    Assigning,
    CallbackFull,
    CallbackPage,
    CallbackQuery,
    Narrowing,
    ResultRow,
    Results,
    Several,
)
from bridge.api.contract import answer, view
from bridge.api.parts import now, parts
from bridge.domain.callbacks import zone
from bridge.domain.errors import Invalid
from bridge.services import callback_bulk, callback_list
from bridge.services.access import LEADERS, Access

blueprint = Blueprint("callback_desk", __name__, url_prefix="/api/v1")

_BOM = "\ufeff"
"""Without it, spreadsheets read UTF-8 as something else."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What makes a spreadsheet run a cell, with the wide forms that some of them read alike."""
COLUMNS = (
    "id", "client", "site", "source", "number", "name", "queue", "status", "reason", "reason_text", "asked_at",
    "due_at", "promised_at", "rang_at", "connected_at", "ended_at", "tries", "attempts", "assigned_to", "requeued_from",
    "requeued_as",
)  # fmt: skip


@blueprint.get("/callbacks")
@view("callbacks", roles=LEADERS, query=CallbackQuery, answers=CallbackPage)
def find(access: Access, query: CallbackQuery) -> Response:
    """List callbacks with every attempt, those asked for last first."""
    with parts().database.read() as db:
        found = callback_list.find(db, access, _wanted(query), query.limit, query.cursor)
        items = [CallbackFull.model_validate(row) for row in found.rows]
    return answer(CallbackPage(items=items, next=found.cursor, counts=found.counts))


@blueprint.get("/callbacks/export")
@view("callbacks", roles=LEADERS, query=Narrowing)
def export(access: Access, query: Narrowing) -> Response:
    """The same as CSV, at most 10,000 rows; written into the audit log.

    UTF-8 with a byte order mark, times on the clock of `timezone` with their offset. A cell that a spreadsheet would
    take for a formula has an apostrophe before it.
    """
    room, wanted = parts(), _wanted(query)
    here = wanted.timezone or ZoneInfo("UTC")
    with room.writing() as db:
        callback_list.begin_export(db, access, wanted, now())

    def stream() -> Iterator[str]:
        yield _BOM + _line(COLUMNS)
        with room.database.read() as db:
            for row in callback_list.export(db, access, wanted):
                yield _line(_cells(row, here))

    response = Response(stream(), content_type="text/csv; charset=utf-8")
    name = f"callbacks-{wanted.day.isoformat() if wanted.day is not None else 'all'}.csv"
    response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    response.headers["Cache-Control"] = "no-store"
    return response


@blueprint.post("/callbacks/cancel")
@view("callbacks", roles=LEADERS, body=Several, answers=Results)
def cancel(access: Access, body: Several) -> Response:
    """Cancel these, also while phones ring; those in which people talk are refused. Each has its own result."""
    room = parts()
    return _results(callback_bulk.cancel(room.database, room.redis, access, body.ids, now=now()))


@blueprint.post("/callbacks/requeue")
@view("callbacks", roles=LEADERS, body=Several, answers=Results)
def requeue(access: Access, body: Several) -> Response:
    """Begin failed, expired and cancelled ones anew, each as a new callback that passes the same checks as any."""
    room = parts()
    return _results(
        callback_bulk.requeue(room.database, room.redis, room.settings, access, body.ids, now=now())
    )


@blueprint.post("/callbacks/assign")
@view("callbacks", roles=LEADERS, body=Assigning, answers=Results)
def assign(access: Access, body: Assigning) -> Response:
    """Let one agent alone make the next dial of these; null lets anyone.

    While that agent is not ready they wait, and expire like others. One who leaves gives them back to anyone.
    """
    room = parts()
    return _results(
        callback_bulk.assign(room.database, room.redis, access, body.ids, body.agent_id, now=now())
    )


def _results(found: list[callback_bulk.Result]) -> Response:
    rows = [ResultRow.model_validate(result) for result in found]
    done = sum(row.ok for row in rows)
    return answer(Results(done=done, refused=len(rows) - done, results=rows))


def _wanted(query: Narrowing) -> callback_list.Wanted:
    return callback_list.Wanted(
        day=_day(query.day),
        timezone=zone(query.timezone),
        client_id=query.client_id,
        site_id=query.site_id,
        statuses=query.status.split(",") if query.status is not None else (),
        source=query.source,
        assigned_to=query.assigned_to,
        number=query.number,
    )


def _day(text: str | None) -> date | None:
    try:
        return date.fromisoformat(text) if text is not None else None
    except ValueError:
        raise Invalid('there is no such day; write it as in "2026-05-04"', field="day") from None


def _cells(row: dict[str, Any], here: ZoneInfo) -> list[str]:
    shown = {
        **row,
        "asked_at": row["created_at"],
        "attempts": "; ".join(_tried(attempt, here) for attempt in row["attempts"]),
        "assigned_to": row["assigned"]["name"] if row["assigned"] is not None else "",
    }
    return [_cell(shown[name], here) for name in COLUMNS]


def _tried(attempt: dict[str, Any], here: ZoneInfo) -> str:
    words = [_cell(attempt["began_at"], here), attempt["agent"], attempt["reason"] or attempt["state"]]
    return " ".join(word for word in words if word)


def _cell(value: object, here: ZoneInfo) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.astimezone(UTC).astimezone(here).isoformat(timespec="seconds")
    text = str(value)
    return f"'{text}" if text.lstrip(" ").startswith(_FORMULA) or text.startswith(_FORMULA) else text


def _line(cells: tuple[str, ...] | list[str]) -> str:
    out = io.StringIO()
    # All in quotes, so that no cell's own comma or quote begins another.
    csv.writer(out, quoting=csv.QUOTE_ALL).writerow(cells)
    return out.getvalue()
