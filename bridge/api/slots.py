"""The times that a visitor may choose."""

from __future__ import annotations

from datetime import date
from typing import Annotated

from flask import Blueprint, Response, g, request
from pydantic import Field, StringConstraints

from bridge.api.callbacks import site_of
from bridge.api.contract import answer, view
from bridge.api.parts import now, parts
from bridge.api.problems import OpenTime
from bridge.api.strict import Answer, Line, Query
from bridge.domain.errors import Invalid
from bridge.services import calendars

blueprint = Blueprint("slots", __name__, url_prefix="/api/v1")


class SlotsQuery(Query):
    site: Annotated[Line, StringConstraints(min_length=1, max_length=40)] | None = Field(
        None, description="the site's key, where the header X-Site-Key is not sent"
    )
    day: Annotated[Line, StringConstraints(max_length=10)] | None = Field(
        None, description='one day of the calendar\'s clock, such as "2026-05-04"'
    )
    queue: Annotated[Line, StringConstraints(max_length=100)] | None = None


class Slots(Answer):
    """What can be sent as `when` with `timezone`, at most 14 days ahead. Full slots are left out."""

    timezone: str
    now: bool = Field(description="whether somebody is there now")
    any_time: bool = Field(description="the site keeps no hours: any time may be asked for, and no slots are listed")
    slots: list[OpenTime]


@blueprint.get("/slots")
@view("callbacks", roles=None, query=SlotsQuery, answers=Slots)
def listing(query: SlotsQuery) -> Response:
    """The times at which this site calls back."""
    shop = site_of(query.site)
    g.cors = request.headers.get("Origin")
    found = calendars.offer_of(parts().database, shop.site, query.queue, _day(query.day), now())
    slots = [OpenTime.model_validate(calendars.slot_body(slot)) for slot in found.slots]
    return answer(Slots(timezone=found.timezone, now=found.now, any_time=found.any_time, slots=slots))


def _day(text: str | None) -> date | None:
    try:
        return date.fromisoformat(text) if text is not None else None
    except ValueError:
        raise Invalid('there is no such day; write it as in "2026-05-04"', field="day") from None
