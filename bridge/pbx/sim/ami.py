"""A small Asterisk manager interface for tests: it answers, replays, falls silent, cuts the line or talks rubbish.

It speaks real TCP on a free loopback port, so a link is tested with everything it has. It has no dialplan: what
happens on it is what a test says, or what a recorded trace holds.
"""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from bridge.pbx.ami.codec import encode_action

BANNER = b"Asterisk Call Manager/9.0.0\r\n"
Fields = dict[str, str]
Answer = Callable[[Fields], "bytes | None"]


def message(headers: Mapping[str, str], action: Fields | None = None) -> bytes:
    """One AMI message; the ActionID of `action` goes with it."""
    lines = [f"{name}: {value}\r\n" for name, value in headers.items()]
    if action and "ActionID" in action:
        lines.insert(1, f"ActionID: {action['ActionID']}\r\n")
    return "".join([*lines, "\r\n"]).encode()


def trace(path: Path) -> Iterator[bytes]:
    """The bytes that a recorded PBX sent, as they were received."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            if row["dir"] == "in":
                yield base64.b64decode(row["b64"])


def after_login(chunks: Iterable[bytes]) -> bytes:
    """A trace's bytes without greeting and sign-in, for sending over a connection that is signed in."""
    whole = b"".join(chunks)
    booted = whole.index(b"Status: Fully Booted\r\n\r\n") + len(b"Status: Fully Booted\r\n\r\n")
    goodbye = whole.find(b"Response: Goodbye")
    return whole[booted : goodbye if goodbye >= 0 else None]


class _Connection:
    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.username: str | None = None
        self.events = False
        self.lock = threading.Lock()

    def send(self, data: bytes, chunk: int | None = None) -> None:
        """In pieces of that size, between which nothing else is sent."""
        step = chunk or len(data) or 1
        with self.lock:
            try:
                for start in range(0, len(data), step):
                    self.sock.sendall(data[start : start + step])
            except OSError:
                self.cut()

    def cut(self) -> None:
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            return


