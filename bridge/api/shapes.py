"""The shapes of requests and answers about sessions, agents, calls and the board."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, AwareDatetime, Field, StringConstraints

from bridge.api.strict import Answer, Body, FreeObject, Line, Note, Query, Short
from bridge.domain.actions import DEVICE

Device = Annotated[
    Line,
    StringConstraints(
        pattern=f"^({DEVICE})$",
        max_length=100,
    ),
    Field(description="a phone, such as PJSIP/101, user/101 or user/101@example.com"),
]

def _in_utc(at: datetime) -> datetime:
    try:
        return at.astimezone(UTC)
    except OverflowError:
        raise ValueError("is outside the years that clocks know") from None


Instant = Annotated[AwareDatetime, AfterValidator(_in_utc), Field(description="RFC 3339 with an offset")]
CallState = Literal["started", "queued", "offered", "connected", "held", "ended", "merged"]
CallCursor = Annotated[Line | None, Field(max_length=500, description="from the page before")]
Limit = Annotated[int, Field(ge=1, le=200, description="rows of a page")]


class SignIn(Body):
    username: Annotated[Line, StringConstraints(min_length=1, max_length=100)]
    password: Annotated[Line, StringConstraints(min_length=1, max_length=200)]
    device: Device | None = None


class Me(Answer):
    """Whoever is signed in."""

    id: str
    username: str
    name: str
    role: str
    client_id: str | None
    devices: list[str]
    device: str | None
    extension: str | None


class SessionNow(Answer):
    """`csrf` goes into the header X-CSRF-Token of every change that a cookie vouches for."""

    csrf: str
    role: str
    devices: list[str]
    agent: Me


class SessionOpened(SessionNow):
    """`token` is told once; a browser has it as a cookie already."""

    token: str
    expires_at: datetime


class StateNow(Answer):
    state: Literal["ready", "paused", "wrapup", "offline"]
    reason: str | None
    since: datetime
    device: str | None


class StateWanted(Body):
    state: Literal["ready", "paused", "wrapup", "offline"]
    reason: Annotated[Line, StringConstraints(min_length=1, max_length=100)] | None = None
    device: Device | None = None


class DeviceNow(Answer):
    device: str
    mine: bool
    taken: bool


class Devices(Answer):
    items: list[DeviceNow]


class CallRow(Answer):
    """A call as a list shows it."""

    id: str
    client_id: str | None
    pbx: str
    direction: str | None
    state: CallState
    from_party: dict[str, Any] | None
    to_party: dict[str, Any] | None
    customer_number: str | None
    customer_id: str | None
    agent_id: str | None
    queue: str | None
    callback_id: str | None
    started_at: datetime
    connected_at: datetime | None
    ended_at: datetime | None
    cause: str | None
    q850: int | None
    answered_by: str | None
    wait_ms: int | None
    talk_ms: int | None
    merged_into: str | None
    disposition: str | None
    note: str


class CallEventShape(Answer):
    """One event of a call, as it was published. A number that is missing in `seq` was lost."""

    seq: int
    type: str = Field(description="such as call.offered, call.connected, call.ended")
    at: datetime
    data: dict[str, Any]


class CallFull(CallRow):
    script_id: str | None
    attempt_id: str | None
    answers: dict[str, Any]
    disposed_by: str | None
    disposed_at: datetime | None
    merged_calls: list[str] = Field(description="calls that became part of this one, such as a consultation")
    events: list[CallEventShape] = Field(description="the whole history, in order")

    @classmethod
    def of(cls, call: object, events: Sequence[object], merged: Sequence[str]) -> Self:
        """The shape of a row, its events and the calls that became part of it."""
        own = {name: getattr(call, name) for name in cls.model_fields if name not in ("events", "merged_calls")}
        told = [CallEventShape.model_validate(event) for event in events]
        return cls(**own, events=told, merged_calls=list(merged))


class CallPage(Answer):
    items: list[CallRow]
    next: str | None


class CallQuery(Query):
    limit: Limit = 50
    cursor: CallCursor = None
    since: Instant | None = Field(None, description="the start of today, in UTC, where it is left out")
    until: Instant | None = None
    live: bool | None = Field(None, description="true: in progress, whenever they began; false: over")
    pbx: Short | None = Field(None, description="its name in the settings")
    agent_id: Short | None = None
    client_id: Short | None = None
    customer_id: Short | None = None
    customer_number: Short | None = Field(None, description="E.164; write its + as %2B")
    callback_id: Short | None = None
    queue: Short | None = None
    direction: Literal["inbound", "outbound", "internal"] | None = None
    state: CallState | None = None
    cause: Short | None = None
    disposition: Short | None = None


class Disposition(Body):
    disposition: Annotated[Line, StringConstraints(min_length=1, max_length=100, strip_whitespace=True)]
    note: Note = ""
    ready: bool = Field(False, description="also go from wrap-up to ready")


class Answers(Body):
    answers: FreeObject


class Painted(Body):
    painted_ms: Annotated[float, Field(ge=0, le=3_600_000, allow_inf_nan=False)] | None = None


class PopAcked(Answer):
    id: str
    acked_at: datetime


class DialingWanted(Body):
    state: Literal["on", "stopped"]


class DialingNow(Answer):
    state: Literal["on", "stopped"]
    observe: bool
    by: str | None
    at: datetime | None


class Link(Answer):
    pbx: str
    up: bool
    detail: str


class BoardAgent(Answer):
    id: str
    name: str
    role: str
    extension: str | None
    state: str
    reason: str | None
    since: datetime | None
    device: str | None
    live_calls: int


class BoardCalls(Answer):
    counts: dict[str, int]
    causes: dict[str, int]
    rows: list[CallRow]


class CallbackRow(Answer):
    id: str
    client_id: str
    site_id: str
    number: str
    name: str
    note: str
    status: str
    reason: str | None
    tries: int
    created_at: datetime
    due_at: datetime
    promised_at: datetime | None
    expected_at: datetime | None
    promise_kept: bool | None
    rang_at: datetime | None
    expires_at: datetime
    confirmed_at: datetime | None
    ended_at: datetime | None


class BoardCallbacks(Answer):
    counts: dict[str, int]
    rows: list[CallbackRow]


class PromisesOfDay(Answer):
    since: datetime
    kept: int
    broken: int
    share: float | None


class SitePromises(Answer):
    site_id: str
    site: str
    promising: bool = Field(description="false where the site promises nothing, since it did not keep its word lately")
    days: list[PromisesOfDay] = Field(description="today first")


class Promises(Answer):
    items: list[SitePromises]


class Board(Answer):
    at: datetime
    since: datetime
    dialing: DialingNow
    links: list[Link]
    agents: list[BoardAgent]
    calls: BoardCalls
    callbacks: BoardCallbacks
    promises: list[SitePromises]


class BoardQuery(Query):
    timezone: Annotated[Line, StringConstraints(max_length=64)] = Field(
        "UTC", description="whose midnight begins the day"
    )


class AuditRow(Answer):
    id: int
    at: datetime
    client_id: str | None
    actor: str
    action: str
    object: str
    detail: dict[str, Any]


class AuditPage(Answer):
    items: list[AuditRow]
    next: str | None


class AuditQuery(Query):
    limit: Limit = 50
    cursor: CallCursor = None
    actor: Short | None = None
    action: Short | None = None
    object: Short | None = None


class GrantEvent(Answer):
    event: str
    id: str
    data: dict[str, Any]


class Grant(Answer):
    """What the edge asks for before it opens a stream."""

    topics: list[str]
    hello: list[GrantEvent]
    check: str | None = Field(None, description="names the session that must stand for the stream to go on")
    clients: list[str] | None = Field(None, description="whose board events pass; null for everyone's")
