"""A call that lives for a day, on each PBX, as far as that can be shown without waiting for it.

No recording is a day long, and no clock of a PBX can be moved. So this is arithmetic on a real one: the recorded call
of two people, in whose talk 25 hours pass. Everything from then on is that much later, in the PBX's own times as well
as in ours; the link is lost and found every hour, each second time by another process, and each time the PBX names
the same channels, older by an hour.
"""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import snapshots
import story
from corpus import differences
from gaps import resynced, whole
from invariants import Watch
from recorded import name_of, wire
from scenarios.replay import directory, published

from bridge.domain.calls import CallEventType
from bridge.pbx.ami.codec import Message

PATHS = [wire(pbx, "answered") for pbx in ("asterisk-22-lab", "asterisk-16-lab", "freeswitch-1.11-lab")]
HOURS = 25


def later(event: Any, seconds: int) -> Any:
    """The same event, said so much later."""
    if "Event-Date-Timestamp" in event:
        return {
            **event,
            "Event-Date-Timestamp": str(int(event["Event-Date-Timestamp"]) + seconds * 1_000_000),
        }
    if "Timestamp" in event:
        return Message({**event, "Timestamp": f"{float(event['Timestamp']) + seconds:.6f}"}.items())
    return event


def a_day_longer(expected: dict[str, Any]) -> dict[str, Any]:
    """What the witness would have said."""
    expected = copy.deepcopy(expected)
    [call] = expected["calls"]
    ended = call["events"][-1]
    ended["at"] += HOURS * 3600
    ended["data"]["talk_ms"]["about"] += HOURS * 3600_000
    return expected


@pytest.mark.parametrize("path", PATHS, ids=name_of)
def test_a_call_of_a_day(path: Any) -> None:
    expected = json.loads(path.with_name("expected.json").read_text(encoding="utf-8"))
    side = story.side_of(path)
    model: Any = snapshots.FreeSwitch() if isinstance(side, story.FreeSwitch) else snapshots.Asterisk()
    tracker: Any = side.tracker()
    tracker.set_directory(directory(expected))
    watch, shift = Watch(tracker), 0
    live: dict[str, str] = {}

    def keep(batch: Any) -> None:
        watch.saw(batch.events)
        for call, state in batch.live.items():
            live.pop(call, None)
            if state is not None:
                live[call] = state

    for at, came in whole(path):
        event = later(came, shift)
        model.hear(event, at + shift)
        keep(tracker.feed([event], at + shift))
        if shift or not any(said.type is CallEventType.CONNECTED for said in watch.said):
            continue
        for hour in range(1, HOURS + 1):
            now = at + 3600 * hour
            if hour % 2:
                tracker = side.tracker()
                tracker.set_directory(directory(expected))
                assert tracker.restore(dict(live)) == 0
                watch = Watch(tracker, watch.said)
            found = resynced(tracker, model.snapshot(now, tuple(tracker.book.channels)), now - 60, now)
            assert (found.appeared, found.vanished) == (0, 0)
            keep(found.batch)
        shift = HOURS * 3600
    watch.over()
    said = published(watch.said)
    assert [event["seq"] for event in said] == list(range(1, len(said) + 1))
    seen = [event for event in said if event["type"] != "call.uncertain"]
    assert len(said) - len(seen) == HOURS
    for number, event in enumerate(seen, 1):
        event["seq"] = number
    assert not differences(a_day_longer(expected), seen)
    assert live == {}
