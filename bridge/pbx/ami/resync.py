"""After a gap: make the tracker's picture equal to the PBX's, and say what was rebuilt rather than seen."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bridge.domain.calls import Expected
from bridge.pbx.ami import transfers
from bridge.pbx.ami.aides import Aide, Role
from bridge.pbx.ami.codec import Message
from bridge.pbx.ami.names import HIDDEN, device_of, facts, may_be_restricted
from bridge.pbx.ami.tracker import Tracker
from bridge.pbx.calls.book import Book
from bridge.pbx.calls.gap import Resynced, close_gone, greet_new, orphans, over_already, still_rings
from bridge.pbx.calls.model import Channel, Line
from bridge.pbx.calls.parties import known

_ATTEMPT = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_DIALLED_BY = frozenset({"AppDial", "AppDial2", "AppQueue"})
_CALLS = {"AppDial": "Dial", "AppQueue": "Queue"}
"""What a leg runs, and what the channel runs that calls it."""
_OWN_CONTEXT = "Local/first@ringbridge-leg"

CHANNELS, BRIDGES, QUEUES = "Action: CoreShowChannels", "Action: BridgeList", "Action: QueueStatus"
_PRESENTATION = "CALLERID(pres)"
STATUS = f"Action: Status\r\nVariables: {_PRESENTATION},TRANSFERERNAME"
"""Of each channel what CoreShowChannels does not say: which number was dialled, whether it may be shown, and of a
consultation's wire, who consults."""
QUESTIONS = (CHANNELS, BRIDGES, QUEUES, STATUS)
"""All that a resync asks, in this order."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the PBX says of itself: CoreShowChannel, BridgeListItem, QueueEntry and Status items."""

    channels: tuple[Mapping[str, str], ...]
    bridges: tuple[Mapping[str, str], ...] = ()
    queued: tuple[Mapping[str, str], ...] = ()
    status: tuple[Mapping[str, str], ...] | None = None
    """None where it was not asked."""
    members: tuple[Mapping[str, str], ...] = ()
    """What else stands in the queues."""

    @classmethod
    def of(cls, answers: Mapping[str, Sequence[Mapping[str, str]]]) -> Snapshot:
        """Of the items that came in answer to each of the QUESTIONS."""
        queued = [item for item in answers[QUEUES] if item.get("Event") == "QueueEntry"]
        status, queues = tuple(answers[STATUS]), tuple(answers[QUEUES])
        return cls(tuple(answers[CHANNELS]), tuple(answers[BRIDGES]), tuple(queued), status, queues)


def resync(tracker: Tracker, snapshot: Snapshot, since: float | None, now: float) -> Resynced:
    """Close calls that are gone, adopt those not seen before, and bring the others up to date.

    `since` is when the link was lost; None where this process never had one: then each call's own last news counts.
    """
    book = tracker.book
    seen = _seen(tracker, snapshot)
    links = {uid: item.get("Linkedid", "") for uid, item in seen.items()}
    # Those whom we knew may all be gone while the call goes on with others.
    _adopt(tracker, {uid: seen[uid] for uid in orphans(book, seen, links)}, now)
    vanished = close_gone(book, seen, since, now)
    known_before = {call.id: call.started for call in book.calls.values()}
    still_rings(book, seen)
    _end_missing_legs(tracker, seen, now)
    _adopt(tracker, seen, now)
    kinds = {item.get("BridgeUniqueid", ""): item.get("BridgeType", "basic") for item in snapshot.bridges}
    _rejoin(tracker, seen, kinds, now)
    _rehold(tracker, seen, now)
    _requeue(tracker, snapshot.queued, now)
    appeared = greet_new(book, known_before, since, now)
    return Resynced(book.take(), appeared, vanished)


def still_news(tracker: Tracker, gathered: Sequence[Message]) -> list[Message]:
    """Of the events that came while the PBX was asked, those that are to be heard behind its answers."""
    births = [(one.get("Uniqueid", ""), one.get("Linkedid", "")) for one in gathered if one.event == "Newchannel"]
    ended = {one.get("Uniqueid", "") for one in gathered if one.event == "Hangup"}
    over = over_already(tracker.book, births, ended)
    return [one for one in gathered if one.event != "Newchannel" or one.get("Uniqueid") not in over]


def _seen(tracker: Tracker, snapshot: Snapshot) -> dict[str, Mapping[str, str]]:
    """Each channel with all that was said of it; the number of a caller who must not be shown is not."""
    seen = {item["Uniqueid"]: item for item in snapshot.channels if item.get("Uniqueid")}
    if snapshot.status is None:
        return seen
    status = {item.get("Uniqueid", ""): item for item in snapshot.status}
    return {uid: {**item, **_more(tracker, item, status.get(uid, {}))} for uid, item in seen.items()}


