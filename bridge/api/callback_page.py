"""A visitor's own page at `/callback/<id>?token=...`: how their callback stands, moved, confirmed or cancelled there.

Plain HTML without scripts, so that the link works from any letter and browser. It outlives the site's key.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flask import Blueprint, Response, abort, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from bridge.api import limits
from bridge.api.parts import now, parts
from bridge.api.strict import has_control
from bridge.api.visitor_words import language, shown, told, words
from bridge.domain.attempts import CALLBACK_ENDED, CallbackStatus
from bridge.domain.callbacks import zone
from bridge.domain.errors import Forbidden, Invalid, NotFound, RingbridgeError
from bridge.services import calendars, callbacks, moving
from bridge.store.models import Callback, Client, Site

blueprint = Blueprint("callback_page", __name__)


@dataclass(frozen=True, slots=True)
class _Opened:
    """A callback whose token was right, with what its page shows."""

    row: Callback
    site: Site
    client: Client
    offer: calendars.Offer
    token: str


@blueprint.get("/callback/<callback_id>")
@limits.guessing
def page(callback_id: str) -> AnyResponse:
    """How it stands; asked for again by the visitor, since the page has no script."""
    try:
        return _page(_open(callback_id, request.args.get("token", "")))
    except (Forbidden, NotFound) as error:
        return _unknown(error)


@blueprint.post("/callback/<callback_id>")
@limits.guessing
def act(callback_id: str) -> AnyResponse:
    """Move, confirm or cancel it, as the pressed button says."""
    if request.mimetype != "application/x-www-form-urlencoded":
        abort(415)
    token = request.form.get("token", "")
    try:
        opened = _open(callback_id, token)
        _act(opened)
    except (Forbidden, NotFound) as error:
        return _unknown(error)
    except RingbridgeError as error:
        fault = told(str(error.details.get("code") or error.code), error.message)
        return _page(_open(callback_id, token), fault, error.status)
    # By a GET, so that a reload does nothing anew.
    return redirect(url_for("callback_page.page", callback_id=callback_id, token=token), 303)


def _act(opened: _Opened) -> None:
    room, asked = parts(), request.form.get("do", "cancel")
    callback_id = opened.row.id
    if asked == "cancel":
        callbacks.cancel(room.database, room.redis, callback_id, now=now())
    elif asked == "confirm":
        moving.confirm(room.database, room.redis, callback_id, now=now())
    elif asked in ("move", "now"):
        when, timezone = (_field("when"), _field("timezone")) if asked == "move" else (None, None)
        if asked == "move" and not when:
            raise Invalid(words()["needTime"], field="when", code="needTime")
        moving.move(room.database, room.redis, room.settings, callback_id, when, timezone, now=now())
    else:
        abort(400)


def _field(name: str) -> str | None:
    text = request.form.get(name, "").strip()
    if has_control(text) or len(text) > 64:
        abort(400)
    return text or None


def _open(callback_id: str, token: str) -> _Opened:
    """The token first, so that nobody learns which ids exist. Raises Forbidden, NotFound."""
    callbacks.check_token(parts().settings, callback_id, token)
    with parts().database.read() as db:
        row = db.get(Callback, callback_id)
        if row is None:
            raise NotFound("there is no such callback")
        site = db.get_one(Site, row.site_id)
        offer = calendars.offer(db, site, row.queue, None, now())
        return _Opened(row, site, db.get_one(Client, row.client_id), offer, token)


def _page(opened: _Opened, fault: str = "", status: int = 200) -> Response:
    row, site, offer = opened.row, opened.site, opened.offer
    said, plain = words(), words()["plain"]
    title, soon, more = said["status"].get(row.status, (row.status, "", ""))
    if row.status == CallbackStatus.SCHEDULED:
        more = plain["later"]
    elif row.status == CallbackStatus.QUEUED and row.promised_at is not None:
        more = soon
    over = CallbackStatus(row.status) in CALLBACK_ENDED
    movable = not over and row.held_by is None and site.active
    clock = offer.timezone if not offer.any_time else _clock(row, site)
    body = render_template(
        "callback.html",
        site=site,
        client=opened.client,
        language=language(),
        words=said,
        id=row.id,
        token=opened.token,
        title=title,
        more=more.replace("{0}", shown(row.promised_at, clock)),
        reason=plain["reasons"].get(row.reason or "", ""),
        until="" if over else plain["until"].replace("{0}", shown(row.expires_at, clock)),
        fault=fault,
        over=over,
        cancellable=not over and row.status != CallbackStatus.CONNECTED,
        movable=movable,
        confirmable=movable and row.status == CallbackStatus.SCHEDULED and row.confirmed_at is None,
        confirmed=not over and row.confirmed_at is not None,
        at_once=movable and row.status == CallbackStatus.SCHEDULED and offer.now,
        offer=offer,
        clock=clock,
        days=_by_day(offer),
    )
    return Response(body, status)


def _clock(row: Callback, site: Site) -> str:
    """The visitor's own, if they named one that is still known."""
    try:
        return zone(row.timezone).key if row.timezone else site.timezone
    except Invalid:
        return site.timezone


def _by_day(offer: calendars.Offer) -> dict[str, list[str]]:
    days: dict[str, list[str]] = {}
    for slot in offer.slots:
        day, _, time = slot.wall_time.partition("T")
        days.setdefault(day, []).append(time[:5])
    return days


def _unknown(error: RingbridgeError) -> Response:
    """The same page for every link that opens nothing."""
    said: dict[str, Any] = words()
    body = render_template("callback_unknown.html", language=language(), words=said)
    return Response(body, error.status)
