"""mod_callcenter's queues, as its `callcenter::info` events tell of them."""

from __future__ import annotations

from bridge.domain.calls import CallEventType
from bridge.pbx.calls.book import Book
from bridge.pbx.calls.model import Call, Channel, Line
from bridge.pbx.esl.hearing import Event

_TIMES_OUT = frozenset({"TIMEOUT", "NO_AGENT_TIMEOUT"})


def hear(book: Book, event: Event, at: float) -> None:
    """One event of a queue; those of agents' states are not for here."""
    caller = book.channels.get(event.get("CC-Member-Session-UUID", ""))
    if caller is None:
        return
    call = book.calls[caller.call]
    match event.get("CC-Action"):
        case "member-queue-start":
            _join(book, call, event, at)
        case "bridge-agent-start" if call.queue is not None:
            call.answer_seen = True
            leave(book, call, "answered", at)
        case "member-queue-end" if call.queue is not None:
            leave(book, call, _reason(event, call), at)


def join(book: Book, call: Call, queue: str, position: int | None, at: float) -> None:
    """A caller waits in a queue."""
    if call.queue == queue:
        return
    book.start(call, at)
    call.queue = queue
    call.answer_seen = False
    book.emit(call, CallEventType.QUEUED, at, {"queue": queue, "position": position})


def _join(book: Book, call: Call, event: Event, at: float) -> None:
    queue = name(event.get("CC-Queue", ""))
    waiting = sum(other.queue == queue for other in book.calls.values() if other is not call)
    join(book, call, queue, waiting + 1, at)


def name(queue: str) -> str:
    """A queue's name without its domain."""
    return queue.split("@", 1)[0]


def _reason(event: Event, call: Call) -> str:
    if event.get("CC-Cause") == "Terminated":
        return "answered"
    why = event.get("CC-Cancel-Reason", "")
    if why in _TIMES_OUT:
        return "timeout"
    if why == "BREAK_OUT" and event.get("Answer-State") == "hangup":
        call.abandoned = True
        return "abandoned"
    return "left"


def leave(book: Book, call: Call, reason: str, at: float) -> None:
    """A caller waits no longer."""
    book.emit(call, CallEventType.UNQUEUED, at, {"queue": call.queue, "reason": reason})
    call.queue = None


def left_behind(book: Book, call: Call) -> list[Channel]:
    """Who is all that is left of a call, and was never connected with its caller, who is gone.

    In ring-all mod_callcenter leaves an agent who answers in the same moment as another up and alone until that phone
    hangs up; the customer's call must not last as long.
    """
    legs = [book.channels[uid] for uid in call.legs]
    if call.first in call.legs or call.attempt is not None or not all(_waits_for(leg, call) for leg in legs):
        return []
    for leg in legs:
        leg.picked_up = call.connected_at is not None
    return legs


def _waits_for(leg: Channel, call: Call) -> bool:
    alone = leg.bridge is None and not leg.accepted and not leg.consults and leg.guest_of is None
    return leg.real and leg.outgoing and leg.state == Line.UP and leg.link == call.first and alone