def _more(tracker: Tracker, item: Mapping[str, str], status: Mapping[str, str]) -> dict[str, str]:
    variables = dict(line.partition("=")[::2] for line in status.get("Variable", "").split("\n"))
    more = {"Dialled": status.get("DNID", ""), "Transferer": known(variables.get("TRANSFERERNAME")) or ""}
    restricted = variables.get(_PRESENTATION, "prohib").startswith("prohib")
    if restricted and may_be_restricted(tracker.parties, item):
        more |= {"CallerIDNum": HIDDEN, "CallerIDName": HIDDEN}
    return more


def _end_missing_legs(tracker: Tracker, seen: Mapping[str, Mapping[str, str]], now: float) -> None:
    """Legs that went while nobody looked: why is not known, so the most harmless reading is taken."""
    book = tracker.book
    for item in seen.values():
        call = book.calls.get(book.links.get(item.get("Linkedid", ""), ""))
        if call is not None and item.get("Application") in _DIALLED_BY and item.get("ChannelState") == "6":
            call.answer_seen = True
    for uid in [uid for uid in book.channels if uid not in seen]:
        if uid in book.channels:
            tracker.hear(Message({"Event": "Hangup", "Uniqueid": uid}.items()), now)


def _adopt(tracker: Tracker, seen: Mapping[str, Mapping[str, str]], now: float) -> None:
    # Oldest first, so that a call is named after its first channel as it would have been.
    def _order(pair: tuple[str, Mapping[str, str]]) -> tuple[float, bool, int]:
        return -_age(pair[1].get("Duration", "")), pair[0] != pair[1].get("Linkedid"), _serial(pair[0])

    for uid, item in sorted(seen.items(), key=_order):
        state = item.get("ChannelState", "0")
        channel = tracker.book.channels.get(uid)
        if channel is None:
            channel = _take_in(tracker, uid, item, seen, now)
            if channel is None:
                continue
        elif item.get("Application") in _DIALLED_BY and not channel.dialled:
            begins = {"Event": "DialBegin", "Uniqueid": _dialler(tracker.book, item, seen) or "", "DestUniqueid": uid}
            tracker.hear(Message(begins.items()), now)
        _consult(tracker, channel, item, seen, now)
        if str(int(channel.state)) != state or (channel.outgoing and not channel.offered):
            tracker.hear(Message({**item, "Event": "Newstate"}.items()), now)


def _take_in(
    tracker: Tracker, uid: str, item: Mapping[str, str], seen: Mapping[str, Mapping[str, str]], now: float
) -> Channel | None:
    """A channel of which nothing was heard before."""
    _expect_again(tracker, item)
    dialled, state = item.get("Application") in _DIALLED_BY, item.get("ChannelState", "0")
    said = {
        **item,
        "Event": "Newchannel",
        "ChannelState": "5" if dialled else ("4" if state == str(int(Line.UP)) else state),
        "Linkedid": _belongs_to(tracker, uid, item, seen, dialled=dialled),
        # The dialplan has gone on since; the number that was dialled has not.
        "Exten": item.get("Dialled") or item.get("Exten", ""),
    }
    tracker.hear(Message(said.items()), now - _age(item.get("Duration", "")))
    channel = tracker.book.channels.get(uid)
    if channel is not None:
        channel.dialled = channel.dialled or dialled
    return channel


def _consult(
    tracker: Tracker, channel: Channel, item: Mapping[str, str], seen: Mapping[str, Mapping[str, str]], now: float
) -> None:
    """Open the consultation of which this is the wire, before the phone that it calls is taken for the customer's."""
    book, other = tracker.book, tracker.book.peer(channel)
    if not channel.wire or other is None:
        return
    first, second = (channel, other) if channel.half == "1" else (other, channel)
    asked = seen.get(first.uid, {})
    bridge, name = asked.get("BridgeId"), asked.get("Transferer")
    by = next((uid for uid, row in seen.items() if row.get("Channel") == name), "")
    met = seen.get(by, {}).get("BridgeId")
    # Whoever consults follows the wire into its bridge, and is in none for a moment; who has left is in none either.
    alone = not any(row.get("BridgeId") == bridge for uid, row in seen.items() if uid != first.uid)
    if met != bridge and (met or not alone):
        return
    if bridge and name and by in book.channels:
        transfers.consulting(book, book.channels[by], first, second, now)


def _belongs_to(
    tracker: Tracker, uid: str, item: Mapping[str, str], seen: Mapping[str, Mapping[str, str]], *, dialled: bool
) -> str:
    """To which channel a new one belongs: a Linkedid says too with whom it has met since."""
    link = item.get("Linkedid", "")
    real = bool(facts(item.get("Channel", ""))["real"])
    if real and not dialled and item.get("ChannelState") == str(int(Line.UP)):
        # This phone dialled in: it had a call of its own.
        return uid
    book, bridge = tracker.book, item.get("BridgeId", "")
    if dialled and (consults := _dialler(book, item, seen)):
        return consults
    partners = [one for one, other in seen.items() if bridge and one != uid and other.get("BridgeId", "") == bridge]
    calls = {book.channels[one].call: one for one in partners if one in book.channels}
    if dialled and calls and book.links.get(link) not in calls:
        return next(iter(calls.values()))
    return link


