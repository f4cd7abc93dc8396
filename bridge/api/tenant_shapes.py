"""The shapes of the collections an administrator keeps."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import phonenumbers
from pydantic import AfterValidator, Field, StringConstraints, model_validator

from bridge.api.shapes import CallCursor, Device, Limit
from bridge.api.strict import Answer, Body, Line, Name, Note, Paragraphs, Query, Short
from bridge.domain.actions import MAX_SOUND, SOUND
from bridge.domain.callbacks import zone
from bridge.domain.errors import Invalid
from bridge.domain.proof import FEWEST_BITS, MOST_BITS


def _zone(name: str) -> str:
    try:
        zone(name)
    except Invalid as error:
        raise ValueError(error.message) from None
    return name


def _region(code: str) -> str:
    if code not in phonenumbers.SUPPORTED_REGIONS:
        raise ValueError('is no region; write two capital letters, such as "US"')
    return code


def _origin(text: str) -> str:
    fault = 'is no origin; write scheme and host, such as "https://www.example.com"'
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError(fault) from None
    host = parts.hostname or ""
    shown = f"[{host}]" if ":" in host else host
    origin = f"{parts.scheme}://{shown}" + (f":{port}" if port is not None else "")
    if parts.scheme not in ("http", "https") or not host or "*" in host or origin != text.lower():
        raise ValueError(fault)
    default = {"http": 80, "https": 443}[parts.scheme]
    return f"{parts.scheme}://{shown}" if port == default else origin


def _ascii_username(text: str) -> str:
    return text.lower()


Zone = Annotated[Line, StringConstraints(max_length=64), AfterValidator(_zone)]
Region = Annotated[Line, StringConstraints(pattern=r"^[A-Z]{2}$"), AfterValidator(_region)]
Origin = Annotated[Line, StringConstraints(max_length=300), AfterValidator(_origin)]
Number = Annotated[
    Line, StringConstraints(min_length=2, max_length=40), Field(description="read in the client's region")
]
Id = Annotated[Line, StringConstraints(min_length=1, max_length=36)]
PbxQueue = Annotated[Line, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,80}$")]
"""As the dialplan names it to us."""
QueueName = Annotated[Line, StringConstraints(min_length=1, max_length=100)]
PbxName = Annotated[Line, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")]
Role = Literal["agent", "supervisor", "viewer", "administrator"]
Username = Annotated[
    Line,
    StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.@+-]{0,99}$"),
    AfterValidator(_ascii_username),
]
Password = Annotated[Line, StringConstraints(min_length=10, max_length=200)]
Extension = Annotated[Line, StringConstraints(pattern=r"^[0-9*#+]{1,20}$")]


class Patch(Body):
    """Some columns of a row; at least one, and null only where a column may be empty."""

    @model_validator(mode="after")
    def _not_empty(self) -> Patch:
        if not self.model_fields_set:
            raise ValueError("name at least one field to change")
        return self

    def changes(self) -> dict[str, Any]:
        """What was sent, no more."""
        return self.model_dump(exclude_unset=True)


class Listing(Query):
    limit: Limit = 50
    cursor: CallCursor = None


class Card(Body):
    """What the agent reads of the company."""

    website: Short = ""
    address: Short = ""
    hours: Short = ""
    services: Note = ""
    notes: Note = ""


class ClientNew(Body):
    name: Name
    region: Region = "US"
    timezone: Zone = "UTC"
    greeting: Note = ""
    card: Card = Field(default_factory=Card)
    active: bool = True


class ClientPatch(Patch):
    name: Name = ""
    region: Region = "US"
    timezone: Zone = "UTC"
    greeting: Note = ""
    card: Card = Field(default_factory=Card)
    active: bool = True


class ClientRow(Answer):
    id: str
    created_at: datetime
    name: str
    region: str
    timezone: str
    greeting: str
    card: dict[str, Any]
    active: bool


class ClientQuery(Listing):
    name: Short | None = None
    active: bool | None = None


class DidNew(Body):
    client_id: Id
    number: Number
    label: Short = ""
    script_id: Id | None = None


class DidPatch(Patch):
    number: Number = ""
    label: Short = ""
    script_id: Id | None = None


class DidRow(Answer):
    id: str
    created_at: datetime
    client_id: str
    number: str
    label: str
    script_id: str | None


class DidQuery(Listing):
    client_id: Id | None = None
    number: Short | None = None
    script_id: Id | None = None


class RetryLine(Body):
    """What follows attempts of one outcome; what is left out has the default."""

    minutes: Annotated[list[Annotated[int, Field(ge=1, le=1440)]], Field(min_length=1, max_length=10)] | None = Field(
        None, description="until the next attempt, by how many ended so before; the last holds on"
    )
    again: Annotated[int, Field(ge=0, le=10)] | None = Field(
        None, description="how many more attempts may follow ones that ended so; 0 is never"
    )


class Retry(Body):
    """By outcome, what `tries` and `retry_minutes` leave open."""

    busy: RetryLine | None = None
    no_answer: RetryLine | None = None
    rejected: RetryLine | None = None
    machine: RetryLine | None = None
    congestion: RetryLine | None = None
    failed: RetryLine | None = None
    agent_hung_up: RetryLine | None = None
    wrong_number: RetryLine | None = None
    trunk_unreachable: RetryLine | None = None
    agent_no_answer: RetryLine | None = None
    agent_unreachable: RetryLine | None = None


class Limits(Body):
    """Limits of a site; what is left out has the default. 0 of a rate means none at all."""

    per_ip_hour: Annotated[int, Field(ge=0, le=100_000)] | None = None
    per_network_hour: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    per_number_day: Annotated[int, Field(ge=0, le=1_000)] | None = None
    per_site_hour: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    per_number_dials_day: Annotated[int, Field(ge=1, le=1_000)] | None = Field(
        None, description="dials of one number within a day, over all sites of the client"
    )
    per_number_dials: Annotated[int, Field(ge=1, le=10_000)] | None = Field(
        None, description="dials of one number in all, over all sites of the client"
    )
    tries: Annotated[int, Field(ge=1, le=10)] | None = None
    retry_minutes: Annotated[list[Annotated[int, Field(ge=1, le=1440)]], Field(max_length=10)] | None = None
    retry: Retry | None = None
    expire_hours: Annotated[int, Field(ge=1, le=720)] | None = None


class Protection(Body):
    """What a site's form asks of who sends it; what is left out has the default."""

    proof: Annotated[Line, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$")] | None = Field(
        None, description="off (the default), work (a puzzle for the page), or the name of an installed check"
    )
    bits: Annotated[int, Field(ge=FEWEST_BITS, le=MOST_BITS)] | None = Field(
        None, description="how hard the puzzle is while little is asked of the site; 16 by default"
    )
    block: list[Literal["fixed_line", "mobile", "voip", "toll_free"]] | None = Field(
        None, description="types of numbers that this site does not call"
    )
    press_1: Annotated[Line, StringConstraints(max_length=MAX_SOUND, pattern=f"^{SOUND}$")] | None = Field(
        None,
        description="a sound of the PBX's, by name without extension, after which the customer has to press 1 before "
        "an agent is called; with order customer_first",
    )


