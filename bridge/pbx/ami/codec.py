"""AMI on the wire: bytes in, messages out; fields in, one action's bytes out. No sockets here.

Decoding is a function of the byte stream alone: however it is cut, the same messages come out, and the
same error. Bytes that are not UTF-8 become U+FFFD. A line ends at CR LF only, so a lone CR or LF stays
inside its value. What passes the bounds of a whole stream (`AmiProtocolError`) ends the connection; what
is wrong with one complete message only (too many headers, no header at all) is skipped and counted.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Any

from bridge.domain.errors import RingbridgeError
from bridge.pbx.lazy import Lazy

MAX_MESSAGE = 256 * 1024
MAX_HEADERS = 4096
MAX_BANNER = 256
MAX_LINE = 1024
"""Asterisk refuses action lines from this length on (measured with the line's end)."""
MAX_ACTION_HEADERS = 128

_BANNER = b"Asterisk Call Manager/"
_END = b"\r\n\r\n"
_LINE = b"\r\n"
_EVENT = b"Event: "
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
# C0 and C1 controls, DEL, and the two separators that some readers take for a line's end.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class AmiProtocolError(RingbridgeError):
    """The peer does not speak AMI, or sends more than may be one message."""

    code = "ami_protocol"

    def __init__(self, message: str, before: Iterable[Message] = ()) -> None:
        super().__init__(message)
        self.before = tuple(before)
        """Messages of the same chunk that were complete before the fault."""


class LocalError(RingbridgeError):
    """We were about to send something that is not one AMI action."""

    code = "ami_local"


class Message(Lazy):
    """Headers of one message. A header that came more than once keeps its first value here, all of them in `repeated`.

    Lines without a colon are in `repeated` under the empty name. Of an event that came over the wire a header is
    looked for where it is asked for: of twenty, a tracker asks for four.
    """

    __slots__ = ("_frame", "_headers", "_repeated", "event")

    def __init__(
        self,
        headers: Iterable[tuple[str, str]] = (),
        repeated: Mapping[str, list[str]] = MappingProxyType({}),
    ) -> None:
        self._frame = ""
        self._headers: dict[str, str] = dict(headers)
        self._repeated = repeated
        self.event = self._headers.get("Event", "")
        """Which event it is; empty where it is none."""

    @classmethod
    def of_event(cls, event: str, frame: str) -> Message:
        """An event as it came, of which the first line names it."""
        message = cls.__new__(cls)
        message._frame, message.event = frame, event
        return message

    def get(self, name: str, default: Any = None) -> Any:
        """A header's value, the first where it came more than once."""
        frame = self._frame
        if not frame:
            return self._headers.get(name, default)
        if name == "Event":
            return self.event
        _, found, rest = frame.partition(f"\r\n{name}:")
        return rest.partition("\r\n")[0].removeprefix(" ") if found else default

    def __repr__(self) -> str:
        # Without values: they hold numbers.
        return f"<Message {self.event} of {len(self)} headers>"

    def _whole(self) -> dict[str, str]:
        if self._frame:
            self._headers, self._repeated = _headers(self._frame.split("\r\n"))
            self._frame = ""
        return self._headers

    @property
    def repeated(self) -> Mapping[str, list[str]]:
        """Every value of each header that came more than once, and the lines that are none."""
        self._whole()
        return self._repeated

    def all(self, name: str) -> list[str]:
        """Every value of a header, in order."""
        if name in self.repeated:
            return self.repeated[name]
        return [self[name]] if name in self else []

    def flat(self) -> dict[str, str]:
        """All of it as one mapping: what came more than once stands in lines."""
        return {**self, **{name: "\n".join(values) for name, values in self.repeated.items() if name}}


def _headers(lines: Iterable[str]) -> tuple[dict[str, str], Mapping[str, list[str]]]:
    """By name the first value, and all of what came more than once or is no header."""
    headers: dict[str, str] = {}
    repeated: dict[str, list[str]] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            if line:
                repeated.setdefault("", []).append(line)
            continue
        value = value[1:] if value[:1] == " " else value
        if name in headers:
            repeated.setdefault(name, [headers[name]]).append(value)
        else:
            headers[name] = value
    return headers, repeated


class Decoder:
    """One connection's bytes to messages.

    `ignore` names events that nobody hears: they are framed and counted, but not parsed.
    """

    def __init__(
        self, ignore: Collection[str] = (), max_message: int = MAX_MESSAGE, max_headers: int = MAX_HEADERS
    ) -> None:
        self.version: str | None = None
        """The protocol version of the banner, None before it came."""
        self.skipped = 0
        """Complete messages that were not usable."""
        self.ignored = 0
        self._ignore = frozenset(_EVENT + name.encode() for name in ignore)
        self._max_message = max_message
        self._max_headers = max_headers
        self._buffer = bytearray()
        self._scanned = 0
        self._fault: str | None = None

    def feed(self, data: bytes) -> list[Message]:
        """The messages that `data` completes. Raises AmiProtocolError, and the same again ever after."""
        if self._fault is not None:
            raise AmiProtocolError(self._fault)
        buffer = self._buffer
        if buffer or self.version is None:
            buffer += data
            if self.version is None and not self._read_banner():
                return []
            if buffer.find(_END, max(0, self._scanned - 3)) < 0:
                self._scanned = len(buffer)
                if len(buffer) > self._max_message + 3:
                    self._fail(f"a message of more than {self._max_message} bytes", ())
                return []
            data = bytes(buffer)
            buffer.clear()
        # Most often the chunk holds whole messages and nothing waits: then it is cut as it is.
        frames = data.split(_END)
        rest = frames.pop()
        if rest:
            buffer += rest
        self._scanned = len(rest)
        messages: list[Message] = []
        for frame in frames:
            if len(frame) > self._max_message:
                self._fail(f"a message of more than {self._max_message} bytes", messages)
            end = frame.find(_LINE)
            first = frame if end < 0 else frame[:end]
            if first in self._ignore:
                self.ignored += 1
                continue
            message = self._parse(frame, first)
            if message is not None:
                messages.append(message)
        if len(rest) > self._max_message + 3:
            self._fail(f"a message of more than {self._max_message} bytes", messages)
        return messages

    def _read_banner(self) -> bool:
        buffer = self._buffer
        start = bytes(buffer[: len(_BANNER)])
        if not _BANNER.startswith(start):
            self._fail("what answers is not an Asterisk manager interface", ())
        end = buffer.find(b"\r\n", 0, MAX_BANNER)
        if end < 0:
            if len(buffer) >= MAX_BANNER:
                self._fail("the greeting of the manager interface has no end", ())
            return False
        self.version = bytes(buffer[len(_BANNER) : end]).decode("utf-8", "replace").strip()
        del buffer[: end + 2]
        return True

    def _parse(self, frame: bytes, first: bytes) -> Message | None:
        # A line is two bytes long at least, its end; so a short message need not be counted.
        if len(frame) >= 2 * self._max_headers and frame.count(_LINE) >= self._max_headers:
            self.skipped += 1
            return None
        if first.startswith(_EVENT) and first != _EVENT:
            return Message.of_event(first[len(_EVENT) :].decode("utf-8", "replace"), frame.decode("utf-8", "replace"))
        headers, repeated = _headers(frame.decode("utf-8", "replace").split("\r\n"))
        if headers:
            return Message(headers.items(), repeated)
        if repeated:
            self.skipped += 1
        return None

    def _fail(self, reason: str, before: Iterable[Message]) -> None:
        self._fault = reason
        self._buffer.clear()
        raise AmiProtocolError(reason, before)


def encode_action(name: str, fields: Mapping[str, str | Iterable[str]]) -> bytes:
    """Exactly one action. A list of values becomes a repeated header.

    Raises LocalError for anything that Asterisk could read as more, less or something else; the message
    names the header and never its value.
    """
    headers = [("Action", name)]
    for header, value in fields.items():
        if header.lower() == "action":
            raise LocalError("an action has one name only", field=header)
        values = [value] if isinstance(value, str) else value
        headers.extend((header, item) for item in values)
    if len(headers) > MAX_ACTION_HEADERS:
        raise LocalError(f"an action of more than {MAX_ACTION_HEADERS} headers", headers=len(headers))
    return b"".join([_line(header, value) for header, value in headers]) + b"\r\n"


def _line(header: str, value: str) -> bytes:
    if not isinstance(header, str) or not _NAME.fullmatch(header):
        raise LocalError("a header's name holds something else than letters, digits, - and _")
    if not isinstance(value, str):
        raise LocalError(f"the value of {header} is no text", field=header)
    if _CONTROL.search(value):
        raise LocalError(f"the value of {header} holds a control character", field=header)
    line = f"{header}: {value}\r\n".encode()
    if len(line) >= MAX_LINE:
        raise LocalError(f"the line of {header} is longer than {MAX_LINE} bytes", field=header)
    return line
