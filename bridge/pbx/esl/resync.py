"""After a gap: make the tracker's picture equal to the PBX's, and say what was rebuilt rather than seen."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bridge.pbx.calls.book import Book
from bridge.pbx.calls.gap import Resynced, close_gone, greet_new, orphans, over_already, still_rings
from bridge.pbx.calls.model import CONFERENCE, Channel, Line
from bridge.pbx.connecting import NoList, NoReply, NotAllowed, told
from bridge.pbx.esl import queues, transfers
from bridge.pbx.esl.channels import belongs_to, refers
from bridge.pbx.esl.hearing import Event
from bridge.pbx.esl.tracker import Tracker

__all__ = ["Resynced", "Snapshot", "resync", "take_snapshot"]

MAX_CHANNELS = 5_000
"""How many channels are looked at one by one; a PBX of more calls is not one of ours."""
_UP = frozenset({"ACTIVE", "HELD", "UNHELD"})
_WAITS = frozenset({"Waiting", "Trying"})
_NEWER = {"callstate": "Channel-Call-State", "application": "variable_current_application"}
"""What a row of the core's table says, and the header of a dump that says it without delay."""
_OTHERS = ("Other-Leg-Unique-ID", "variable_bridge_to", "variable_signal_bond", "variable_originating_leg_uuid")
"""Where a dump speaks of other channels."""
_BUSY = re.compile(r"database error|sql error|error creating", re.IGNORECASE)
"""What FreeSWITCH says where it can list its channels, but not at this moment."""
_UNSET = "_undef_"
"""What FreeSWITCH writes where there is nothing."""
Row = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the PBX says of itself: its channels, who is bridged with whom, who waits in which queue."""

    channels: tuple[Row, ...]
    calls: tuple[Row, ...] = ()
    dumps: Mapping[str, Event] = field(default_factory=dict)
    """All that is known of each, in the headers of its events."""
    queued: tuple[tuple[str, str], ...] = ()
    """(queue, channel), those who wait longest first."""


def take_snapshot(api: Callable[[str], str], known: Iterable[str] = ()) -> Snapshot:
    """Ask the PBX, by API commands. `known` are the channels of which was heard before.

    Raises NoReply where the PBX does not list its channels, NoList where it never will: that is not the same as having
    none.
    """
    rows = {row["uuid"]: row for row in _listed(api("show channels as json")) if row.get("uuid")}
    calls, queued = _rows(api("show calls as json")), tuple(_queued(api))
    # The core's tables run a third of a second behind, and more where it is busy. What has no dump is no more; and a
    # channel that is not listed yet is alive all the same, if somebody speaks of it.
    asked = dict.fromkeys([*rows, *known, *(uid for _, uid in queued)])
    alive: list[Row] = []
    dumps: dict[str, Event] = {}
    todo = list(asked)
    while todo and len(dumps) < MAX_CHANNELS:
        uid = todo.pop(0)
        if _may_ask(uid) and (dump := _object(api(f"uuid_dump {uid} json"))):
            dumps[uid] = dump = {name: _header(value) for name, value in dump.items()}
            newer = {name: dump[header] for name, header in _NEWER.items() if dump.get(header)}
            alive.append({"uuid": uid, **rows.get(uid, {}), **newer})
            others = dict.fromkeys(other for name in _OTHERS if (other := dump.get(name, "")) and other not in asked)
            asked.update(others)
            todo += others
    return Snapshot(tuple(alive), calls, dumps, queued)


def unseen(api: Callable[[str], str], book: Book) -> bool:
    """Whether the PBX lists a channel by now of which a resync a moment ago could not know."""
    return any(row.get("uuid", "") not in book.channels for row in _rows(api("show channels as json")))


def look_again(tracker: Tracker, snapshot: Snapshot, now: float) -> Resynced:
    """Take in what the first look came too early for: channels that were not listed yet and have not acted since.

    Whatever is known has been brought up to date by its own events, and is left alone.
    """
    book = tracker.book
    new = {uid for uid in snapshot.dumps if uid not in book.channels and not tracker.has_ended(uid)}
    before = {call.id: True for call in book.calls.values()}
    seen = {row["uuid"]: row for row in snapshot.channels}
    together = {uid: pair for uid, pair in _together(snapshot, seen).items() if new & set(pair)}
    some = Snapshot(
        tuple(row for uid, row in seen.items() if uid in new or uid in together),
        (),
        {uid: dump for uid, dump in snapshot.dumps.items() if uid in new or uid in together},
    )
    alive = {uid: dump for uid, dump in snapshot.dumps.items() if uid in new or uid in book.channels}
    _adopt(tracker, alive, together, now)
    _catch_up(tracker, {uid: seen[uid] for uid in new}, now)
    _rejoin(tracker, some, together, now)
    _wait(book, new, snapshot.queued, now)
    appeared = greet_new(book, before, None, now)
    return Resynced(book.take(), appeared, 0)


def still_news(tracker: Tracker, gathered: Sequence[Event]) -> list[Event]:
    """Of the events that came while the PBX was asked, those that are to be heard behind its answers."""
    born = [one for one in gathered if one.get("Event-Name") == "CHANNEL_CREATE"]
    births = [(one.get("Unique-ID", ""), belongs_to(one) or one.get("Unique-ID", "")) for one in born]
    ended = {one.get("Unique-ID", "") for one in gathered if one.get("Event-Name") == "CHANNEL_HANGUP_COMPLETE"}
    over = over_already(tracker.book, births, ended)
    for uid in over:
        tracker.heard_last(uid)
    return [one for one in gathered if one.get("Unique-ID") not in over]


def _may_ask(uid: str) -> bool:
    """Where a profile takes callers' own Call-IDs for its channels', an id may be anything."""
    return len(uid) < 1000 and uid.isprintable() and " " not in uid


def resync(tracker: Tracker, snapshot: Snapshot, since: float | None, now: float) -> Resynced:
    """Close calls that are gone, adopt those not seen before, and bring the others up to date.

    `since` is when the link was lost; None where this process never had one: then each call's own last news counts.
    """
    book = tracker.book
    seen = {row["uuid"]: row for row in snapshot.channels if row.get("uuid")}
    for uid in [uid for uid in book.channels if uid not in seen]:
        tracker.heard_last(uid, book.channels[uid].born)
    for uid in seen:
        tracker.lives(uid)
    together = _together(snapshot, seen)
    links = {uid: belongs_to(_as_created(dump)) or uid for uid, dump in snapshot.dumps.items()}
    # Those whom we knew may all be gone while the call goes on with others.
    left = {uid: snapshot.dumps[uid] for uid in orphans(book, seen, links)}
    _adopt(tracker, left, together, now)
    vanished = close_gone(book, seen, since, now)
    before = {call.id: call.started for call in book.calls.values()}
    still_rings(book, seen)
    for uid, dump in snapshot.dumps.items():
        if uid in book.channels:
            # By what it was sent where it is now is no news: a change from here on is.
            book.channels[uid].route = dump.get("Caller-Transfer-Source", "")
    _meet_the_gone(tracker, snapshot.dumps, now)
    for uid, row in seen.items():
        # Of those who answered, only an agent whom a queue left alone is let go with the caller.
        if uid in book.channels and row.get("callstate") in _UP and not _alone(uid, snapshot.dumps, together):
            book.channels[uid].accepted = True
    _catch_up(tracker, seen, now)
    _end_missing_legs(tracker, seen, now)
    _adopt(tracker, snapshot.dumps, together, now)
    _catch_up(tracker, seen, now)
    _rejoin(tracker, snapshot, together, now)
    _requeue(book, snapshot.queued, now)
    appeared = greet_new(book, before, since, now)
    return Resynced(book.take(), appeared, vanished)


def _meet_the_gone(tracker: Tracker, dumps: Mapping[str, Event], now: float) -> None:
    """Who came to talk and was left again while nobody looked: a channel still names whom it was bridged with."""
    book = tracker.book
    for uid, dump in dumps.items():
        one, other = book.channels.get(uid), book.channels.get(dump.get("variable_bridge_to", ""))
        if one is None or other is None or other.uid in dumps or one.bridge is not None or other.bridge is not None:
            continue
        for channel in (one, other):
            if channel.state != Line.UP:
                _hear(tracker, "CHANNEL_ANSWER", channel.uid, now)
        first, second = (other, one) if one.outgoing else (one, other)
        tracker.meet([first, second], f"{first.uid}/{second.uid}", "basic", now)


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


def _together(snapshot: Snapshot, seen: Container[str]) -> dict[str, tuple[str, str]]:
    """Who is bridged with whom, by either; what a channel says of itself counts more than the core's late table."""
    together: dict[str, tuple[str, str]] = {}
    for pair in _pairs(snapshot):
        if pair[0] in seen and pair[1] in seen:
            for old in {*together.get(pair[0], ()), *together.get(pair[1], ())}:
                del together[old]
            together[pair[0]] = together[pair[1]] = pair
    return together


