"""A small blocking AMI connection for asking questions one by one; the link itself is in session.py."""

from __future__ import annotations

import hashlib
import itertools
import socket
import ssl
import time
from collections import deque
from types import TracebackType

from bridge.domain.errors import Unavailable
from bridge.pbx.ami.codec import AmiProtocolError, Decoder, Message, encode_action
from bridge.settings import Pbx

CONNECT_SECONDS = 5.0
REPLY_SECONDS = 10.0


class LoginRefused(Unavailable):
    """The PBX refused the user name or the secret."""


class Dialogue:
    """One connection, logged in. Every method raises Unavailable where the PBX does not answer in time."""

    def __init__(self, pbx: Pbx, username: str, secret: str) -> None:
        self._where = f"{pbx.host}:{pbx.port}"
        self._decoder = Decoder()
        self._ids = itertools.count(1)
        self._waiting: deque[Message] = deque()
        self.events: list[Message] = []
        """Events that came without being asked for."""
        self._socket = self._connect(pbx)
        try:
            self._login(username, secret)
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Dialogue:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def ask(self, action: str, **fields: str) -> Message:
        """The response to one action."""
        number = self._send(action, fields)
        deadline = time.monotonic() + REPLY_SECONDS
        while True:
            message = self._next(deadline)
            if "Response" in message and message.get("ActionID") == number:
                return message
            self._note(message)

    def ask_list(self, action: str, end: str, **fields: str) -> tuple[Message, list[Message]]:
        """The response and the events of a list, which ends with the event `end`."""
        number = self._send(action, fields)
        deadline = time.monotonic() + REPLY_SECONDS
        response: Message | None = None
        items: list[Message] = []
        while True:
            message = self._next(deadline)
            if message.get("ActionID") != number:
                self._note(message)
            elif "Response" in message:
                response = message
                if message["Response"] == "Error":
                    return response, []
            elif message.get("Event") == end and response is not None:
                return response, items
            else:
                items.append(message)

    def watch(self, seconds: float) -> list[Message]:
        """Everything unasked for that came since the login, after waiting so long for more."""
        deadline = time.monotonic() + seconds
        try:
            while True:
                self._note(self._next(deadline))
        except Unavailable as error:
            if isinstance(error.__cause__, TimeoutError):
                return self.events
            raise

    def _login(self, username: str, secret: str) -> None:
        # A challenge: the secret itself does not cross the network.
        challenge = self.ask("Challenge", AuthType="MD5").get("Challenge", "")
        key = hashlib.md5(f"{challenge}{secret}".encode(), usedforsecurity=False).hexdigest()
        reply = self.ask("Login", AuthType="MD5", Username=username, Key=key)
        if reply.get("Response") != "Success":
            raise LoginRefused(
                f"the PBX at {self._where} refused user {username!r}: wrong name, secret or address"
            )

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
            raise Unavailable(
                f"nothing answers at {self._where} ({error.strerror or type(error).__name__})"
            ) from None

    def _send(self, action: str, fields: dict[str, str]) -> str:
        number = f"ask-{next(self._ids)}"
        try:
            self._socket.sendall(encode_action(action, {"ActionID": number, **fields}))
        except OSError:
            raise Unavailable(f"the PBX at {self._where} closed the connection") from None
        return number

    def _next(self, deadline: float) -> Message:
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
            except AmiProtocolError as error:
                raise Unavailable(f"{self._where}: {error.message}") from None
        return self._waiting.popleft()

    def _note(self, message: Message) -> None:
        if "Event" in message:
            self.events.append(message)
