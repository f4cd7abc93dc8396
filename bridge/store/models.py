"""The tables. Every tenant's row carries `client_id`; times are UTC and aware.

Ids are random UUIDs as text, so that they can be made before the row is and tell nothing.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any, cast

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class UtcTime(TypeDecorator[datetime]):
    """An aware time; a naive one is refused. SQLite keeps it as UTC text."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("naive datetime")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def new_id() -> str:
    """A random id, in the form every PBX accepts as a channel id."""
    return str(uuid.uuid4())


class Base(DeclarativeBase):
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy's own form
        datetime: UtcTime(),
        dict[str, Any]: JSON(),
        list[str]: JSON(),
    }


def table(model: type[Base]) -> Table:
    """The table of a model, for statements that go past the ORM."""
    return cast(Table, model.__table__)


def _only(condition: str) -> dict[str, Any]:
    """For an index of the few rows that are looked for."""
    return {"sqlite_where": text(condition), "postgresql_where": text(condition)}


class _Row:
    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=new_id)
    created_at: Mapped[datetime]


def _client(*, null: bool = False) -> Any:
    return mapped_column(String(36), ForeignKey("clients.id"), nullable=null, index=True)


class Client(_Row, Base):
    """A company for which the centre answers."""

    __tablename__ = "clients"
    name: Mapped[str] = mapped_column(String(200), unique=True)
    region: Mapped[str] = mapped_column(String(2), default="US")
    timezone: Mapped[str] = mapped_column(String(64), default="UTC")
    greeting: Mapped[str] = mapped_column(Text, default="")
    card: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """What the agent reads of the company: website, address, hours, services, notes (all text)."""
    active: Mapped[bool] = mapped_column(default=True)


class Script(_Row, Base):
    """What the agent says; a change makes a new version, a call keeps its own."""

    __tablename__ = "scripts"
    client_id: Mapped[str] = _client()
    name: Mapped[str] = mapped_column(String(200))
    version: Mapped[int] = mapped_column(default=1)
    body: Mapped[str] = mapped_column(Text)
    """Markdown with merge fields such as {{customer.name}}."""
    __table_args__ = (UniqueConstraint("client_id", "name", "version"),)


class Did(_Row, Base):
    __tablename__ = "dids"
    client_id: Mapped[str] = _client()
    number: Mapped[str] = mapped_column(String(20), unique=True)
    label: Mapped[str] = mapped_column(String(200), default="")
    script_id: Mapped[str | None] = mapped_column(ForeignKey("scripts.id"))


class Agent(_Row, Base):
    """Whoever signs in: agent, supervisor, viewer (of one client) or administrator."""

    __tablename__ = "agents"
    client_id: Mapped[str | None] = _client(null=True)
    """Set for a client viewer (and an agent who works for one client only); None sees all clients."""
    username: Mapped[str] = mapped_column(String(100), unique=True)
    password_hash: Mapped[str] = mapped_column(String(200))
    name: Mapped[str] = mapped_column(String(200))
    role: Mapped[str] = mapped_column(String(20))
    devices: Mapped[list[str]] = mapped_column(default=list)
    """Devices the agent may choose at sign-in, such as PJSIP/101."""
    extension: Mapped[str | None] = mapped_column(String(20))
    active: Mapped[bool] = mapped_column(default=True)


class AgentState(Base):
    """Where an agent stands now."""

    __tablename__ = "agent_states"
    agent_id: Mapped[str] = mapped_column(ForeignKey("agents.id"), primary_key=True)
    state: Mapped[str] = mapped_column(String(10), default="offline")
    reason: Mapped[str | None] = mapped_column(String(100))
    since: Mapped[datetime]
    device: Mapped[str | None] = mapped_column(String(100))
    pbx: Mapped[str | None] = mapped_column(String(32))
    reserved_by: Mapped[str | None] = mapped_column(String(36))
    """The attempt that holds this agent, from claim to end."""
    live_calls: Mapped[int] = mapped_column(default=0)
    mirrored: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))