def _pairs(snapshot: Snapshot) -> Iterator[tuple[str, str]]:
    """Who is bridged with whom; what a channel says of itself counts more than the core's table."""
    for row in sorted(snapshot.calls, key=lambda row: row.get("call_created_epoch", "")):
        yield row.get("uuid", ""), row.get("b_uuid", "")
    for uid, dump in snapshot.dumps.items():
        other = dump.get("variable_bridge_to", "")
        if snapshot.dumps.get(other, {}).get("variable_bridge_to") == uid:
            yield (uid, other) if dump.get("Call-Direction") == "inbound" else (other, uid)


def _adopt(
    tracker: Tracker, dumps: Mapping[str, Event], together: Mapping[str, tuple[str, str]], now: float
) -> None:
    # Oldest first, so that a call is named after its first channel as it would have been.
    def _order(uid: str) -> tuple[str, bool, bool]:
        dump = dumps[uid]
        comes_back = dump.get("Call-Direction") == "inbound" and bool(refers(dump))
        born = dump.get("Caller-Channel-Created-Time", "").zfill(20)
        return born, "variable_originating_leg_uuid" in dump, comes_back

    for uid in sorted(dumps, key=_order):
        if uid not in tracker.book.channels and not _left_behind(uid, dumps, together):
            created = _as_created(dumps[uid])
            if created.get("variable_originating_leg_uuid", uid) not in (uid, *tracker.book.links):
                # Who dialled it is gone; whom it talks to now has taken over.
                partner = next((one for one in together.get(uid, ()) if one != uid), "")
                created["variable_originating_leg_uuid"] = partner
            tracker.hear(created, now)
            _consult(tracker, uid, dumps, now)


