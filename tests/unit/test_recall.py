"""Calls alive on the PBX of which only the call history knows: they go on, and nothing of them starts again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from doubles.company import found_company
from doubles.postgres import postgres, settings  # noqa: F401 - fixtures
from story import side, told
from test_resync_freeswitch import NOW, STORIES, answers, fresh

from bridge.domain.calls import CallEvent, CallEventType, Expected, Remembered
from bridge.live.calls import Entry, encode
from bridge.pbx.ami import resync as ami
from bridge.pbx.ami.codec import Message
from bridge.pbx.esl.resync import Snapshot, resync, take_snapshot
from bridge.services import remembering
from bridge.services.recording import Recording, record
from bridge.store.database import Sessions
from bridge.store.models import Attempt

DID = "+12125550101"
ATTEMPT = "5f0c6a52-7d1b-4f4e-9e65-0f6b2f7f9a01"


def kept(sessions: Sessions, events: Sequence[CallEvent]) -> list[Remembered]:
    """What a listener that begins finds in the history which those events left."""
    entries = []
    for event in events:
        kind, call, pbx, seq, _, data = encode(event)
        entries.append(Entry("", kind, pbx, event.at, call, int(seq), json.loads(data)))
    with sessions.begin() as session:
        record(Recording(session, "US"), entries)
    with sessions.read() as session:
        return remembering.load(session, events[0].pbx, ())


@pytest.mark.parametrize("name", STORIES)
def test_a_call_of_freeswitch_goes_on(name: str, sessions: Sessions) -> None:
    snapshot = take_snapshot(answers(name).__getitem__)
    before = resync(fresh(), snapshot, None, NOW).batch.events
    tracker = fresh()
    tracker.remember(kept(sessions, before))
    done = resync(tracker, snapshot, None, NOW + 60)
    alive = {event.call: event.seq for event in before}
    for event in before:
        if event.type is CallEventType.MERGED:
            del alive[event.call]
    after = [event for event in done.batch.events if event.call in alive]
    kinds = [event.type for event in after]
    assert CallEventType.STARTED not in kinds
    assert CallEventType.UNCERTAIN in kinds
    for call in alive:
        numbers = [event.seq for event in after if event.call == call]
        assert numbers == list(range(alive[call] + 1, alive[call] + 1 + len(numbers)))
    assert done.appeared == 0
    if name in ("talk", "ringing", "queued", "sales", "outbound", "after_blind", "after_att"):
        # Who rang and who talked is known, too.
        assert kinds == [CallEventType.UNCERTAIN]
        (said,) = after
        assert said.data["since"] == datetime.fromtimestamp(NOW, UTC).isoformat()
    # A further gap finds an ordinary call.
    again = resync(tracker, snapshot, NOW + 60, NOW + 61)
    assert [event.type for event in again.batch.events if event.call in alive] == [CallEventType.UNCERTAIN] * len(alive)
    end = resync(tracker, Snapshot(()), NOW + 61, NOW + 65)
    assert {event.call for event in end.batch.events if event.type is CallEventType.ENDED} >= set(alive)
    book = tracker.book
    assert not (book.calls or book.channels or book.bridges or book.links or book.wires or book.expected)


def channel(uid: str, name: str, **more: str) -> dict[str, str]:
    return {"Uniqueid": uid, "Linkedid": uid, "Channel": name, "ChannelState": "6", "Duration": "00:01:00", **more}


def talk(first: str, **more: str) -> ami.Snapshot:
    """A caller from outside and agent 101, on an Asterisk."""
    return ami.Snapshot(
        (
            channel(first, "PJSIP/trunk-00000001", Exten=DID, CallerIDNum="+16465550111", BridgeId="b", **more),
            channel("1795400000.2", "PJSIP/101-00000002", Linkedid=first, Application="AppDial", BridgeId="b"),
        ),
        ({"BridgeUniqueid": "b", "BridgeType": "basic"},),
    )


@pytest.mark.parametrize("first", ["1795400000.1", "chosen-by-somebody"])
def test_a_call_of_asterisk_goes_on(first: str, sessions: Sessions) -> None:
    before = ami.resync(side("asterisk").tracker(), talk(first), None, NOW).batch.events
    assert before[0].type is CallEventType.STARTED
    tracker = side("asterisk").tracker()
    # Another clock, in whole seconds: an id with the time of birth in it comes out otherwise.
    tracker.remember(kept(sessions, before))
    done = ami.resync(tracker, talk(first, Duration="00:02:01"), None, NOW + 60)
    (said,) = done.batch.events
    assert (said.type, said.call, said.seq) == (CallEventType.UNCERTAIN, before[0].call, len(before) + 1)
    batch = tracker.feed(
        [_event("Hangup", "1795400000.2", "16"), _event("Hangup", first, "16")], NOW + 70
    )
    (end,) = batch.events
    assert end.seq == len(before) + 2
    assert (end.data["cause"], end.data["direction"], end.data["answered_by"]) == ("completed", "inbound", "person")
    assert end.data["from"]["number"] == "+16465550111"


def _event(name: str, uid: str, cause: str) -> Any:
    return Message({"Event": name, "Uniqueid": uid, "Cause": cause}.items())


def test_who_has_joined_since_is_said(sessions: Sessions) -> None:
    before = ami.resync(side("asterisk").tracker(), talk("1795400000.1"), None, NOW).batch.events
    known = kept(sessions, before)
    now = ami.Snapshot(
        (
            talk("1795400000.1").channels[0],
            channel("1795400000.3", "PJSIP/102-00000003", Linkedid="1795400000.1", Application="AppDial", BridgeId="b"),
        )
    )
    tracker = side("asterisk").tracker()
    tracker.remember(known)
    story = told(ami.resync(tracker, now, None, NOW + 60).batch.events)
    assert list(story.values()) == [["offered 102", "connected +16465550111 102", "uncertain"]]


def test_the_first_channel_may_be_gone(sessions: Sessions) -> None:
    """Asterisk names a call's remaining channels by the one that began it."""
    before = ami.resync(side("asterisk").tracker(), talk("1795400000.1"), None, NOW).batch.events
    tracker = side("asterisk").tracker()
    tracker.remember(kept(sessions, before))
    left = ami.Snapshot(talk("1795400000.1").channels[1:])
    done = ami.resync(tracker, left, None, NOW + 60)
    assert {(event.type, event.call) for event in done.batch.events} == {(CallEventType.UNCERTAIN, before[0].call)}