class Session(Base):
    """A signed-in browser or a token; only a hash of the secret is kept."""

    __tablename__ = "sessions"
    token_hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    agent_id: Mapped[str] = mapped_column(ForeignKey("agents.id"), index=True)
    kind: Mapped[str] = mapped_column(String(10))
    device: Mapped[str | None] = mapped_column(String(100))
    csrf: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]


class Calendar(_Row, Base):
    """Opening hours; `domain.hours.read` says what the columns mean."""

    __tablename__ = "calendars"
    client_id: Mapped[str] = _client()
    name: Mapped[str] = mapped_column(String(200))
    timezone: Mapped[str] = mapped_column(String(64))
    weekly: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """By day ("monday"): a list of {opens, closes, agents}."""
    special_days: Mapped[list[dict[str, Any]]] = mapped_column(JSON, default=list)
    """{date, name, hours}, stronger than holidays and the week."""
    country: Mapped[str | None] = mapped_column(String(2))
    subdivision: Mapped[str | None] = mapped_column(String(20))
    slot_minutes: Mapped[int] = mapped_column(default=30)
    agents: Mapped[int | None]
    ahead_days: Mapped[int] = mapped_column(default=14)


class Site(_Row, Base):
    """A web site whose form asks for callbacks."""

    __tablename__ = "sites"
    client_id: Mapped[str] = _client()
    key: Mapped[str] = mapped_column(String(40), unique=True)
    name: Mapped[str] = mapped_column(String(200))
    origins: Mapped[list[str]] = mapped_column(default=list)
    timezone: Mapped[str] = mapped_column(String(64), default="UTC")
    regions: Mapped[list[str]] = mapped_column(default=list)
    pbx: Mapped[str | None] = mapped_column(String(32))
    caller_id: Mapped[str | None] = mapped_column(String(20))
    order: Mapped[str] = mapped_column("dial_order", String(20), default="agent_first")
    script_id: Mapped[str | None] = mapped_column(ForeignKey("scripts.id"))
    consent_text: Mapped[str] = mapped_column(Text, default="")
    test_mode: Mapped[bool] = mapped_column(default=False)
    limits: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """per_ip_hour, per_network_hour, per_number_day, per_number_dials_day, per_number_dials, per_site_hour, tries,
    retry_minutes (list), retry (by outcome: minutes, again), expire_hours."""
    protection: Mapped[dict[str, Any]] = mapped_column(default=dict, server_default="{}")
    """proof (off, work or the name of an installed check), bits, block (types of numbers)."""
    previous_key: Mapped[str | None] = mapped_column(String(40), unique=True, index=True)
    """The key before this one, so that a page that still sends it is told what is wrong."""
    previous_key_until: Mapped[datetime | None]
    """Until when it is still good."""
    calendar_id: Mapped[str | None] = mapped_column(String(36))
    """Opening hours; None calls at any hour. No foreign key: who deletes a calendar is told of its sites."""
    queue_calendars: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """Calendar ids by queue, where a queue has hours of its own."""
    when_closed: Mapped[str] = mapped_column(String(10), default="next_open")
    """What "now" means in closed hours: next_open, or refuse."""
    missed: Mapped[dict[str, Any]] = mapped_column(default=dict, server_default="{}")
    offer_queues: Mapped[list[str]] = mapped_column(default=list, server_default="[]")  # whose callers may press a key
    active: Mapped[bool] = mapped_column(default=True)


class Customer(_Row, Base):
    __tablename__ = "customers"
    client_id: Mapped[str] = _client()
    name: Mapped[str] = mapped_column(String(200), default="")
    company: Mapped[str] = mapped_column(String(200), default="")
    email: Mapped[str] = mapped_column(String(320), default="")
    note: Mapped[str] = mapped_column(Text, default="")
    reference: Mapped[str | None] = mapped_column(String(100))


class CustomerNumber(Base):
    __tablename__ = "customer_numbers"
    customer_id: Mapped[str] = mapped_column(
        ForeignKey("customers.id", ondelete="CASCADE"), primary_key=True
    )
    number: Mapped[str] = mapped_column(String(20), primary_key=True)
    client_id: Mapped[str] = _client()
    __table_args__ = (Index("ix_customer_numbers_lookup", "number", "client_id"),)


