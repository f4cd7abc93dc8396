"""What any PBX offers to the rest of Ringbridge; no PBX's own words appear here.

A link reads the PBX's events in a thread of its own, turns them into call events and hands these to a
sink. Its methods may be called from any thread and come back within a deadline.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Literal, Protocol

from bridge.domain.actions import Action, Side, check
from bridge.domain.calls import CallEvent, Directory, Expected, Remembered
from bridge.domain.mirroring import Member


@dataclass(frozen=True, slots=True)
class PbxFacts:
    """What was found after (re)connecting. `started_at` is the PBX's boot, None where it does not say."""

    started_at: datetime | None
    version: str
    appeared: int = 0
    vanished: int = 0


class Reason(StrEnum):
    """Why a command ended as it did.

    `SENT`: the PBX took it. `DONE`: the PBX says that it happened. `TIMEOUT` means unknown: it may have been carried
    out. `FAILED`: it was tried and came to nothing, as when nobody answered. Every other: nothing was tried.
    """

    SENT = "sent"
    DONE = "done"
    FAILED = "failed"
    REFUSED = "refused"
    STALE = "stale"
    TIMEOUT = "timeout"
    LINK_DOWN = "link_down"
    NOT_FOUND = "not_found"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended; `detail` is a sentence for a person, without numbers or secrets.

    `data` is what a program may want of it, such as the `slot` of a parked call.
    """

    ok: bool
    reason: Reason
    detail: str = ""
    data: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Receipts:
    """Which legs of an attempt the PBX says it dialled; None where it cannot be known."""

    agent: bool | None
    customer: bool | None
    answered: bool | None = None
    """Whether the customer's leg was answered; None where the PBX does not say."""


@dataclass(frozen=True, slots=True)
class DialOrder:
    """One dial. `attempt` becomes the PBX's channel id; `dial_string` is the customer's leg as the PBX dials it.

    `until` is the last moment, on this machine's uptime, at which the PBX may begin: what arrives later, it refuses.
    A value outside the allow-list patterns makes the outcome `REFUSED`.
    """

    attempt: str
    first: Literal["agent", "customer"]
    agent_device: str
    agent_extension: str
    number: str
    dial_string: str
    caller_id: str | None
    agent_ring_seconds: int
    customer_ring_seconds: int
    expected: Expected
    until: float
    queue: str | None = None
    """A queue of the PBX's, without a domain, in which a customer who is called first waits for whoever is free;
    `agent_device` is not read then."""
    joined: float = 0.0
    """When they joined the line, on this machine's uptime: where they stand in that queue."""
    confirm: str | None = None
    """A sound of the PBX's after which a customer who is called first has to press 1, before the agent is called."""


@dataclass(frozen=True, slots=True)
class ActionOrder:
    """One thing to do to a call that is under way.

    `command` is a UUID that no other order has: it names the channels that the PBX makes for this one. `agent` is
    whose leg acts; None for whoever of the company is in the call, before others the agent `asker`, who asks for it.
    `device` is the phone that rings for who asks,
    `extension` what may be shown of it. `context` is where `to` is dialled. `until` is the last moment, on this
    machine's uptime, to which the outcome is waited for. Unless `check` passes, the outcome is `REFUSED`.
    """

    action: Action
    call: str
    command: str
    context: str
    ring_seconds: int
    until: float
    agent: str | None = None
    asker: str | None = None
    device: str | None = None
    extension: str | None = None
    to: str | None = None
    digits: str | None = None
    sound: str | None = None
    side: Side | None = None

    def check(self) -> None:
        """Raises Invalid where a value is missing, too much, or not of the form that may be sent."""
        values = {
            "to": self.to,
            "digits": self.digits,
            "sound": self.sound,
            "side": self.side,
            "device": self.device,
        }
        check(self.action, values)


