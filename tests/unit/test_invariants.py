"""What must hold after every event holds of every recording, and the watch sees where it does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from invariants import Broken, Watch, left
from recorded import TRACES, name_of, story_of, wire
from story import expected, heard, side_of

from bridge.domain.calls import CallEvent, CallEventType
from bridge.pbx.calls.book import Book, moment

EVERY = [*sorted(TRACES.glob("*-*/*/wire.jsonl*")), *sorted(TRACES.glob("ours/*/*.jsonl*"))]


@pytest.mark.parametrize("path", EVERY, ids=name_of)
def test_every_recording_keeps_them(path: Path) -> None:
    tracker = side_of(path).tracker()
    if "attempt " in story_of(path):
        tracker.expect(expected(path))
    watch = Watch(tracker)
    at = 0.0
    for at, event in heard(path):
        watch.saw(tracker.feed([event], at).events)
    # Four recordings end before their call does.
    watch.saw(side_of(path).left_alone(tracker, at + 30, at + 30).batch.events)
    watch.over()
    assert left(tracker.book) == []


def _lose_leg(book: Book) -> None:
    next(iter(book.calls.values())).legs.pop()


def _lose_channel(book: Book) -> None:
    del book.channels[next(iter(book.channels))]


def _strange_link(book: Book) -> None:
    book.links["another"] = "nobody"


def _empty_bridge(book: Book) -> None:
    next(iter(book.bridges.values())).members.clear()


def _stopped_clock(book: Book) -> None:
    next(iter(book.calls.values())).talk_since = None


def _lost_number(book: Book) -> None:
    next(iter(book.calls.values())).seq += 1


@pytest.mark.parametrize(
    "spoil", [_lose_leg, _lose_channel, _strange_link, _empty_bridge, _stopped_clock, _lost_number]
)
@pytest.mark.parametrize("link", ["asterisk-22", "freeswitch-1.11-json"])
def test_a_spoiled_book_is_seen(link: str, spoil: Callable[[Book], None]) -> None:
    path = wire(link, "simple")
    tracker = side_of(path).tracker()
    watch = Watch(tracker)
    for at, event in heard(path):
        batch = tracker.feed([event], at)
        watch.saw(batch.events)
        if any(told.type is CallEventType.CONNECTED for told in batch.events):
            break
    spoil(tracker.book)
    with pytest.raises(Broken):
        watch.saw(())


def _event(kind: CallEventType, seq: int, **data: object) -> CallEvent:
    return CallEvent(kind, "lab", moment(1e9), "one", seq, data)


NOBODY = {"device": "PJSIP/101", "extension": None, "number": None, "name": None, "agent": None}
STARTED = _event(CallEventType.STARTED, 1)
ENDED = _event(CallEventType.ENDED, 2)


@pytest.mark.parametrize(
    "said",
    [
        [_event(CallEventType.OFFERED, 1, party=NOBODY)],
        [STARTED, _event(CallEventType.ENDED, 3)],
        [STARTED, _event(CallEventType.STARTED, 2)],
        [STARTED, ENDED, _event(CallEventType.UNCERTAIN, 3)],
        [STARTED, _event(CallEventType.CONNECTED, 2, parties=[NOBODY, NOBODY])],
        [STARTED, _event(CallEventType.MERGED, 2, into="one")],
        [STARTED, _event(CallEventType.OFFERED, 2, party={**NOBODY, "device": "Local/1@x;1"})],
        [STARTED, _event(CallEventType.OFFERED, 2, party={**NOBODY, "number": "1", "withheld": True})],
    ],
)
def test_a_wrong_event_is_seen(said: list[CallEvent]) -> None:
    watch = Watch(side_of(wire("asterisk-22", "simple")).tracker())
    with pytest.raises(Broken):
        watch.saw(said)


def test_a_call_that_never_ends_is_seen() -> None:
    watch = Watch(side_of(wire("asterisk-22", "simple")).tracker(), [STARTED])
    with pytest.raises(Broken, match="never ended"):
        watch.over()