def _consult(tracker: Tracker, uid: str, dumps: Mapping[str, Event], now: float) -> None:
    """Whoever was connected as they dialled, and still has both, consults."""
    book, channel = tracker.book, tracker.book.channels.get(uid)
    by = book.channels.get(channel.link) if channel is not None else None
    if channel is None or by is None or by is channel or not channel.outgoing or not (channel.real and by.real):
        return
    call = book.calls[channel.call]
    if call.consultation or call.id != by.call or channel.offered:
        return
    others = (leg for leg in book.live_legs(call) if leg is not channel and by.uid != leg.uid)
    for other in others:
        near = by.uid == other.link or other.uid == by.link
        if near and all(_answered(dumps.get(leg.uid, {})) < channel.born for leg in (other, by)):
            transfers.consult(book, by, channel, now)
            return


def _answered(dump: Event) -> float:
    """When it was answered; late where it was not."""
    at = dump.get("Caller-Channel-Answered-Time", "")
    return int(at) / 1e6 if at.isascii() and at.isdecimal() and at != "0" else math.inf


def _left_behind(uid: str, dumps: Mapping[str, Event], together: Mapping[str, tuple[str, str]]) -> bool:
    """An agent's leg of a queue that has nobody, and whose caller is gone; see queues.left_behind."""
    gone = dumps[uid].get("variable_cc_member_session_uuid", "") not in dumps
    return gone and _alone(uid, dumps, together) and dumps[uid].get("Channel-Call-State") == "ACTIVE"


