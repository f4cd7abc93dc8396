"""What a pop tells: client and script from memory, the customer within a budget.

Clients, numbers and scripts change seldom, so they are held in memory and loaded again when someone
says on `rb:changed` that they changed, and every 30 seconds. A customer is looked up as soon as a
call appears, which is usually well before a phone rings; a lookup that takes longer than its budget
does not hold up the pop, which is filled in afterwards.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as LookupTimeout
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import monotonic
from typing import Any

import phonenumbers
import structlog
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from bridge.domain.errors import Invalid, Unavailable
from bridge.domain.numbers import parse_number
from bridge.services import script_text
from bridge.services.pop_building import CallStory
from bridge.store import models
from bridge.store.database import Sessions

log = structlog.get_logger(__name__)

DOWN = (SQLAlchemyError, Unavailable)
"""What a database that does not answer raises."""
BUDGET_SECONDS = 0.030
EARLIER_CALLS = 5


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Everything a pop needs that changes seldom; replaced as a whole."""

    clients: dict[str, models.Client] = field(default_factory=dict)
    scripts: dict[str, models.Script] = field(default_factory=dict)
    dids: dict[str, models.Did] = field(default_factory=dict)
    sites: dict[str, models.Site] = field(default_factory=dict)
    agents: dict[str, models.Agent] = field(default_factory=dict)
    signed_in: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Found:
    """What the database knew of one call's customer and callback."""

    customer: dict[str, Any] | None = None
    earlier: list[dict[str, Any]] = field(default_factory=list)
    callback: dict[str, Any] | None = None
    client: str | None = None
    script: str | None = None
    number: str | None = None


