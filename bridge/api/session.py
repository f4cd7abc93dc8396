"""Signing in and out."""

from __future__ import annotations

from flask import Blueprint, Response, request

from bridge.api import auth, limits
from bridge.api.contract import answer, no_content, view
from bridge.api.parts import now, parts
from bridge.api.shapes import Me, SessionNow, SessionOpened, SignIn
from bridge.domain.errors import Forbidden
from bridge.services import sessions
from bridge.services.access import EVERYONE, Access
from bridge.store.models import Agent

blueprint = Blueprint("session", __name__, url_prefix="/api/v1")


@blueprint.post("/session")
@limits.limiter.limit(limits.PER_ADDRESS, key_func=limits.by_address, deduct_when=limits.was_refused)
@limits.limiter.limit(limits.PER_USERNAME, key_func=limits.by_username_here, deduct_when=limits.was_refused)
@limits.limiter.limit(limits.PER_USERNAME_ANYWHERE, key_func=limits.by_username, deduct_when=limits.was_refused)
@view("session", roles=None, body=SignIn, answers=SessionOpened, status=201)
def sign_in(body: SignIn) -> Response:
    """Sign in.

    The token is for programs; a browser gets the same session as the cookie `rb_session` and sends `csrf` back
    in the header `X-CSRF-Token`. A session ends after 12 hours.
    """
    _check_origin()
    room = parts()
    with room.database.read() as db:
        agent = sessions.check_password(db, body.username, body.password)
    with room.writing("sessions") as db:
        sessions.refresh_hash(db, agent.id, body.password)
        opened = sessions.open_session(db, now(), agent, kind="browser", device=body.device)
    response = answer(
        SessionOpened(
            token=opened.token,
            csrf=opened.csrf,
            expires_at=opened.expires_at,
            role=agent.role,
            devices=agent.devices,
            agent=shown(agent, body.device),
        ),
        201,
    )
    auth.set_cookie(response, opened.token)
    return response


@blueprint.get("/session")
@view("session", roles=EVERYONE, answers=SessionNow)
def session_now(access: Access) -> Response:
    """Who is signed in, and the CSRF token of this session."""
    with parts().database.read() as db:
        agent = db.get_one(Agent, access.agent)
    return answer(
        SessionNow(
            csrf=access.csrf, role=agent.role, devices=agent.devices, agent=shown(agent, access.device)
        )
    )


@blueprint.delete("/session")
@view("session", roles=EVERYONE, status=204)
def sign_out(access: Access) -> Response:
    """Sign out; an agent's last session in a browser takes them offline."""
    with parts().writing("sessions") as db:
        sessions.close_session(db, now(), access)
    response = no_content()
    auth.clear_cookie(response)
    return response


def shown(agent: Agent, device: str | None) -> Me:
    """An agent as they see themselves."""
    return Me(
        id=agent.id,
        username=agent.username,
        name=agent.name,
        role=agent.role,
        client_id=agent.client_id,
        devices=agent.devices,
        device=device,
        extension=agent.extension,
    )


def _check_origin() -> None:
    """A page elsewhere must not sign a browser in as somebody of its choice."""
    origin = request.headers.get("Origin")
    if origin is not None and not auth.is_own(origin):
        raise Forbidden("sign in on Ringbridge's own page, not from another site")