def _alone(uid: str, dumps: Mapping[str, Event], together: Mapping[str, tuple[str, str]]) -> bool:
    """Whether this is an agent's leg of a queue that has nobody."""
    dump = dumps.get(uid, {})
    agents = dump.get("variable_cc_side") == "agent" and dump.get("Call-Direction") == "outbound"
    # On its way to somebody else, by a transfer.
    bond, caller = dump.get("variable_signal_bond", ""), dump.get("variable_cc_member_session_uuid")
    return agents and uid not in together and (bond == caller or bond not in dumps)


def _as_created(dump: Event) -> dict[str, str]:
    """A dump with what transfers and bridges have changed since the channel's birth put back."""
    created = {**dump, "Event-Name": "CHANNEL_CREATE"}
    for item in ("Caller-ID-Number", "Caller-ID-Name"):
        if dump.get(f"Caller-Orig-{item}"):
            created[f"Caller-{item}"] = dump[f"Caller-Orig-{item}"]
    incoming = dump.get("Call-Direction") == "inbound"
    first = dump.get("variable_sip_req_user" if incoming else "variable_sip_to_user")
    if first:
        created["Caller-Destination-Number"] = first
    if not incoming and dump.get("Channel-Presence-ID"):
        # A phone that has dialled since carries the name of whom it dialled.
        user, _, domain = dump["Channel-Presence-ID"].partition("@")
        created["variable_dialed_user"], created["variable_dialed_domain"] = user, domain
    # Whom it was bridged with since is not who dialled it; the event's own time is not its birth's.
    for name in ("Other-Leg-Unique-ID", "Event-Date-Timestamp"):
        created.pop(name, None)
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


def _rejoin(
    tracker: Tracker, snapshot: Snapshot, together: Mapping[str, tuple[str, str]], now: float
) -> None:
    book = tracker.book
    rooms = {uid: room for uid, dump in snapshot.dumps.items() if (room := _room(dump))}
    for uid in snapshot.dumps:
        channel = book.channels.get(uid)
        if channel is None or channel.bridge is None:
            continue
        if channel.bridge != rooms.get(uid) and not _holds(book, channel, together.get(uid)):
            # All leave before any enters, so that nobody seems to meet who did not.
            tracker.part(channel, now)
    for row in snapshot.channels:
        channel = book.channels.get(row["uuid"])
        if channel is not None:
            channel.parked = row.get("application") == "valet_park" and row["uuid"] not in together
            if channel.parked:
                channel.slot = snapshot.dumps.get(row["uuid"], {}).get("variable_valet_lot_extension", "")
            if channel.uid in rooms:
                tracker.meet([channel], rooms[channel.uid], CONFERENCE, now)
    for first, second in dict.fromkeys(together.values()):
        # Who has gone into a conference may still be listed with whom it was bridged before.
        pair = [book.channels[uid] for uid in (first, second) if uid in book.channels and uid not in rooms]
        if len(pair) == 2 and (pair[0].bridge is None or pair[0].bridge != pair[1].bridge):
            tracker.meet(pair, f"{first}/{second}", "basic", now)


def _room(dump: Event) -> str:
    """The conference in which a channel is now; one that is being hung up has left it."""
    room = dump.get("variable_conference_uuid", "")
    inside = dump.get("variable_current_application") == "conference" and dump.get("Answer-State") != "hangup"
    return f"conference/{room}" if room and inside else ""


