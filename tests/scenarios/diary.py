"""The witness's diary: what phones, callers and numbers saw, each line with its second.

The lines come from the world, an Asterisk that plays everybody around the company's PBX: from its own manager's
events, never from the PBX that is tracked. Softphones write theirs with `add`.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from ringbridge_lab.lab import Lab

_ANSWERS = {"17": "answers 486", "21": "answers 603", "34": "answers 503", "1": "answers 404"}
"""By the cause with which a called leg of the world ends before anybody answered."""
_HEARS = {"RINGING": "hears ringing", "PROGRESS": "hears early media"}


@dataclass(frozen=True)
class Line:
    """One thing that somebody saw or did."""

    at: datetime
    who: str
    what: str
    second: float
    """Of the scenario, to the hundredth, as it is written."""
    cause: int | None = None
    """Q.850, where a leg was released."""

    @property
    def text(self) -> str:
        """As it stands in the story."""
        return f"{self.second:.2f} {self.who} {self.what}"


@dataclass
class _Leg:
    """A channel of the world."""

    uid: str
    who: str | None
    called: bool
    """Somebody is called here, rather than calls."""
    up: bool = False
    released: bool = False
    """The other side ended it."""
    refused: bool = False
    """It has answered that nobody will."""
    over: bool = False


@dataclass(frozen=True)
class _Note:
    at: datetime
    leg: str
    what: str
    cause: int | None = None
    order: int = 0


class Diary:
    """Everything seen since `zero`; waiting for a line is how a scenario keeps step with its people."""

    def __init__(self, lab: Lab, zero: datetime) -> None:
        self.zero = zero
        self._legs: dict[str, _Leg] = {}
        self._by_channel: dict[str, str] = {}
        self._notes: list[_Note] = []
        self._news = threading.Condition()
        self._broken = ""
        state = lab.state
        self._socket = socket.create_connection(("127.0.0.1", state.ports.world_ami), timeout=20)
        login = f"Action: Login\r\nUsername: lab\r\nSecret: {state.secrets.lab}\r\nEvents: call,user\r\n\r\n"
        self._socket.sendall(login.encode())
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._ready = threading.Event()
        self._reader.start()
        if not self._ready.wait(20):
            raise AssertionError("the world does not speak to its witness")

    def close(self) -> None:
        """Write no more."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._reader.join(10)
        self._socket.close()

    # --- written ---

    def add(self, who: str, what: str, at: datetime | None = None, cause: int | None = None) -> Line:
        """A line that somebody else than the world saw, such as a softphone."""
        with self._news:
            leg = self._legs.setdefault(f"/{who}", _Leg(f"/{who}", who, called=False))
            note = _Note(at or datetime.now(UTC), leg.uid, what, cause, len(self._notes))
            self._notes.append(note)
            self._news.notify_all()
            return self._line(note, who)

    def is_person(self, channel: str, who: str) -> None:
        """Whose calling leg that channel of the world is; what it saw so far is in the diary from now on."""
        with self._news:
            # A caller's own file may tell of it before the manager does.
            if not self._news.wait_for(lambda: channel in self._by_channel, 20):
                raise AssertionError(f"the world has no channel {channel}")
            self._legs[self._by_channel[channel]].who = who
            self._news.notify_all()

    # --- read ---

    def lines(self, who: str | None = None) -> list[Line]:
        """All so far, or one person's, in the order of their seconds."""
        with self._news:
            notes = sorted(self._notes, key=lambda note: (note.at, note.order))
            pairs = [(note, self._legs[note.leg].who) for note in notes]
            return [self._line(note, name) for note, name in pairs if name and who in (None, name)]

    def wait(self, who: str, what: str, nth: int = 1, seconds: float = 30.0) -> Line:
        """The nth time that somebody saw or did that; `what` may be a line's beginning."""
        deadline = time.monotonic() + seconds
        with self._news:
            while True:
                found = [line for line in self.lines(who) if line.what.startswith(what)]
                if len(found) >= nth:
                    return found[nth - 1]
                left = deadline - time.monotonic()
                if left <= 0 or self._broken:
                    told = "; ".join(line.text for line in self.lines())
                    raise AssertionError(f"{who} never {what} ({nth}) {self._broken}; the diary says: {told}")
                self._news.wait(left)

    def idle(self, seconds: float = 30.0) -> None:
        """Wait until every leg of the world has ended."""
        deadline = time.monotonic() + seconds
        with self._news:
            while any(not leg.over for leg in self._legs.values() if not leg.uid.startswith("/")):
                left = deadline - time.monotonic()
                if left <= 0:
                    raise AssertionError("somebody of the world is still in a call")
                self._news.wait(left)

    def _line(self, note: _Note, who: str) -> Line:
        second = round((note.at - self.zero).total_seconds(), 2)
        return Line(note.at, who, note.what, second, note.cause)

    # --- what the world says ---

    def _read(self) -> None:
        buffer = b""
        while True:
            try:
                chunk = self._socket.recv(65536)
            except TimeoutError:
                continue
            except OSError:
                chunk = b""
            if not chunk:
                with self._news:
                    self._broken = "(the world's line is closed)"
                    self._news.notify_all()
                return
            buffer += chunk
            *whole, buffer = buffer.split(b"\r\n\r\n")
            for raw in whole:
                event = dict(_fields(raw))
                if event.get("Response") == "Success":
                    self._ready.set()
                elif "Uniqueid" in event or "DestUniqueid" in event:
                    with self._news:
                        self._hear(event)
                        self._news.notify_all()

    def _hear(self, event: dict[str, str]) -> None:
        at = datetime.fromtimestamp(float(event["Timestamp"]), UTC)
        uid = event.get("Uniqueid", "")
        name = event["Event"]
        if name == "Newchannel" and event["Channel"].startswith("PJSIP/"):
            called = event["ChannelState"] == "4"
            self._legs[uid] = _Leg(uid, event["Exten"] if called else None, called)
            self._by_channel[event["Channel"]] = uid
        elif name == "DialState":
            self._note(at, event.get("DestUniqueid", ""), _HEARS.get(event["DialStatus"], ""))
        elif uid in self._legs:
            self._leg(name, event, at, self._legs[uid])

    def _leg(self, name: str, event: dict[str, str], at: datetime, leg: _Leg) -> None:
        cause = int(event["Cause"]) if event.get("Cause", "").isdecimal() else None
        match name:
            case "UserEvent" if event.get("UserEvent") == "Lab":
                leg.refused = leg.refused or event["Does"].startswith("answers")
                self._note(at, leg.uid, event["Does"])
            case "Newstate" if event["ChannelState"] == "6" and not leg.up:
                leg.up = True
                self._note(at, leg.uid, "answers" if leg.called else "is answered")
            case "HangupRequest" if not leg.released and not leg.refused:
                leg.released = True
                if leg.called and not leg.up:
                    self._note(at, leg.uid, "stops ringing", cause)
                elif leg.up:
                    self._note(at, leg.uid, "is released", cause)
            case "Hangup":
                self._ended(at, leg, event.get("Cause", ""), cause)

    def _ended(self, at: datetime, leg: _Leg, code: str, cause: int | None) -> None:
        leg.over = True
        if leg.called and not leg.up and not leg.released and not leg.refused:
            self._note(at, leg.uid, _ANSWERS.get(code, "hangs up"), cause)
        elif leg.up and not leg.released:
            self._note(at, leg.uid, "hangs up", cause)
        elif not leg.called and not leg.up:
            self._note(at, leg.uid, f"is released (Q.850 {code})" if leg.released else "gives up", cause)

    def _note(self, at: datetime, leg: str, what: str, cause: int | None = None) -> None:
        if what and leg in self._legs:
            self._notes.append(_Note(at, leg, what, cause, len(self._notes)))


def _fields(raw: bytes) -> Iterator[tuple[str, str]]:
    for line in raw.decode(errors="replace").split("\r\n"):
        key, colon, value = line.partition(": ")
        if colon:
            yield key, value