@dataclass(frozen=True, slots=True)
class QueueWish:
    """A caller who waits in a queue wants to be called back, as the PBX says. All of it was said by others: judge it.

    `ticket` is whom and what the answer is for; only the link that gave it reads it.
    """

    call: str
    queue: str
    number: str
    ticket: str


class Answer(StrEnum):
    """What is said to that caller: it is on disk; not this number; or nothing, and they wait on."""

    YES = "yes"
    NO = "no"
    BACK = "back"


class LinkSink(Protocol):
    """Who hears a link. Called from the link's thread, in order; must not block."""

    def events(self, batch: Sequence[CallEvent], live: Mapping[str, str | None]) -> None:
        """Call events in order, and beside them the state to store of each call they speak of (JSON), None once over.

        `pbx.*` events do not come this way: whoever hears `link_up`, `link_down` and `resynced` writes them.
        """

    def asked(self, wish: QueueWish) -> None:
        """A waiting caller wants to be called back, and hears nothing until `PbxLink.answer`, for some seconds."""

    def link_up(self, detail: str) -> None:
        """The events are being read; `events` of the resync follow, then `resynced`.

        Of a PBX that does not list its channels `resynced` never comes: its events are heard, the calls that were
        known go on, and nothing is dialled or reconciled.

        `detail` says so where the user that sends commands is not signed in.
        """

    def link_detail(self, detail: str) -> None:
        """Something changed in how the link does while it is up, such as commands that can be sent again."""

    def link_down(self, reason: str) -> None:
        """The link was lost or could not be made; it is being tried again."""

    def resynced(self, facts: PbxFacts) -> None:
        """The picture equals the PBX's again. The events of the resync were handed over before."""


class PbxLink(Protocol):
    """One PBX. Every method may be called from any thread and is bounded by a deadline."""

    def start(self) -> None:
        """Begin to connect, and go on trying until stopped."""

    def stop(self) -> None:
        """End connections and thread; nothing reconnects afterwards."""

    def is_running(self) -> bool:
        """False once it is stopped, or has died of a fault; a link that waits for its PBX runs."""

    def set_directory(self, directory: Directory) -> None:
        """Devices and numbers as the company knows them from now on."""

    def restore(self, live: Mapping[str, str]) -> None:
        """Before `start`: the calls a former holder left, as `LinkSink.events` gave them."""

    def remember(self, calls: Sequence[Remembered]) -> None:
        """Before `start`, after `restore`: open calls of which only the call history knows.

        What is alive of them goes on with the same id and the next `seq`, and says `call.uncertain`.
        """

    def dial(self, order: DialOrder) -> Outcome:
        """Send one originate, never twice. Comes back when the PBX took or refused it, not when somebody answers."""

    def hangup(self, call: str, agent: str | None) -> Outcome:
        """Hang up that agent's leg, or the whole call."""

    def act(self, order: ActionOrder) -> Outcome:
        """Do something to a call, never twice; comes back with what the PBX says became of it, or as `TIMEOUT`.

        It may take until `order.until`, and never raises.
        """

    def answer(self, wish: QueueWish, answer: Answer) -> Outcome:
        """Tell the caller; sent once. Where it does not arrive they wait on in their queue."""

    def receipts(self, attempt: str) -> Receipts:
        """Ask the PBX which legs of the attempt it dialled."""

    def live_attempts(self) -> frozenset[str]:
        """Attempts whose call is alive as far as the tracker knows; meaningful after a resync.

        Raises Unavailable where the link's thread does not answer: that says nothing of any call.
        """

    def live_calls(self) -> frozenset[str]:
        """Ids of the calls that are alive; as `live_attempts`."""

    def members(self) -> Mapping[str, Member] | None:
        """Phones in the PBX's queues as it has them now, by device; None while that is not known. Never waits."""

    def set_member(self, device: str, member: Member, seconds: float) -> Outcome:
        """Make that phone stand so in all queues it is in; within so many seconds. Harmless to repeat."""

    def counts(self) -> Mapping[str, float]:
        """What it refused, lost and measured since it was made, for /metrics; never waits."""
