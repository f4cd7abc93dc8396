"""ESL on the wire: bytes in, frames out; a command in, its bytes out. No sockets here.

Decoding is a function of the byte stream alone: however it is cut, the same frames come out, and the same error.
Nothing is decoded before it is split, so no value can become a header, a line or an event. Bytes that are not UTF-8
become U+FFFD. What leaves us without a frame to trust (`EslProtocolError`) ends the connection; one event that
cannot be read is skipped and counted. The two encodings of an event come out alike.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any, Literal, NoReturn, TypedDict, cast
from urllib.parse import unquote

import msgspec
from pydantic_core import from_json

from bridge.domain.errors import RingbridgeError
from bridge.pbx.lazy import Lazy

MAX_HEADER_BLOCK = 64 * 1024
MAX_BODY = 4 * 1024 * 1024
MAX_ANSWER = 16 * 1024 * 1024
"""What one `api` command may answer: `show channels` of a large PBX is longer than any event."""
MAX_EVENT_HEADERS = 4096
MAX_LINE = 8192
MAX_COMMAND_HEADERS = 64

Event = Mapping[str, str]
"""Header name -> text, as FreeSWITCH's JSON names them; `_body` is the event's body."""
Kind = Literal["auth_request", "reply", "api_response", "event", "disconnect", "rejection", "log", "other"]

_KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "auth/request": "auth_request",
        "command/reply": "reply",
        "api/response": "api_response",
        "text/event-json": "event",
        "text/event-plain": "event",
        "text/disconnect-notice": "disconnect",
        "text/rude-rejection": "rejection",
        "log/data": "log",
    }
)
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})
_END = b"\n\n"
_EMPTY = "_undef_"
"""What the plain encoding writes for a value that is empty."""
_START = b"Content-"
"""A frame of FreeSWITCH begins with its type or length; what does not is none, or the last one's length was a lie."""
_MAX_START = 80
_LEAST_HEADER = len(b'"a":"",')
_EVENT_BLOCK = re.compile(rb"Content-Length: ([0-9]{1,7})\nContent-Type: text/event-(json|plain)\n\n")
_LENGTH = re.compile(r"[0-9]{1,9}")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
# C0 and C1 controls, DEL, and the two separators that some readers take for a line's end.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_SURROGATE = re.compile("[\ud800-\udfff]")


class EslProtocolError(RingbridgeError):
    """The peer does not speak ESL, or sends more than may be one frame."""

    code = "esl_protocol"

    def __init__(self, message: str, before: Iterable[Frame] = ()) -> None:
        super().__init__(message)
        self.before = tuple(before)
        """Frames of the same chunk that were complete before the fault."""


class LocalError(RingbridgeError):
    """We were about to send something that is not one ESL command."""

    code = "esl_local"


class Frame(msgspec.Struct, frozen=True):
    """One thing that FreeSWITCH said."""

    kind: Kind
    headers: Mapping[str, str]
    """Of the frame itself, such as Reply-Text and Job-UUID; none for an event."""
    event: Event | None = None
    """For an event, and nothing else."""
    text: str = ""
    """The body of everything that is no event."""


