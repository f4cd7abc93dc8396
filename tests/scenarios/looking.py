"""A second, real connection that asks the PBX all that a resync asks, over and over while a scenario is played.

    with Looker(pbx, began) as looker:      # `began`: the time of t = 0
        ...                                 # people call each other
    looker.write(folder / "snapshots.jsonl.gz")

Each line of the file is one snapshot: when it was begun and complete, and each question with the PBX's answer to the
letter. `read` gives them back, and `Shot.snapshot` is what the link would have made of those answers.
"""

from __future__ import annotations

import gzip
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from bridge.pbx.ami import codec as ami_codec
from bridge.pbx.ami import resync as ami_resync
from bridge.pbx.esl import codec as esl_codec
from bridge.pbx.esl import resync as esl_resync
from bridge.settings import Pbx

EVERY_SECONDS = 0.05
MOST, LEAST = 24, 8
"""So many snapshots are kept: those that differ from the one before, and where these are few, some more."""
ANSWER_SECONDS = 10.0
NO_CHANNEL = "-ERR No such channel!\n"
_CLOCKS = re.compile(
    r"^(?:Duration|Seconds|Wait|TimeToHangup|EventTime): .*?$"
    r'|"(?:Event-(?:Date|Sequence|Calling)[^"]*|[^"]*(?:_usec|msec|_epoch|duration|billsec|rtp_[^"]*))"\s*:\s*"[^"]*"',
    re.MULTILINE,
)
"""What differs between two snapshots though nothing happened."""


@dataclass(frozen=True, slots=True)
class Answered:
    """One question with its answer; seconds since the recording began."""

    question: str
    asked: float
    answered: float
    answer: str


@dataclass(frozen=True, slots=True)
class Shot:
    """What the PBX said of itself, question by question."""

    replies: tuple[Answered, ...]

    @property
    def asked(self) -> float:
        """When the first question went out."""
        return self.replies[0].asked

    @property
    def answered(self) -> float:
        """When the last answer was there."""
        return self.replies[-1].answered

    def snapshot(self, known: Iterable[str] = ()) -> Any:
        """What the link makes of it. `known` are the channels of which it had heard (FreeSWITCH)."""
        if self.replies[0].question.startswith("Action: "):
            return ami_resync.Snapshot.of(
                {reply.question: _ami_items(reply.answer) for reply in self.replies}
            )
        answers = {reply.question: reply.answer for reply in self.replies}
        return esl_resync.take_snapshot(lambda question: _esl_answer(answers, question), known)

    @property
    def face(self) -> list[tuple[str, str]]:
        """All of it but clocks and counters."""
        return [(reply.question, _CLOCKS.sub("", reply.answer)) for reply in self.replies]


def _esl_answer(answers: dict[str, str], question: str) -> str:
    # Of a channel that nobody asked after: it had ended, or else the Looker would have known it.
    return answers.get(question, NO_CHANNEL) if question.startswith("uuid_dump ") else answers[question]


def _ami_items(answer: str) -> list[dict[str, str]]:
    decoder = ami_codec.Decoder()
    messages = decoder.feed(b"Asterisk Call Manager/0\r\n" + answer.encode("utf-8", "surrogateescape"))
    return [message.flat() for message in messages if "Event" in message and "EventList" not in message]


# --- looking ---


class _Asker(Protocol):
    def look(self, ask: Callable[[str], str]) -> None: ...

    def ask(self, question: str) -> str: ...

    def close(self) -> None: ...


