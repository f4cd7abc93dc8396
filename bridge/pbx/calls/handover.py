"""Taking over the calls that another process left, from the state it kept of each, or from the call history."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from bridge.domain.calls import Remembered
from bridge.pbx.calls.book import Book
from bridge.pbx.calls.model import Bridge, Call, Channel, load


def restore(book: Book, live: Mapping[str, str]) -> int:
    """Fill an empty book with dumped calls. Returns how many could not be read."""
    unread = 0
    found: list[tuple[Call, list[Channel], list[Bridge]]] = []
    for text in live.values():
        try:
            found.append(load(text))
        except ValueError:
            unread += 1
    # Each state is as old as its call's last event: where two speak of one channel, the younger knows better.
    for call, channels, bridges in sorted(found, key=lambda state: state[0].last):
        book.calls[call.id] = call
        for link in call.links:
            book.links[link] = call.id
        for channel in channels:
            book.add_line(channel)
        for bridge in bridges:
            # Two calls may meet in one bridge; each dump holds its own members.
            known = book.bridges.setdefault(bridge.id, bridge)
            if known is not bridge:
                known.members.extend(bridge.members)
    _agree(book)
    return unread


def _agree(book: Book) -> None:
    """Drop what one state says and a younger one has overtaken; a resync finds what is missing then."""
    channels = book.channels
    for bridge in list(book.bridges.values()):
        here = [uid for uid in dict.fromkeys(bridge.members) if uid in channels and channels[uid].bridge == bridge.id]
        bridge.members[:] = here
        if not here:
            del book.bridges[bridge.id]
    for wire, halves in list(book.wires.items()):
        book.wires[wire] = halves = {half: uid for half, uid in halves.items() if channels[uid].wire == wire}
        if not halves:
            del book.wires[wire]
    for channel in channels.values():
        if channel.guest_of is not None:
            consultation = book.calls.get(channel.guest_of)
            if consultation is None or consultation.guest != channel.uid:
                channel.guest_of = None
    for call in book.calls.values():
        call.legs = [uid for uid in call.legs if uid in channels and channels[uid].call == call.id]
        call.links = [link for link in call.links if book.links[link] == call.id]
        guest = channels.get(call.guest or "")
        if guest is None or guest.guest_of not in (None, call.id):
            call.guest = None
        else:
            guest.guest_of = call.id
    for call in book.calls.values():
        if len(book.people(call)) < 2:
            book.pause(call, call.last)


def remember(book: Book, calls: Iterable[Remembered]) -> None:
    """What is alive of these goes on as the call it was; the first resync finds it."""
    calls = [call for call in calls if call.id not in book.calls]
    book.recalled.note(calls)
    for call in calls:
        if call.expected is not None:
            book.expect(call.expected)
