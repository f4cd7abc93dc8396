"""REST over the collections: five views each, alike but for names and shapes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from flask import Blueprint, Response
from pydantic import BaseModel, create_model
from sqlalchemy.orm import Session

from bridge.api import calendar_shapes
from bridge.api import tenant_shapes as shapes
from bridge.api.contract import answer, no_content, view
from bridge.api.parts import now, parts
from bridge.api.strict import Answer
from bridge.domain import hours
from bridge.domain.callbacks import zone
from bridge.services import calendars, people, tenants
from bridge.services.access import ADMINISTRATORS, LEADERS, Access, Role
from bridge.services.paging import Page

blueprint = Blueprint("collections", __name__, url_prefix="/api/v1")


@dataclass(frozen=True, slots=True)
class Offer:
    """How one collection looks from outside."""

    name: str
    one: str
    new: type[BaseModel]
    patch: type[shapes.Patch]
    row: type[Answer]
    query: type[shapes.Listing]
    readers: frozenset[Role]
    writers: frozenset[Role]
    kind: tenants.Collection | None
    """None for agents, who have rules of their own."""

    def find(self, db: Session, access: Access, query: shapes.Listing) -> Page:
        filters = query.model_dump(exclude={"limit", "cursor"})
        if self.kind is None:
            return people.find(db, access, query.limit, query.cursor, **filters)
        return tenants.find(db, access, self.kind, query.limit, query.cursor, filters)

    def get(self, db: Session, access: Access, row_id: str) -> Any:
        if self.kind is None:
            return people.get(db, access, row_id)
        return tenants.get(db, access, self.kind, row_id)

    def create(self, db: Session, access: Access, values: dict[str, Any]) -> Any:
        if self.kind is None:
            return people.create(db, access, now(), values)
        return tenants.create(db, access, self.kind, now(), values)

    def change(self, db: Session, access: Access, row_id: str, values: dict[str, Any]) -> Any:
        if self.kind is None:
            return people.change(db, access, now(), row_id, values)
        return tenants.change(db, access, self.kind, now(), row_id, values)

    def remove(self, db: Session, access: Access, row_id: str) -> None:
        if self.kind is None:
            people.remove(db, access, now(), row_id)
        else:
            tenants.remove(db, access, self.kind, now(), row_id)

    def shown(self, db: Session, rows: list[Any]) -> list[Answer]:
        """The rows as they go out; customers with their numbers."""
        found = [self.row.model_validate(row) for row in rows]
        if self.kind is tenants.CUSTOMERS:
            numbers = tenants.numbers_of(db, [row.id for row in rows])
            for shape in found:
                if isinstance(shape, shapes.CustomerRow):
                    shape.numbers = numbers.get(shape.id, [])
        return found


def _of(
    kind: tenants.Collection,
    new: type[BaseModel],
    patch: type[shapes.Patch],
    row: type[Answer],
    query: type[shapes.Listing],
) -> Offer:
    return Offer(kind.name, kind.one, new, patch, row, query, kind.readers, kind.writers, kind)


OFFERS = (
    _of(tenants.CLIENTS, shapes.ClientNew, shapes.ClientPatch, shapes.ClientRow, shapes.ClientQuery),
    _of(tenants.DIDS, shapes.DidNew, shapes.DidPatch, shapes.DidRow, shapes.DidQuery),
    _of(tenants.SITES, shapes.SiteNew, shapes.SitePatch, shapes.SiteRow, shapes.SiteQuery),
    _of(
        tenants.CUSTOMERS,
        shapes.CustomerNew,
        shapes.CustomerPatch,
        shapes.CustomerRow,
        shapes.CustomerQuery,
    ),
    _of(
        tenants.CALENDARS,
        calendar_shapes.CalendarNew,
        calendar_shapes.CalendarPatch,
        calendar_shapes.CalendarRow,
        calendar_shapes.CalendarQuery,
    ),
    _of(tenants.SCRIPTS, shapes.ScriptNew, shapes.ScriptPatch, shapes.ScriptRow, shapes.ScriptQuery),
    Offer(
        "agents",
        "agent",
        shapes.AgentNew,
        shapes.AgentPatch,
        shapes.AgentRow,
        shapes.AgentQuery,
        LEADERS,
        ADMINISTRATORS,
        None,
    ),
)


def _register(offer: Offer) -> None:
    page = create_model(
        f"{offer.row.__name__.removesuffix('Row')}Page",
        __base__=Answer,
        items=(list[offer.row], ...),  # type: ignore[name-defined]
        next=(str | None, ...),
    )

    def listing(access: Access, query: Any) -> Response:
        with parts().database.read() as db:
            found = offer.find(db, access, query)
            items = offer.shown(db, found.rows)
        return answer(page.model_construct(items=items, next=found.cursor))

    def reading(access: Access, row_id: str) -> Response:
        with parts().database.read() as db:
            return answer(offer.shown(db, [offer.get(db, access, row_id)])[0])

    def adding(access: Access, body: BaseModel) -> Response:
        with parts().writing(offer.name) as db:
            shape = offer.shown(db, [offer.create(db, access, _values(body))])[0]
        return answer(shape, 201)

    def changing(access: Access, row_id: str, body: shapes.Patch) -> Response:
        with parts().writing(offer.name) as db:
            shape = offer.shown(db, [offer.change(db, access, row_id, _values(body, sent=True))])[0]
        return answer(shape)

    def removing(access: Access, row_id: str) -> Response:
        with parts().writing(offer.name) as db:
            offer.remove(db, access, row_id)
        return no_content()

    one = f"/{offer.name}/<row_id>"
    readers, writers, tag = offer.readers, offer.writers, offer.name
    for func, rule, method, words, declared in (
        (listing, f"/{offer.name}", "GET", f"List {offer.name}, newest first.",
         view(tag, roles=readers, query=offer.query, answers=page)),
        (adding, f"/{offer.name}", "POST", f"Add one {offer.one}.",
         view(tag, roles=writers, body=offer.new, answers=offer.row, status=201)),
        (reading, one, "GET", f"Read one {offer.one}.", view(tag, roles=readers, answers=offer.row)),
        (changing, one, "PATCH", _changing_words(offer), view(tag, roles=writers, body=offer.patch, answers=offer.row)),
        (removing, one, "DELETE", f"Delete one {offer.one}; refused with 409 while something refers to it.",
         view(tag, roles=writers, status=204)),
    ):  # fmt: skip
        func.__name__ = f"{func.__name__}_{offer.name}"
        func.__doc__ = words
        blueprint.add_url_rule(rule, func.__name__, declared(func), methods=[method])


def _changing_words(offer: Offer) -> str:
    if offer.kind is tenants.SCRIPTS:
        return (
            "Write the script's next version, which has an id of its own.\n\n"
            "DIDs and sites go over to it, calls keep theirs."
        )
    return f"Change some fields of one {offer.one}."


def _values(body: BaseModel, *, sent: bool = False) -> dict[str, Any]:
    values = body.model_dump(exclude_unset=sent)
    for column in ("limits", "protection", "missed"):
        if isinstance(values.get(column), dict):
            # Only what was set is kept; the defaults may change later.
            values[column] = _set_only(values[column])
    return values


def _set_only(values: dict[str, Any]) -> dict[str, Any]:
    kept = {name: _set_only(each) if isinstance(each, dict) else each for name, each in values.items()}
    return {name: value for name, value in kept.items() if value not in (None, {})}


@blueprint.post("/sites/<row_id>/key")
@view("sites", roles=ADMINISTRATORS, body=shapes.KeyWanted, answers=shapes.SiteRow)
def renew_key(access: Access, row_id: str, body: shapes.KeyWanted) -> Response:
    """Give the site a new key. The one before it is revoked, at once or after `keep_hours`.

    A key that was replaced earlier and is still good is revoked with it.
    """
    with parts().writing("sites") as db:
        row = tenants.renew_key(db, access, now(), row_id, timedelta(hours=body.keep_hours))
        shape = shapes.SiteRow.model_validate(row)
    return answer(shape)


@blueprint.get("/calendars/<row_id>/holidays")
@view("calendars", roles=tenants.CALENDARS.readers, answers=calendar_shapes.Holidays)
def holidays_of(access: Access, row_id: str) -> Response:
    """The public holidays of the year to come on which the calendar is closed, but for its special days."""
    with parts().database.read() as db:
        row = tenants.get(db, access, tenants.CALENDARS, row_id)
        found = hours.holidays_from(calendars.parse(row), now().astimezone(zone(row.timezone)).date())
    items = [calendar_shapes.Holiday(date=day.isoformat(), name=name) for day, name in found]
    return answer(calendar_shapes.Holidays(items=items))


for _offer in OFFERS:
    _register(_offer)
