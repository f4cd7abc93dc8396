"""Takes phone numbers out of a recording, the same one always by the same other one, and never changes a length.

Every run of seven digits or more is taken for a number, wherever it stands; but not part of a UUID, of a channel's
id that is a time with a fraction, of a longer run than a number can be, a time of about now, or what counts lengths
and events. Shorter runs are extensions.
"""

from __future__ import annotations

import re
import time

from bridge.pbx.trace import Row

LONGEST = 17
"""Digits of a number, with an international prefix."""
_TOKEN = re.compile(
    rb"""
    %[0-9A-Fa-f]{2}                                                 # an encoded byte, never a number's first digits
    | [0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}          # a UUID
    | (?<![0-9])[0-9]{9,11}\.[0-9]+                                 # a channel of Asterisk
    | (?:Content-Length|Event-Sequence)(?:":\ ?"|:\ )[0-9]+
    | (?P<number>(?:(?<![0-9A-Za-z])|(?<=%[0-9A-Fa-f]{2}))[0-9]{7,}(?![0-9A-Za-z]))
    """,
    re.VERBOSE,
)
_OPEN = re.compile(rb"[%+0-9A-Za-z.\-:\" ]\Z")
"""The end of a row that may go on as a token in the next."""
_REACH = 64
"""No token is longer."""
_BEHIND = 3
"""What a token must know of the bytes before it."""
_ABOUT_NOW = 86_400.0


class NumberMask:
    """Rows in, rows out; one whose end may be half a number waits for the next."""

    def __init__(self) -> None:
        self._others: dict[bytes, bytes] = {}
        self._given: set[bytes] = set()
        self._now = time.time()
        self._waiting: list[Row] = []
        self._settled = 0
        """So many bytes of what waits are done with, and stand there for those behind them."""

    def add(self, row: Row) -> list[Row]:
        """The rows that are settled now, in order."""
        self._waiting.append(row)
        # What we send follows a whole answer.
        if not row.received or (row.data and not _OPEN.search(row.data)):
            return self.rest()
        rows = self._masked(_REACH)
        ready = 0
        while ready < len(rows) and (end := len(rows[ready].data)) <= self._settled - _BEHIND:
            self._settled -= end
            ready += 1
        self._waiting = rows[ready:]
        return rows[:ready]

    def rest(self) -> list[Row]:
        """All that waits, as far as it goes."""
        rows, self._waiting, self._settled = self._masked(0), [], 0
        return rows

    def _masked(self, open_end: int) -> list[Row]:
        """What waits, without the numbers that end before its last `open_end` bytes; says how far that is settled."""
        data = b"".join([row.data for row in self._waiting])
        last = len(data) - open_end
        parts: list[bytes] = []
        position = 0
        settled = max(self._settled, last)
        for match in _TOKEN.finditer(data, self._settled):
            if match.end() > last:
                settled = max(self._settled, min(match.start(), last))
                break
            parts += (data[position : match.start()], self._other(match))
            position = match.end()
        self._settled = settled
        data = b"".join([*parts, data[position:]])
        done: list[Row] = []
        for row in self._waiting:
            done.append(Row(row.t, row.received, data[: len(row.data)]))
            data = data[len(row.data) :]
        return done

    def _other(self, match: re.Match[bytes]) -> bytes:
        number = match["number"]
        if number is None or len(number) > LONGEST or number in self._given or self._is_now(number):
            return match[0]
        if number not in self._others:
            room = len(number) - 3
            other = b"555%0*d" % (room, (len(self._others) + 1) % 10**room)
            self._others[number] = other
            self._given.add(other)
        return self._others[number]

    def _is_now(self, number: bytes) -> bool:
        """Whether it is a time of about now, in seconds or in thousandths or millionths of them."""
        return len(number) in (10, 13, 16) and abs(int(number[:10]) - self._now) < _ABOUT_NOW
