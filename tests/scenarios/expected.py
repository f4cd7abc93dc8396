"""What must come of a scenario, in the form of the corpus's `expected.json`; each event cites what the witness saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from scenarios.diary import Line

Spec = dict[str, Any]

AGENTS = {"101": "anna", "102": "bert", "103": "carla", "106": "fred", "110": "dora"}
CLIENTS = {"+12125550101": "acme", "+12125550102": "bolt", "+12125550110": "acme", "+12125550120": "bolt"}


@dataclass(frozen=True)
class Talk:
    """Two people hear each other, from one second to another."""

    who: tuple[str, str]
    since: Line
    until: Line
    names: tuple[str, str]
    """As they stand in the story."""

    @property
    def text(self) -> str:
        return f"{' and '.join(self.names)} from {self.since.second:.2f} to {self.until.second:.2f}"

    @property
    def ms(self) -> int:
        return round((self.until.at - self.since.at).total_seconds() * 1000)


@dataclass
class Call:
    """One conversation with its whole sequence of events."""

    name: str
    events: list[Spec]
    optional: str = ""
    """Why the whole call may be there or not."""

    def spec(self) -> Spec:
        more = {"optional": True, "why": self.optional} if self.optional else {}
        return {"name": self.name, **more, "events": self.events}


@dataclass
class Expected:
    """All calls of a scenario."""

    calls: list[Call]
    never: list[Spec] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def event(
    kind: str, at: Line | None, data: Spec, evidence: Sequence[str | Line | Talk] = (), **more: Any
) -> Spec:
    """One expected event; `at` is the line that says when, and the first of its evidence."""
    texts = [one if isinstance(one, str) else one.text for one in ([at] if at else []) + list(evidence)]
    when = {} if at is None else {"at": at.second}
    return {"type": f"call.{kind}", **when, "data": data, "evidence": texts, **more}


def started(dials: Line, caller: str | None, to: Any, direction: Any = "inbound", **more: Any) -> Spec:
    """`to` is a number that was dialled, or None."""
    wanted = {"dialled": to} if isinstance(to, str) else to
    nobody = {"attempt": None, "callback": None, "campaign": None}
    data = {"direction": direction, "from": caller, "to": wanted, "client": CLIENTS.get(to or ""), **nobody}
    return event("started", dials, data, **more)


def offered(line: Line, who: str | None = None, **more: Any) -> Spec:
    """The phone of that line rings, or answers without having rung."""
    return event("offered", line, {"party": who or line.who}, **more)


def unoffered(line: Line, reason: Any, who: str | None = None, **more: Any) -> Spec:
    return event("unoffered", line, {"party": who or line.who, "reason": reason}, **more)


def connected(talk: Talk, **more: Any) -> Spec:
    return {
        "type": "call.connected",
        "at": talk.since.second,
        "data": {"parties": list(talk.who)},
        "evidence": [talk.text],
        **more,
    }


def queued(dials: Line, queue: str, position: int | None = 1) -> Spec:
    """No phone sees a queue; that the caller dialled it decides."""
    return event("queued", None, {"queue": queue, "position": position}, [f"queue {queue}", dials])


def unqueued(line: Line, queue: str, reason: str, **more: Any) -> Spec:
    return event("unqueued", line, {"queue": queue, "reason": reason}, **more)


def transferred(line: Line, kind: str, by: str, leaves: str, to: Any, **more: Any) -> Spec:
    return event("transferred", line, {"kind": kind, "by": by, "from": leaves, "to": to}, **more)


def ended(
    line: Line,
    dials: Line,
    caller: str | None,
    to: Any,
    cause: str,
    *,
    talks: Sequence[Talk] = (),
    direction: str | None = "inbound",
    q850: Any = 16,
    answered_by: str | None = None,
    ended_by: str | None = None,
    within: int = 150,
    **more: Any,
) -> Spec:
    """`line` is who ended it; waited was from `dials` to the first talk, else to the end.

    `q850` None expects none: the cause of a leg that was cancelled, or that the PBX gave up, is each PBX's own.
    """
    waited = round(((talks[0].since if talks else line).at - dials.at).total_seconds() * 1000)
    data = {
        "cause": cause,
        **({} if q850 is None else {"q850": q850}),
        "direction": direction,
        "from": caller,
        "to": {"dialled": to} if isinstance(to, str) else to,
        "answered_by": answered_by or ("person" if talks else None),
        "ended_by": ended_by,
        "wait_ms": {"about": waited, "within": within},
        "talk_ms": {"about": sum(talk.ms for talk in talks), "within": within * max(1, len(talks))},
    }
    return event("ended", line, data, [dials, *talks], **more)


def together(*threads: Sequence[Spec]) -> Spec:
    """Each thread in its order, one among the other in any."""
    return {"any_order": [list(thread) for thread in threads]}


def maybe(spec: Spec, why: str) -> Spec:
    """It may be there or not."""
    return {**spec, "optional": True, "why": why}


def one_call(*events: Spec, notes: Sequence[str] = ()) -> Expected:
    """All that happens is one customer's call."""
    return Expected([Call("customer", list(events))], notes=list(notes))
