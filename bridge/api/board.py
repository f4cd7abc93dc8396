"""The supervisor's board, the switch that stops all dialling, and the audit log."""

from __future__ import annotations

from datetime import UTC, datetime, time
from zoneinfo import ZoneInfo

from flask import Blueprint, Response

from bridge.api.contract import answer, view
from bridge.api.grants import grant_view
from bridge.api.parts import now, parts
from bridge.api.shapes import (
    AuditPage,
    AuditQuery,
    AuditRow,
    Board,
    BoardQuery,
    DialingNow,
    DialingWanted,
    Grant,
    Promises,
)
from bridge.domain.callbacks import zone
from bridge.live import screens
from bridge.services import audit, board, news, promises
from bridge.services.access import LEADERS, STAFF, Access

blueprint = Blueprint("board", __name__, url_prefix="/api/v1")


@blueprint.get("/board")
@view("board", roles=LEADERS, query=BoardQuery, answers=Board)
def read(access: Access, query: BoardQuery) -> Response:
    """What happens now: links, agents, and today's calls and callbacks with their counts and latest rows."""
    here = zone(query.timezone)
    room = parts()
    with room.database.read() as db:
        return answer(Board.model_validate(board.read(db, room.settings, access, now(), _midnight(here))))


@blueprint.get("/promises")
@view("board", roles=LEADERS, query=BoardQuery, answers=Promises)
def kept(access: Access, query: BoardQuery) -> Response:
    """The promises kept and broken of each open site, today and on the six days before; `promises` of the board."""
    here = zone(query.timezone)
    with parts().database.read() as db:
        items = promises.kept(db, access, _midnight(here))
        return answer(Promises.model_validate({"items": items}))


@blueprint.get("/board/events")
@grant_view("board", roles=LEADERS)
def events(access: Access) -> Grant:
    """The supervisors' event stream: `board` for every change of a call, callback, agent or link."""
    clients = None if access.clients is None else sorted(access.clients)
    return Grant(topics=[screens.SUPERVISORS], hello=[], check=access.session, clients=clients)


@blueprint.get("/dialing")
@view("board", roles=STAFF, answers=DialingNow)
def dialing(access: Access) -> Response:
    """Whether Ringbridge dials, and who last moved the switch."""
    room = parts()
    with room.database.read() as db:
        return answer(DialingNow.model_validate(board.read_dialing(db, room.settings, access)))


@blueprint.put("/dialing")
@view("board", roles=LEADERS, body=DialingWanted, answers=DialingNow)
def set_dialing(access: Access, body: DialingWanted) -> Response:
    """Stop all dialling at once, or let it go on."""
    room = parts()
    with room.writing("switches") as db:
        shape = DialingNow.model_validate(
            board.set_dialing(db, room.settings, access, now(), body.state)
        )
        news.note(db, screens.SUPERVISORS, "board", {"kind": "dialing", **shape.model_dump(mode="json")})
    return answer(shape)


@blueprint.get("/audit")
@view("audit", roles=LEADERS, query=AuditQuery, answers=AuditPage)
def find_audit(access: Access, query: AuditQuery) -> Response:
    """List who changed what and who signed in, newest first."""
    with parts().database.read() as db:
        page = audit.find(
            db, access, query.limit, query.cursor, query.actor, query.action, query.object
        )
        items = [AuditRow.model_validate(row) for row in page.rows]
    return answer(AuditPage(items=items, next=page.cursor))


def _midnight(here: ZoneInfo) -> datetime:
    return datetime.combine(now().astimezone(here).date(), time.min, here).astimezone(UTC)
