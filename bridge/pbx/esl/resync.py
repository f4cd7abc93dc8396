"""After a gap: make the tracker's picture equal to the PBX's, and say what was rebuilt rather than seen."""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from bridge.pbx.calls.book import Book
from bridge.pbx.calls.gap import Resynced, close_gone, greet_new
from bridge.pbx.calls.model import CONFERENCE, Channel, Line
from bridge.pbx.connecting import NotAllowed
from bridge.pbx.esl import queues
from bridge.pbx.esl.hearing import Event
from bridge.pbx.esl.tracker import Tracker

__all__ = ["Resynced", "Snapshot", "resync", "take_snapshot"]

MAX_CHANNELS = 5_000
"""How many channels are looked at one by one; a PBX of more calls is not one of ours."""
_UP = frozenset({"ACTIVE", "HELD", "UNHELD"})
_WAITS = frozenset({"Waiting", "Trying"})
Row = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the PBX says of itself: its channels, who is bridged with whom, who waits in which queue."""

    channels: tuple[Row, ...]
    calls: tuple[Row, ...] = ()
    dumps: Mapping[str, Event] = field(default_factory=dict)
    """All that is known of a channel, in the headers of its events; not of those whose place is known without."""
    queued: tuple[tuple[str, str], ...] = ()
    """(queue, channel), those who wait longest first."""


def take_snapshot(api: Callable[[str], str], known: Container[str] = ()) -> Snapshot:
    """Ask the PBX, by API commands. `known` are channels of which nothing more need be asked."""
    channels = _rows(api("show channels as json"))
    calls = _rows(api("show calls as json"))
    # The core's tables run a moment behind: who is in none of its calls may be talking all the same.
    placed = {row.get(end, "") for row in calls for end in ("uuid", "b_uuid")}
    dumps: dict[str, Event] = {}
    for row in channels[:MAX_CHANNELS]:
        uid = row.get("uuid", "")
        if uid and not (uid in known and uid in placed):
            dump = _object(api(f"uuid_dump {uid} json"))
            if dump:
                dumps[uid] = {name: _text(value) for name, value in dump.items()}
    # What has no dump is no more.
    alive = tuple(row for row in channels if (uid := row.get("uuid", "")) in dumps or (uid in known and uid in placed))
    return Snapshot(alive, calls, dumps, tuple(_queued(api)))


def resync(tracker: Tracker, snapshot: Snapshot, since: float | None, now: float) -> Resynced:
    """Close calls that are gone, adopt those not seen before, and bring the others up to date.

    `since` is when the link was lost; None where this process never had one: then each call's own last news counts.
    """
    book = tracker.book
    seen = {row["uuid"]: row for row in snapshot.channels if row.get("uuid")}
    vanished = close_gone(book, seen, since, now)
    before = set(book.calls)
    _end_missing_legs(tracker, seen, now)
    _adopt(tracker, snapshot.dumps, seen, now)
    _catch_up(tracker, seen, now)
    _rejoin(tracker, seen, snapshot, now)
    _requeue(book, snapshot.queued, now)
    appeared = greet_new(book, before, since, now)
    return Resynced(book.take(), appeared, vanished)


def _end_missing_legs(tracker: Tracker, seen: Mapping[str, Row], now: float) -> None:
    """Legs that went while nobody looked: why is not known, so the most harmless reading is taken."""
    book = tracker.book
    for call in book.calls.values():
        for uid in call.legs:
            leg = book.channels[uid]
            if leg.outgoing and uid != call.first and seen.get(uid, {}).get("callstate") in _UP:
                call.answer_seen = True
    for uid in [uid for uid in book.channels if uid not in seen]:
        if uid in book.channels:
            tracker.hear({"Event-Name": "CHANNEL_HANGUP_COMPLETE", "Unique-ID": uid}, now)


def _adopt(tracker: Tracker, dumps: Mapping[str, Event], seen: Mapping[str, Row], now: float) -> None:
    # Oldest first, so that a call is named after its first channel as it would have been.
    def _order(uid: str) -> tuple[str, bool]:
        dump = dumps[uid]
        return dump.get("Caller-Channel-Created-Time", "").zfill(20), "Other-Leg-Unique-ID" in dump

    for uid in sorted((uid for uid in dumps if uid in seen), key=_order):
        if uid not in tracker.book.channels:
            tracker.hear(_as_created(dumps[uid]), now)


def _as_created(dump: Event) -> Event:
    """A dump with what transfers and bridges have changed since the channel's birth put back."""
    created = {**dump, "Event-Name": "CHANNEL_CREATE"}
    for item in ("Caller-ID-Number", "Caller-ID-Name"):
        if dump.get(f"Caller-Orig-{item}"):
            created[f"Caller-{item}"] = dump[f"Caller-Orig-{item}"]
    first = dump.get("variable_sip_req_user" if dump.get("Call-Direction") == "inbound" else "variable_sip_to_user")
    if first:
        created["Caller-Destination-Number"] = first
    if dump.get("Call-Direction") == "outbound" and not dump.get("variable_originating_leg_uuid"):
        # Whom it was bridged with since is not who dialled it.
        created.pop("Other-Leg-Unique-ID", None)
    created.pop("Event-Date-Timestamp", None)
    return created


