"""When the phone of a visitor would ring who asked now: said before they ask."""

from __future__ import annotations

from typing import Annotated

from flask import Blueprint, Response, g, request
from pydantic import Field, StringConstraints

from bridge.api import limits
from bridge.api.callbacks import site_of
from bridge.api.contract import answer, no_content, view
from bridge.api.parts import now, parts
from bridge.api.strict import Answer, Line, Query
from bridge.services import news, promises

blueprint = Blueprint("promise", __name__, url_prefix="/api/v1")


class PromiseQuery(Query):
    site: Annotated[Line, StringConstraints(min_length=1, max_length=40)] | None = Field(
        None, description="the site's key, where the header X-Site-Key is not sent"
    )
    queue: Annotated[Line, StringConstraints(max_length=100)] | None = None


class Promised(Answer):
    """What a wish for now would be promised."""

    promised_at: str
    seconds: int = Field(description="from now until then: for pages whose visitor's clock is wrong")


@blueprint.get("/promise")
@limits.asking
@view("callbacks", roles=None, query=PromiseQuery, answers=Promised)
def read(query: PromiseQuery) -> Response:
    """When the phone of somebody who asks now will ring, reckoned from who works and who waits.

    204 where that cannot be said: in closed hours, where nobody works, and at a site that did not keep its word.
    The answer may be five seconds old; the 201 says what is promised.
    """
    shop = site_of(query.site)
    g.cors = request.headers.get("Origin")
    room, at = parts(), now()
    found = promises.before_asking(room.database, room.settings, shop.site, query.queue, at)
    seconds = max(0, round((found - at).total_seconds())) if found is not None else 0
    said = news.rfc3339(found)
    response = no_content() if said is None else answer(Promised(promised_at=said, seconds=seconds))
    response.headers["Cache-Control"] = "no-store"
    return response
