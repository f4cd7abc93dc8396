"""panoramisk's connection with our codec in it, and without what would repeat, leak or break.

panoramisk opens the transport, signs in and matches replies to actions. Ours is everything that touches the
bytes, the order of events, and every end: nothing reconnects by itself and nothing is ever sent twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import count
from typing import Any

from panoramisk import Manager
from panoramisk.actions import Action
from panoramisk.ami_protocol import AMIProtocol
from panoramisk.message import Message as ManagerMessage

from bridge.domain.errors import RingbridgeError
from bridge.pbx.ami.codec import AmiProtocolError, Decoder, LocalError, Message, encode_action
from bridge.pbx.connecting import GATHER_SECONDS, LinkDown

# Every action there is for us, in case panoramisk's own list of unanswered actions were ever consulted.
NEVER_AGAIN = (
    "login",
    "logoff",
    "ping",
    "originate",
    "hangup",
    "dbget",
    "corestatus",
    "coresettings",
    "coreshowchannels",
    "bridgelist",
    "queuestatus",
    "getvar",
    "setvar",
    "redirect",
    "blindtransfer",
    "atxfer",
    "cancelatxfer",
    "park",
    "parkedcalls",
    "playdtmf",
    "mixmonitormute",
)
MAX_WAITING = 1000
"""Actions in flight on one connection."""
MAX_LIST = 100_000
"""Events in the answer to one action."""

_MUCH = 4 * 1024
"""Bytes at once after which more is left to come for a moment: each waking up costs as much as several events."""
_BEHIND = 128 * 1024
"""Bytes at once after which we are late, and leave nothing."""

Answered = Callable[[Message | None], None]
"""Hears the answer to a question, or None where none will come."""

_silent = logging.getLogger("bridge.pbx.ami.panoramisk")
# panoramisk logs whole messages, numbers and all; what matters is said by us.
_silent.addHandler(logging.NullHandler())
_silent.propagate = False
_silent.disabled = True


class Wire(AMIProtocol):  # type: ignore[misc]
    """One connection's bytes, actions and events."""

    def __init__(
        self,
        on_events: Callable[[list[Message]], None],
        on_lost: Callable[[str], None],
        ignore: Collection[str] = (),
    ) -> None:
        self._on_events = on_events
        self._on_lost = on_lost
        self.decoder = Decoder(ignore)
        self.transport: asyncio.Transport | None = None
        self.responses: dict[str, Any] = {}
        self._questions: dict[str, Answered] = {}
        """What was asked in passing, by its ActionID."""
        self._numbers = count(1)
        self.closed = False
        self.received = 0
        """Bytes so far; a peer that sends any is alive."""
        self._events = 0
        self.factory: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        super().connection_made(transport)
        self.log = _silent

    def send(self, data: Mapping[str, Any], as_list: bool | None = None) -> asyncio.Future[Any]:
        """Write one action and register it for its reply. Raises LinkDown or LocalError before anything is sent."""
        if self.closed or self.transport is None or self.transport.is_closing():
            raise LinkDown
        if len(self.responses) >= MAX_WAITING:
            raise LinkDown("the PBX leaves too many commands without a reply")
        action = data if isinstance(data, Action) else Action(data, as_list=as_list)
        action.as_list = as_list
        fields = {name: value for name, value in action.items() if name.lower() != "action"}
        frame = encode_action(action["action"], fields)
        self.responses[action.id] = action
        self.transport.write(frame)
        future: asyncio.Future[Any] = action.future
        return future

    def ask_all(self, action: str, asked: Sequence[tuple[Mapping[str, str], Answered]]) -> list[str]:
        """Ask the same of many in one go, without a future for each; returns the questions' ids, for `drop`.

        Each is answered with one message, or with None at once where it cannot be sent. Who drops none waits until
        the connection ends. After any answer `on_events` is called, with no events where none came with it.
        """
        frames: list[bytes] = []
        ids: list[str] = []
        for fields, answered in asked:
            action_id = f"rb-q-{next(self._numbers)}"
            ids.append(action_id)
            try:
                if self.closed or self.transport is None or self.transport.is_closing():
                    raise LinkDown
                if len(self.responses) + len(self._questions) >= MAX_WAITING:
                    raise LinkDown
                frames.append(encode_action(action, {"ActionID": action_id, **fields}))
            except (LinkDown, LocalError):
                answered(None)
            else:
                self._questions[action_id] = answered
        if frames and self.transport is not None:
            self.transport.write(b"".join(frames))
        return ids

    @property
    def events(self) -> int:
        """Events so far, with those that nobody hears."""
        return self._events + self.decoder.ignored

    def drop(self, action_id: str) -> None:
        """Wait no longer for that reply; if it still comes, it is ignored."""
        self.responses.pop(action_id, None)
        self._questions.pop(action_id, None)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self.received += len(data)
        fault: str | None = None
        messages: Iterable[Message]
        try:
            messages = self.decoder.feed(data)
        except AmiProtocolError as error:
            messages, fault = error.before, error.message
        self.version = self.decoder.version
        events: list[Message] = []
        answered = False
        for message in messages:
            if self.responses and (action := self.responses.get(message.get("ActionID", ""))) is not None:
                self._reply(action, message)
            elif message.event:
                events.append(message)
            elif self._questions and (waiting := self._questions.pop(message.get("ActionID", ""), None)) is not None:
                answered = True
                waiting(message)
        if events or answered:
            self._events += len(events)
            self._on_events(events)
        if fault is not None:
            self._end(f"what the PBX sent is not understood: {fault}")
        elif _MUCH <= len(data) < _BEHIND and self.transport is not None:
            self.transport.pause_reading()
            asyncio.get_running_loop().call_later(GATHER_SECONDS, self.transport.resume_reading)

    def _reply(self, action: Any, message: Message) -> None:
        if action.future.done() or action.add_message(ManagerMessage(message.flat())):
            self.responses.pop(action.id, None)
        elif len(action.responses) > MAX_LIST:
            self.responses.pop(action.id, None)
            action.future.set_exception(AmiProtocolError("a list without an end"))

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._end("the PBX closed the connection" if exc is None else f"the connection broke ({_told(exc)})")

    def close(self) -> None:
        """End the connection at once; whoever waits for a reply gets LinkDown."""
        self._end(None)

    def give_up(self, reason: str) -> None:
        """End the connection and say why to whoever listens."""
        self._end(reason)

    def _end(self, reason: str | None) -> None:
        if self.closed:
            return
        self.closed = True
        waiting, self.responses = dict(self.responses), {}
        self._questions.clear()
        for action in waiting.values():
            if not action.future.done():
                action.future.set_exception(LinkDown())
                # Nobody may be waiting any more; that is no fault.
                action.future.exception()
        if self.transport is not None:
            self.transport.abort()
        if reason is not None:
            self._on_lost(reason)


