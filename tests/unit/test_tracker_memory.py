"""Very many calls leave nothing behind in a tracker: no call, no channel, no byte."""

from __future__ import annotations

import gc
import tracemalloc
from typing import Any

import pytest

from bridge.commands.bench import traffic
from bridge.pbx.ami.codec import Decoder as AmiDecoder
from bridge.pbx.ami.hearing import UNHEARD
from bridge.pbx.ami.tracker import Tracker as AmiTracker
from bridge.pbx.esl import tracker as esl
from bridge.pbx.esl.codec import Decoder as EslDecoder

WARM, HALF = 2, 5
"""Passes over all recordings, each with other calls: until what is kept has come to its length, then two halves."""
PASSES = WARM + 2 * HALF


class Reader:
    """Codec and tracker of one PBX."""

    def __init__(self, kind: str) -> None:
        self.tracker: Any
        if kind == "asterisk":
            self.decoder: Any = AmiDecoder(UNHEARD)
            self.decoder.feed(b"Asterisk Call Manager/11.0.0\r\n")
            self.tracker = AmiTracker("pbx", traffic.TRUNKS)
        else:
            self.decoder, self.tracker = EslDecoder(), esl.Tracker("pbx", traffic.TRUNKS)
        self.ended = 0

    def read(self, data: bytes) -> None:
        """So many bytes from the PBX."""
        heard = [getattr(item, "event", None) if isinstance(self.decoder, EslDecoder) else item
                 for item in self.decoder.feed(data)]  # fmt: skip
        batch = self.tracker.feed([event for event in heard if event is not None], 0.0)
        self.ended += sum(event.type in ("call.ended", "call.merged") for event in batch.events)


@pytest.mark.parametrize("kind", ["asterisk", "freeswitch"])
def test_what_has_ended_is_forgotten_whole(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # A bound of its own, which so few calls would not come to.
    monkeypatch.setattr(esl, "_MAX_GONE", 20)
    played = traffic.asterisk(traffic.TRACES) if kind == "asterisk" else traffic.freeswitch(traffic.TRACES)
    reader = Reader(kind)
    events = 0
    kept: list[int] = []
    tracemalloc.start()
    try:
        for group in played.play(20_000, 500):
            reader.read(group.data(played.kind, 1.8e9 + group.due))
            events += group.events
            if events % played.events == 0:
                gc.collect()
                kept.append(tracemalloc.get_traced_memory()[0])
            if events == PASSES * played.events:
                break
    finally:
        tracemalloc.stop()
    book = reader.tracker.book
    assert reader.ended == PASSES * played.calls
    assert not (book.calls or book.channels or book.bridges or book.wires or book.links)
    assert reader.tracker.faults == 0
    # The JSON decoder keeps an event's keys, now more, now fewer: the least of each half has the same of them.
    # The channel of one call alone is more than 100 bytes.
    before, after = kept[WARM : WARM + HALF], kept[WARM + HALF :]
    assert (min(after) - min(before)) / (HALF * played.calls) < 100