class Looker:
    """Asks in a thread of its own, from the start on until it is closed."""

    def __init__(self, pbx: Pbx, began: datetime, every: float = EVERY_SECONDS) -> None:
        self.shots: list[Shot] = []
        self._asker: _Asker = _Esl(pbx) if pbx.kind == "freeswitch" else _Ami(pbx)
        self._zero = time.monotonic() - (time.time() - began.timestamp())
        self._every = every
        self._stop = threading.Event()
        self._fault: Exception | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Looker:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Look once more, then no longer. Raises what kept it from looking."""
        self._stop.set()
        self._thread.join(2 * ANSWER_SECONDS)
        self._asker.close()
        if self._fault is not None:
            raise self._fault

    @property
    def now(self) -> float:
        """Seconds since the recording began."""
        return time.monotonic() - self._zero

    @property
    def looks(self) -> bool:
        """Whether it still does."""
        return self._thread.is_alive()

    def write(self, path: Path, most: int = MOST, least: int = LEAST) -> int:
        """Write the snapshots worth keeping. Returns how many."""
        shots = chosen(self.shots, most, least)
        write(path, shots)
        return len(shots)

    def _run(self) -> None:
        try:
            ending = False
            while not ending:
                ending = self._stop.wait(self._every)
                replies: list[Answered] = []
                self._asker.look(lambda question, kept=replies: self._ask(question, kept))  # type: ignore[misc]
                self.shots.append(Shot(tuple(replies)))
        except Exception as error:  # noqa: BLE001 - whatever it is, the one who closes must hear of it
            self._fault = error

    def _ask(self, question: str, kept: list[Answered]) -> str:
        asked = self.now
        answer = self._asker.ask(question)
        kept.append(Answered(question, round(asked, 6), round(self.now, 6), answer))
        return answer


class _Ami:
    """The event user of an Asterisk, without its events."""

    def __init__(self, pbx: Pbx) -> None:
        self._socket = socket.create_connection((pbx.host, pbx.port), timeout=ANSWER_SECONDS)
        self._decoder = ami_codec.Decoder()
        login = {"Username": pbx.username, "Secret": pbx.read_secret(), "Events": "off"}
        answer = self._say(ami_codec.encode_action("Login", login))
        if "Response: Success" not in answer:
            raise ConnectionError("the PBX does not let the event user in")

    def look(self, ask: Callable[[str], str]) -> None:
        for question in ami_resync.QUESTIONS:
            ask(question)

    def ask(self, question: str) -> str:
        return self._say(question.encode() + b"\r\n\r\n")

    def _say(self, data: bytes) -> str:
        self._socket.sendall(data)
        answer = b""
        while True:
            chunk = self._socket.recv(65536)
            if not chunk:
                raise ConnectionError("the PBX closed the connection")
            answer += chunk
            for message in self._decoder.feed(chunk):
                last = message.get("EventList", "") == "Complete"
                if last or (message.get("Response") and message.get("EventList") != "start"):
                    return answer.decode("utf-8", "surrogateescape")

    def close(self) -> None:
        self._socket.close()


class _Esl:
    """The event user of a FreeSWITCH, who hears of births alone: a link would know these channels too."""

    def __init__(self, pbx: Pbx) -> None:
        self._socket = socket.create_connection((pbx.host, pbx.port), timeout=ANSWER_SECONDS)
        self._decoder = esl_codec.Decoder()
        self._frames: list[esl_codec.Frame] = []
        self._known: dict[str, None] = {}
        self._born: dict[str, None] = {}
        self._next("auth_request")
        named = "@" in pbx.username
        self._socket.sendall(
            esl_codec.encode(
                f"userauth {pbx.username}:{pbx.read_secret()}" if named else f"auth {pbx.read_secret()}"
            )
        )
        signed_in = self._next("reply")
        self._socket.sendall(esl_codec.encode("event json CHANNEL_CREATE"))
        for reply in (signed_in, self._next("reply")):
            if not reply.headers.get("Reply-Text", "").startswith("+OK"):
                raise ConnectionError("the PBX does not let the event user in")

    def look(self, ask: Callable[[str], str]) -> None:
        snapshot = esl_resync.take_snapshot(ask, self._heard_of())
        # What has no dump was heard of, and has ended since.
        self._known = {uid: None for uid in self._known if uid in snapshot.dumps or uid in self._born}

    def _heard_of(self) -> Iterator[str]:
        # Only asked once the lists are there: births are heard meanwhile.
        self._known |= self._born
        self._born = {}
        yield from list(self._known)

    def ask(self, question: str) -> str:
        self._socket.sendall(esl_codec.encode(f"api {question}"))
        return self._next("api_response").text

    def _next(self, kind: str) -> esl_codec.Frame:
        while True:
            while self._frames:
                frame = self._frames.pop(0)
                if frame.event is not None:
                    self._born[frame.event["Unique-ID"]] = None
                elif frame.kind == kind:
                    return frame
            chunk = self._socket.recv(65536)
            if not chunk:
                raise ConnectionError("the PBX closed the connection")
            self._frames += self._decoder.feed(chunk)

    def close(self) -> None:
        self._socket.close()


# --- files ---


def chosen(shots: list[Shot], most: int = MOST, least: int = LEAST) -> list[Shot]:
    """Those that say something new, spread over all where there are too many, filled up where there are few."""
    ends = (0, len(shots) - 1)
    kept = set(
        _spread([n for n, shot in enumerate(shots) if n in ends or shot.face != shots[n - 1].face], most)
    )
    rest = [n for n in range(len(shots)) if n not in kept]
    kept |= set(_spread(rest, max(0, least - len(kept))))
    return [shots[n] for n in sorted(kept)]


def _spread(numbers: list[int], most: int) -> list[int]:
    if len(numbers) <= most:
        return numbers
    return [numbers[round(n * (len(numbers) - 1) / max(1, most - 1))] for n in range(most)]


def write(path: Path, shots: Iterable[Shot]) -> None:
    """One snapshot a line."""
    with gzip.GzipFile(path, "wb", mtime=0) as file:
        for shot in shots:
            replies = [{name: getattr(reply, name) for name in Answered.__slots__} for reply in shot.replies]
            row = {"asked": shot.asked, "answered": shot.answered, "replies": replies}
            file.write(json.dumps(row).encode() + b"\n")


def read(path: Path) -> list[Shot]:
    """The snapshots of a recording, in order; none where it has none."""
    with suppress(FileNotFoundError), gzip.open(path, "rb") as file:
        return [Shot(tuple(Answered(**reply) for reply in json.loads(line)["replies"])) for line in file]
    return []
