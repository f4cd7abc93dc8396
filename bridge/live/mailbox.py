"""The command mailbox: a Redis stream per PBX, read by the holder of its lease alone.

The deadline of a command is on Redis TIME. A command is in the stream until it is answered; one that was read but
not answered when its reader ended is never run again: the next holder finds it as left over and reconciles it.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, cast

from redis import Redis

from bridge.live import keys, scripts

_GROUP = "listener"
_CONSUMER = "holder"
"""One name for every holder, so that each finds what the one before left."""
_REPLY_KEPT_SECONDS = 120
_DIALED_KEPT_SECONDS = 7 * 24 * 3600


class Kind(StrEnum):
    DIAL = "dial"
    HANGUP = "hangup"
    ACTION = "action"
    """Something else to do to a call that is under way."""


class Fence(StrEnum):
    """Why nothing could be read."""

    FENCED = "fenced"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Command:
    """One command. `entry` is its stream id, `deadline_ms` is Redis TIME."""

    entry: str
    id: str
    kind: str
    deadline_ms: int
    to: str
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Reply:
    """What became of a command; `detail` is a sentence for a person, `data` for a program."""

    id: str
    ok: bool
    reason: str
    detail: str
    data: Mapping[str, str] = field(default_factory=dict)


def send(
    redis: Redis,
    pbx: str,
    kind: str,
    data: Mapping[str, Any],
    deadline_seconds: float,
    to: str = "",
    command_id: str = "",
) -> str:
    """Put a command into the mailbox; returns its id. Raises redis' errors where it does not answer.

    `to` is the topic that hears the outcome as an event `command`. After an error it is not known whether
    the command lies there; a dial may be sent again, since an attempt is dialled once.
    """
    command = command_id or str(uuid.uuid4())
    body = json.dumps(dict(data), separators=(",", ":"))
    redis.register_script(scripts.SEND)(
        keys=[keys.commands(pbx)],
        args=[command, kind, int(deadline_seconds * 1000), to, body],
    )
    return command


def wait_reply(redis: Redis, command: str, seconds: float) -> Reply | None:
    """The reply, or None after `seconds` (less than the connection's own timeout). A reply can be taken once."""
    found = cast(Any, redis.blpop([keys.reply(command)], timeout=seconds))
    if not found:
        return None
    body = json.loads(found[1])
    detail, data = str(body.get("detail", "")), dict(body.get("data", {}))
    return Reply(str(body["id"]), bool(body["ok"]), str(body["reason"]), detail, data)


class Mailbox:
    """One PBX's mailbox as its holder reads it."""

    def __init__(self, redis: Redis, pbx: str, epoch: int) -> None:
        self._redis = redis
        self._pbx = pbx
        self._epoch = epoch
        self._read = redis.register_script(scripts.READ)
        self._answer = redis.register_script(scripts.ANSWER)
        self._seen = "0-0"

    def read(self, count: int) -> list[Command] | Fence:
        """New commands, at once. The epoch is checked in the same step."""
        found = self._fetch(count, ">")
        if not isinstance(found, Fence) and found:
            self._seen = found[-1].entry
        return found

    def left_over(self, count: int = 1000) -> list[Command] | Fence:
        """Commands that were read and never answered: by a former holder, or by us when an answer was lost."""
        return self._fetch(count, "0")

    def wait(self, block_ms: int) -> bool:
        """Wait until something new lies there, `block_ms` at most."""
        found = cast(
            Any, self._redis.xread({keys.commands(self._pbx): self._seen}, count=100, block=block_ms)
        )
        if not found:
            return False
        self._seen = found[0][1][-1][0]
        return True

    def begin_again(self) -> None:
        """After the server lost its data, ids may begin anew."""
        self._seen = "0-0"

    def claim_dial(self, attempt: str, command: Command) -> bool:
        """Set the attempt's mark, once ever: False where it was set before."""
        value = f"{self._epoch}:{command.entry}"
        return bool(self._redis.set(keys.dialed(attempt), value, nx=True, ex=_DIALED_KEPT_SECONDS))

    def answer(
        self, command: Command, ok: bool, reason: str, detail: str = "", data: Mapping[str, str] | None = None
    ) -> None:
        """Reply, and take the command out of the mailbox."""
        body = json.dumps({"id": command.id, "ok": ok, "reason": reason, "detail": detail, "data": dict(data or {})})
        self._answer(
            keys=[keys.commands(self._pbx), keys.reply(command.id)],
            args=[_GROUP, command.entry, body if command.id else "", _REPLY_KEPT_SECONDS],
        )

    def _fetch(self, count: int, what: Literal[">", "0"]) -> list[Command] | Fence:
        reply = cast(
            Sequence[Any],
            self._read(
                keys=[keys.epoch(self._pbx), keys.commands(self._pbx)],
                args=[self._epoch, _GROUP, _CONSUMER, count, what],
            ),
        )
        if reply[0] != "ok":
            return Fence(reply[0])
        return [_command(entry, fields or []) for entry, fields in reply[1]]


def _command(entry: str, flat: Sequence[str]) -> Command:
    """What cannot be read becomes a command of no kind, which is refused."""
    fields = dict(zip(flat[::2], flat[1::2], strict=False))
    try:
        data = json.loads(fields.get("data", "{}"))
        deadline = int(fields.get("deadline", "0"))
    except ValueError:
        data, deadline = None, 0
    if not isinstance(data, dict):
        return Command(entry, fields.get("id", ""), "", 0, fields.get("to", ""), {})
    return Command(entry, fields.get("id", ""), fields.get("kind", ""), deadline, fields.get("to", ""), data)
