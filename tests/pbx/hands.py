"""Who acts on calls of the lab through a link, and what people hear meanwhile."""

from __future__ import annotations

import socket
import threading
import uuid
from contextlib import suppress
from pathlib import Path

from links import Link, Sink
from rig import until

from bridge.domain.actions import Action, Side
from bridge.domain.calls import CallEvent, CallEventType, Directory
from bridge.pbx.port import ActionOrder, Outcome, Reason
from bridge.uptime import uptime
from ringbridge_lab import tones
from ringbridge_lab.errors import LabError
from ringbridge_lab.lab import Caller, Lab, wait_until
from ringbridge_lab.witness import Invite

CALLER = "+16465550111"
CALLER_HZ = 800
PEOPLE = {"101": "anna", "102": "ben", "103": "cleo"}
_NOW = 4
"""Fifths of a second that make `now`."""
_STILL_SECONDS = 6.0


def directory(lab: Lab) -> Directory:
    return Directory(agents={lab.device(extension): name for extension, name in PEOPLE.items()})


def phone_hz(extension: str) -> int:
    return 330 + 40 * (int(extension) - 101)


class Hands:
    """Gives orders as the services would, and knows who hears what."""

    def __init__(self, lab: Lab, link: Link, sink: Sink) -> None:
        self.lab = lab
        self.link = link
        self.sink = sink
        self.context = str(lab.info["company"]["context"])
        self._witnessed = len(lab.witness())
        self.call = ""
        """The call of the latest caller."""

    def calls(self, did: str = "+12125550101", *, caller: str = CALLER) -> Caller:
        """Somebody outside calls, and talks with who answers once this returns."""
        return self._calls(CallEventType.CONNECTED, did, caller)

    def rings(self, did: str = "+12125550101", *, caller: str = CALLER) -> Caller:
        """Somebody outside calls, and somebody's phone rings once this returns."""
        return self._calls(CallEventType.OFFERED, did, caller)

    def _calls(self, kind: CallEventType, did: str, caller: str) -> Caller:
        before = len(self.sink.of(kind))
        call = self.lab.call(did, caller=caller)
        until(lambda: len(self.sink.of(kind)) > before, what=f"the new call's {kind}")
        self.call = str(self.sink.of(kind)[-1].call)
        return call

    def act(
        self,
        action: Action,
        *,
        call: str | None = None,
        agent: str | None = "anna",
        seconds: float = 40.0,
        ring_seconds: int = 20,
        device: str | None = None,
        extension: str | None = None,
        to: str | None = None,
        digits: str | None = None,
        sound: str | None = None,
        side: Side | None = None,
    ) -> Outcome:
        return self.link.act(
            ActionOrder(
                action,
                call or self.call,
                str(uuid.uuid4()),
                self.context,
                ring_seconds,
                uptime() + seconds,
                agent=agent,
                device=device,
                extension=extension,
                to=to,
                digits=digits,
                sound=sound,
                side=side,
            )
        )

    def does(self, action: Action, **values: object) -> Outcome:
        """Act, and see that the PBX says it is done."""
        outcome = self.act(action, **values)  # type: ignore[arg-type]
        assert (outcome.ok, outcome.reason) == (True, Reason.DONE), outcome
        return outcome

    def told(self, kind: CallEventType, count: int = 1) -> list[CallEvent]:
        """The events of that kind, once there are so many."""
        until(lambda: len(self.sink.of(kind)) >= count, what=f"{count} {kind}")
        return self.sink.of(kind)

    # --- what people hear ---

    def phone(self, extension: str) -> Path:
        """What that phone hears in its latest call."""
        leg = until(lambda: self.invites(extension), what=f"a call for {extension}")[-1].leg
        return until(lambda: self._of(leg), what=f"{extension} to answer")

    def _of(self, leg: str) -> Path | None:
        try:
            return self.lab.recording(leg)
        except LabError:
            return None

    def invites(self, number: str) -> list[Invite]:
        """How often somebody was called since all this began."""
        return [row for row in self.lab.witness()[self._witnessed :] if row.number == number]

    def hears(self, who: Path | Caller, *hertz: int) -> None:
        """Wait until these tones, and no others, are what somebody hears now."""
        self.hear((who, hertz))

    def hear(self, *people: tuple[Path | Caller, tuple[int, ...]]) -> None:
        """The same of several at once: what they hear is written down every four seconds only."""
        begun = {who: self._size(who) for who, _ in people}

        def now(who: Path | Caller, hertz: tuple[int, ...]) -> bool:
            new = self._size(who) >= begun[who] + _NOW * 1600
            return new and self._heard(who, _NOW) == [frozenset(hertz)] * _NOW

        for who, hertz in people:
            try:
                until(lambda who=who, hertz=hertz: now(who, hertz))  # type: ignore[misc]
            except AssertionError:
                last = [sorted(window) for window in self._heard(who, 10)]
                raise AssertionError(f"{sorted(hertz) or 'silence'} should be heard now; it is {last}") from None

    def waits(self, caller: Caller) -> None:
        """Wait until somebody whom 101 holds hears music and nobody, on FreeSWITCH nothing at all; 101 hears nobody."""
        if self.lab.pbx == "asterisk":
            self.hear((caller, (tones.MUSIC,)), (self.phone("101"), ()))
            return
        # It sends no packet then, so nothing more is written down; what is, is written every four seconds.
        last = [self._size(caller), uptime()]

        def still() -> bool:
            if self._size(caller) != last[0]:
                last[:] = [self._size(caller), uptime()]
            return uptime() - last[1] > _STILL_SECONDS

        until(still, what="no voice to come")

    @staticmethod
    def _path(recording: Path | Caller) -> Path | None:
        """None where it has not begun."""
        try:
            return recording if isinstance(recording, Path) else recording.recording()
        except LabError:
            return None

    def _size(self, recording: Path | Caller) -> int:
        path = self._path(recording)
        return path.stat().st_size if path is not None else 0

    def _heard(self, recording: Path | Caller, last: int) -> list[frozenset[int]]:
        path = self._path(recording)
        return tones.heard(path, last) if path is not None else []

    def idle(self) -> None:
        """Every call is over, and no channel of anybody's is left."""
        self.lab.wait_idle()
        until(lambda: not self.link.live_calls(), what="the calls to be over")
        assert self.sink.live == {}

    def channels(self, count: int) -> None:
        """Wait until the PBX has so many channels: none of ours is left over."""
        wait_until(lambda: self.lab.channels() == count, seconds=30, what=f"{count} channels of the company")


class Keys:
    """Which keys arrive at people outside, as their own exchange says."""

    def __init__(self, lab: Lab) -> None:
        self.pressed = ""
        self._socket = socket.create_connection(("127.0.0.1", lab.state.ports.world_ami))
        login = f"Action: Login\r\nUsername: lab\r\nSecret: {lab.state.secrets.lab}\r\nEvents: on\r\n\r\n"
        self._socket.sendall(login.encode())
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def __enter__(self) -> Keys:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._socket.close()

    def _read(self) -> None:
        buffer = b""
        with suppress(OSError):
            while data := self._socket.recv(65536):
                *messages, buffer = (buffer + data).split(b"\r\n\r\n")
                for message in messages:
                    fields = dict(line.split(": ", 1) for line in message.decode().split("\r\n") if ": " in line)
                    if fields.get("Event") == "DTMFEnd" and fields.get("Direction") == "Received":
                        self.pressed += fields["Digit"]