def test_a_dial_of_ours_is_known_again(sessions: Sessions) -> None:
    """Whose it is, and that the one who rings first is the agent, stands with the attempt."""
    found_company(sessions)
    with sessions.begin() as session:
        session.add(
            Attempt(
                id=ATTEMPT, client_id="acme", pbx="lab", agent_id="agent-1", agent_device="PJSIP/101",
                number="+16465550101", state="dialing", agent_first=False,
                created_at=datetime.fromtimestamp(NOW, UTC), deadline_at=datetime.fromtimestamp(NOW, UTC),
            )
        )  # fmt: skip
    dialled = ami.Snapshot((channel(ATTEMPT, "PJSIP/101-00000001", Application="AppDial2", ChannelState="5"),))
    tracker = side("asterisk").tracker()
    tracker.expect(Expected(ATTEMPT, agent="agent-1", agent_device="PJSIP/101", agent_first=False))
    (known,) = kept(sessions, ami.resync(tracker, dialled, None, NOW).batch.events)
    assert known.id == f"lab-{ATTEMPT}"
    assert known.expected is not None
    assert (known.expected.agent, known.expected.agent_first) == ("agent-1", False)
    tracker = side("asterisk").tracker()
    tracker.remember([known])
    assert CallEventType.STARTED not in [
        event.type for event in ami.resync(tracker, dialled, None, NOW + 5).batch.events
    ]
    assert tracker.live_attempts() == {ATTEMPT}
    assert next(iter(tracker.book.calls.values())).agent == "agent-1"


def test_what_is_over_is_forgotten(sessions: Sessions) -> None:
    before = ami.resync(side("asterisk").tracker(), talk("1795400000.1"), None, NOW).batch.events
    tracker = side("asterisk").tracker()
    tracker.remember(kept(sessions, before))
    assert ami.resync(tracker, ami.Snapshot(()), None, NOW + 60).batch.events == []
    # The same id later is another call; the end of the old one is told by who knows the history.
    later = ami.resync(tracker, talk("1795400000.1"), NOW + 60, NOW + 120)
    assert later.batch.events[0].type is CallEventType.STARTED
    assert later.appeared == 1


def test_only_open_calls_of_this_pbx_without_a_state_are_remembered(sessions: Sessions) -> None:
    events = [
        CallEvent(kind, pbx, datetime.fromtimestamp(NOW, UTC) + timedelta(seconds=seq), call, seq, data)
        for pbx, call in (("lab", "lab-1"), ("lab", "lab-2"), ("lab", "lab-3"), ("other", "other-1"))
        for seq, kind, data in (
            (1, CallEventType.STARTED, {"direction": "inbound"}),
            (2, CallEventType.QUEUED, {"queue": "sales", "position": 1}),
        )
    ]
    events.append(CallEvent(CallEventType.ENDED, "lab", datetime.fromtimestamp(NOW + 9, UTC), "lab-2", 3, {}))
    kept(sessions, events)
    with sessions.read() as session:
        (found,) = remembering.load(session, "lab", {"lab-3": ""})
    assert (found.id, found.seq, found.queue, found.born, found.last) == ("lab-1", 2, "sales", NOW + 1, NOW + 2)