class Callback(_Row, Base):
    """A wish to be called."""

    __tablename__ = "callbacks"
    client_id: Mapped[str] = _client()
    site_id: Mapped[str] = mapped_column(ForeignKey("sites.id"), index=True)
    number: Mapped[str] = mapped_column(String(20), index=True)
    source: Mapped[str] = mapped_column(String(10), default="web", server_default="web")
    """Where it came from: web, queue (a waiting caller pressed a key) or missed (a caller whom nobody answered)."""
    joined_at: Mapped[datetime | None]
    """When the customer joined the line; None, of an older row, means `due_at`."""
    name: Mapped[str] = mapped_column(String(200), default="")
    note: Mapped[str] = mapped_column(Text, default="")
    page_url: Mapped[str] = mapped_column(Text, default="")
    queue: Mapped[str | None] = mapped_column(String(100))
    wall_time: Mapped[str | None] = mapped_column(String(32))
    """The local time asked for, as written; None for now."""
    timezone: Mapped[str | None] = mapped_column(String(64))
    tzdata: Mapped[str | None] = mapped_column(String(20))
    """The release of the zones' rules by which `due_at` was reckoned from the wall time; None for an unknown one."""
    calendar_id: Mapped[str | None] = mapped_column(String(36))
    due_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    promised_at: Mapped[datetime | None]
    expected_at: Mapped[datetime | None]
    """The promise by which it is judged, also one that was not told; None for a row that is not judged."""
    promise_kept: Mapped[bool | None]
    rang_at: Mapped[datetime | None]
    confirmed_at: Mapped[datetime | None]
    """The visitor's word that they wait."""
    status: Mapped[str] = mapped_column(String(20), index=True)
    reason: Mapped[str | None] = mapped_column(String(100))
    tries: Mapped[int] = mapped_column(default=0)
    """Attempts that used up one of the customer's tries."""
    held_by: Mapped[str | None] = mapped_column(String(36))
    """The attempt in flight."""
    queued_at: Mapped[datetime | None]
    """A job was enqueued then; the sweep leaves it alone for a few seconds."""
    consent_text: Mapped[str] = mapped_column(Text, default="")
    consent_at: Mapped[datetime | None]
    consent_number: Mapped[int | None]
    ip_hash: Mapped[str] = mapped_column(String(64), default="")
    ended_at: Mapped[datetime | None]
    assigned_to: Mapped[str | None] = mapped_column(String(36))
    """The agent who alone is to make the next dial; None for anyone."""
    requeued_from: Mapped[str | None] = mapped_column(String(36))
    __table_args__ = (
        Index("ix_callbacks_requeued_from", "requeued_from", unique=True, **_only("requeued_from IS NOT NULL")),
        Index("ix_callbacks_due", "status", "due_at"),
        Index("ix_callbacks_slot", "calendar_id", "due_at", **_only("calendar_id IS NOT NULL")),
        Index("ix_callbacks_judged", "site_id", "expected_at", **_only("promise_kept IS NOT NULL")),
        Index("ix_callbacks_unjudged", "expected_at", **_only("promise_kept IS NULL AND expected_at IS NOT NULL")),
    )


class Attempt(_Row, Base):
    """One dialling of one number; its id is the channel's id at the PBX."""

    __tablename__ = "attempts"
    client_id: Mapped[str] = _client()
    callback_id: Mapped[str | None] = mapped_column(ForeignKey("callbacks.id"), index=True)
    pbx: Mapped[str] = mapped_column(String(32))
    agent_id: Mapped[str | None] = mapped_column(ForeignKey("agents.id"))
    agent_device: Mapped[str | None] = mapped_column(String(100))
    number: Mapped[str] = mapped_column(String(20), index=True)
    caller_id: Mapped[str | None] = mapped_column(String(20))
    agent_first: Mapped[bool] = mapped_column(default=True)
    state: Mapped[str] = mapped_column(String(12), index=True)
    reason: Mapped[str | None] = mapped_column(String(100))
    q850: Mapped[int | None]
    call_id: Mapped[str | None] = mapped_column(String(100))
    claimed_at: Mapped[datetime | None]
    deadline_at: Mapped[datetime | None]
    sent_at: Mapped[datetime | None]
    """When the Originate left for the PBX."""
    ended_at: Mapped[datetime | None]