class PopFacts:
    """Implements `pop_building.Facts` on the database. `on_late` hears of the call whose customer
    came after its pop; it is called from a lookup thread."""

    def __init__(
        self,
        sessions: Sessions,
        on_late: Callable[[str], None],
        *,
        budget_seconds: float = BUDGET_SECONDS,
    ) -> None:
        self._sessions = sessions
        self._on_late = on_late
        self._budget = budget_seconds
        self._pool = ThreadPoolExecutor(max_workers=4, thread_name_prefix="lookup")
        self._lock = threading.Lock()
        self._lookups: dict[str, Future[Found]] = {}
        self._waited: set[str] = set()
        """Calls that got a pop before their lookup was done."""
        self._deadline = 0.0
        self.catalogue = Catalogue()

    def load(self) -> None:
        """Read the catalogue again. Raises one of DOWN."""
        with self._sessions.read() as session:
            self.catalogue = Catalogue(
                clients={row.id: row for row in session.scalars(select(models.Client))},
                scripts={row.id: row for row in session.scalars(select(models.Script))},
                dids={row.number: row for row in session.scalars(select(models.Did))},
                sites={row.id: row for row in session.scalars(select(models.Site))},
                agents={row.id: row for row in session.scalars(select(models.Agent))},
                signed_in=frozenset(_signed_in(session)),
            )
            session.expunge_all()

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def begin(self) -> None:
        """A batch of events begins: all its lookups together may take the budget once."""
        self._deadline = monotonic() + self._budget

    def prefetch(self, story: CallStory) -> None:
        """Start looking up a call's customer, once."""
        with self._lock:
            if story.call in self._lookups:
                return
            future = self._pool.submit(self._look_up, story)
            self._lookups[story.call] = future
        future.add_done_callback(lambda _: self._done(story.call))

    def forget(self, call: str) -> None:
        with self._lock:
            self._lookups.pop(call, None)
            self._waited.discard(call)

    def signed_in(self, agent: str) -> bool:
        """Whether anybody would see a pop of this agent's; a sign-in a moment ago counts."""
        if agent in self.catalogue.signed_in:
            return True
        future = self._pool.submit(self._signed_in_now, agent)
        try:
            return future.result(timeout=self._budget)
        except LookupTimeout:
            return True  # a pop that nobody sees is better than one that is missing

    def content(self, story: CallStory, agent: str) -> dict[str, Any]:
        """See `pop_building.Facts`."""
        self.prefetch(story)
        found = self._await(story.call)
        client, script = self._client_and_script(story, found)
        fields = self._fields(story, agent, client, found)
        return {
            "name": story.name or (found.callback or {}).get("name") or None,
            "number_text": _readable(found.number or story.number, client),
            "did_text": _readable(story.did, client),
            "customer": found.customer,
            "earlier": found.earlier,
            "callback": found.callback,
            "client": _client_card(client, fields),
            "script": _script_card(script, fields),
        }

    def _await(self, call: str) -> Found:
        with self._lock:
            future = self._lookups.get(call)
        if future is None:
            return Found()
        try:
            return future.result(timeout=max(0.0, self._deadline - monotonic()))
        except LookupTimeout:
            with self._lock:
                self._waited.add(call)
            if future.done():  # it came between the timeout and the note above
                self._done(call)
            return Found()
        except DOWN:
            return Found()

    def _done(self, call: str) -> None:
        with self._lock:
            late = call in self._waited
            self._waited.discard(call)
        if late:
            self._on_late(call)

    def _client_and_script(
        self, story: CallStory, found: Found
    ) -> tuple[models.Client | None, models.Script | None]:
        known = self.catalogue
        did = known.dids.get(story.did or "")
        client = story.client or found.client or (did.client_id if did else None)
        script = found.script or (did.script_id if did else None)
        return known.clients.get(client or ""), known.scripts.get(script or "")

    def _fields(
        self, story: CallStory, agent: str, client: models.Client | None, found: Found
    ) -> dict[str, str]:
        """The merge fields of a script, as plain text."""
        who = self.catalogue.agents.get(agent)
        fields = {
            "agent.name": who.name if who else "",
            "agent.extension": (who.extension or "") if who else "",
            "call.number": _readable(found.number or story.number, client) or "",
            "call.did": _readable(story.did, client) or "",
            "call.queue": story.queue or "",
        }
        if client is not None:
            fields["client.name"] = client.name
            fields |= {f"client.{key}": str(value) for key, value in client.card.items()}
        if found.customer is not None:
            fields |= {
                f"customer.{key}": str(found.customer[key] or "")
                for key in ("name", "company", "email", "note", "reference")
            }
        if found.callback is not None:
            fields |= {f"callback.{key}": str(value or "") for key, value in found.callback.items()}
            # A visitor who named himself has a name, though no customer's card has it yet.
            fields["customer.name"] = fields.get("customer.name") or fields["callback.name"]
        return fields

    def _signed_in_now(self, agent: str) -> bool:
        try:
            with self._sessions.read() as session:
                return agent in _signed_in(session, agent)
        except DOWN as error:
            log.warning("sign-in not checked", error=type(error).__name__)
            return True

    def _look_up(self, story: CallStory) -> Found:
        try:
            with self._sessions.read() as session:
                return self._read(session, story)
        except DOWN as error:
            log.warning("customer not looked up", call=story.call, error=type(error).__name__)
            return Found()

    def _read(self, session: Session, story: CallStory) -> Found:
        known = self.catalogue
        did = known.dids.get(story.did or "")
        client_id = story.client or (did.client_id if did else None)
        callback = session.get(models.Callback, story.callback) if story.callback else None
        script = None
        if callback is not None:
            client_id = callback.client_id
            site = known.sites.get(callback.site_id)
            script = site.script_id if site else None
        number = _e164(
            (callback.number if callback else None) or story.number, known.clients.get(client_id or "")
        )
        customer, earlier = None, []
        if client_id and number:
            earlier = _earlier(session, client_id, number, story.call)
            name = (callback.name if callback else "") or story.name or ""
            customer = _customer(session, client_id, number, name)
        if customer is not None:
            customer["earlier"] = earlier
        return Found(customer, earlier, _callback_card(callback), client_id, script, number)


def _signed_in(session: Session, agent: str | None = None) -> set[str]:
    """Agents with a state other than offline, or with a page that may be open."""
    states = select(models.AgentState.agent_id).where(models.AgentState.state != "offline")
    sessions = select(models.Session.agent_id).where(models.Session.expires_at > datetime.now(UTC))
    if agent is not None:
        states = states.where(models.AgentState.agent_id == agent)
        sessions = sessions.where(models.Session.agent_id == agent)
    return set(session.scalars(states)) | set(session.scalars(sessions))


