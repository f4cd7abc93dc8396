"""The model PBXs say what real ones said: each channel's events, in the order of the recordings.

Channels are compared one by one, in the order of their birth: between channels a PBX's threads may come in any order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import story
from gaps import _is_heard
from recorded import TRACES
from worlds import Asterisk, Flow, FreeSwitch, World

AMI = {
    "Newchannel", "Newstate", "DialEnd", "BridgeEnter", "BridgeLeave", "Hold", "Unhold", "Pickup", "Hangup",
    "QueueCallerJoin", "QueueCallerLeave",
}  # fmt: skip
"""What is compared; who asked for the end, and caller ids, depend on the story's details."""
ESL = {
    "CHANNEL_CREATE", "CHANNEL_ANSWER", "CHANNEL_BRIDGE", "CHANNEL_UNBRIDGE", "CHANNEL_HOLD", "CHANNEL_UNHOLD",
    "CHANNEL_HANGUP_COMPLETE", "add-member", "del-member", "member-queue-start", "hold",
}  # fmt: skip


def told(kind: str, events: list[Any]) -> list[list[str]]:
    """The events of each channel, channels in the order of their birth."""
    found: dict[str, list[str]] = {}
    for event in events:
        if kind == "asterisk":
            name, uid = event.get("Event"), event.get("DestUniqueid") or event.get("Uniqueid")
            if name in AMI and uid:
                found.setdefault(uid, []).append(f"{name} {event.get('DialStatus', '')}".strip())
            continue
        name = event.get("Action") or event.get("CC-Action") or event.get("Event-Name")
        if name in ESL and event.get("Unique-ID"):
            found.setdefault(event["Unique-ID"], []).append(name)
    return list(found.values())


def direct(world: World) -> Flow:
    yield from world.calls_in(["101"], False, [])


def over(world: World) -> Flow:
    yield from world.hangs_up(world.legs[0])


def simple(world: World) -> Flow:
    yield from direct(world)
    yield from over(world)


def hold_resume(world: World) -> Flow:
    yield from direct(world)
    for _ in range(2):
        yield from world.holds_on(world.legs[1])
    yield from over(world)


def park_retrieve(world: World) -> Flow:
    yield from direct(world)
    yield from world.parks(world.legs[1])
    yield from world.fetches(world.legs[0], "102")
    yield from over(world)


def blind_refer(world: World) -> Flow:
    yield from direct(world)
    yield from world.blind(world.legs[1], "102")
    yield from over(world)


def queue_local(world: World) -> Flow:
    yield from world.calls_by_wire("106", False)
    yield from over(world)


def queue_local_optimised(world: World) -> Flow:
    yield from world.calls_by_wire("106", True)
    yield from over(world)


def conference(world: World) -> Flow:
    yield from world.meets(world.caller())
    yield from world.meets(world.leg("101"))
    yield from world.meets(world.leg("102"))
    for leg in (1, 0, 2):
        yield from world.hangs_up(world.legs[leg])


def agent_first(world: World) -> Flow:
    yield from world.dials_out("101", True, True)
    yield from world.hangs_up(next(leg for leg in world.legs if not leg.trunk))


def customer_first(world: World) -> Flow:
    yield from world.dials_out("101", False, True)
    yield from world.hangs_up(next(leg for leg in world.legs if not leg.trunk))


YES = {3: 1, 4: 1}
PLAYS: list[tuple[str, str, Callable[[World], Flow], dict[int, int]]] = [
    ("asterisk", "asterisk-22/simple", simple, YES),
    ("asterisk", "asterisk-22/hold_resume", hold_resume, YES),
    ("asterisk", "asterisk-22/pickup", simple, {**YES, 6: 5}),
    ("asterisk", "asterisk-22/park_retrieve", park_retrieve, YES),
    ("asterisk", "asterisk-22/blind_refer", blind_refer, YES),
    ("asterisk", "asterisk-22/conference", conference, YES),
    ("asterisk", "asterisk-22/queue_local", queue_local, YES),
    ("asterisk", "asterisk-22/queue_local_optimised", queue_local_optimised, YES),
    ("asterisk", "ours/asterisk-22/agent_first_answered", agent_first, YES),
    ("asterisk", "ours/asterisk-22/agent_first_agent_noanswer", agent_first, {}),
    ("asterisk", "ours/asterisk-22/customer_first_answered", customer_first, YES),
    ("freeswitch", "freeswitch-1.11-json/simple", simple, YES),
    ("freeswitch", "freeswitch-1.11-json/hold_resume", hold_resume, {**YES, 2: 1}),
    ("freeswitch", "freeswitch-1.11-json/pickup", simple, {**YES, 6: 5, 2: 1}),
    ("freeswitch", "freeswitch-1.11-json/park_retrieve", park_retrieve, {**YES, 2: 1}),
    ("freeswitch", "freeswitch-1.11-json/blind_refer", blind_refer, {**YES, 2: 1}),
    ("freeswitch", "freeswitch-1.11-json/conference", conference, YES),
    ("freeswitch", "freeswitch-1.11-json/queue_loopback", queue_local, YES),
    ("freeswitch", "ours/freeswitch-1.11/agent_first_answered", agent_first, YES),
    ("freeswitch", "ours/freeswitch-1.11/agent_first_agent_noanswer", agent_first, {}),
    ("freeswitch", "ours/freeswitch-1.11/customer_first_answered", customer_first, YES),
]


@pytest.mark.parametrize(("kind", "recording", "play", "picks"), PLAYS, ids=[f"{play[1]}" for play in PLAYS])
def test_a_channel_says_what_it_says_in_the_recording(
    kind: str, recording: str, play: Callable[[World], Flow], picks: dict[int, int]
) -> None:
    made: type[World] = Asterisk if kind == "asterisk" else FreeSwitch
    world = made(lambda below: picks.get(below, 0), lambda _expected: None)
    mine = told(kind, list(play(world)))
    [path] = [
        path
        for path in (TRACES / recording, *(TRACES / f"{recording}.jsonl{end}" for end in ("", ".gz")))
        if path.exists()
    ]
    if path.is_dir():
        [path] = path.glob("wire.jsonl*")
    theirs = told(kind, [event for _at, event in story.heard(path) if _is_heard(event)])
    assert mine == theirs
