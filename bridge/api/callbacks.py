"""The public part: a visitor asks for a callback, watches it, and may move, confirm or cancel it.

A site's key says whose visitor it is, and its origins say from which pages a browser may ask. Neither is a secret, so
limits per address, number and site stand behind them.
"""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from flask import Blueprint, Response, g, request
from pydantic import BaseModel, Field, StringConstraints
from sqlalchemy import select

from bridge.api import auth, limits
from bridge.api.contract import answer, no_content, view
from bridge.api.grants import StreamQuery, grant_view
from bridge.api.parts import now, parts
from bridge.api.shapes import Grant, GrantEvent
from bridge.api.strict import Answer, Body, Line, Query, has_control
from bridge.api.tenant_shapes import Patch
from bridge.domain.errors import Forbidden, Invalid, RateLimited
from bridge.live import screens
from bridge.services import budgets, callbacks, checking, moving, refusals
from bridge.store.models import Callback, Site

blueprint = Blueprint("callbacks", __name__, url_prefix="/api/v1")

ALLOWED_HEADERS = "Authorization, Content-Type, Idempotency-Key, X-Site-Key, Last-Event-ID"
_PREFLIGHT_SECONDS = "600"
_PUBLIC = ("/api/v1/callbacks", "/api/v1/slots", "/api/v1/promise")
"""What pages of other origins may ask, if they are a site's."""
_STAFF = tuple(f"/api/v1/callbacks/{part}" for part in ("cancel", "requeue", "assign", "export"))
"""What lies beside it and is for our own pages."""
TOKEN: list[dict[str, list[str]]] = [{"token": []}]


class OriginNotAllowed(Forbidden):
    """This page may not use this site key; an administrator adds its origin to the site."""

    code = "origin_not_allowed"


class ConfirmNeeded(Invalid):
    """A field that people do not see was filled in; leave it empty and send the form once more."""

    code = "confirm_needed"


class ConsentRefused(Invalid):
    """Nobody is called who did not agree; leave `consent` out only where the visitor was asked nothing."""

    code = "consent_refused"


class CallbackNew(Body):
    """A wish to be called, now or at `when`: RFC 3339 with an offset, or a local time with `timezone` beside it."""

    number: Annotated[Line, StringConstraints(max_length=40)]
    site: Annotated[Line, StringConstraints(min_length=1, max_length=40)] | None = Field(
        None, description="the site's key, where the header X-Site-Key is not sent"
    )
    name: Annotated[Line, StringConstraints(max_length=200)] = ""
    when: Annotated[Line, StringConstraints(max_length=40)] | None = None
    timezone: Annotated[Line, StringConstraints(max_length=64)] | None = None
    queue: Annotated[Line, StringConstraints(max_length=100)] | None = None
    page_url: Annotated[Line, StringConstraints(max_length=2000)] = ""
    note: Annotated[Line, StringConstraints(max_length=2000)] = ""
    proof: Annotated[Line, StringConstraints(max_length=4000)] | None = Field(
        None, description="the challenge's answer, `challenge:nonce`, where the site wants one"
    )
    website: Annotated[Line, StringConstraints(max_length=2000)] = Field(
        "", description="a field that pages hide from people: leave it empty"
    )
    consent: Annotated[Line, StringConstraints(max_length=4000)] | bool | None = Field(
        None, description="the consent text as it was shown, or true for the site's own text"
    )


class CallbackHeaders(BaseModel):
    """Headers that a request for a callback may carry."""

    site_key: str | None = Field(None, alias="X-Site-Key", description="the site's key, instead of `site`")
    idempotency_key: str | None = Field(
        None, alias="Idempotency-Key", max_length=255, description="the same request sent again is one callback"
    )


class CallbackPatch(Patch):
    """Another time, by the same rules as the first (null: now), or that the visitor waits for the call."""

    when: Annotated[Line, StringConstraints(max_length=40)] | None = None
    timezone: Annotated[Line, StringConstraints(max_length=64)] | None = None
    confirmed: Literal[True] = True


class CallbackNow(Answer):
    """What a visitor is told."""

    id: str
    status: str
    reason: str | None
    promised_at: str | None
    expires_at: str | None = Field(description="it is given up then, as `expired`, if nobody could call before")
    confirmed_at: str | None


class CallbackMade(CallbackNow):
    token: str = Field(description="opens this callback to whoever has it: keep it in the page")
    link: str = Field(description="a page for the visitor that shows, moves, confirms and cancels it; holds the token")


class ChallengeQuery(Query):
    site: Line | None = Field(None, max_length=40, description="the site's key, where no X-Site-Key is sent")


class ChallengeNow(Answer):
    """Find a nonce such that SHA-256 of `challenge:nonce` begins with `bits` zero bits; send both as `proof`."""

    challenge: str
    bits: int