def _holds(book: Book, channel: Channel, pair: tuple[str, str] | None) -> bool:
    """Whether the bridge in which we think this channel to be is the one it is in."""
    bridge = book.bridges[channel.bridge or ""]
    return pair is not None and set(pair) == set(bridge.members)


def _requeue(book: Book, queued: tuple[tuple[str, str], ...], now: float) -> None:
    waiting = {uid: queue for queue, uid in queued}
    for call in list(book.calls.values()):
        if call.queue is not None and not any(uid in waiting for uid in call.legs):
            queues.leave(book, call, "answered" if call.answer_seen else "left", now)
    _wait(book, waiting, queued, now)


def _wait(book: Book, who: Container[str], queued: tuple[tuple[str, str], ...], now: float) -> None:
    places: dict[str, int] = {}
    for queue, uid in queued:
        places[queue] = places.get(queue, 0) + 1
        channel = book.channels.get(uid)
        if channel is not None and uid in who:
            queues.join(book, book.calls[channel.call], queues.name(queue), places[queue], now)


# --- reading what the PBX answers ---


def _queued(api: Callable[[str], str]) -> list[tuple[str, str]]:
    found = []
    try:
        for queue in (row.get("name", "") for row in _table(api("callcenter_config queue list"))):
            if not queue or any(letter.isspace() for letter in queue):
                continue
            members = api(f"callcenter_config queue list members {queue}")
            found += [(queue, uid) for uid, state in _members(members, queue) if state in _WAITS and uid]
    except NotAllowed:
        # Without the permission, or the module, there are calls all the same.
        return []
    return found


def _members(text: str, queue: str) -> Iterator[tuple[str, str]]:
    """The channel and the state of each in the queue, whatever their names hold: bars and lines of their own too."""
    names, *lines = text.rstrip().removesuffix("+OK").rstrip("\n").split("\n")
    columns = names.split("|")
    if "session_uuid" not in columns or "state" not in columns:
        return
    # Number and name, the caller's own words, stand between: what is before them counts from the left, the rest from
    # the right.
    channel, state = columns.index("session_uuid"), columns.index("state") - len(columns)
    rows: list[str] = []
    for line in lines:
        if not rows or (line.startswith(f"{queue}|") and rows[-1].count("|") >= len(columns) - 1):
            rows.append(line)
        else:
            rows[-1] += line
    for cells in (row.split("|") for row in rows):
        if len(cells) >= len(columns):
            yield cells[channel], cells[state]


def _table(text: str) -> list[Row]:
    """A list of mod_callcenter's: names, then rows, with bars between."""
    lines = [line for line in text.splitlines() if "|" in line]
    if not lines:
        return []
    names = lines[0].split("|")
    return [dict(zip(names, line.split("|"), strict=False)) for line in lines[1:]]


def _listed(text: str) -> tuple[Row, ...]:
    if not isinstance(_object(text).get("row_count"), int):
        busy = not text.strip() or _BUSY.search(text)
        raise (NoReply if busy else NoList)(f"the PBX does not list its channels: {told(text.strip()[:80])}")
    return _rows(text)


def _rows(text: str) -> tuple[Row, ...]:
    rows = _object(text).get("rows", [])
    if not isinstance(rows, list):
        return ()
    return tuple({name: _text(value) for name, value in row.items()} for row in rows if isinstance(row, dict))


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text, strict=False)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _header(value: object) -> str:
    """As the codec gives an event's: an array as plain shows it, and nothing that cannot be written as UTF-8."""
    if isinstance(value, list):
        value = f"ARRAY::{'|:'.join(map(_text, value))}"
    text = _text(value)
    return "" if text == _UNSET else text.encode("utf-8", "replace").decode()


def _text(value: object) -> str:
    return value if isinstance(value, str) else "" if value is None else str(value)
