"""The REST application: small views over services, one way to say what is wrong."""

from __future__ import annotations

from pathlib import Path

from flask import Flask, Response, request

import bridge.screen
from bridge.api import (
    actions,
    board,
    call_me,
    callback_desk,
    callback_page,
    callbacks,
    calls,
    collections,
    dnc,
    docs,
    form,
    grants,
    headers,
    limits,
    me,
    money,
    operations,
    pages,
    problems,
    promise,
    session,
    slots,
)
from bridge.api.contract import openapi
from bridge.api.parts import Parts
from bridge.api.policy import LARGEST_BODY
from bridge.api.strict import has_control
from bridge.domain.errors import Invalid
from bridge.live.connection import connect
from bridge.settings import Settings
from bridge.store.database import open_database

_SCREEN = Path(bridge.screen.__file__).parent
_REDIS_SECONDS = 2.0


def create_app(settings: Settings) -> Flask:
    """The app on the database and Redis of the settings; connects to neither before the first request."""
    app = Flask(
        "ringbridge",
        root_path=str(_SCREEN),
        template_folder="templates",
        static_folder="static",
        static_url_path="/static",
    )
    app.config["MAX_CONTENT_LENGTH"] = LARGEST_BODY
    app.config["PROPAGATE_EXCEPTIONS"] = False
    app.json.sort_keys = False  # type: ignore[attr-defined]  # Flask's default provider has it
    room = Parts(settings, open_database(settings), connect(settings, reply_seconds=_REDIS_SECONDS))
    app.extensions["ringbridge"] = room
    problems.install(app)
    operations.install(app, room)
    headers.install(app, https=room.secure)
    app.before_request(_check_address)
    app.before_request(callbacks.preflight)
    app.after_request(callbacks.cors)
    limits.install(app, settings)
    for module in (
        session,
        collections,
        me,
        calls,
        actions,
        board,
        callbacks,
        callback_desk,
        call_me,
    callback_page,
        slots,
        promise,
        dnc,
        docs,
        form,
        grants,
        money,
        operations,
        pages,
    ):
        app.register_blueprint(module.blueprint)
    with app.app_context():
        # Built now: two first readers at once would find it half made.
        openapi()
    return app


def _check_address() -> Response | None:
    """No control character in the path or the query gets any further."""
    if has_control(request.path):
        return problems.problem(404, "not_found", "there is nothing at this address")
    for name, values in request.args.lists():
        if has_control(name) or any(has_control(value) for value in values):
            shown = "query" if has_control(name) else name[:100]
            raise Invalid(
                "must not hold line breaks or other control characters",
                field=shown,
                code="control_character",
            )
    return None