class AttemptChange(Base):
    """Every change of an attempt's state leaves a row."""

    __tablename__ = "attempt_changes"
    id: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True
    )
    attempt_id: Mapped[str] = mapped_column(ForeignKey("attempts.id"), index=True)
    at: Mapped[datetime]
    old: Mapped[str] = mapped_column(String(12))
    new: Mapped[str] = mapped_column(String(12))
    reason: Mapped[str | None] = mapped_column(String(100))


class NumberLock(Base):
    """Two attempts to one number never overlap: held from claim to end."""

    __tablename__ = "number_locks"
    number: Mapped[str] = mapped_column(String(20), primary_key=True)
    attempt_id: Mapped[str] = mapped_column(String(36))
    since: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    """Set when the attempt became uncertain; until then the lock has no end of its own."""


class IdempotencyKey(Base):
    __tablename__ = "idempotency_keys"
    site_id: Mapped[str] = mapped_column(ForeignKey("sites.id"), primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    body_hash: Mapped[str] = mapped_column(String(64))
    callback_id: Mapped[str | None] = mapped_column(String(36))
    """None while the first request is in work."""
    answer: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    """What the first request was told; a repeat is told the same."""
    created_at: Mapped[datetime]


class ConsentRecord(Base):
    """What a visitor agreed to; each entry's seal covers the entry before it (`domain.consent`)."""

    __tablename__ = "consents"
    site_id: Mapped[str] = mapped_column(ForeignKey("sites.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    client_id: Mapped[str] = _client()
    callback_id: Mapped[str] = mapped_column(String(36))
    at: Mapped[datetime]
    text: Mapped[str] = mapped_column(Text)
    page_url: Mapped[str] = mapped_column(Text, default="")
    ip_hash: Mapped[str] = mapped_column(String(64))
    number_hash: Mapped[str] = mapped_column(String(64))
    seal: Mapped[str] = mapped_column(String(64))


class Dnc(_Row, Base):
    """A number that a client company must not call. The number itself is not kept, so its owner may be erased."""

    __tablename__ = "dnc"
    client_id: Mapped[str] = _client()
    number_hash: Mapped[str] = mapped_column(String(64))
    ending: Mapped[str] = mapped_column(String(2))
    """Its last two digits, for people."""
    note: Mapped[str] = mapped_column(String(200), default="")
    __table_args__ = (UniqueConstraint("client_id", "number_hash"),)


class Counter(Base):
    """Limits that protect money and people; in SQL, so that a flushed Redis does not reopen them."""

    __tablename__ = "counters"
    scope: Mapped[str] = mapped_column(String(40), primary_key=True)
    subject: Mapped[str] = mapped_column(String(128), primary_key=True)
    """A keyed hash for addresses and numbers, an id for a site."""
    window: Mapped[datetime] = mapped_column(primary_key=True)
    count: Mapped[int] = mapped_column(default=0)


class Call(Base):
    """One conversation as the recorder knows it from `rb:calls`."""

    __tablename__ = "calls"
    id: Mapped[str] = mapped_column(String(100), primary_key=True)
    client_id: Mapped[str | None] = _client(null=True)
    pbx: Mapped[str] = mapped_column(String(32))
    direction: Mapped[str | None] = mapped_column(String(10))
    from_party: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    to_party: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    customer_number: Mapped[str | None] = mapped_column(String(20), index=True)
    customer_id: Mapped[str | None] = mapped_column(ForeignKey("customers.id", ondelete="SET NULL"))
    agent_id: Mapped[str | None] = mapped_column(ForeignKey("agents.id"), index=True)
    queue: Mapped[str | None] = mapped_column(String(100))
    attempt_id: Mapped[str | None] = mapped_column(String(36))
    callback_id: Mapped[str | None] = mapped_column(String(36), index=True)
    script_id: Mapped[str | None] = mapped_column(ForeignKey("scripts.id"))
    state: Mapped[str] = mapped_column(String(12), default="started")
    started_at: Mapped[datetime] = mapped_column(index=True)
    connected_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    cause: Mapped[str | None] = mapped_column(String(12))
    q850: Mapped[int | None]
    answered_by: Mapped[str | None] = mapped_column(String(10))
    wait_ms: Mapped[int | None]
    talk_ms: Mapped[int | None]
    merged_into: Mapped[str | None] = mapped_column(String(100))
    last_seq: Mapped[int] = mapped_column(default=0)
    answers: Mapped[dict[str, Any]] = mapped_column(default=dict)
    disposition: Mapped[str | None] = mapped_column(String(100))
    note: Mapped[str] = mapped_column(Text, default="")
    disposed_by: Mapped[str | None] = mapped_column(String(36))
    disposed_at: Mapped[datetime | None]
    __table_args__ = (
        Index("ix_calls_open", "started_at", **_only("ended_at IS NULL")),
        Index("ix_calls_merged_into", "merged_into", **_only("merged_into IS NOT NULL")),
    )


class CallAgent(Base):
    """An agent whose phone rings or talks in a live call; gone when that ends."""

    __tablename__ = "call_agents"
    call_id: Mapped[str] = mapped_column(String(100), primary_key=True)
    agent_id: Mapped[str] = mapped_column(String(36), primary_key=True, index=True)
    talking: Mapped[bool] = mapped_column(default=False)
    since: Mapped[datetime]


class CallEventRow(Base):
    """A call's whole history, as published; the key keeps what is delivered twice from being written twice.

    The PBX is the call's own: a call's id names one PBX.
    """

    __tablename__ = "call_events"
    call_id: Mapped[str] = mapped_column(String(100), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    type: Mapped[str] = mapped_column(String(24))
    at: Mapped[datetime]
    data: Mapped[dict[str, Any]]


class Pop(Base):
    """One pop per agent per call; id is `<call>:<agent>`."""

    __tablename__ = "pops"
    id: Mapped[str] = mapped_column(String(140), primary_key=True)
    call_id: Mapped[str] = mapped_column(String(100), index=True)
    agent_id: Mapped[str] = mapped_column(String(36), index=True)
    offered_at: Mapped[datetime]
    """When the phone began to ring, from the call event."""
    sent_at: Mapped[datetime]
    acked_at: Mapped[datetime | None]
    painted_ms: Mapped[float | None]
    """From arrival at the page to the frame that showed it, as the page measured it."""


class PbxLease(Base):
    """Who may publish for a PBX and command it; the epoch grows with each new holder."""

    __tablename__ = "pbx_leases"
    pbx: Mapped[str] = mapped_column(String(32), primary_key=True)
    holder: Mapped[str] = mapped_column(String(64))
    epoch: Mapped[int]
    expires_at: Mapped[datetime]
    connected: Mapped[bool] = mapped_column(default=False)
    detail: Mapped[str] = mapped_column(String(300), default="")
    """What the link last said, for /readyz and the supervisor."""
    wanted_at: Mapped[datetime | None]
    """When a standby last said that it could work; asked only while the holder is not connected."""


class Switch(Base):
    """A switch that must survive everything, such as `dialing`."""

    __tablename__ = "switches"
    name: Mapped[str] = mapped_column(String(40), primary_key=True)
    value: Mapped[str] = mapped_column(String(40))
    by: Mapped[str] = mapped_column("changed_by", String(100))
    at: Mapped[datetime]


class Audit(Base):
    __tablename__ = "audit"
    id: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True
    )
    at: Mapped[datetime] = mapped_column(index=True)
    client_id: Mapped[str | None] = mapped_column(String(36), index=True)
    actor: Mapped[str] = mapped_column(String(100))
    action: Mapped[str] = mapped_column(String(60))
    object: Mapped[str] = mapped_column(String(140))
    detail: Mapped[dict[str, Any]] = mapped_column(default=dict)
