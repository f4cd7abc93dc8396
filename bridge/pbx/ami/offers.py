"""Callers of a queue who want to be called back: what our dialplan says of them, and how it is answered.

A user event may be raised by whoever may write to the PBX's manager, so every value is judged as a stranger's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from bridge.pbx.ami.codec import Message
from bridge.pbx.calls.book import Book
from bridge.pbx.port import Answer, QueueWish

EVENT = "RingbridgeCallback"
_QUEUE = re.compile(r"[A-Za-z0-9_.-]{1,80}")
_NUMBER = re.compile(r"\+?[0-9]{3,15}")
_QUESTION = re.compile(r"[1-9][0-9]{0,2}")
_CHANNEL = re.compile(r"[A-Za-z0-9]{1,20}/[A-Za-z0-9@.:/_+-]{1,120}(;[12])?")
_TICKET = re.compile(rf"({_CHANNEL.pattern}) ({_QUESTION.pattern})")


def wishes(messages: Iterable[Message], book: Book) -> Iterator[QueueWish]:
    """Those of channels that are in a call; what is not of the form is passed over."""
    for message in messages:
        if message.event != "UserEvent" or message.get("UserEvent") != EVENT:
            continue
        channel = book.channels.get(message.get("Uniqueid", ""))
        queue, number = message.get("Queue", ""), message.get("Number", "")
        question = message.get("Question", "")
        if (
            channel is not None
            and channel.call
            and _CHANNEL.fullmatch(channel.name)
            and _QUEUE.fullmatch(queue)
            and _NUMBER.fullmatch(number)
            and _QUESTION.fullmatch(question)
        ):
            yield QueueWish(channel.call, queue, number, f"{channel.name} {question}")


def answering(wish: QueueWish, answer: Answer) -> dict[str, str] | None:
    """The fields of the Setvar that answers; None for a ticket that is none."""
    found = _TICKET.fullmatch(wish.ticket)
    if found is None:
        return None
    channel, question = found[1], wish.ticket.rpartition(" ")[2]
    return {"Channel": channel, "Variable": "RB_ANSWER", "Value": f"{answer}-{question}"}