class OneConnection(Manager):  # type: ignore[misc]
    """panoramisk's Manager for the length of one connection; it never makes a second one."""

    def __init__(self, **config: Any) -> None:
        super().__init__(**config, log=_silent, forgetable_actions=NEVER_AGAIN)
        self.asked = asyncio.Event()
        """The login was sent, or could not be."""
        self.fault: Exception | None = None

    def connection_made(self, f: asyncio.Future[Any]) -> None:
        """Sign in, as panoramisk does; where connecting failed, leave that to who awaits it."""
        if f.cancelled() or f.exception() is not None:
            return
        try:
            super().connection_made(f)
        except RingbridgeError as error:
            self.fault = error
        if self.pinger is not None:
            self.pinger.cancel()
            self.pinger: asyncio.TimerHandle | None = None
        self.asked.set()

    def login(self, future: asyncio.Future[Any]) -> bool:
        """Panoramisk's note of the reply; the session reads the reply itself."""
        if not future.cancelled() and future.exception() is None:
            self.authenticated = bool(future.result().success)
        return bool(self.authenticated)

    def ping(self) -> None:
        """Nothing: the session pings, with a deadline."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing: the link decides when to connect again."""


def _told(error: BaseException) -> str:
    text = getattr(error, "strerror", None)
    return str(text or type(error).__name__)
