"""The shapes of calendars: a site's opening hours."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import Field, StringConstraints

from bridge.api.strict import Answer, Body, Line, Name, Short
from bridge.api.tenant_shapes import Id, Listing, Patch, Zone
from bridge.domain.hours import AHEAD_DAYS, FARTHEST_DAYS, SLOT_MINUTES

Opens = Annotated[Line, StringConstraints(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")]
Closes = Annotated[Line, StringConstraints(pattern=r"^(([01]\d|2[0-3]):[0-5]\d|24:00)$")]
Day = Annotated[Line, StringConstraints(pattern=r"^(19|20)\d\d-[01]\d-[0-3]\d$")]
Agents = Annotated[int, Field(ge=0, le=10_000, description="agents usually there: a slot takes as many callbacks")]


class OpenHours(Body):
    """From `opens` to before `closes`, on the calendar's clock; what lies between two of them is a break."""

    opens: Opens
    closes: Closes = Field(description='"24:00" is the end of the day')
    agents: Agents | None = None


Hours = Annotated[list[OpenHours], Field(max_length=10)]


class SpecialDay(Body):
    """A day unlike its week, stronger than a public holiday too; without hours it is closed."""

    date: Day
    name: Short = ""
    hours: Hours = Field(default_factory=list)


class Weekly(Body):
    """The hours of each day of the week; a day that is left out is closed."""

    monday: Hours = Field(default_factory=list)
    tuesday: Hours = Field(default_factory=list)
    wednesday: Hours = Field(default_factory=list)
    thursday: Hours = Field(default_factory=list)
    friday: Hours = Field(default_factory=list)
    saturday: Hours = Field(default_factory=list)
    sunday: Hours = Field(default_factory=list)


class _Calendar(Patch):
    name: Name = ""
    timezone: Zone = "UTC"
    weekly: Weekly = Field(default_factory=Weekly)
    special_days: Annotated[list[SpecialDay], Field(max_length=500)] = Field(default_factory=list)
    country: Annotated[Line, StringConstraints(pattern=r"^[A-Z]{2}$")] | None = Field(
        None, description="closed on the public holidays of this country"
    )
    subdivision: Annotated[Line, StringConstraints(min_length=1, max_length=20)] | None = Field(
        None, description="and of this part of it"
    )
    slot_minutes: Annotated[int, Field(ge=10, le=240)] = SLOT_MINUTES
    agents: Agents | None = None
    ahead_days: Annotated[int, Field(ge=1, le=FARTHEST_DAYS)] = AHEAD_DAYS


class CalendarNew(_Calendar):
    client_id: Id
    name: Name
    timezone: Zone


class CalendarPatch(_Calendar):
    pass


class CalendarRow(Answer):
    id: str
    created_at: datetime
    client_id: str
    name: str
    timezone: str
    weekly: Weekly
    special_days: list[SpecialDay]
    country: str | None
    subdivision: str | None
    slot_minutes: int
    agents: int | None
    ahead_days: int


class Holiday(Answer):
    date: str
    name: str


class Holidays(Answer):
    items: list[Holiday]


class CalendarQuery(Listing):
    client_id: Id | None = None
    name: Short | None = None