class TokenQuery(Query):
    token: Line | None = Field(None, max_length=200, description="where no Authorization header can be sent")


@blueprint.post("/callbacks")
@view("callbacks", roles=None, headers=CallbackHeaders, body=CallbackNew, answers=CallbackMade, status=201)
def create(body: CallbackNew) -> Response:
    """Ask for a callback.

    With the header `Idempotency-Key`, the same request may be sent again: it is one callback. 201 means that it is
    kept, whatever breaks after.
    """
    made = accept(body, _idempotency_key())
    response = answer(made, 201)
    response.headers["Location"] = f"/api/v1/callbacks/{made.id}"
    return response


@blueprint.get("/callbacks/challenge")
@view("callbacks", roles=None, query=ChallengeQuery, answers=ChallengeNow)
def challenge(query: ChallengeQuery) -> Response:
    """Get a challenge for one request, good for ten minutes; 204 where the site wants none.

    The more is asked of a site, the harder it is.
    """
    room = parts()
    shop = site_of(query.site)
    g.cors = request.headers.get("Origin")
    made = checking.challenge(room.database, room.settings, shop.site, now=now())
    response = no_content() if made is None else answer(ChallengeNow(challenge=made.challenge, bits=made.bits))
    response.headers["Cache-Control"] = "no-store"
    return response


def accept(body: CallbackNew, idempotency_key: str | None) -> CallbackMade:
    """Keep the wish that this request makes, as JSON or as a plain form; its sender's address and origin count."""
    shop = site_of(body.site)
    if body.website:
        # Most likely a program; but a browser may have filled it in for a person, who is then asked once more.
        _note_refusal(shop, "honeypot")
        raise ConfirmNeeded(field="website")
    try:
        made = _keep(shop, body, idempotency_key)
    except (Invalid, RateLimited) as error:
        _note_refusal(shop, error.code)
        if isinstance(error, budgets.BudgetSpent):
            room = parts()
            budgets.note_refused(room.database, room.redis, shop.site, error, now=now())
        raise
    token = callbacks.token(parts().settings, made.id)
    link = f"{auth.own_address()}/callback/{made.id}?token={token}"
    return CallbackMade(token=token, link=link, **made.as_dict())


def _keep(shop: callbacks.OpenSite, body: CallbackNew, idempotency_key: str | None) -> callbacks.CallbackView:
    room = parts()
    wish = callbacks.Wish(
        number=body.number,
        name=body.name,
        when=body.when,
        timezone=body.timezone,
        queue=body.queue,
        page_url=_page_url(body.page_url),
        note=body.note,
        consent=_consent(body.consent, shop.site),
        proof=body.proof,
    )
    return callbacks.create(
        room.database,
        room.redis,
        room.settings,
        shop,
        wish,
        idempotency_key=idempotency_key,
        ip=auth.remote_address(),
        now=now(),
    )


@blueprint.get("/callbacks/<callback_id>")
@limits.guessing
@view("callbacks", roles=None, query=TokenQuery, answers=CallbackNow, security=TOKEN)
def read(callback_id: str, query: TokenQuery) -> Response:
    """How the callback stands. The token goes into `Authorization: Bearer`, or into `?token=`."""
    _open(callback_id, query.token)
    found = callbacks.get(parts().database, callback_id)
    return answer(CallbackNow(**found.as_dict()))


@blueprint.patch("/callbacks/<callback_id>")
@limits.guessing
@view("callbacks", roles=None, query=TokenQuery, body=CallbackPatch, answers=CallbackNow, security=TOKEN)
def change(callback_id: str, query: TokenQuery, body: CallbackPatch) -> Response:
    """Move the callback to another time, or confirm that the visitor waits for it; moving confirms it too.

    409 `call_in_flight` while it is being called, `callback_ended` after its end, `site_closed`.
    """
    _open(callback_id, query.token)
    room = parts()
    if "when" in body.model_fields_set:
        found = moving.move(
            room.database, room.redis, room.settings, callback_id, body.when, body.timezone, now=now()
        )
    elif body.timezone is not None:
        raise Invalid("a time zone says nothing without `when`", field="when")
    else:
        found = moving.confirm(room.database, room.redis, callback_id, now=now())
    return answer(CallbackNow(**found.as_dict()))


@blueprint.delete("/callbacks/<callback_id>")
@limits.guessing
@view("callbacks", roles=None, query=TokenQuery, answers=CallbackNow, security=TOKEN)
def cancel(callback_id: str, query: TokenQuery) -> Response:
    """Cancel the callback, also while phones ring; refused with 409 once it is connected or has ended."""
    _open(callback_id, query.token)
    room = parts()
    found = callbacks.cancel(room.database, room.redis, callback_id, now=now())
    return answer(CallbackNow(**found.as_dict()))