class Decoder:
    """One connection's bytes to frames.

    `read` names, by event or subclass, the headers that are mostly asked for: of an event in JSON these are read at
    once, and everything as soon as another one is asked for. What an event says does not depend on it.
    """

    def __init__(
        self,
        read: Mapping[str, Collection[str]] = _NO_HEADERS,
        max_block: int = MAX_HEADER_BLOCK,
        max_body: int = MAX_BODY,
        max_answer: int = MAX_ANSWER,
        max_event_headers: int = MAX_EVENT_HEADERS,
    ) -> None:
        self.refused: Counter[str] = Counter()
        """Events that could not be read, by reason: json, not_object, length, empty, too_many_headers."""
        self._max_block = max_block
        self._max_body = max_body
        self._max_answer = max_answer
        self._max_event_headers = max_event_headers
        self._readers = {name.encode(): _Reader(headers) for name, headers in read.items()}
        self._buffer = bytearray()
        self._need = 1
        """Below this length the buffer holds nothing that could be complete."""
        self._scanned = 0
        """So much of an unfinished header block holds no end of it."""
        self._block: tuple[Mapping[str, str], int, int] | None = None
        """Headers of the frame whose body is awaited, and where that starts and ends in the buffer."""
        self._fault: str | None = None

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that `data` completes. Raises EslProtocolError, and the same again ever after."""
        if self._fault is not None:
            raise EslProtocolError(self._fault)
        buffer = self._buffer
        if buffer:
            buffer += data
            if len(buffer) < self._need:
                return []
            data = bytes(buffer)
        frames: list[Frame] = []
        position = 0
        while position < len(data):
            end = self._frame(data, position, frames)
            if end is None:
                break
            position = end
            self._need, self._scanned, self._block = 1, 0, None
        if buffer:
            del buffer[:position]
        else:
            buffer += data[position:]
        return frames

    def _frame(self, data: bytes, position: int, frames: list[Frame]) -> int | None:
        """Read the frame at `position`; where it ends, or None where it is not whole."""
        # Nearly everything is an event, and its header block always looks the same.
        match = None if self._block else _EVENT_BLOCK.match(data, position)
        if match is not None and (length := int(match[1])) <= self._max_body:
            start = match.end()
            end = start + length
            if end > len(data):
                self._block = ({"Content-Type": f"text/event-{match[2].decode()}"}, start - position, end - position)
                self._need = end - position
                return None
            self._read_event(match[2] == b"json", data[start:end], frames)
            return end
        if self._block is None:
            self._block = self._read_block(data, position, frames)
            if self._block is None:
                return None
        headers, first, last = self._block
        start, end = position + first, position + last
        if end > len(data):
            self._need = last
            return None
        kind = headers.get("Content-Type", "")
        body = data[start:end]
        if kind in ("text/event-json", "text/event-plain"):
            self._read_event(kind == "text/event-json", body, frames)
        else:
            text = body.decode("utf-8", "replace") if body else ""
            frames.append(Frame(_KINDS.get(kind, "other"), headers, None, text))
        return end

    def _read_block(
        self, data: bytes, position: int, frames: list[Frame]
    ) -> tuple[Mapping[str, str], int, int] | None:
        """Headers of the frame at `position`, and where its body starts and ends from there."""
        if not _START.startswith(data[position : position + len(_START)]):
            self._fail("what answers is not a FreeSWITCH event socket, or a length of it was not true", frames)
        end = data.find(_END, position + max(0, self._scanned - 1))
        if end < 0 or end - position > self._max_block:
            if len(data) - position > self._max_block + 1:
                self._fail(f"a header block of more than {self._max_block} bytes", frames)
            self._scanned = len(data) - position
            self._need = self._scanned + 1
            return None
        headers: dict[str, str] = {}
        for line in data[position:end].decode("utf-8", "replace").split("\n"):
            name, colon, value = line.partition(": ")
            if not colon:
                name, colon, value = line.partition(":")
            if not colon:
                self._fail("a header without a colon", frames)
            if name in headers:
                if name.startswith("Content-"):
                    self._fail(f"two headers {name} in one block", frames)
                continue
            headers[name] = value
        if "Content-Type" not in headers:
            self._fail("a header block without a Content-Type", frames)
        length = headers.get("Content-Length", "0")
        bound = self._max_answer if headers["Content-Type"] == "api/response" else self._max_body
        if not _LENGTH.fullmatch(length):
            self._fail("a Content-Length that is no number", frames)
        if int(length) > bound:
            self._fail(f"a body of more than {bound} bytes", frames)
        start = end + len(_END) - position
        return headers, start, start + int(length)

    def _read_event(self, is_json: bool, body: bytes, frames: list[Frame]) -> None:
        if is_json and (event := self._read_some(body)) is not None:
            frames.append(Frame("event", _NO_HEADERS, event))
            return
        try:
            event = _from_json(body) if is_json else _from_plain(body)
            if not event:
                raise _Unreadable("empty")
            if len(event) > self._max_event_headers:
                raise _Unreadable("too_many_headers")
        except _Unreadable as error:
            self.refused[error.reason] += 1
        else:
            frames.append(Frame("event", _NO_HEADERS, event))

    def _read_some(self, body: bytes) -> Event | None:
        """The event with the headers that are mostly asked for; None where all of it must be looked at."""
        # FreeSWITCH begins with what it is: `{"Event-Name":"..."` or `{"Event-Subclass":"..."`.
        start = body[:_MAX_START].split(b'"', 4)
        reader = self._readers.get(start[3]) if len(start) == 5 else None
        if reader is None:
            return None
        # A header takes at least so many bytes, and two quotation marks for its name.
        most = self._max_event_headers
        if len(body) > _LEAST_HEADER * most and body.count(b'"') > 2 * most:
            return None
        try:
            return SomeRead(body, reader)
        except (ValueError, RecursionError):
            return None

    def _fail(self, reason: str, before: Iterable[Frame]) -> NoReturn:
        self._fault = reason
        self._buffer.clear()
        raise EslProtocolError(reason, before)


class _Reader:
    """Reads some headers of an event, wherever they stand, and checks that the rest is JSON."""

    __slots__ = ("decode", "names")

    def __init__(self, names: Collection[str]) -> None:
        self.names = frozenset(names)
        # Built as the names are known; a header that is no text, or whose text is none, makes it fail.
        some = TypedDict("some", dict.fromkeys(names, str), total=False)  # type: ignore[misc]
        self.decode: Any = msgspec.json.Decoder(some).decode


class SomeRead(Lazy):
    """An event in JSON of which some headers have been read."""

    __slots__ = ("_body", "_names", "_some")

    def __init__(self, body: bytes, reader: _Reader) -> None:
        """Raises ValueError where it is not plain JSON, RecursionError where it is too deep for one."""
        self._some: Event = reader.decode(body)
        self._names = reader.names
        self._body = body

    @property
    def is_whole(self) -> bool:
        """Whether another header had to be asked for, and so everything was read."""
        return not self._body

    def get(self, name: str, default: Any = None) -> Any:
        """A header's text."""
        value = self._some.get(name)
        if value is None:
            if name in self._names or not self._body:
                return default
            return self._whole().get(name, default)
        return value

    def __repr__(self) -> str:
        # Without values: they hold numbers.
        return f"<event of {len(self)} headers>"

    def _whole(self) -> Event:
        if self._body:
            with suppress(_Unreadable):
                self._some = _from_json(self._body)
            self._body = b""
        return self._some


