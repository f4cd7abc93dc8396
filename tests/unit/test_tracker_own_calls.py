"""What the tracker says of calls that people of our lab made on a FreeSWITCH, whole and byte by byte."""

from __future__ import annotations

import pytest
from recorded import TRACES, story_of
from story import play, play_cut, told

FOLDER = TRACES / "ours" / "freeswitch-1.11"
RINGING = ("101", "102", "103", "104", "105")
STORIES: dict[str, list[str]] = {
    "queue_gives_up": [
        "started inbound +16465550111 > +12125550111",
        "queued support-briefly 1",
        *(f"offered {phone}" for phone in RINGING),
        *(f"unoffered {phone} no_answer" for phone in RINGING),
        "unqueued support-briefly timeout",
        "ended no_answer 16 inbound +16465550111 > +12125550111 pbx by -",
    ],
    "queue_in_turn": [
        "started inbound +16465550111 > +12125550120",
        "queued sales 1",
        "offered 101",
        "unqueued sales answered",
        "connected +16465550111 101",
        "ended completed 16 inbound +16465550111 > +12125550120 person by +16465550111",
    ],
    "withheld": [
        "started inbound withheld > +12125550101",
        "offered 101",
        "connected withheld 101",
        "ended completed 16 inbound withheld > +12125550101 person by withheld",
    ],
    "announcement": [
        "started inbound +16465550111 > +12125550130",
        "ended completed 16 inbound +16465550111 > +12125550130 pbx by -",
    ],
    "out_declined": [
        "started outbound 102 > +16465550160",
        "unoffered +16465550160 rejected",
        "ended rejected 21 outbound 102 > +16465550160 - by -",
    ],
    "out_answered": [
        "started outbound 102 > +16465550180",
        "offered +16465550180",
        "connected 102 +16465550180",
        "ended completed 16 outbound 102 > +16465550180 person by +16465550180",
    ],
}


@pytest.mark.parametrize("scenario", STORIES)
def test_the_story_is_the_witnesss(scenario: str) -> None:
    path = FOLDER / f"{scenario}.jsonl.gz"
    events = play(path)
    [story] = told(events).values()
    # Between phones that ring together FreeSWITCH keeps no order.
    assert sorted(story) == sorted(STORIES[scenario])
    assert [line for line in story if "offered" not in line] == [
        line for line in STORIES[scenario] if "offered" not in line
    ]
    assert play_cut(path, lambda data: [data[at : at + 1] for at in range(len(data))]) == events


def test_a_withheld_number_is_nowhere() -> None:
    path = FOLDER / "withheld.jsonl.gz"
    assert "16465550111" in story_of(path)
    assert "6465550111" not in repr(play(path))
