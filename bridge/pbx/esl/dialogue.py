"""A small blocking ESL connection for asking questions one by one; the link itself is in session.py."""

from __future__ import annotations

import socket
import ssl
import time
from collections import deque
from types import TracebackType

from bridge.domain.errors import Unavailable
from bridge.pbx.esl.codec import Decoder, EslProtocolError, Event, Frame, encode
from bridge.settings import Pbx

CONNECT_SECONDS = 5.0
REPLY_SECONDS = 10.0
EVERYTHING = frozenset({"all"})


class LoginRefused(Unavailable):
    """The PBX refused the user name or the secret."""


class AddressRefused(Unavailable):
    """The PBX lets nobody in from this address."""

    def __init__(self, where: str, own: str) -> None:
        self.own = own
        super().__init__(f"the event socket at {where} lets nobody in from this machine's address ({own})")


class Denied(Unavailable):
    """This user may not ask that."""


class Dialogue:
    """One connection, signed in. Every method raises Unavailable where the PBX does not answer in time."""

    def __init__(self, pbx: Pbx, username: str, secret: str) -> None:
        self._where = f"{pbx.host}:{pbx.port}"
        self._username = username
        self._decoder = Decoder()
        self._waiting: deque[Frame] = deque()
        self.events: list[Event] = []
        """Events that came so far."""
        self.apis = EVERYTHING
        """The commands that this user may give."""
        self.hearable = EVERYTHING
        """The events that it may hear."""
        self._socket = self._connect(pbx)
        try:
            self._sign_in(secret)
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Dialogue:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def api(self, command: str) -> str:
        """The answer to one command. Raises Denied."""
        frame = self._ask(f"api {command}", "api_response")
        if frame.kind == "reply":
            raise Denied(f"this user may not ask for {command.split()[0]}")
        return frame.text

    def subscribe(self, words: str) -> bool:
        """Hear these events; False where the user may not."""
        return self._ask(f"event json {words}").headers.get("Reply-Text", "").startswith("+OK")

    def watch(self, seconds: float) -> list[Event]:
        """Every event so far, after waiting so long for more."""
        deadline = time.monotonic() + seconds
        try:
            while True:
                self._note(self._next(deadline))
        except Unavailable as error:
            if isinstance(error.__cause__, TimeoutError):
                return self.events
            raise

    def _sign_in(self, secret: str) -> None:
        greeting = self._next(time.monotonic() + REPLY_SECONDS)
        if greeting.kind == "rejection":
            raise AddressRefused(self._where, self._socket.getsockname()[0])
        if greeting.kind != "auth_request":
            raise Unavailable(f"what answers at {self._where} is no FreeSWITCH event socket")
        named = "@" in self._username
        reply = self._ask(f"userauth {self._username}:{secret}" if named else f"auth {secret}")
        if not reply.headers.get("Reply-Text", "").startswith("+OK"):
            who = f"user {self._username!r}: wrong name or secret" if named else "the password"
            raise LoginRefused(f"the PBX at {self._where} refused {who}")
        if named:
            self.apis = _words(reply.headers.get("Allowed-API", "all"))
            self.hearable = _words(reply.headers.get("Allowed-Events", "all"))

    def _connect(self, pbx: Pbx) -> socket.socket:
        try:
            plain = socket.create_connection((pbx.host, pbx.port), CONNECT_SECONDS)
            if not pbx.tls:
                return plain
            context = ssl.create_default_context()
            if pbx.tls_ca is not None:
                context.load_verify_locations(pbx.tls_ca)
            return context.wrap_socket(plain, server_hostname=pbx.host)
        except OSError as error:
            raise Unavailable(f"nothing answers at {self._where} ({error.strerror or type(error).__name__})") from None

    def _ask(self, command: str, *kinds: str) -> Frame:
        try:
            self._socket.sendall(encode(command))
        except OSError:
            raise Unavailable(f"the PBX at {self._where} closed the connection") from None
        deadline = time.monotonic() + REPLY_SECONDS
        while True:
            frame = self._next(deadline)
            if frame.kind == "reply" or frame.kind in kinds:
                return frame
            self._note(frame)

    def _next(self, deadline: float) -> Frame:
        while not self._waiting:
            left = deadline - time.monotonic()
            if left <= 0:
                raise Unavailable(f"the PBX at {self._where} does not answer") from TimeoutError()
            self._socket.settimeout(left)
            try:
                data = self._socket.recv(65536)
            except TimeoutError as error:
                raise Unavailable(f"the PBX at {self._where} does not answer") from error
            except OSError:
                data = b""
            if not data:
                raise Unavailable(f"the PBX at {self._where} closed the connection")
            try:
                self._waiting.extend(self._decoder.feed(data))
            except EslProtocolError as error:
                raise Unavailable(f"{self._where}: {error.message}") from None
        return self._waiting.popleft()

    def _note(self, frame: Frame) -> None:
        if frame.event is not None:
            self.events.append(frame.event)


def _words(text: str) -> frozenset[str]:
    """A list of permissions: FreeSWITCH splits it at spaces where it holds one, else at commas."""
    return frozenset(text.split() if " " in text.strip() else text.strip().split(","))
