"""Views of event streams. REST only says what a stream may carry and how it begins; the edge holds it open."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from flask import Blueprint, Response, request
from pydantic import BaseModel, Field

from bridge.api.contract import answer, view
from bridge.api.parts import now, parts
from bridge.api.policy import GRANT_HEADER
from bridge.api.shapes import Grant
from bridge.api.strict import Line, Query, read_json
from bridge.domain.errors import NotFound, Unavailable
from bridge.services import sessions
from bridge.services.access import Role

blueprint = Blueprint("grants", __name__, url_prefix="/edge")


class StreamQuery(Query):
    """EventSource cannot send headers of its own choosing, so both may stand in the query."""

    last_event_id: Line | None = Field(None, max_length=64, description="as the header Last-Event-ID")
    token: Line | None = Field(None, max_length=200, description="a callback's token")


class Sessions(BaseModel):
    sessions: list[str] = Field(max_length=1000)


def grant_view(
    tag: str, *, roles: frozenset[Role] | None, security: list[dict[str, list[str]]] | None = None
) -> Callable[[Callable[..., Grant]], Callable[..., Response]]:
    """Declare a stream. Asked by anyone but the edge, it says that there is no stream here."""

    def declare(func: Callable[..., Grant]) -> Callable[..., Response]:
        @wraps(func)
        def granted(**kwargs: Any) -> Response:
            if roles is not None:
                kwargs.pop("query")
            grant = func(**kwargs)
            if request.headers.get(GRANT_HEADER) != "1":
                raise Unavailable("event streams are served by `ringbridge api`, not by REST alone")
            return answer(grant)

        return view(tag, roles=roles, query=StreamQuery, security=security)(granted)

    return declare


@blueprint.post("/sessions")
def standing() -> Response:
    """Which of these sessions still stand: the edge asks for all its streams at once, and closes the others."""
    if request.headers.get(GRANT_HEADER) != "1":
        raise NotFound
    asked = Sessions.model_validate(read_json(request.get_data()))
    with parts().database.read() as db:
        return answer(Sessions(sessions=sessions.alive(db, now(), asked.sessions)))
