"""A small FreeSWITCH event socket for tests: it answers, replays, falls silent, cuts the line or talks rubbish.

It speaks real TCP on a free loopback port, so a link is tested with everything it has. It has no dialplan: what
happens on it is what a test says, or what a recorded trace holds.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

from bridge.pbx.esl.codec import Decoder, Event, Frame
from bridge.pbx.sim.esl_api import Api
from bridge.pbx.trace import received

GREETING = b"Content-Type: auth/request\n\n"
REJECTION = b"Content-Type: text/rude-rejection\nContent-Length: 24\n\nAccess Denied, go away.\n"
GOODBYE = b"Disconnected, goodbye.\nSee you at ClueCon! http://www.cluecon.com/\n"


def framed(kind: str, body: bytes) -> bytes:
    """A frame with a body, of that content type."""
    return b"Content-Type: %s\nContent-Length: %d\n\n%s" % (kind.encode(), len(body), body)


def reply(text: str, headers: Mapping[str, str] | None = None) -> bytes:
    """What a command is answered with."""
    more = "".join(f"{name}: {value}\n" for name, value in (headers or {}).items())
    return f"Content-Type: command/reply\nReply-Text: {text}\n{more}\n".encode()


def api_response(text: str) -> bytes:
    """What `api` is answered with; FreeSWITCH never answers nothing."""
    return framed("api/response", (text or "-ERR no reply\n").encode())


def event_frame(event: Mapping[str, str], encoding: str = "json") -> bytes:
    """One event on the wire, `_body` as its body."""
    body = event.get("_body", "")
    headers = {name: value for name, value in event.items() if name not in ("_body", "Content-Length")}
    length = {"Content-Length": str(len(body.encode()))} if body else {}
    if encoding == "json":
        text = json.dumps({**headers, **length, **({"_body": body} if body else {})}, ensure_ascii=False)
    else:
        lines = [f"{name}: {quote(value, safe=_SAFE) or '_undef_'}\n" for name, value in headers.items()]
        text = "".join([*lines, *(f"{name}: {value}\n" for name, value in length.items()), "\n", body])
    raw = text.encode()
    return b"Content-Length: %d\nContent-Type: text/event-%s\n\n%s" % (len(raw), encoding.encode(), raw)


_SAFE = "!$'()*,/-_."


def frames(data: bytes) -> Iterator[tuple[bytes, Frame]]:
    """Each whole frame of a stream, raw and read."""
    position = 0
    while (end := data.find(b"\n\n", position)) >= 0:
        length = 0
        for line in data[position:end].split(b"\n"):
            if line.startswith(b"Content-Length: "):
                length = int(line[16:])
        raw = data[position : end + 2 + length]
        if len(raw) < end + 2 + length - position:
            return
        position += len(raw)
        for frame in Decoder().feed(raw):
            yield raw, frame


def events_of(chunks: Iterable[bytes]) -> Iterator[tuple[bytes, Event]]:
    """A trace's events, raw and read, without its sign-in and answers."""
    for raw, frame in frames(b"".join(chunks)):
        if frame.event is not None:
            yield raw, frame.event


