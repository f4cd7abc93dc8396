"""A link to the lab's company as the listener holds one, who hears it, and a line to it that a test can cut."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, TypeAlias

from stack import pbx_table

from bridge.domain.calls import CallEvent, CallEventType
from bridge.pbx.ami.link import AmiLink
from bridge.pbx.connecting import Timings
from bridge.pbx.port import PbxFacts, QueueWish
from bridge.settings import Pbx
from ringbridge_lab.lab import Lab

if TYPE_CHECKING:
    from bridge.pbx.esl.link import EslLink

Link: TypeAlias = "AmiLink | EslLink"


def link_to(
    lab: Lab,
    sink: Sink,
    *,
    port: int | None = None,
    patient: bool = False,
    silent_seconds: float = 20,
    **changes: object,
) -> Link:
    """A link that is not started yet; `port` leads elsewhere, and a patient one does not mind a silent PBX.

    `silent_seconds` is how long any other puts up with silence.
    """
    pbx = Pbx.model_validate(pbx_table(lab, **changes, **({} if port is None else {"port": port})))
    # One that is slow, beside much else, must lose nobody a call or a number.
    deadlines = {"ping_deadline": silent_seconds, "presentation": 20, "commands": 20}
    quick = Timings(ping_every=0.5, retry_first=0.1, retry_most=0.5, **deadlines)
    timings = Timings(ping_every=30, presentation=20, commands=20) if patient else quick
    if pbx.kind == "freeswitch":
        from bridge.pbx.esl.link import EslLink

        return EslLink(pbx, sink, timings=timings)
    return AmiLink(pbx, sink, timings=timings)


class Sink:
    """Hears a link and keeps all."""

    def __init__(self) -> None:
        self.heard: list[CallEvent] = []
        self.live: dict[str, str] = {}
        self.downs: list[str] = []
        self.facts: list[PbxFacts] = []
        self.link: Link | None = None
        """The link that it hears, where a test needs it."""

    def events(self, batch: Sequence[CallEvent], live: Mapping[str, str | None]) -> None:
        self.heard.extend(batch)
        for call, state in live.items():
            if state is None:
                self.live.pop(call, None)
            else:
                self.live[call] = state

    def asked(self, wish: QueueWish) -> None:
        """No test of a link alone asks."""

    def link_up(self, detail: str) -> None:
        assert detail.startswith("connected")

    def link_detail(self, detail: str) -> None:
        assert detail.startswith("connected")

    def link_down(self, reason: str) -> None:
        self.downs.append(reason)

    def resynced(self, facts: PbxFacts) -> None:
        self.facts.append(facts)

    def of(self, kind: CallEventType) -> list[CallEvent]:
        return [event for event in list(self.heard) if event.type is kind]

    def kinds(self) -> list[str]:
        return [event.type.value.removeprefix("call.") for event in list(self.heard)]


class Relay:
    """A TCP line to the PBX that a test can cut, or hold what goes to the PBX back."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.open = True
        self.flows = threading.Event()
        self.flows.set()
        self.lines: list[socket.socket] = []
        self.threads: list[threading.Thread] = []
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        self._spawn(self._accept)

    def _spawn(self, work: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=work, args=args, daemon=True)
        self.threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self.server.accept()
            except OSError:
                return
            if not self.open:
                near.close()
                continue
            far = socket.create_connection(("127.0.0.1", self.target))
            self.lines += [near, far]
            self._spawn(self._pump, near, far, self.flows)
            self._spawn(self._pump, far, near, None)

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket, flows: threading.Event | None) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if flows is not None:
                    flows.wait()
                sink.sendall(data)
        for side in (source, sink):
            with suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        for side in list(self.lines):
            with suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with suppress(OSError):
            self.server.shutdown(socket.SHUT_RDWR)
        self.server.close()
        self.flows.set()
        self.cut()
        for thread in self.threads:
            thread.join(5)
        for side in self.lines:
            side.close()
