"""greenswitch's connection with our codec in it, and without what would forge, hang, spin or grow.

greenswitch brings the gevent transport, the greeting to wait for and the order of commands and replies. Ours is
everything that touches the bytes, every wait, and every end: nothing reconnects and nothing is ever sent twice.
"""

from __future__ import annotations

import logging
import ssl
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import gevent
import gevent.socket
from gevent.event import AsyncResult
from gevent.lock import Semaphore
from greenswitch import InboundESL

from bridge.pbx.connecting import GATHER_SECONDS, LinkDown, NoReply, told
from bridge.pbx.esl.codec import Decoder, EslProtocolError, Event, Frame, encode
from bridge.pbx.esl.hearing import READ

log = logging.getLogger(__name__)

MAX_WAITING = 1000
"""Commands in flight on one connection."""
_CHUNK = 256 * 1024
_MUCH = 32 * 1024
"""Bytes at once after which more is left to come for a moment: each waking up costs as much as several events."""


class Wire(InboundESL):  # type: ignore[misc]
    """One connection's bytes, commands and events; never revived."""

    def __init__(
        self,
        host: str,
        port: int,
        on_events: Callable[[list[Event]], None],
        on_lost: Callable[[str], None],
        tls: Any = None,
    ) -> None:
        super().__init__(host, port, password="")
        self._commands_sent: list[AsyncResult[Frame]] = []
        self._on_events = on_events
        self._on_lost = on_lost
        self._tls = tls
        self._sending = Semaphore()
        self.decoder = Decoder(READ)
        self.closed = False
        self.rejected = False
        """The PBX let nobody in from this address."""
        self.received = 0
        """Bytes so far."""
        self.frames = 0
        """Whole frames so far."""
        self.events = 0
        """Of these, events."""
        self.counts: Counter[str] = Counter()
        """What came and fits nothing: `stray_replies`, `other_frames`."""

    # --- greenswitch's own steps ---

    def connect(self) -> None:
        """Open the transport and begin to read. Raises OSError; the caller bounds it in time."""
        self.sock = gevent.socket.create_connection((self.host, self.port))
        if self._tls is not None:
            # In two steps: who gives up in the middle of the handshake has a socket to close.
            self.sock = self._tls.wrap_socket(
                self.sock, server_hostname=self.host, do_handshake_on_connect=False
            )
            self.sock.do_handshake()
        self.connected = True
        self.start_event_handlers()

    def greeted(self, seconds: float) -> bool:
        """Wait for the PBX to ask who we are; False where it does not."""
        return bool(self._auth_request_event.wait(seconds)) and not self.closed

    def start_event_handlers(self) -> None:
        """One reader, which hands events on in order; greenswitch's queue between two greenlets has no bound."""
        self._receive_events_greenlet = gevent.spawn(self.receive_events)

    def receive_events(self) -> None:
        """Read to the end, whatever comes."""
        reason = "the PBX closed the connection"
        try:
            # Into one place: a new one of that size for each read would cost more than the reading.
            place = memoryview(bytearray(_CHUNK))
            while not self.closed and (length := self.sock.recv_into(place)):
                self.received += length
                self._take(bytes(place[:length]))
                # gevent reads on without a pause while there is something to read; others must run too.
                gevent.sleep(GATHER_SECONDS if _MUCH <= length < _CHUNK // 2 else 0)
        except OSError as error:
            reason = f"the connection broke ({error.strerror or type(error).__name__})"
        except Exception as error:
            log.exception("what the PBX sent could not be worked on (%s)", type(error).__name__)
            reason = f"a fault in the link ({type(error).__name__}); it is in the log"
        self._end(reason)

    def _take(self, data: bytes) -> None:
        fault: str | None = None
        try:
            frames = self.decoder.feed(data)
        except EslProtocolError as error:
            frames, fault = list(error.before), error.message
        self.frames += len(frames)
        events: list[Event] = []
        for frame in frames:
            if frame.event is not None:
                events.append(frame.event)
            else:
                self.handle_event(frame)
        if events:
            self.events += len(events)
            self._on_events(events)
        if fault is not None:
            self._end(f"what the PBX sent is not understood: {fault}")

    def handle_event(self, frame: Frame) -> None:
        """A frame that is no event."""
        if frame.kind in ("reply", "api_response"):
            if self._commands_sent:
                self._commands_sent.pop(0).set(frame)
            else:
                self.counts["stray_replies"] += 1
        elif frame.kind == "auth_request":
            self._auth_request_event.set()
        elif frame.kind == "rejection":
            self.rejected = True
            self._end("the PBX lets nobody in from this address")
        elif frame.kind == "disconnect":
            self._end(f"the PBX ended the connection: {told(frame.text.strip())}")
        else:
            self.counts["other_frames"] += 1

    # --- ours ---

    def ask(self, command: str, headers: Mapping[str, str] | None = None, *, deadline: float) -> Frame:
        """Send one command and wait for its reply.

        Raises LinkDown where nothing was sent, NoReply where nothing is known, LocalError for what may not be sent.
        """
        data = encode(command, headers)
        end = time.monotonic() + deadline
        if self.closed:
            raise LinkDown
        if len(self._commands_sent) >= MAX_WAITING:
            raise LinkDown("the PBX leaves too many commands without a reply")
        if not self._sending.acquire(timeout=deadline):
            raise LinkDown("the PBX takes no more commands")
        try:
            if self.closed:
                raise LinkDown
            reply: AsyncResult[Frame] = AsyncResult()
            # Replies come in the order of the commands; one that is late must still find its place taken.
            self._commands_sent.append(reply)
            self._write(data, end - time.monotonic())
        finally:
            self._sending.release()
        if not reply.wait(max(end - time.monotonic(), 0.001)) and not reply.ready():
            raise NoReply
        if reply.exception is not None:
            raise NoReply("the connection broke before the PBX answered")
        frame: Frame = reply.value
        return frame

    def _write(self, data: bytes, seconds: float) -> None:
        sent = False
        with gevent.Timeout(max(seconds, 0.001), False):
            try:
                self.sock.sendall(data)
            except OSError:
                self._end("the connection broke while a command was sent")
                raise NoReply("the connection broke while the command was sent") from None
            sent = True
        if not sent:
            # Half a command may be out: nothing that is sent after it would be understood.
            self._end("the PBX takes no more commands")
            raise NoReply

    def close(self) -> None:
        """End the connection at once; whoever waits for a reply gets NoReply."""
        self._end(None)

    def stop(self) -> None:
        """As `close`: greenswitch's own would wait for ever."""
        self.close()

    def give_up(self, reason: str) -> None:
        """End the connection and say why to whoever listens."""
        self._end(reason)

    def _end(self, reason: str | None) -> None:
        if self.closed:
            return
        self.closed, self.connected, self._run = True, False, False
        waiting, self._commands_sent = self._commands_sent, []
        for reply in waiting:
            reply.set_exception(LinkDown())
        self._auth_request_event.set()
        # Where connecting failed there is no socket.
        sock = getattr(self, "sock", None)
        if sock is not None:
            sock.close()
        reader = self._receive_events_greenlet
        if reader is not None and reader is not gevent.getcurrent():
            reader.kill(block=False)
        if reason is not None:
            self._on_lost(reason)


def why(error: OSError) -> str:
    """An error of a socket for a person."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    return error.strerror or type(error).__name__