def _catch_up(tracker: Tracker, seen: Mapping[str, Row], now: float) -> None:
    """What became of each channel meanwhile: rings, answered, held."""
    for uid, row in seen.items():
        channel = tracker.book.channels.get(uid)
        state = row.get("callstate", "")
        if channel is None:
            continue
        if state in _UP and channel.state != Line.UP:
            _hear(tracker, "CHANNEL_ANSWER", uid, now)
        elif state == "RINGING" and not channel.offered:
            _hear(tracker, "CHANNEL_PROGRESS", uid, now)
        if (state == "HELD") != channel.held:
            _hear(tracker, "CHANNEL_HOLD" if state == "HELD" else "CHANNEL_UNHOLD", uid, now)


def _hear(tracker: Tracker, name: str, uid: str, now: float) -> None:
    tracker.hear({"Event-Name": name, "Unique-ID": uid}, now)


def _pairs(snapshot: Snapshot) -> Iterator[tuple[str, str]]:
    """Who is bridged with whom; what a channel says of itself counts more than the core's table."""
    for row in sorted(snapshot.calls, key=lambda row: row.get("call_created_epoch", "")):
        yield row.get("uuid", ""), row.get("b_uuid", "")
    for uid, dump in snapshot.dumps.items():
        other = dump.get("variable_bridge_to", "")
        if snapshot.dumps.get(other, {}).get("variable_bridge_to") == uid:
            yield (uid, other) if dump.get("Call-Direction") == "inbound" else (other, uid)


def _rejoin(tracker: Tracker, seen: Mapping[str, Row], snapshot: Snapshot, now: float) -> None:
    book = tracker.book
    together: dict[str, tuple[str, str]] = {}
    for first, second in _pairs(snapshot):
        if first in seen and second in seen:
            for old in {*together.get(first, ()), *together.get(second, ())}:
                del together[old]
            together[first] = together[second] = (first, second)
    for uid in seen:
        channel = book.channels.get(uid)
        if channel is not None and channel.bridge is not None and not _holds(book, channel, together.get(uid)):
            # All leave before any enters, so that nobody seems to meet who did not.
            tracker.part(channel, now)
    for first, second in dict.fromkeys(together.values()):
        pair = [book.channels[uid] for uid in (first, second) if uid in book.channels]
        if len(pair) == 2 and (pair[0].bridge is None or pair[0].bridge != pair[1].bridge):
            tracker.meet(pair, f"{first}/{second}", "basic", now)


def _holds(book: Book, channel: Channel, pair: tuple[str, str] | None) -> bool:
    """Whether the bridge in which we think this channel to be is the one it is in."""
    bridge = book.bridges[channel.bridge or ""]
    if pair is None:
        # Who is in which conference is not asked; it concerns no other call.
        return bridge.type == CONFERENCE
    return set(pair) == set(bridge.members)


def _requeue(book: Book, queued: tuple[tuple[str, str], ...], now: float) -> None:
    waiting = {uid: queue for queue, uid in queued}
    for call in list(book.calls.values()):
        if call.queue is not None and not any(uid in waiting for uid in call.legs):
            queues.leave(book, call, "answered" if call.answer_seen else "left", now)
    places: dict[str, int] = {}
    for queue, uid in queued:
        places[queue] = places.get(queue, 0) + 1
        channel = book.channels.get(uid)
        if channel is not None:
            queues.join(book, book.calls[channel.call], queues.name(queue), places[queue], now)


# --- reading what the PBX answers ---


def _queued(api: Callable[[str], str]) -> list[tuple[str, str]]:
    found = []
    try:
        for queue in (row.get("name", "") for row in _table(api("callcenter_config queue list"))):
            if not queue or any(letter.isspace() for letter in queue):
                continue
            for member in _table(api(f"callcenter_config queue list members {queue}")):
                if member.get("state") in _WAITS and member.get("session_uuid"):
                    found.append((queue, member["session_uuid"]))
    except NotAllowed:
        # Without the permission, or the module, there are calls all the same.
        return []
    return found


def _table(text: str) -> list[Row]:
    """A list of mod_callcenter's: names, then rows, with bars between."""
    lines = [line for line in text.splitlines() if "|" in line]
    if not lines:
        return []
    names = lines[0].split("|")
    return [dict(zip(names, line.split("|"), strict=False)) for line in lines[1:]]


def _rows(text: str) -> tuple[Row, ...]:
    rows = _object(text).get("rows", [])
    if not isinstance(rows, list):
        return ()
    return tuple({name: _text(value) for name, value in row.items()} for row in rows if isinstance(row, dict))


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else "" if value is None else str(value)
