"""Callers of a queue who want to be called back: what our dialplan says of them, and how it is answered.

An event may be raised by whoever may speak to the PBX's event socket, so every value is judged as a stranger's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from bridge.pbx.calls.book import Book
from bridge.pbx.esl.hearing import Event
from bridge.pbx.esl.orders import CHANNEL
from bridge.pbx.esl.queues import name
from bridge.pbx.port import Answer, QueueWish

SUBCLASS = "ringbridge::dial"
RESULT = "callback"
_QUEUE = re.compile(r"[A-Za-z0-9_.-]{1,80}(@[A-Za-z0-9_.-]{1,128})?")
_NUMBER = re.compile(r"\+?[0-9]{3,15}")
_QUESTION = re.compile(r"[1-9][0-9]{0,2}")
_TICKET = re.compile(rf"({CHANNEL.pattern}) ({_QUESTION.pattern})")


def wishes(events: Iterable[Event], book: Book) -> Iterator[QueueWish]:
    """Those of channels that are in a call; what is not of the form is passed over."""
    for event in events:
        if event.get("Event-Subclass") != SUBCLASS or event.get("Ringbridge-Result") != RESULT:
            continue
        channel = book.channels.get(event.get("Unique-ID", ""))
        queue, number = event.get("Ringbridge-Queue", ""), event.get("Ringbridge-Number", "")
        question = event.get("Ringbridge-Question", "")
        if (
            channel is not None
            and channel.call
            and CHANNEL.fullmatch(channel.uid)
            and _QUEUE.fullmatch(queue)
            and _NUMBER.fullmatch(number)
            and _QUESTION.fullmatch(question)
        ):
            yield QueueWish(channel.call, name(queue), number, f"{channel.uid} {question}")


def answering(wish: QueueWish, answer: Answer) -> str | None:
    """The command that answers; None for a ticket that is none."""
    found = _TICKET.fullmatch(wish.ticket)
    return None if found is None else f"uuid_setvar_multi {found[1]} rb_answer={answer}-{found[2]}"
