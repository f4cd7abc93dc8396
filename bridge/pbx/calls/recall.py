"""Calls that are known from the call history alone: the live picture was lost together with the process that had it.

Where a resync finds a call's channel on the PBX, the call goes on under the same id and with the next number: it
started once. What the history cannot tell (who hung on which wire, who dialled whom) is as for any call adopted.
"""

from __future__ import annotations

from collections.abc import Iterable

from bridge.domain.calls import Remembered
from bridge.pbx.calls.model import Call, Channel

_NEAR_SECONDS = 5.0
"""A channel's birth is told in whole seconds after a gap, by another clock."""


class Recalled:
    """The calls of the history, until the first resync has found those that are alive."""

    def __init__(self) -> None:
        self._known: dict[str, Remembered] = {}
        self._found: dict[str, Remembered] = {}

    def note(self, calls: Iterable[Remembered]) -> None:
        """Before the link starts."""
        self._known = {call.id: call for call in calls}

    def find(self, ids: Iterable[str], born: float) -> Remembered | None:
        """The call that had one of these ids, alone or with the time of its birth behind it; found once."""
        if not self._known:
            return None
        for base in ids:
            for name in (base, *(other for other in self._known if other.startswith(f"{base}-"))):
                known = self._known.get(name)
                if known is None or (name != base and not _near(name[len(base) + 1 :], born)):
                    continue
                del self._known[name]
                self._found[name] = known
                return known
        return None

    def last_news(self, call: Call) -> float | None:
        """When the history last heard of a call that was found again; None for any other."""
        found = self._found.get(call.id)
        return None if found is None else found.last

    def recognise(self, channel: Channel, call: Call) -> None:
        """What the history says of this channel's phone: it rang, it talked. That need not be said again."""
        known = self._found.get(call.id)
        if known is None or not channel.real:
            return
        if channel.device in known.offered:
            channel.offered = call.offered = True
        if channel.device in known.talked:
            channel.offered = channel.accepted = call.answer_seen = True
            call.heard.append(channel.uid)
            if not channel.trunk and channel.device not in call.talked:
                call.talked.append(channel.device)
        channel.held = channel.device in known.held

    def forget(self) -> list[Remembered]:
        """The picture is whole again. Returns the calls that were not found: they are over."""
        lost = list(self._known.values())
        self._known, self._found = {}, {}
        return lost


def go_on(call: Call, known: Remembered) -> None:
    """Give a call that was found again what the history knows of it."""
    call.seq, call.born, call.last = known.seq, known.born, known.last
    call.direction = known.direction or call.direction
    call.caller, call.callee = known.caller or call.caller, known.callee or call.callee
    call.client, call.queue = known.client or call.client, known.queue
    call.connected_at = known.connected_at
    if known.talked:
        call.talk_since = known.connected_at


def _near(text: str, born: float) -> bool:
    return text.isdecimal() and abs(int(text) / 1000 - born) < _NEAR_SECONDS
