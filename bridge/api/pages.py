"""Pages for the people of the centre: sign-in, agent, supervisor and their callbacks."""

from __future__ import annotations

from urllib.parse import quote

from flask import Blueprint, redirect, render_template, request
from werkzeug.wrappers import Response as AnyResponse

from bridge.api import auth
from bridge.api.parts import parts
from bridge.services.access import LEADERS, STAFF, Access, Role
from bridge.store.models import Agent

blueprint = Blueprint("pages", __name__)


@blueprint.get("/")
def home() -> AnyResponse:
    """Where this person works."""
    access = auth.page_access()
    if access is None:
        return redirect("/login")
    return redirect("/agent" if access.role is Role.AGENT else "/supervisor")


@blueprint.get("/login")
def login() -> str:
    return render_template("login.html")


@blueprint.get("/agent")
def agent() -> str | AnyResponse:
    return _page("agent.html", STAFF)


@blueprint.get("/supervisor")
def supervisor() -> str | AnyResponse:
    return _page("supervisor.html", LEADERS)


@blueprint.get("/supervisor/callbacks")
def callbacks() -> str | AnyResponse:
    return _page("callbacks.html", LEADERS)


@blueprint.get("/supervisor/calendars")
def calendars() -> str | AnyResponse:
    return _page("calendars.html", LEADERS)


def _page(template: str, roles: frozenset[Role]) -> str | AnyResponse:
    access = auth.page_access()
    if access is None:
        return redirect(f"/login?next={quote(request.path)}&why=expired" if _had_cookie() else "/login")
    if access.role not in roles:
        return redirect("/login") if access.role is Role.VIEWER else redirect("/")
    return render_template(template, me=_me(access), csrf=access.csrf)


def _had_cookie() -> bool:
    return auth.COOKIE in request.cookies


def _me(access: Access) -> dict[str, object]:
    with parts().database.read() as db:
        agent = db.get_one(Agent, access.agent)
    return {
        "id": agent.id,
        "username": agent.username,
        "name": agent.name,
        "role": agent.role,
        "devices": agent.devices,
        "device": access.device,
        "extension": agent.extension,
    }