@blueprint.get("/callbacks/<callback_id>/events")
@limits.guessing
@grant_view("callbacks", roles=None, security=TOKEN)
def events(callback_id: str, query: StreamQuery) -> Grant:
    """The callback's event stream: `status`, with the data of GET; begins with how it stands."""
    _open(callback_id, query.token)
    found = callbacks.get(parts().database, callback_id)
    hello = GrantEvent(event="status", id="", data=found.as_dict())
    return Grant(topics=[screens.callback_topic(callback_id)], hello=[hello])


def _note_refusal(shop: callbacks.OpenSite, reason: str) -> None:
    room = parts()
    door = refusals.Door(site=shop.site.id, client=shop.site.client_id)
    room.refusals.note(room.database, room.redis, door, reason, now=now())


def _open(callback_id: str, token: str | None) -> None:
    """Check the token first, so that nobody learns which ids exist; then let the site's pages read the answer."""
    origin = request.headers.get("Origin")
    try:
        callbacks.check_token(parts().settings, callback_id, auth.bearer_token() or token)
    except Forbidden:
        if origin is not None and _known_origin(origin):
            # A page that comes back with an old token must learn that it is refused.
            g.cors = origin
        raise
    if origin is None:
        return
    with parts().database.read() as db:
        origins = db.scalar(
            select(Site.origins).join(Callback, Callback.site_id == Site.id).where(Callback.id == callback_id)
        )
    if origins is not None and _allowed(origin, origins):
        g.cors = origin


def site_of(key_of_body: str | None) -> callbacks.OpenSite:
    """The site of this request's key, from an origin it allows. Raises Invalid, NotFound, OriginNotAllowed."""
    key = request.headers.get("X-Site-Key") or key_of_body
    if not key:
        raise Invalid("say which site this is for, in `site` or the header X-Site-Key", field="site")
    if key_of_body is not None and key != key_of_body:
        raise Invalid("`site` and the header X-Site-Key name different sites", field="site")
    shop = callbacks.find_site(parts().database, key, now=now())
    if shop is None:
        raise Invalid("there is no site with this key, or it takes no callbacks now", field="site")
    origin = request.headers.get("Origin")
    if origin is not None and not _allowed(origin, shop.site.origins):
        _note_refusal(shop, OriginNotAllowed.code)
        raise OriginNotAllowed
    return shop


def _allowed(origin: str, origins: list[str]) -> bool:
    """Our own pages may always ask: `/call-me` is one. A site that names no origin is used by servers alone."""
    return auth.is_own(origin) or origin.lower() in origins


def _idempotency_key() -> str | None:
    key = request.headers.get("Idempotency-Key")
    if key is not None and has_control(key):
        raise Invalid("this header must not hold control characters", field="Idempotency-Key")
    return key


def _page_url(text: str) -> str:
    fault = "this is no address of a page; it begins with https://"
    try:
        known = not text or urlsplit(text).scheme in ("http", "https")
    except ValueError:
        known = False
    if not known:
        raise Invalid(fault, field="page_url")
    return text


def _consent(given: str | bool | None, site: Site) -> str:
    if given is False:
        raise ConsentRefused(field="consent")
    if given is True:
        return site.consent_text or "yes"
    return given if isinstance(given, str) else ""


def preflight() -> Response | None:
    """Answer a browser's question whether another site's page may ask. Its key or token comes with the request itself,
    so all origins of all sites may ask; each site's own list is checked with the request."""
    if not request.path.startswith(_PUBLIC) or request.path in _STAFF:
        return None
    origin = request.headers.get("Origin")
    known = origin is not None and request.method in ("OPTIONS", "POST") and _known_origin(origin)
    if request.method == "POST" and known:
        # Early, so that the page can read what is wrong with its request.
        g.cors = origin
    if request.method != "OPTIONS":
        return None
    response = Response(status=204)
    if origin is None or not known:
        return response
    response.headers["Access-Control-Allow-Origin"] = origin
    response.headers["Access-Control-Allow-Methods"] = "GET, POST, PATCH, DELETE"
    response.headers["Access-Control-Allow-Headers"] = ALLOWED_HEADERS
    response.headers["Access-Control-Max-Age"] = _PREFLIGHT_SECONDS
    response.vary.add("Origin")
    return response


def _known_origin(origin: str) -> bool:
    """Whether any active site allows this origin. Only its own visitors learn more than that."""
    with parts().database.read() as db:
        lists = db.scalars(select(Site.origins).where(Site.active.is_(True)))
        return any(_allowed(origin, origins) for origins in lists)


def cors(response: Response) -> Response:
    """Let the page that asked read the answer, an error too, where its origin is the site's."""
    if request.path.startswith(_PUBLIC):
        response.vary.add("Origin")
    if g.get("cors"):
        response.headers["Access-Control-Allow-Origin"] = g.cors
        response.headers["Access-Control-Expose-Headers"] = "Location, Retry-After"
    return response