class FakeAsterisk:
    """Start with `with`; every attribute may be changed while it runs."""

    def __init__(
        self,
        users: Mapping[str, str] | None = None,
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        self._tls = tls
        self._host = host
        self.users = dict(users or {"ringbridge": "reader-secret", "ringbridge-dial": "dialler-secret"})
        self.any_secret = False
        """Lets everybody in, as a replay does."""
        self.banner = BANNER
        self.channels: list[Fields] = []
        """What CoreShowChannels lists."""
        self.bridges: list[Fields] = []
        self.queued: list[Fields] = []
        """QueueEntry items of QueueStatus."""
        self.database: dict[str, str] = {}
        """AstDB, by `family/key`."""
        self.presentation = "allowed_not_screened"
        """CALLERID(pres) of every channel."""
        self.uptime = 100
        self.silent = False
        """Takes everything and answers nothing."""
        self.actions: list[tuple[str, Fields]] = []
        """(user, fields) of every action but logins and pings."""
        self.raw = bytearray()
        """Every byte received."""
        self.logins = 0
        self.refused = 0
        self.accepted = 0
        self.answers: dict[str, Answer] = {}
        """By action, lower case: what to answer instead."""
        self._port = port
        self._connections: list[_Connection] = []
        self._threads: list[threading.Thread] = []
        self._server: socket.socket | None = None

    # --- life ---

    def __enter__(self) -> FakeAsterisk:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def port(self) -> int:
        """Where it listens; the same again after `stop` and `start`."""
        return self._port

    def start(self) -> None:
        """Listen."""
        server = socket.socket(socket.AF_INET6 if ":" in self._host else socket.AF_INET)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((self._host, self._port))
        server.listen()
        self._port = server.getsockname()[1]
        self._server = server
        self._spawn(self._accept, server)

    def stop(self) -> None:
        """Close the port and every connection."""
        server, self._server = self._server, None
        if server is not None:
            # Closing alone does not wake a thread that is in accept().
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            server.close()
        self.cut()
        for thread in self._threads:
            thread.join(5)
        self._threads.clear()

    def _spawn(self, work: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=work, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    # --- what a test does ---

    def cut(self) -> None:
        """Break every connection."""
        for connection in list(self._connections):
            connection.cut()

    def send(self, data: bytes, chunk: int | None = None) -> None:
        """These bytes to every connection that hears events, whole or in pieces of that size."""
        for connection in list(self._connections):
            if connection.events:
                connection.send(data, chunk)

    def tell(self, pieces: Sequence[tuple[bytes, Mapping[str, str]]], chunk: int = 65536) -> None:
        """Parts of recorded events to every connection that hears them, in pieces of that size."""
        self.send(b"".join([raw for raw, _ in pieces]), chunk)

    def event(self, name: str, **headers: str) -> None:
        """One event to every connection that hears events."""
        self.send(message({"Event": name, **headers}))

    def replay(self, path: Path, chunk: int = 65536) -> None:
        """A recorded trace's events, in pieces of that size."""
        self.send(after_login(trace(path)), chunk)

    def asked(self, action: str) -> list[Fields]:
        """The actions of that name so far."""
        return [fields for _, fields in list(self.actions) if fields.get("Action") == action]

    @property
    def listeners(self) -> int:
        """Connections signed in that hear events."""
        return sum(connection.events for connection in self._connections)

    def sockets(self) -> list[socket.socket]:
        """Of the connections signed in that hear events."""
        return [connection.sock for connection in list(self._connections) if connection.events]

    # --- the protocol ---

    def _accept(self, server: socket.socket) -> None:
        while True:
            try:
                sock, _ = server.accept()
            except OSError:
                return
            self.accepted += 1
            # A test that sends byte by byte means it.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                try:
                    sock = self._tls.wrap_socket(sock, server_side=True)
                except OSError:
                    sock.close()
                    continue
            connection = _Connection(sock)
            self._connections.append(connection)
            self._spawn(self._serve, connection)

    def _serve(self, connection: _Connection) -> None:
        connection.send(self.banner)
        buffer = b""
        try:
            while data := connection.sock.recv(65536):
                self.raw += data
                buffer += data
                *frames, buffer = buffer.split(b"\r\n\r\n")
                for frame in frames:
                    self._hear(connection, frame)
        except OSError:
            pass
        finally:
            self._connections.remove(connection)
            connection.sock.close()

    def _hear(self, connection: _Connection, frame: bytes) -> None:
        fields: Fields = {}
        for line in frame.decode().split("\r\n"):
            name, _, value = line.partition(": ")
            fields[name] = f"{fields[name]}\n{value}" if name in fields else value
        action = fields.get("Action", "").lower()
        if self.silent:
            return
        if action == "login":
            self._login(connection, fields)
            return
        if action != "ping":
            self.actions.append((connection.username or "", fields))
        if connection.username is None:
            connection.send(message({"Response": "Error", "Message": "Permission denied"}, fields))
            return
        usual: Answer = getattr(self, f"_on_{action}", self._on_anything)
        answer = self.answers.get(action, usual)
        data = answer(fields)
        if data:
            connection.send(data)

    def _login(self, connection: _Connection, fields: Fields) -> None:
        if not self.any_secret and self.users.get(fields.get("Username", "")) != fields.get("Secret"):
            self.refused += 1
            connection.send(message({"Response": "Error", "Message": "Authentication failed"}, fields))
            connection.cut()
            return
        self.logins += 1
        connection.username = fields.get("Username", "")
        connection.send(message({"Response": "Success", "Message": "Authentication accepted"}, fields))
        if fields.get("Events") != "off":
            booted = {"Event": "FullyBooted", "Uptime": str(self.uptime), "Status": "Fully Booted"}
            connection.send(message(booted))
            connection.events = True

    def _on_ping(self, fields: Fields) -> bytes:
        return message({"Response": "Success", "Ping": "Pong", "Timestamp": f"{time.time():.6f}"}, fields)

    def _on_coresettings(self, fields: Fields) -> bytes:
        return message({"Response": "Success", "AsteriskVersion": "22.0.0-sim"}, fields)

    def _on_coreshowchannels(self, fields: Fields) -> bytes:
        return self._list(fields, "CoreShowChannel", self.channels)

    def _on_bridgelist(self, fields: Fields) -> bytes:
        return self._list(fields, "BridgeListItem", self.bridges, "BridgeListComplete")

    def _on_queuestatus(self, fields: Fields) -> bytes:
        return self._list(fields, "QueueEntry", self.queued, "QueueStatusComplete")

    def _on_status(self, fields: Fields) -> bytes:
        said = {"Variable": f"CALLERID(pres)={self.presentation}"}
        return self._list(fields, "Status", [{**channel, **said} for channel in self.channels], "StatusComplete")

    def _on_originate(self, fields: Fields) -> bytes:
        return message({"Response": "Success", "Message": "Originate successfully queued"}, fields)

    def _on_hangup(self, fields: Fields) -> bytes:
        if any(channel.get("Channel") == fields.get("Channel") for channel in self.channels):
            return message({"Response": "Success", "Message": "Channel Hungup"}, fields)
        return message({"Response": "Error", "Message": "No such channel"}, fields)

    def _on_getvar(self, fields: Fields) -> bytes:
        if fields.get("Variable") != "CALLERID(pres)":
            return message({"Response": "Error", "Message": "No such variable"}, fields)
        answer = {"Response": "Success", "Variable": "CALLERID(pres)", "Value": self.presentation}
        return message(answer, fields)

    def _on_dbget(self, fields: Fields) -> bytes:
        key = f"{fields.get('Family')}/{fields.get('Key')}"
        if key not in self.database:
            return message({"Response": "Error", "Message": "Database entry not found"}, fields)
        item = {"Family": fields["Family"], "Key": fields["Key"], "Val": self.database[key]}
        return self._list(fields, "DBGetResponse", [item], "DBGetComplete")

    def _on_anything(self, fields: Fields) -> bytes:
        return message({"Response": "Error", "Message": "Invalid/unknown command"}, fields)

    @staticmethod
    def _list(fields: Fields, event: str, items: list[Fields], end: str = "") -> bytes:
        start = {"Response": "Success", "EventList": "start", "Message": "A list will follow"}
        done = {
            "Event": end or f"{event}sComplete",
            "EventList": "Complete",
            "ListItems": str(len(items)),
        }
        listed = [message({"Event": event, **item}, fields) for item in items]
        return b"".join([message(start, fields), *listed, message(done, fields)])


def login(username: str, secret: str) -> bytes:
    """A sign-in as a client sends it, for tests that speak AMI by hand."""
    return encode_action("Login", {"Username": username, "Secret": secret, "Events": "on"})