def _customer(session: Session, client: str, number: str, name: str) -> dict[str, Any] | None:
    """The likeliest of the customers with this number: of that name, else the last one talked to."""
    last_call = (
        select(func.max(models.Call.started_at))
        .where(models.Call.customer_id == models.Customer.id)
        .scalar_subquery()
    )
    rows: Sequence[Any] = session.execute(
        select(models.Customer, last_call)
        .join(models.CustomerNumber, models.CustomerNumber.customer_id == models.Customer.id)
        .where(models.CustomerNumber.number == number, models.CustomerNumber.client_id == client)
        .limit(20)
    ).all()
    if not rows:
        return None
    wanted = name.strip().casefold()
    best, _ = max(
        rows,
        key=lambda row: (
            bool(wanted) and row[0].name.strip().casefold() == wanted,
            row[1] is not None,
            str(row[1] or ""),
            row[0].created_at,
        ),
    )
    numbers = session.scalars(
        select(models.CustomerNumber.number).where(models.CustomerNumber.customer_id == best.id)
    )
    return {
        "id": best.id,
        "name": best.name,
        "company": best.company,
        "email": best.email,
        "note": best.note,
        "reference": best.reference,
        "numbers": sorted(numbers),
        "same_number": len(rows),
        "earlier": [],
    }


def _earlier(session: Session, client: str, number: str, this_call: str) -> list[dict[str, Any]]:
    rows = session.execute(
        select(models.Call, models.Agent.name)
        .outerjoin(models.Agent, models.Agent.id == models.Call.agent_id)
        .where(
            models.Call.customer_number == number,
            models.Call.client_id == client,
            models.Call.ended_at.is_not(None),
            models.Call.merged_into.is_(None),
            models.Call.id != this_call,
        )
        .order_by(models.Call.started_at.desc())
        .limit(EARLIER_CALLS)
    ).all()
    return [
        {
            "call": call.id,
            "at": call.started_at.isoformat(),
            "direction": call.direction,
            "cause": call.cause,
            "agent": agent,
            "disposition": call.disposition,
            "note": call.note,
            "talk_ms": call.talk_ms,
        }
        for call, agent in rows
    ]


def _callback_card(callback: models.Callback | None) -> dict[str, Any] | None:
    if callback is None:
        return None
    return {
        "id": callback.id,
        "name": callback.name,
        "note": callback.note,
        "page_url": callback.page_url,
        "requested_at": callback.created_at.isoformat(),
    }


def _client_card(client: models.Client | None, fields: dict[str, str]) -> dict[str, Any] | None:
    if client is None:
        return None
    return {
        "id": client.id,
        "name": client.name,
        "greeting": script_text.merge(client.greeting, fields),
        "timezone": client.timezone,
        "card": {key: str(value) for key, value in client.card.items() if value},
    }


def _script_card(script: models.Script | None, fields: dict[str, str]) -> dict[str, Any] | None:
    if script is None:
        return None
    html = script_text.render(script.body, fields)
    return {"id": script.id, "name": script.name, "version": script.version, "html": html}


def _e164(number: str | None, client: models.Client | None) -> str | None:
    if not number:
        return None
    try:
        return parse_number(number, client.region if client else "US")
    except Invalid:
        return number if number.startswith("+") else None


def _readable(number: str | None, client: models.Client | None) -> str | None:
    """A number as people write it: the national way at home, the international way abroad."""
    if not number:
        return None
    region = client.region if client else None
    try:
        parsed = phonenumbers.parse(number, region)
    except phonenumbers.NumberParseException:
        return number
    if not phonenumbers.is_possible_number(parsed):
        return number
    home = region is not None and parsed.country_code == phonenumbers.country_code_for_region(region)
    style = phonenumbers.PhoneNumberFormat
    return str(phonenumbers.format_number(parsed, style.NATIONAL if home else style.INTERNATIONAL))
