"""Calls: lists, one with its events, and what an agent writes down of one."""

from __future__ import annotations

from datetime import UTC, datetime, time

from flask import Blueprint, Response

from bridge.api.contract import answer, view
from bridge.api.parts import now, parts
from bridge.api.shapes import (
    Answers,
    CallFull,
    CallPage,
    CallQuery,
    CallRow,
    Disposition,
)
from bridge.services import history
from bridge.services.access import EVERYONE, STAFF, Access

blueprint = Blueprint("calls", __name__, url_prefix="/api/v1")


@blueprint.get("/calls")
@view("calls", roles=EVERYONE, query=CallQuery, answers=CallPage)
def find(access: Access, query: CallQuery) -> Response:
    """List calls, newest first; today's (UTC) unless `since` says otherwise, or all in progress with `live`.

    An agent sees the calls that rang at their own phone, a viewer those of their client.
    """
    since = query.since
    if since is None and not query.live:
        since = datetime.combine(now().date(), time.min, UTC)
    columns = query.model_dump(exclude={"limit", "cursor", "since", "until", "live"})
    wanted = history.Wanted(since, query.until, query.live, columns)
    with parts().database.read() as db:
        page = history.find(db, access, query.limit, query.cursor, wanted)
        items = [CallRow.model_validate(row) for row in page.rows]
    return answer(CallPage(items=items, next=page.cursor))


@blueprint.get("/calls/<call_id>")
@view("calls", roles=EVERYONE, answers=CallFull)
def read(access: Access, call_id: str) -> Response:
    """Read one call with everything that was told of it, in order: why it is taken for what it is."""
    with parts().database.read() as db:
        call = history.get(db, access, call_id)
        return answer(CallFull.of(call, history.events(db, call), history.merged_calls(db, access, call)))


@blueprint.post("/calls/<call_id>/disposition")
@view("calls", roles=STAFF, body=Disposition, answers=CallRow)
def dispose(access: Access, call_id: str, body: Disposition) -> Response:
    """Write down how the call went; with `ready`, wrap-up ends."""
    with parts().writing() as db:
        call = history.dispose(
            db, access, now(), call_id, body.disposition, body.note, ready=body.ready
        )
        return answer(CallRow.model_validate(call))


@blueprint.put("/calls/<call_id>/answers")
@view("calls", roles=STAFF, body=Answers, answers=Answers)
def set_answers(access: Access, call_id: str, body: Answers) -> Response:
    """Keep the answers to the script's questions, all at once."""
    with parts().writing() as db:
        call = history.set_answers(db, access, now(), call_id, body.answers)
    return answer(Answers(answers=call.answers))
