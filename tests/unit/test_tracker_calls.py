"""What the tracker says of real calls, each written by hand from the witness's account beside the trace."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from recorded import TRACES, wire
from story import play, side, told

from bridge.domain.calls import CallEventType

VERSIONS = ["asterisk-22", "asterisk-16", "freeswitch-1.11-json", "freeswitch-1.11-plain"]
CALLER = "+15553001001"
DID = "+15550001260"
ALL = ("101", "102", "103", "104", "105")

Expected = Sequence[str | set[str]]

# Each call's story; a set stands for lines whose order the PBX leaves open, and what begins with a PBX's name is
# that one's alone.
STORIES: dict[str, list[Expected]] = {
    "simple": [
        [
            f"started inbound {CALLER} > {DID}",
            "offered 101",
            f"connected {CALLER} 101",
            f"ended completed 16 inbound {CALLER} > {DID} person by {CALLER}",
        ]
    ],
    "caller_cancels": [
        [
            f"started inbound {CALLER} > {DID}",
            "offered 101",
            "unoffered 101 cancelled",
            f"ended cancelled * inbound {CALLER} > {DID} - by {CALLER}",
        ]
    ],
    "busy": [
        [
            f"started inbound {CALLER} > +15550001262",
            "unoffered 103 busy",
            f"ended busy 17 inbound {CALLER} > +15550001262 - by -",
        ]
    ],
    # The phone declined; Asterisk told the caller 480, so his leg ended with cause 20; FreeSWITCH passed the 603 on.
    "rejected": [
        [
            f"started inbound {CALLER} > +15550001262",
            "unoffered 103 rejected",
            f"asterisk: ended failed 20 inbound {CALLER} > +15550001262 - by -",
            f"freeswitch: ended rejected 21 inbound {CALLER} > +15550001262 - by -",
        ]
    ],
    "queue_ringall": [
        [
            f"started inbound {CALLER} > +15550001000",
            "queued support 1",
            {f"offered {phone}" for phone in ALL},
            {
                "unqueued support answered",
                f"connected {CALLER} 103",
                *(f"unoffered {phone} answered_elsewhere" for phone in ALL if phone != "103"),
            },
            f"ended completed 16 inbound {CALLER} > +15550001000 person by {CALLER}",
        ]
    ],
    "queue_local": [
        [
            f"started inbound {CALLER} > +15550001134",
            "queued sales 1",
            "offered 106",
            "unqueued sales answered",
            f"connected {CALLER} 106",
            f"ended completed 16 inbound {CALLER} > +15550001134 person by {CALLER}",
        ]
    ],
    "queue_local_optimised": [
        [
            f"started inbound {CALLER} > +15550001134",
            "queued sales 1",
            "offered 108",
            "unqueued sales answered",
            f"connected {CALLER} 108",
            f"ended completed 16 inbound {CALLER} > +15550001134 person by {CALLER}",
        ]
    ],
    "queue_loopback": [
        [
            f"started inbound {CALLER} > +15550001134",
            "queued sales 1",
            "offered 106",
            "unqueued sales answered",
            f"connected {CALLER} 106",
            f"ended completed 16 inbound {CALLER} > +15550001134 person by {CALLER}",
        ]
    ],
    # What the caller calls itself names no event and no header: it is one call like any other.
    "hostile_name": [
        [
            f"started inbound +15553006666 > {DID}",
            "offered 101",
            "connected +15553006666 101",
            f"ended completed 16 inbound +15553006666 > {DID} person by +15553006666",
        ]
    ],
    # Three who hear each other are one call, the customer's; who leaves it first does not end it.
    "conference": [
        [
            f"started inbound {CALLER} > +1555000190",
            {f"connected {CALLER} 101", f"connected {CALLER} 102"},
            f"ended completed 16 inbound {CALLER} > +1555000190 person by {CALLER}",
        ],
        ["started - * > 800", "merged"],
        ["started - * > 800", "merged"],
    ],
    "queue_abandoned": [
        [
            f"started inbound {CALLER} > +15550001002",
            "queued support 1",
            {f"offered {phone}" for phone in ALL},
            {"unqueued support abandoned", *(f"unoffered {phone} cancelled" for phone in ALL)},
            f"ended abandoned * inbound {CALLER} > +15550001002 pbx by {CALLER}",
        ]
    ],
    "hold_resume": [
        [
            f"started inbound {CALLER} > {DID}",
            "offered 101",
            f"connected {CALLER} 101",
            "held 101",
            "resumed 101",
            f"ended completed 16 inbound {CALLER} > {DID} person by {CALLER}",
        ]
    ],
    "two_interleaved": [
        [
            f"started inbound {CALLER} > {DID}",
            "offered 101",
            f"connected {CALLER} 101",
            f"ended completed 16 inbound {CALLER} > {DID} person by {CALLER}",
        ],
        [
            "started inbound +15553002002 > +15550001261",
            "offered 102",
            "connected +15553002002 102",
            "ended completed 16 inbound +15553002002 > +15550001261 person by +15553002002",
        ],
    ],
    "originate_answered": [
        [
            "asterisk: started - - > -",
            "freeswitch: started - 101 > -",
            "offered 101",
            "offered +15552160101",
            "connected 101 +15552160101",
            "ended completed 16 outbound 101 > +15552160101 person by +15552160101",
        ]
    ],
    "originate_busy": [
        [
            "asterisk: started - - > -",
            "freeswitch: started - 101 > -",
            "offered 101",
            "unoffered +15552030001 busy",
            "ended busy 17 outbound 101 > +15552030001 - by -",
        ]
    ],
    "blind_refer": [
        [
            f"started inbound {CALLER} > {DID}",
            "offered 101",
            f"connected {CALLER} 101",
            "transferred blind 101 101 > 102",
            "offered 102",
            f"connected {CALLER} 102",
            f"ended completed 16 inbound {CALLER} > {DID} person by {CALLER}",
        ]
    ],
    # Asterisk holds the caller while 101 types the code and the number, and says so.
    "blind_code": [
        [
            f"started inbound {CALLER} > {DID}",
            "offered 101",
            f"connected {CALLER} 101",
            "asterisk: held 101",
            "asterisk: resumed 101",
            "transferred blind 101 101 > 102",
            "offered 102",
            f"connected {CALLER} 102",
            f"ended completed 16 inbound {CALLER} > {DID} person by {CALLER}",
        ]
    ],
    "attended_refer": [
        [
            f"started inbound {CALLER} > {DID}",
            "offered 101",
            f"connected {CALLER} 101",
            "held 101",
            "asterisk: resumed 101",
            "transferred attended 101 101 > 102",
            f"connected {CALLER} 102",
            f"ended completed 16 inbound {CALLER} > {DID} person by {CALLER}",
        ],
        ["started internal 101 > 102", "offered 102", "connected 101 102", "merged"],
    ],
    "attended_code": [
        [
            f"started inbound {CALLER} > {DID}",
            "offered 101",
            f"connected {CALLER} 101",
            "asterisk: held 101",
            "transferred attended 101 101 > 102",
            f"connected {CALLER} 102",
            f"ended completed 16 inbound {CALLER} > {DID} person by {CALLER}",
        ],
        ["started internal 101 > 102", "offered 102", "connected 101 102", "merged"],
    ],
    "pickup": [
        [
            f"started inbound {CALLER} > {DID}",
            "offered 101",
            {"transferred pickup 102 101 > 102", "unoffered 101 answered_elsewhere"},
            f"connected {CALLER} 102",
            f"ended completed 16 inbound {CALLER} > {DID} person by {CALLER}",
        ],
        ["started - 102 > *8101", "merged"],
    ],
    "park_retrieve": [
        [
            f"started inbound {CALLER} > {DID}",
            "offered 101",
            f"connected {CALLER} 101",
            "transferred blind 101 101 > 700",
            f"connected {CALLER} 102",
            f"ended completed 16 inbound {CALLER} > {DID} person by {CALLER}",
        ],
        ["started - 102 > 701", "merged"],
    ],
}

PLAYED = [
    (scenario, version)
    for scenario in STORIES
    for version in VERSIONS
    if scenario in {folder.name for folder in (TRACES / version).iterdir()}
]

# (wait, talk) in ms of the first call, from the witness's "dials", "joined" and "hangs up".
FREESWITCH_TIMES: dict[str, tuple[int, int]] = {
    "simple": (530, 2030),
    "caller_cancels": (2020, 0),
    "queue_ringall": (1640, 980),
    "queue_loopback": (1020, 1470),
    "queue_abandoned": (2040, 0),
    "hold_resume": (340, 3060),
    "originate_answered": (1870, 2000),
    "blind_refer": (350, 520 + 1290),
    "blind_code": (360, 2860 + 1030),
    "attended_code": (350, 3320 + 1450),
    "attended_refer": (340, 2170 + 990),
    "pickup": (600, 990),
    "park_retrieve": (340, 540 + 990),
    "two_interleaved": (840, 1310),
    "hostile_name": (550, 1530),
}
ASTERISK_TIMES: dict[str, tuple[int, int]] = {
    "simple": (510, 2010),
    "caller_cancels": (2030, 0),
    "queue_ringall": (1580, 1020),
    "queue_local": (810, 1510),
    "queue_local_optimised": (810, 1510),
    "queue_abandoned": (2110, 0),
    "hold_resume": (310, 2530),
    "originate_answered": (1810, 2010),
    "blind_refer": (310, 520 + 1310),
    "blind_code": (310, 2830 + 1020),
    "attended_code": (310, 2820 + 1500),
    "attended_refer": (310, 1830 + 1030),
    "pickup": (570, 1020),
    "park_retrieve": (310, 520 + 570),
}


def matches(story: list[str], expected: Expected) -> bool:
    """Whether the lines are the expected ones; `*` in an expected line stands for one word."""
    at = 0
    for item in expected:
        if isinstance(item, set):
            if set(story[at : at + len(item)]) != item:
                return False
            at += len(item)
            continue
        if at >= len(story):
            return False
        words, wanted = story[at].split(), item.split()
        if len(words) != len(wanted):
            return False
        if any(b not in (a, "*") for a, b in zip(words, wanted, strict=True)):
            return False
        at += 1
    return at == len(story)


def on(version: str, story: Expected) -> Expected:
    """The story as this PBX tells it."""
    kind, lines = version.partition("-")[0], []
    for item in story:
        if isinstance(item, set):
            lines.append(item)
            continue
        whose, _, rest = item.partition(": ")
        if not rest or whose == kind:
            lines.append(rest or item)
    return lines


@pytest.mark.parametrize(("scenario", "version"), PLAYED)
def test_the_story_is_the_witnesss(scenario: str, version: str) -> None:
    events = play(wire(version, scenario))
    stories = list(told(events).values())
    expected = STORIES[scenario]
    assert len(stories) == len(expected), stories
    for story, wanted in zip(stories, expected, strict=True):
        assert matches(story, on(version, wanted)), "\n".join(story)


@pytest.mark.parametrize(
    ("version", "scenario"),
    [("asterisk-22", scenario) for scenario in ASTERISK_TIMES]
    + [("freeswitch-1.11-json", scenario) for scenario in FREESWITCH_TIMES],
)
def test_wait_and_talk_are_the_witnesss(scenario: str, version: str) -> None:
    events = play(wire(version, scenario))
    ended = next(event for event in events if event.type is CallEventType.ENDED)
    wait, talk = (FREESWITCH_TIMES if version.startswith("freeswitch") else ASTERISK_TIMES)[scenario]
    assert ended.data["wait_ms"] == pytest.approx(wait, abs=60)
    assert ended.data["talk_ms"] == pytest.approx(talk, abs=60)


@pytest.mark.parametrize(
    ("version", "at"),
    [
        ("asterisk-22", "2026-11-22T06:53:00.872441+00:00"),
        ("freeswitch-1.11-json", "2026-11-22T06:53:03.108150+00:00"),
    ],
)
def test_times_are_the_pbxs(version: str, at: str) -> None:
    assert play(wire(version, "simple"))[0].at.isoformat() == at


@pytest.mark.parametrize(
    ("version", "trunk", "phone", "name"),
    [
        ("asterisk-22", "PJSIP/trunk", "PJSIP/101", "Agent 101"),
        # FreeSWITCH's events do not say what a phone that it rings is called.
        ("freeswitch-1.11-json", "sofia/external", "user/101", None),
        ("freeswitch-1.11-plain", "sofia/external", "user/101", None),
    ],
)
def test_parties_know_their_agent_and_the_did_its_client(
    version: str, trunk: str, phone: str, name: str | None
) -> None:
    started, offered, connected, _ = play(wire(version, "simple"))
    assert started.data["client"] == "acme"
    assert started.data["from"] == {
        "device": trunk,
        "extension": None,
        "number": CALLER,
        "name": "Caller Ünï",
        "agent": None,
    }
    anna = {"device": phone, "extension": "101", "number": None, "name": name, "agent": "anna"}
    assert offered.data == {"party": anna}
    assert connected.data["parties"][1] == anna


@pytest.mark.parametrize("version", VERSIONS)
def test_a_recording_that_ends_in_silence_ends_uncertain(version: str) -> None:
    """The link fell silent before the PBX gave up: the end was not seen."""
    tracker = side(version).tracker()
    events = play(wire(version, "no_answer"), tracker)
    lost = events[-1].at.timestamp() + 1
    done = side(version).left_alone(tracker, lost, lost + 30)
    [story] = told([*events, *done.batch.events]).values()
    assert story == [
        f"started inbound {CALLER} > +15550001262",
        "offered 103",
        "uncertain",
        f"ended uncertain None inbound {CALLER} > +15550001262 - by -",
    ]
    assert (done.appeared, done.vanished) == (0, 1)
