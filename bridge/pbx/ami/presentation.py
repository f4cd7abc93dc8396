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
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from bridge.pbx.ami.codec import Message
from bridge.pbx.ami.names import HIDDEN, may_be_restricted
from bridge.pbx.ami.session import Session
from bridge.pbx.calls.parties import Parties

log = logging.getLogger(__name__)

MAX_WAITING = 200_000
_CANNOT_ASK = re.compile(r"permission|unknown (command|action)", re.IGNORECASE)
"""What is said of the question itself, and not of that channel."""


class _Gate:
    """A Newchannel whose presentation is being asked, until `due` (the loop's time)."""

    __slots__ = ("due", "message", "open", "question", "session")

    def __init__(self, message: Message, session: Session | None, due: float) -> None:
        self.message = message
        self.session = session
        self.question = ""
        self.due = due
        self.open = False


class Presentation:
    """Lets events through in order, a Newchannel from outside once its caller's presentation is known."""

    def __init__(self, parties: Parties, ready: Callable[[list[Message]], None], deadline: float) -> None:
        self._parties = parties
        self._ready = ready
        self._deadline = deadline
        self._queue: deque[Message | _Gate] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._may_ask = True

    def hear(self, messages: Iterable[Message], session: Session | None) -> None:
        """Pass events on now or as soon as it may be. An answer that came with them counts already."""
        now = self._free()
        gates: list[_Gate] = []
        for message in messages:
            if message.event == "Newchannel" and self.concerns(message):
                gate = _Gate(message, session, asyncio.get_running_loop().time() + self._deadline)
                self._queue.append(gate)
                gates.append(gate)
            elif self._queue:
                self._queue.append(message)
            else:
                now.append(message)
        if gates:
            self._ask(gates, session)
            now += self._free()
            self._wait()
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
            if isinstance(item, _Gate):
                self._open(item, hide=True)
        self._pass_on()

    def _ask(self, gates: Sequence[_Gate], session: Session | None) -> None:
        """Ask of all in one go. There is no task for each: very many calls may begin at once."""
        if session is None:
            for gate in gates:
                self._open(gate, hide=True)
            return
        asked = [
            ({"Channel": gate.message.get("Channel", ""), "Variable": "CALLERID(pres)"}, partial(self._answered, gate))
            for gate in gates
        ]
        for gate, question in zip(gates, session.ask_all("Getvar", asked), strict=True):
            gate.question = question

    def _answered(self, gate: _Gate, reply: Message | None) -> None:
        """The link hears what came with the answer, or nothing, right after: then the gate's events are passed on."""
        self._open(gate, hide=self._hides(reply))

    def _hides(self, reply: Message | None) -> bool:
        """Whether the caller must not be shown."""
        if reply is None:
            return True
        if reply.get("Response") == "Success":
            return str(reply.get("Value", "")).startswith("prohib")
        if _CANNOT_ASK.search(reply.get("Message", "")):
            if self._may_ask:
                log.warning(
                    "withheld numbers cannot be told from others: "
                    "give the reading user write = reporting in manager.conf"
                )
            self._may_ask = False
            return False
        return True

    @staticmethod
    def _open(gate: _Gate, *, hide: bool) -> None:
        if gate.open:
            return
        if hide:
            gate.message = withhold(gate.message)
        gate.open = True

    def _wait(self) -> None:
        """See that the first gate does not wait for ever, and so none."""
        if self._timer is None and self._queue and isinstance(head := self._queue[0], _Gate):
            self._timer = asyncio.get_running_loop().call_at(head.due, self._expire)

    def _expire(self) -> None:
        self._timer = None
        now = asyncio.get_running_loop().time()
        for item in self._queue:
            if isinstance(item, _Gate):
                if item.due > now:
                    break
                if not item.open and item.session is not None:
                    item.session.drop(item.question)
                self._open(item, hide=True)
        self._pass_on()
        self._wait()

    def _pass_on(self) -> None:
        ready = self._free()
        if ready:
            self._ready(ready)

    def _free(self) -> list[Message]:
        """What waits for nothing any more."""
        ready: list[Message] = []
        queue = self._queue
        while queue:
            head = queue[0]
            if isinstance(head, _Gate):
                if not head.open:
                    break
                head = head.message
            ready.append(head)
            queue.popleft()
        return ready


def withhold(message: Message) -> Message:
    """The same Newchannel of a caller who is not shown."""
    return Message({**message, "CallerIDNum": HIDDEN, "CallerIDName": HIDDEN}.items())
