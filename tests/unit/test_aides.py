"""The PBX's channels for our actions, as the tracker of Asterisk sees them: none adds a call, and a hold is told."""

from __future__ import annotations

import pytest
from recorded import wire
from story import side

from bridge.domain.calls import CallEvent
from bridge.pbx.ami.codec import Message
from bridge.pbx.ami.resync import Snapshot, resync
from bridge.pbx.sim.ami import after_login, trace

NOW = 1_795_400_000.0
COMMAND = "f44868bd-339b-40cb-a91b-6931e2120fb5"
HOLD = f"rb-hold-{COMMAND}"
NAME = "Local/hold@ringbridge-act-00000001;1"


class Talk:
    """A recorded call, up to where agent and caller talk."""

    def __init__(self) -> None:
        self.tracker = side("asterisk-22").tracker()
        data = after_login(trace(wire("asterisk-22", "simple")))
        for raw in data[: data.index(b"Event: HangupRequest")].split(b"\r\n\r\n"):
            lines = [line.split(": ", 1) for line in raw.decode().split("\r\n") if ": " in line]
            self.hear(**dict(lines))  # type: ignore[arg-type]
        self.said: list[CallEvent] = list(self.tracker.book.take().events)
        self.caller, self.agent = self.tracker.book.channels

    def hear(self, **headers: str) -> None:
        self.tracker.hear(Message(headers.items()), NOW)

    def news(self) -> list[str]:
        return [event.type.value.removeprefix("call.") for event in self.tracker.book.take().events]

    def begins(self, uid: str, name: str, leg: str, far: str = "") -> None:
        """As Asterisk tells it: the account code comes with the dial, not with the birth."""
        born = {"Event": "Newchannel", "ChannelState": "0", "Linkedid": uid, "AccountCode": ""}
        self.hear(**born, Uniqueid=uid, Channel=name)
        if far:
            self.hear(**{**born, "ChannelState": "4"}, Uniqueid=f"{uid}-2", Channel=far)
        self.hear(Event="DialBegin", DestUniqueid=uid, DestChannel=name, DestAccountCode=leg)

    def holds(self) -> None:
        self.begins(HOLD, NAME, self.agent, NAME[:-1] + "2")
        self.hear(Event="Newstate", Uniqueid=HOLD, ChannelState="6", AccountCode=self.agent)
        self.hear(Event="UserEvent", UserEvent="Ringbridge", Uniqueid=HOLD, Command=COMMAND, Result="held")


@pytest.fixture
def talk() -> Talk:
    return Talk()


def test_a_hold_is_told_once_and_taken_back_when_its_channel_ends(talk: Talk) -> None:
    talk.holds()
    talk.hear(Event="Hold", Uniqueid=talk.agent)
    talk.hear(Event="Unhold", Uniqueid=talk.agent)
    assert talk.news() == ["held"]
    for uid in (f"{HOLD}-2", HOLD):
        talk.hear(Event="Hangup", Uniqueid=uid, Cause="16")
    assert talk.news() == ["resumed"]
    assert not talk.tracker.aides


def test_music_of_a_leg_that_is_gone_says_nothing(talk: Talk) -> None:
    talk.holds()
    talk.news()
    talk.hear(Event="Hangup", Uniqueid=talk.agent, Cause="16")
    talk.hear(Event="Hangup", Uniqueid=HOLD, Cause="16")
    assert "resumed" not in talk.news()


@pytest.mark.parametrize("name", [NAME, "Local/music@ringbridge-act-00000002;2", "PJSIP/103-0000000a"])
def test_who_only_listens_or_plays_is_in_no_call(talk: Talk, name: str) -> None:
    uid = f"rb-watch-{COMMAND}" if name.startswith("PJSIP") else "1795330300.7"
    talk.begins(uid, name, talk.agent)
    talk.hear(Event="Newstate", Uniqueid=uid, ChannelState="5")
    talk.hear(Event="Newstate", Uniqueid=uid, ChannelState="6")
    talk.hear(Event="BridgeEnter", Uniqueid=uid, BridgeUniqueid="x", BridgeType="basic")
    talk.hear(Event="Hangup", Uniqueid=uid, Cause="16")
    assert talk.news() == []
    assert len(talk.tracker.book.channels) == 2


def test_a_phone_that_fetches_is_offered_the_call(talk: Talk) -> None:
    uid = f"rb-retrieve-{COMMAND}"
    talk.begins(uid, "PJSIP/102-0000000a", talk.caller)
    talk.hear(Event="Newstate", Uniqueid=uid, ChannelState="5")
    assert talk.news() == ["offered"]
    talk.hear(Event="Hangup", Uniqueid=uid, Cause="19")
    assert talk.news() == ["unoffered"]


def test_a_channel_whose_leg_is_never_told_is_nobodys(talk: Talk) -> None:
    uid = f"rb-retrieve-{COMMAND}"
    talk.begins(uid, "PJSIP/102-0000000a", "")
    talk.hear(Event="Hangup", Uniqueid=uid, Cause="19")
    assert talk.news() == []


def listing(talk: Talk, *more: dict[str, str]) -> Snapshot:
    book = talk.tracker.book
    channels = [
        {
            "Uniqueid": uid,
            "Channel": channel.name,
            "Linkedid": talk.caller,
            "ChannelState": "6",
            "BridgeId": channel.bridge or "",
            "Duration": "00:00:09",
        }
        for uid, channel in book.channels.items()
    ]
    return Snapshot((*channels, *more))


def music(leg: str) -> dict[str, str]:
    return {
        "Uniqueid": HOLD,
        "Channel": NAME,
        "Linkedid": HOLD,
        "ChannelState": "6",
        "AccountCode": leg,
        "Duration": "00:00:05",
    }


def kinds(talk: Talk, snapshot: Snapshot) -> list[str]:
    batch = resync(talk.tracker, snapshot, NOW, NOW).batch
    return [event.type.value.removeprefix("call.") for event in batch.events]


def test_a_gap_changes_nothing_of_a_hold(talk: Talk) -> None:
    talk.holds()
    talk.news()
    assert kinds(talk, listing(talk, music(talk.agent))) == ["uncertain"]


def test_a_hold_that_began_or_ended_in_a_gap_is_told_after_it(talk: Talk) -> None:
    assert kinds(talk, listing(talk, music(talk.agent))) == ["uncertain", "held"]
    assert kinds(talk, listing(talk)) == ["uncertain", "resumed"]


def test_who_comes_after_us_knows_by_whom_it_is_held(talk: Talk) -> None:
    talk.holds()
    live = talk.tracker.book.take().live
    after = Talk()
    after.tracker = side("asterisk-22").tracker()
    assert after.tracker.restore({call: state for call, state in live.items() if state}) == 0
    assert kinds(after, listing(talk)) == ["uncertain", "resumed"]