class Client:
    """One connection to the fake."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.user: str | None = None
        """Empty for the one of plain `auth`; None before the sign-in."""
        self.encoding = "plain"
        self.names: set[str] = set()
        """Of events subscribed to."""
        self.subclasses: set[str] = set()
        """Of CUSTOM events."""
        self._lock = threading.Lock()

    def hears(self, event: Mapping[str, str]) -> bool:
        """Whether it subscribed to this event."""
        if "ALL" in self.names:
            return True
        name = event.get("Event-Name", "")
        return event.get("Event-Subclass", "") in self.subclasses if name == "CUSTOM" else name in self.names

    def send(self, data: bytes, chunk: int | None = None) -> None:
        """In pieces of that size, between which nothing else is sent."""
        step = chunk or len(data) or 1
        with self._lock:
            try:
                for start in range(0, len(data), step):
                    self.sock.sendall(data[start : start + step])
            except OSError:
                self.cut()

    def cut(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)


class FakeFreeSWITCH(Api):
    """Start with `with`; every attribute may be changed while it runs."""

    def __init__(self, users: Mapping[str, str] | None = None, port: int = 0, host: str = "127.0.0.1") -> None:
        super().__init__()
        self.users = dict(users or {"": "reader-secret", "ringbridge-dial@default": "dialler-secret"})
        """Secret by `user@domain`, and the event socket's own under the empty name."""
        self.any_secret = False
        """Lets everybody in, as a replay does."""
        self.greeting = GREETING
        self.rejects = False
        """Its access list does not hold the client."""
        self.allowed_api: dict[str, set[str]] = {}
        """By user, the API commands allowed; whoever is not in it may use all."""
        self.allowed_events: dict[str, set[str]] = {}
        self.silent = False
        """Takes everything and answers nothing."""
        self.jobs_report = True
        """Whether a bgapi's BACKGROUND_JOB ever comes."""
        self.commands: list[tuple[str, str, dict[str, str]]] = []
        """(user, command, headers) of everything but sign-ins."""
        self.raw = bytearray()
        """Every byte received."""
        self.logins = 0
        self.refused = 0
        self.accepted = 0
        self._sequence = 1000
        self._host = host
        self._port = port
        self._clients: list[Client] = []
        self._threads: list[threading.Thread] = []
        self._server: socket.socket | None = None
        self._lock = threading.Lock()

    # --- life ---

    def __enter__(self) -> FakeFreeSWITCH:
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
        for client in list(self._clients):
            client.cut()

    @property
    def listeners(self) -> int:
        """Connections that subscribed to events."""
        return sum(bool(client.names) for client in list(self._clients))

    def send(self, data: bytes) -> None:
        """These bytes to every connection that hears events."""
        for client in list(self._clients):
            if client.names:
                client.send(data)

    def event(self, name: str, headers: Mapping[str, str] | None = None, /, **more: str) -> None:
        """One event to every connection that subscribed to it, in that one's encoding."""
        with self._lock:
            self._sequence += 1
            usual = {"Event-Name": name, "Event-Sequence": str(self._sequence)}
            usual["Event-Date-Timestamp"] = str(int(time.time() * 1e6))
            event = {**usual, **(headers or {}), **more}
            for client in list(self._clients):
                if client.hears(event):
                    client.send(event_frame(event, client.encoding))

    def replay(self, path: Path, chunk: int = 65536) -> None:
        """A recorded trace's events, to each connection what it subscribed to, in pieces of that size."""
        self.tell(list(events_of(received(path))), chunk)

    def tell(self, pieces: Sequence[tuple[bytes, Mapping[str, str]]], chunk: int = 65536) -> None:
        """Parts of recorded events to each connection that subscribed to them, in pieces of that size."""
        for client in list(self._clients):
            client.send(b"".join([raw for raw, event in pieces if client.hears(event)]), chunk)

    def asked(self, start: str) -> list[str]:
        """The commands so far that start so, such as `bgapi originate`."""
        return [command for _, command, _ in list(self.commands) if command.startswith(start)]

    def sockets(self) -> list[socket.socket]:
        """Of the connections that subscribed to events."""
        return [client.sock for client in list(self._clients) if client.names]

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
            client = Client(sock)
            self._clients.append(client)
            self._spawn(self._serve, client)

    def _serve(self, client: Client) -> None:
        buffer = b""
        try:
            client.send(REJECTION if self.rejects else self.greeting)
            while not self.rejects and (data := client.sock.recv(65536)):
                self.raw += data
                buffer += data
                *blocks, buffer = buffer.split(b"\n\n")
                for block in blocks:
                    self._hear(client, block.strip(b"\n").decode())
        except OSError:
            pass
        finally:
            self._clients.remove(client)
            client.sock.close()

    def _hear(self, client: Client, block: str) -> None:
        command, *lines = block.split("\n")
        headers = {name: value for name, _, value in (line.partition(": ") for line in lines)}
        verb, _, rest = command.partition(" ")
        if self.silent or not command:
            return
        if verb in ("auth", "userauth"):
            self._sign_in(client, verb, rest)
            return
        if client.user is None:
            client.send(reply("-ERR command not found"))
            return
        self.commands.append((client.user, command, headers))
        hear = getattr(self, f"_on_{verb}", None)
        if hear is None:
            client.send(reply("-ERR command not found"))
        else:
            hear(client, rest, headers)

    def _sign_in(self, client: Client, verb: str, rest: str) -> None:
        user, _, secret = rest.rpartition(":") if verb == "userauth" else ("", "", rest)
        if not self.any_secret and self.users.get(user) != secret:
            self.refused += 1
            client.send(reply("-ERR invalid") + framed("text/disconnect-notice", GOODBYE))
            client.cut()
            return
        self.logins += 1
        client.user = user
        api, events = self.allowed_api.get(user), self.allowed_events.get(user)
        told = {
            "Allowed-Events": "all" if events is None else " ".join(sorted(events)),
            "Allowed-API": "all" if api is None else " ".join(sorted(api)),
        }
        client.send(reply("+OK accepted", told if verb == "userauth" else None))

    def _on_exit(self, client: Client, rest: str, headers: Mapping[str, str]) -> None:
        client.send(reply("+OK bye") + framed("text/disconnect-notice", GOODBYE))
        client.cut()

    def _on_event(self, client: Client, rest: str, headers: Mapping[str, str]) -> None:
        words = rest.split()
        if words and words[0] in ("json", "plain"):
            client.encoding = words.pop(0)
        # Whatever follows CUSTOM is a subclass, the name of an event too.
        at = words.index("CUSTOM") + 1 if "CUSTOM" in words else len(words)
        names, subclasses = words[:at], words[at:]
        allowed = self.allowed_events.get(client.user or "")
        if not words:
            client.send(reply("-ERR no keywords supplied"))
        elif allowed is not None and not allowed.issuperset(words):
            client.send(reply("-ERR permission denied"))
        else:
            client.send(reply(f"+OK event listener enabled {client.encoding}"))
            client.subclasses.update(subclasses)
            client.names.update(names)

    _on_events = _on_event
    """FreeSWITCH looks at a command's first letters only."""

    def _on_noevents(self, client: Client, rest: str, headers: Mapping[str, str]) -> None:
        heard = bool(client.names)
        client.names.clear()
        client.subclasses.clear()
        client.send(reply("+OK no longer listening for events" if heard else "-ERR not listening for events"))

    def _on_api(self, client: Client, rest: str, headers: Mapping[str, str]) -> None:
        if not self._may(client, rest):
            client.send(reply("-ERR permission denied"))
            return
        text = self.run(rest)
        if text is not None:
            client.send(api_response(text))

    def _on_bgapi(self, client: Client, rest: str, headers: Mapping[str, str]) -> None:
        if not self._may(client, rest):
            client.send(reply("-ERR permission denied"))
            return
        job = headers.get("Job-UUID") or str(uuid.uuid4())
        client.send(reply(f"+OK Job-UUID: {job}", {"Job-UUID": job}))
        text = self.run(rest)
        if text is not None and self.jobs_report:
            verb, _, arguments = rest.partition(" ")
            told = {"Job-UUID": job, "Job-Command": verb, "Job-Command-Arg": arguments, "_body": text}
            self.event("BACKGROUND_JOB", told)

    def _may(self, client: Client, command: str) -> bool:
        allowed = self.allowed_api.get(client.user or "")
        return allowed is None or command.partition(" ")[0] in allowed