class Missed(Body):
    """Callers whom nobody answered and whom the site calls back; without `dids` there are none."""

    dids: Annotated[list[Number], Field(max_length=100)] | None = Field(
        None, description="DIDs of this client on which a missed call is called back"
    )
    min_wait_seconds: Annotated[int, Field(ge=0, le=300)] | None = Field(
        None, description="who hung up sooner is not called back; 5 by default"
    )
    delay_minutes: Annotated[int, Field(ge=0, le=240)] | None = Field(
        None, description="how long the caller may try again first; 1 by default"
    )


class KeyWanted(Body):
    """How long the key before it stays good: 0, the default, revokes it at once."""

    may_be_absent = True
    keep_hours: Annotated[int, Field(ge=0, le=720)] = 0


class _Site(Patch):
    name: Name = ""
    origins: Annotated[list[Origin], Field(max_length=50)] = Field(default_factory=list)
    timezone: Zone = "UTC"
    regions: Annotated[list[Region], Field(max_length=250)] = Field(default_factory=list)
    pbx: PbxName | None = None
    caller_id: Number | None = None
    order: Literal["agent_first", "customer_first", "customer_in_queue"] = Field(
        "agent_first",
        description="whose phone rings first; with customer_in_queue a callback of a queue in offer_queues waits there "
        "once the customer has answered, where they would stand had they waited on the phone",
    )
    script_id: Id | None = None
    consent_text: Note = ""
    test_mode: bool = False
    limits: Limits = Field(default_factory=Limits)
    protection: Protection = Field(default_factory=Protection)
    calendar_id: Id | None = Field(None, description="opening hours; with null it calls at any hour")
    queue_calendars: Annotated[dict[QueueName, Id], Field(max_length=50)] = Field(
        default_factory=dict, description="calendars by queue, where a queue has hours of its own"
    )
    when_closed: Literal["next_open", "refuse"] = Field(
        "next_open", description='what "now" means in closed hours'
    )
    missed: Missed = Field(default_factory=Missed)
    offer_queues: Annotated[list[PbxQueue], Field(max_length=50)] = Field(
        default_factory=list, description="queues of the PBX whose callers may ask by a key to be called back"
    )
    active: bool = True


