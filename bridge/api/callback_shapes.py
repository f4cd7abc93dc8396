"""The shapes of what supervisors ask of callbacks and are told."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints

from bridge.api.strict import Answer, Body, Line, Query
from bridge.api.tenant_shapes import Id, Listing
from bridge.domain.attempts import CallbackStatus
from bridge.services.callback_bulk import MOST


def _statuses(text: str) -> str:
    for status in text.split(","):
        if status not in set(CallbackStatus):
            raise ValueError(f"names statuses, with commas between them, of: {', '.join(CallbackStatus)}")
    return text


class Narrowing(Query):
    """Which callbacks."""

    day: Annotated[Line, StringConstraints(max_length=10)] | None = Field(
        None, description='asked for, ended, or open and due on that day, such as "2026-05-04"'
    )
    timezone: Annotated[Line, StringConstraints(max_length=64)] = Field(
        "UTC", description="whose midnight begins the day"
    )
    client_id: Id | None = None
    site_id: Id | None = None
    status: Annotated[Line, StringConstraints(max_length=200), AfterValidator(_statuses)] | None = Field(
        None, description="one status or more, with commas between them"
    )
    source: Literal["web", "queue", "missed"] | None = Field(
        None, description="a form, a key pressed while waiting in a queue, or a caller who was missed"
    )
    assigned_to: Id | None = Field(None, description="an agent's id")
    number: Annotated[Line, StringConstraints(min_length=1, max_length=40)] | None = Field(
        None, description="as a person writes it (a + as %2B), or its last four digits or more"
    )


class CallbackQuery(Narrowing, Listing):
    """Which callbacks, a page at a time."""


class AssignedAgent(Answer):
    name: str
    state: str = Field(description="ready, paused, wrapup, offline; gone for one who takes no calls any more")


class AttemptRow(Answer):
    """One dialling."""

    id: str
    state: str
    reason: str | None
    reason_text: str
    agent_id: str | None
    agent: str
    began_at: datetime
    rang_at: datetime | None = Field(description="when the customer's phone rang")
    connected_at: datetime | None
    ended_at: datetime | None
    call_id: str | None


class CallbackFull(Answer):
    """A callback with all its attempts, the first one first."""

    id: str
    client_id: str
    client: str
    site_id: str
    site: str
    source: str
    number: str
    name: str
    note: str
    queue: str | None
    status: str
    reason: str | None
    reason_text: str = Field(description="the reason in plain words")
    next_step: str = Field(description="what to do about it; empty where there is nothing to do")
    tries: int
    created_at: datetime
    due_at: datetime
    promised_at: datetime | None
    rang_at: datetime | None = Field(description="when the customer's phone first rang")
    connected_at: datetime | None
    expires_at: datetime
    ended_at: datetime | None
    assigned_to: str | None
    assigned: AssignedAgent | None = Field(description="who alone makes the next dial; null for anyone")
    requeued_from: str | None
    requeued_as: str | None = Field(description="the callback that goes on with this one")
    attempts: list[AttemptRow]


class CallbackPage(Answer):
    items: list[CallbackFull]
    next: str | None
    counts: dict[str, int] | None = Field(
        description="by status, whichever was asked for; on the first page alone"
    )


Ids = Annotated[list[Id], Field(min_length=1, max_length=MOST, description="of callbacks; one named twice counts once")]


class Several(Body):
    ids: Ids


class Assigning(Body):
    ids: Ids
    agent_id: Id | None = Field(description="who alone makes the next dial; null for anyone")


class ResultRow(Answer):
    id: str
    ok: bool
    code: str | None = Field(description="why it stayed as it was, for programs")
    detail: str | None = Field(description="the same for people")
    callback: str | None = Field(description="the new callback's id, where one was begun")


class Results(Answer):
    """One result for each id, in their order."""

    done: int
    refused: int
    results: list[ResultRow]
