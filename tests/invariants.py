"""What holds of any tracker after any event, whatever the PBX said: the book is sound, and so is what was published.

    watch = Watch(tracker)
    watch.saw(tracker.feed([event], at).events)    # after each event; raises Broken
    watch.over()                                   # when no call should be left
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from bridge.domain.calls import CallEvent, CallEventType
from bridge.pbx.calls.book import Book
from bridge.pbx.calls.model import Call, Channel

_LAST = {CallEventType.ENDED, CallEventType.MERGED}
_BEGINS = {CallEventType.STARTED: "from", CallEventType.OFFERED: "party", CallEventType.ENDED: "from"}
_HALF_A_WIRE = ("Local/", "loopback/")


class Broken(AssertionError):
    """What does not hold, a line each."""


class Watch:
    """Looks on while a tracker hears events."""

    def __init__(self, tracker: Any, before: Iterable[CallEvent] = ()) -> None:
        self.tracker = tracker
        self.said: list[CallEvent] = []
        self.seq: Counter[str] = Counter()
        self.ended: dict[str, CallEventType] = {}
        self.into: dict[str, str] = {}
        self.named: dict[str, set[str | None]] = {}
        self._published(before)

    def saw(self, events: Iterable[CallEvent]) -> None:
        """The tracker has heard something, and `events` came of it."""
        found = [*self._published(events), *unsound(self.tracker.book)]
        if self.tracker.faults:
            found.append(f"{self.tracker.faults} events were not understood")
        found += [f"{call}: alive after its end" for call in self.tracker.book.calls if call in self.ended]
        found += [
            f"{call.id}: seq is {call.seq}, published were {self.seq[call.id]}"
            for call in self.tracker.book.calls.values()
            if call.seq != self.seq[call.id]
        ]
        if found:
            raise Broken("\n".join(found))

    def over(self) -> None:
        """The PBX has no channel left: every call has met its end, and nothing is kept."""
        found = [f"{call}: started and never ended" for call in self.seq if call not in self.ended]
        found += [f"left: {what}" for what in left(self.tracker.book)]
        found += [f"{call}: merged into {to}, which never was" for call, to in self.into.items() if to not in self.seq]
        if found:
            raise Broken("\n".join(found))

    def _published(self, events: Iterable[CallEvent]) -> list[str]:
        found: list[str] = []
        for event in events:
            assert event.call is not None
            found += self._one(event, event.call)
            self.said.append(event)
        return found

    def _one(self, event: CallEvent, call: str) -> Iterator[str]:
        name = f"{call}: {event.type.value}"
        self.seq[call] += 1
        if event.seq != self.seq[call]:
            yield f"{name} has seq {event.seq}, expected {self.seq[call]}"
        if (event.seq == 1) != (event.type is CallEventType.STARTED):
            yield f"{name} is number {event.seq}"
        if call in self.ended:
            yield f"{name} after the end"
        if event.type in _LAST:
            self.ended[call] = event.type
        who = event.data.get(_BEGINS.get(event.type, ""))
        named = self.named.setdefault(call, set())
        if who is not None:
            named.add(who["device"])
        for party in _parties(event):
            if str(party["device"]).startswith(_HALF_A_WIRE):
                yield f"{name} names {party['device']}, which is nobody's phone"
            if party.get("withheld") and party["number"] is not None:
                yield f"{name} shows a withheld number"
        match event.type:
            case CallEventType.MERGED:
                into = event.data["into"]
                self.into[call] = into
                if into == call or into in self.ended:
                    yield f"{name} into {into}, which is over"
                self.named.setdefault(into, set()).update(named)
            case CallEventType.CONNECTED:
                for party in event.data["parties"]:
                    if party["device"] not in named:
                        yield f"{name} {party['device']}, who was neither offered nor began the call"


def _parties(event: CallEvent) -> Iterator[dict[str, Any]]:
    for key in ("from", "to", "by", "party", "ended_by"):
        if isinstance(event.data.get(key), dict):
            yield event.data[key]
    yield from event.data.get("parties") or ()


def unsound(book: Book) -> Iterator[str]:
    """Where the book contradicts itself."""
    for call in book.calls.values():
        yield from _unsound_call(book, call)
    for channel in book.channels.values():
        yield from _unsound_channel(book, channel)
    for bridge in book.bridges.values():
        if not bridge.members or len(set(bridge.members)) != len(bridge.members):
            yield f"{bridge.id}: a bridge of nobody, or of one twice"
        for uid in bridge.members:
            if uid not in book.channels or book.channels[uid].bridge != bridge.id:
                yield f"{bridge.id}: its member {uid} is elsewhere"
    for wire, halves in book.wires.items():
        if not 1 <= len(halves) <= 2 or any(uid not in book.channels for uid in halves.values()):
            yield f"{wire}: a wire of {len(halves)} halves, or of channels that are gone"
    for link, call_id in book.links.items():
        if call_id not in book.calls or link not in book.calls[call_id].links:
            yield f"{link}: leads to a call that is gone, or does not know it"
    if not book.calls:
        yield from (f"left without a call: {what}" for what in left(book))


def _unsound_call(book: Book, call: Call) -> Iterator[str]:
    if not call.legs:
        yield f"{call.id}: a call without a leg"
    if len(set(call.legs)) != len(call.legs) or len(set(call.links)) != len(call.links):
        yield f"{call.id}: a leg or link twice"
    for uid in call.legs:
        if uid not in book.channels or book.channels[uid].call != call.id:
            yield f"{call.id}: its leg {uid} is another's"
    if call.guest is not None and (
        call.guest not in book.channels or book.channels[call.guest].guest_of != call.id
    ):
        yield f"{call.id}: its guest does not know it"
    hears = len(book.people(call)) > 1
    if hears != (call.talk_since is not None):
        yield f"{call.id}: its clock {'stands' if hears else 'runs'}, and {'somebody' if hears else 'nobody'} talks"
    if hears and not {leg.uid for leg in book.people(call)} <= set(call.heard):
        yield f"{call.id}: somebody talks who was never connected"


def _unsound_channel(book: Book, channel: Channel) -> Iterator[str]:
    uid = channel.uid
    home = book.calls.get(channel.call)
    if home is None or home.legs.count(uid) != 1:
        yield f"{uid}: no leg of the call it names"
    if channel.bridge is not None and channel.uid not in _members(book, channel.bridge):
        yield f"{uid}: in a bridge that does not know it"
    if channel.wire and book.wires.get(channel.wire, {}).get(channel.half) != uid:
        yield f"{uid}: half of a wire that does not know it"
    if channel.guest_of is not None and (
        channel.guest_of not in book.calls or book.calls[channel.guest_of].guest != uid
    ):
        yield f"{uid}: guest where nobody knows it"


def _members(book: Book, bridge_id: str) -> list[str]:
    bridge = book.bridges.get(bridge_id)
    return bridge.members if bridge is not None else []


def left(book: Book) -> list[str]:
    """Whatever the book still holds; a dial that is expected is no call yet."""
    kept = {"calls": book.calls, "channels": book.channels, "bridges": book.bridges, "wires": book.wires}
    return [f"{name} {key}" for name, held in {**kept, "links": book.links}.items() for key in held]