class SiteNew(_Site):
    client_id: Id
    name: Name


class SitePatch(_Site):
    pass


class SiteRow(Answer):
    id: str
    created_at: datetime
    client_id: str
    key: str
    name: str
    origins: list[str]
    timezone: str
    regions: list[str]
    pbx: str | None
    caller_id: str | None
    order: str
    script_id: str | None
    consent_text: str
    test_mode: bool
    limits: dict[str, Any]
    protection: dict[str, Any]
    previous_key: str | None
    previous_key_until: datetime | None
    calendar_id: str | None
    queue_calendars: dict[str, Any]
    when_closed: str
    missed: dict[str, Any]
    offer_queues: list[str]
    active: bool


class SiteQuery(Listing):
    client_id: Id | None = None
    key: Short | None = None
    active: bool | None = None


class _Customer(Patch):
    name: Short = ""
    company: Short = ""
    email: Annotated[Line, StringConstraints(max_length=320, pattern=r"^([^@\s]+@[^@\s]+)?$")] = ""
    note: Note = ""
    reference: Annotated[Line, StringConstraints(max_length=100)] | None = None
    numbers: Annotated[list[Number], Field(max_length=20)] = Field(default_factory=list)


class CustomerNew(_Customer):
    client_id: Id


class CustomerPatch(_Customer):
    pass


class CustomerRow(Answer):
    id: str
    created_at: datetime
    client_id: str
    name: str
    company: str
    email: str
    note: str
    reference: str | None
    numbers: list[str] = Field(default_factory=list)


class CustomerQuery(Listing):
    client_id: Id | None = None
    name: Short | None = None
    company: Short | None = None
    email: Short | None = None
    reference: Short | None = None
    number: Short | None = None


class ScriptNew(Body):
    client_id: Id
    name: Name
    body: Annotated[Paragraphs, Field(min_length=1, max_length=20_000)]


class ScriptPatch(Patch):
    name: Name = ""
    body: Annotated[Paragraphs, Field(min_length=1, max_length=20_000)] = ""


class ScriptRow(Answer):
    id: str
    created_at: datetime
    client_id: str
    name: str
    version: int
    body: str


class ScriptQuery(Listing):
    client_id: Id | None = None
    name: Short | None = None
    version: Annotated[int, Field(ge=1, le=1_000_000)] | None = None


class AgentNew(Body):
    username: Username
    password: Password
    name: Name
    role: Role
    client_id: Id | None = None
    devices: Annotated[list[Device], Field(max_length=20)] = Field(default_factory=list)
    extension: Extension | None = None
    active: bool = True


class AgentPatch(Patch):
    password: Password = ""
    name: Name = ""
    role: Role = "agent"
    client_id: Id | None = None
    devices: Annotated[list[Device], Field(max_length=20)] = Field(default_factory=list)
    extension: Extension | None = None
    active: bool = True


class AgentRow(Answer):
    id: str
    created_at: datetime
    client_id: str | None
    username: str
    name: str
    role: str
    devices: list[str]
    extension: str | None
    active: bool


class AgentQuery(Listing):
    role: Role | None = None
    active: bool | None = None
    username: Short | None = None