def _dialler(book: Book, item: Mapping[str, str], seen: Mapping[str, Mapping[str, str]]) -> str | None:
    """The end of a consultation's wire that calls this leg, by what it is doing: CoreShowChannels says no more."""
    device, doing = device_of(item.get("Channel", "")), _CALLS.get(item.get("Application", ""), "")
    for uid, other in seen.items():
        channel = book.channels.get(uid)
        if channel is None or not channel.wire or not book.calls[channel.call].consultation:
            continue
        if other.get("Linkedid") != item.get("Linkedid") or other.get("Application") != doing:
            continue
        if doing == "Queue" or device in other.get("ApplicationData", ""):
            return uid
    return None


def _expect_again(tracker: Tracker, item: Mapping[str, str]) -> None:
    """A dial of ours from before this process: its channel's id is the attempt's, and names nothing else."""
    uid, link = item.get("Uniqueid", ""), item.get("Linkedid", "")
    for attempt in (uid, link):
        if not _ATTEMPT.fullmatch(attempt) or attempt in tracker.book.links:
            continue
        if attempt not in tracker.book.expected and (
            item.get("Channel", "").startswith(_OWN_CONTEXT) or attempt == link
        ):
            tracker.expect(Expected(attempt=attempt))


def _rejoin(
    tracker: Tracker, seen: Mapping[str, Mapping[str, str]], kinds: Mapping[str, str], now: float
) -> None:
    wrong: dict[str, str] = {}
    for uid, item in seen.items():
        channel = tracker.book.channels.get(uid)
        bridge = item.get("BridgeId", "") or item.get("BridgeID", "")
        if channel is None or (channel.bridge or "") == bridge:
            continue
        wrong[uid] = bridge
        # All leave before any enters, so that nobody seems to meet who did not.
        if channel.bridge is not None:
            leaves = {"Event": "BridgeLeave", "Uniqueid": uid, "BridgeUniqueid": channel.bridge}
            tracker.hear(Message(leaves.items()), now)
    # Whoever consults comes to the wire, as it went; else the wire would seem to come to them.
    for uid, bridge in sorted(wrong.items(), key=lambda pair: bool(tracker.book.channels[pair[0]].real)):
        channel = tracker.book.channels.get(uid)
        if bridge and channel is not None:
            # Nobody saw who dialled a wire, so none is taken for a consultation.
            channel.dialled = True
            _enter(tracker, uid, bridge, kinds, now)
    book = tracker.book
    for channel in [channel for channel in book.channels.values() if channel.guest_of and channel.bridge]:
        if not any(other.call == channel.guest_of for other in book.reach(channel)):
            # Back from its consultation, in the bridge where it is still known to be from before.
            bridge = channel.bridge or ""
            book.leave(channel)
            _enter(tracker, channel.uid, bridge, kinds, now)


def _enter(tracker: Tracker, uid: str, bridge: str, kinds: Mapping[str, str], now: float) -> None:
    kind = kinds.get(bridge, "basic")
    enters = {"Event": "BridgeEnter", "Uniqueid": uid, "BridgeUniqueid": bridge, "BridgeType": kind}
    tracker.hear(Message(enters.items()), now)


def _rehold(tracker: Tracker, seen: Mapping[str, Mapping[str, str]], now: float) -> None:
    """Who is held by a channel of ours is held as long as that is there."""
    for uid in [uid for uid in tracker.aides if uid not in seen]:
        tracker.hear(Message({"Event": "Hangup", "Uniqueid": uid}.items()), now)
    for aide in list(tracker.aides.values()):
        if aide.role is Role.HOLD and not aide.far:
            tracker.held_by(aide, now)
    for channel in list(tracker.book.channels.values()):
        if channel.holder and channel.holder not in seen:
            tracker.held_no_more(Aide(channel.holder, "", Role.HOLD, "", channel.uid, far=False), now)


def _requeue(tracker: Tracker, queued: tuple[Mapping[str, str], ...], now: float) -> None:
    waiting = {item.get("Uniqueid", ""): item for item in queued}
    for call in list(tracker.book.calls.values()):
        if call.queue is not None and not any(uid in waiting for uid in call.legs):
            first = next(iter(call.legs), "")
            tracker.hear(Message({"Event": "QueueCallerLeave", "Uniqueid": first}.items()), now)
    for uid, item in waiting.items():
        if uid in tracker.book.channels:
            tracker.hear(Message({**item, "Event": "QueueCallerJoin", "Uniqueid": uid}.items()), now)


def _serial(uid: str) -> int:
    """Asterisk counts its channels; the number ends their ids, but for those that somebody chose."""
    end = uid.rsplit(".", 1)[-1]
    return int(end) if end.isascii() and end.isdecimal() else 0


def _age(duration: str) -> float:
    """Seconds of CoreShowChannel's `HH:MM:SS`."""
    parts = duration.split(":")
    if len(parts) != 3 or not all(part.isdecimal() for part in parts):
        return 0.0
    hours, minutes, seconds = (int(part) for part in parts)
    return hours * 3600.0 + minutes * 60.0 + seconds