class _Unreadable(Exception):
    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


_JSON = json.JSONDecoder(strict=False)
_TEXTS = msgspec.json.Decoder(dict[str, str])


def _from_json(body: bytes) -> Event:
    try:
        # Nearly always every value is a text.
        return _TEXTS.decode(body)
    except ValueError:
        pass
    try:
        # Takes nothing that is not strictly JSON in strict UTF-8.
        event = from_json(body, cache_strings="keys")
    except ValueError:
        return _from_odd_json(body)
    return _texts(event)


def _from_odd_json(body: bytes) -> Event:
    """As `_from_json`, with what FreeSWITCH passes on as it came: bad bytes, raw controls, half surrogate pairs."""
    try:
        event = _texts(_JSON.decode(body.decode("utf-8", "replace")))
    except (ValueError, RecursionError):
        raise _Unreadable("json") from None
    # Only an escape can make half a surrogate pair, which no encoder of ours would take.
    if b"\\" in body and b"\\u" in body:
        event = {_SURROGATE.sub("\ufffd", name): _SURROGATE.sub("\ufffd", text) for name, text in event.items()}
    return event


def _texts(event: object) -> Event:
    if type(event) is not dict:
        raise _Unreadable("not_object")
    try:
        # Fails at once where a value is no text, and costs next to nothing where all are.
        "".join(event.values())
    except TypeError:
        for name, value in event.items():
            if type(value) is not str:
                try:
                    event[name] = _as_text(value)
                except (ValueError, RecursionError):
                    raise _Unreadable("json") from None
    return cast(Event, event)


def _as_text(value: object) -> str:
    """A value that is no text, as the plain encoding would show it."""
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return value[0] if len(value) == 1 else f"ARRAY::{'|:'.join(value)}" if value else ""
    return "" if value is None else json.dumps(value)


def _from_plain(body: bytes) -> Event:
    head, end, rest = body.partition(_END)
    lines = head.decode("utf-8", "replace").split("\n")
    if not end or (rest and lines[-1] != f"Content-Length: {len(rest)}"):
        raise _Unreadable("length")
    event: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        event[name] = "" if value == _EMPTY else unquote(value) if "%" in value else value
    if rest:
        event["_body"] = rest.decode("utf-8", "replace")
    return event


def encode(command: str, headers: Mapping[str, str] | None = None) -> bytes:
    """Exactly one command, with its headers.

    Raises LocalError for anything that FreeSWITCH could read as more, less or something else; the message never
    holds a value.
    """
    lines = [_line("the command", command)]
    if not command.strip():
        raise LocalError("a command without a word")
    if headers:
        if len(headers) > MAX_COMMAND_HEADERS:
            raise LocalError(f"a command of more than {MAX_COMMAND_HEADERS} headers", headers=len(headers))
        for name, value in headers.items():
            if not isinstance(name, str) or not _NAME.fullmatch(name):
                raise LocalError("a header's name holds something else than letters, digits, - and _")
            if name.lower() == "content-length":
                raise LocalError("a command of ours has no body", field=name)
            lines.append(_line(name, value, f"{name}: "))
    return b"\n".join(lines) + _END


def _line(what: str, value: str, before: str = "") -> bytes:
    if not isinstance(value, str):
        raise LocalError(f"{what} is no text", field=what)
    if _CONTROL.search(value):
        raise LocalError(f"{what} holds a control character", field=what)
    line = f"{before}{value}".encode()
    if len(line) >= MAX_LINE:
        raise LocalError(f"{what} is longer than {MAX_LINE} bytes", field=what)
    return line
