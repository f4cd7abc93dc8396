"""Asks whether a caller from outside may be shown, before anything is said of the call.

Asterisk's events carry a restricted caller's number like any other and do not say that it is restricted; only the
channel knows. So such a Newchannel waits for the answer, and everything behind it waits too, since order matters. The
answer takes a millisecond or two. Where it does not come, the number is not shown.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import deque
from collections.abc import Callable, Iterable, Mapping

from bridge.pbx.ami.codec import LocalError, Message
from bridge.pbx.ami.names import HIDDEN, may_be_restricted
from bridge.pbx.ami.session import Session
from bridge.pbx.calls.parties import Parties
from bridge.pbx.connecting import LinkDown, NoReply

log = logging.getLogger(__name__)

MAX_WAITING = 200_000
_CANNOT_ASK = re.compile(r"permission|unknown (command|action)", re.IGNORECASE)
"""What is said of the question itself, and not of that channel."""


class _Gate:
    """A Newchannel whose presentation is being asked."""

    def __init__(self, message: Message) -> None:
        self.message = message
        self.open = False


class Presentation:
    """Lets events through in order, a Newchannel from outside once its caller's presentation is known."""

    def __init__(self, parties: Parties, ready: Callable[[list[Message]], None], deadline: float) -> None:
        self._parties = parties
        self._ready = ready
        self._deadline = deadline
        self._queue: deque[Message | _Gate] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._may_ask = True

    def hear(self, messages: Iterable[Message], session: Session | None) -> None:
        """Pass events on now or as soon as it may be."""
        now: list[Message] = []
        for message in messages:
            if message.event == "Newchannel" and self.concerns(message):
                gate = _Gate(message)
                self._queue.append(gate)
                task = asyncio.create_task(self._ask(gate, session))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            elif self._queue:
                self._queue.append(message)
            else:
                now.append(message)
        if now:
            self._ready(now)
        if len(self._queue) > MAX_WAITING:
            self.release()

    def concerns(self, item: Mapping[str, str]) -> bool:
        """Whether this channel is a caller from outside with a number that could be restricted."""
        return self._may_ask and may_be_restricted(self._parties, item)

    def release(self) -> None:
        """Wait for no answer any more: what is unknown is not shown."""
        for item in self._queue:
            if isinstance(item, _Gate) and not item.open:
                item.message = withhold(item.message)
                item.open = True
        self._flush()

    async def hidden(self, session: Session, channel: str) -> bool:
        """Whether the caller of that channel must not be shown."""
        fields = {"Channel": channel, "Variable": "CALLERID(pres)"}
        try:
            reply = await session.ask("Getvar", fields, deadline=self._deadline)
        except (NoReply, LinkDown, LocalError):
            return True
        if reply.ok:
            return str((reply.headers or {}).get("Value", "")).startswith("prohib")
        if _CANNOT_ASK.search(reply.text):
            self._may_ask = False
            log.warning(
                "withheld numbers cannot be told from others: give the reading user write = reporting in manager.conf"
            )
            return False
        return True

    async def _ask(self, gate: _Gate, session: Session | None) -> None:
        hide = session is None or await self.hidden(session, gate.message.get("Channel", ""))
        if gate.open:
            return
        if hide:
            gate.message = withhold(gate.message)
        gate.open = True
        self._flush()

    def _flush(self) -> None:
        ready: list[Message] = []
        while self._queue:
            head = self._queue[0]
            if isinstance(head, _Gate):
                if not head.open:
                    break
                head = head.message
            ready.append(head)
            self._queue.popleft()
        if ready:
            self._ready(ready)


def withhold(message: Message) -> Message:
    """The same Newchannel of a caller who is not shown."""
    return Message({**message, "CallerIDNum": HIDDEN, "CallerIDName": HIDDEN}.items())
