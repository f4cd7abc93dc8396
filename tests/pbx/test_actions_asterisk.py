"""Actions on a call, as only Asterisk has them: our context entered by another door, users without a class, wires."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Iterator

import pytest
from hands import CALLER_HZ, Hands, directory, phone_hz
from labs import asterisk_only
from links import Sink, link_to
from rig import until

from bridge.domain.actions import Action
from bridge.domain.calls import CallEventType
from bridge.pbx.port import Reason
from ringbridge_lab import tones
from ringbridge_lab.ami import Ami
from ringbridge_lab.lab import Behaviour, Lab

pytestmark = [pytest.mark.pbx, asterisk_only]

HOSTILE, ESCAPED = r'([\\",])', r"\\\1"
AGENT_HZ, SECOND_HZ = phone_hz("101"), phone_hz("102")


@pytest.fixture
def sink() -> Sink:
    return Sink()


@pytest.fixture
def hands(lab: Lab, sink: Sink) -> Iterator[Hands]:
    made = link_to(lab, sink)
    made.set_directory(directory(lab))
    made.start()
    try:
        until(lambda: sink.facts, what="the resync")
        for extension in ("101", "102", "103"):
            lab.phone(extension, answer_after=0.3)
        yield Hands(lab, made, sink)
    finally:
        made.stop()
        assert made.tracker.faults == 0


def command_user(lab: Lab) -> Ami:
    return Ami(lab.state.ports.company_ami, "ringbridge-dial", lab.state.secrets.command)


GOOD = {
    "RB_COMMAND": "f44868bd-339b-40cb-a91b-6931e2120fb5",
    "RB_SOUND": "lab/notice",
    "RB_LOT": "default",
    "RB_SLOT": "701",
    "RB_FILE": "ringbridge/x.wav",
}


@pytest.mark.parametrize(
    ("far", "near", "changes"),
    [
        ("play", "tell-one", {"RB_LEG": ""}),
        ("play", "tell-both", {"RB_LEG": "1795374259.1,uqEB"}),
        ("play", "listen", {"RB_LEG": "all"}),
        ("play", "held", {"RB_LEG": '" = "" | "1'}),
        ("play", "whisper", {"RB_COMMAND": "x"}),
        ("play", "barge", {"RB_UNTIL": "1795374259"}),
        ("play", "tell-one", {"RB_SOUND": "../../../etc/passwd"}),
        ("play", "tell-one", {"RB_SOUND": "lab/notice&lab/lesson"}),
        ("play", "tell-one", {"RB_SOUND": "${SHELL(true)}"}),
        ("rest", "record", {"RB_FILE": "../x.wav"}),
        ("rest", "record", {"RB_FILE": "ringbridge/x.wav,,touch /tmp/x"}),
        ("rest", "record", {"RB_FILE": "ringbridge/x.gsm"}),
        ("rest", "pickup", {"RB_CHANNEL": "PJSIP/101&PJSIP/102"}),
        ("rest", "pickup", {"RB_CHANNEL": ""}),
        ("rest", "third", {"RB_CHANNEL": "PJSIP"}),
        ("rest", "retrieve", {"RB_SLOT": "701,x"}),
        ("rest", "retrieve", {"RB_LOT": "a b"}),
    ],
)
def test_what_does_not_look_as_it_must_does_nothing(
    lab: Lab, hands: Hands, far: str, near: str, changes: dict[str, str]
) -> None:
    caller = hands.calls()
    leg, name = next((leg.uid, leg.name) for leg in hands.link.tracker.book.channels.values() if leg.trunk)
    until_then = {"RB_UNTIL": str(int(time.time()) + 30), "RB_LEG": leg, "RB_CHANNEL": name}
    variables = GOOD | until_then | changes
    folder = lab.dir / "company" / "var" / "spool" / "monitor"
    before = set(folder.rglob("*")) if folder.exists() else set()
    with command_user(lab) as ami:
        ami.action(
            "Originate",
            Channel=f"Local/{far}@ringbridge-act/n",
            ChannelId=f"rb-play-{uuid.uuid4()}",
            Context="ringbridge-act",
            Exten=near,
            Priority="1",
            Async="true",
            # AMI cuts a Variable header at commas and drops quotes, unless they are escaped.
            Variable=[f"{key}={re.sub(HOSTILE, ESCAPED, value)}" for key, value in variables.items()],
        )
    until(lambda: all(lab.channels() == 2 for _ in range(6)), what="what was refused to be gone")
    assert (set(folder.rglob("*")) if folder.exists() else set()) == before
    caller.hang_up()
    hands.idle()
    assert frozenset({tones.NOTICE}) not in tones.heard(caller.recording())
    assert hands.sink.kinds() == ["started", "offered", "connected", "ended"]


def test_a_command_user_without_the_classes(lab: Lab, hands: Hands) -> None:
    """The reader's name and secret stand where the command user's should."""
    sink = Sink()
    reader = lab.info["company"]["reader"]
    other = link_to(lab, sink, command_username=reader["username"], command_secret=reader["secret"])
    other.set_directory(directory(lab))
    other.start()
    try:
        until(lambda: sink.facts)
        caller = hands.calls()
        until(lambda: sink.of(CallEventType.CONNECTED))
        weak = Hands(lab, other, sink)
        weak.call = hands.call
        for action, values in ((Action.HOLD, {}), (Action.TRANSFER, {"to": "102"}), (Action.RECORD, {})):
            outcome = weak.act(action, **values)  # type: ignore[arg-type]
            assert (outcome.reason, "ermission" in outcome.detail) == (Reason.REFUSED, True), outcome
        hands.hears(caller, AGENT_HZ)
        caller.hang_up()
        hands.idle()
    finally:
        other.stop()


def test_a_queues_caller_behind_a_wire_is_held_and_joined(lab: Lab, hands: Hands) -> None:
    """101 is in the queue behind a Local channel that stays; the queue goes on with its caller."""
    for extension in ("103", "104", "105"):
        lab.phone(extension, Behaviour.BUSY)
    lab.phone("102", Behaviour.BUSY)
    caller = hands.calls("+12125550120")
    hands.does(Action.HOLD)
    hands.hear((caller, (tones.MUSIC,)), (hands.phone("101"), ()))
    hands.does(Action.RESUME)
    lab.phone("102", answer_after=0.3)
    hands.does(Action.CONFERENCE, to="102")
    hands.hear((caller, (AGENT_HZ, SECOND_HZ)), (hands.phone("101"), (CALLER_HZ, SECOND_HZ)))
    caller.hang_up()
    lab.hang_up_phone("101")
    lab.hang_up_phone("102")
    hands.idle()
    assert len(hands.sink.of(CallEventType.ENDED)) == len(hands.sink.of(CallEventType.STARTED)) == 1


def test_a_leg_that_took_anothers_place_is_held(lab: Lab, hands: Hands) -> None:
    """A pickup puts one channel where another was."""
    lab.phone("101", Behaviour.NO_ANSWER)
    caller = hands.rings()
    hands.does(Action.PICKUP, agent=None, device=lab.device("102"), extension="102")
    hands.told(CallEventType.CONNECTED)
    hands.does(Action.HOLD, agent="ben")
    hands.hears(caller, tones.MUSIC)
    hands.does(Action.RESUME, agent="ben")
    file = hands.does(Action.RECORD, agent="ben").data["file"]
    hands.does(Action.TRANSFER, agent="ben", to="103")
    hands.hears(caller, phone_hz("103"))
    assert hands.does(Action.UNRECORD, agent="cleo").data["file"] == file
    caller.hang_up()
    hands.idle()


@pytest.mark.parametrize("action", [Action.TRANSFER, Action.CONSULT, Action.CONFERENCE])
def test_a_number_that_nobody_has_loses_no_caller(hands: Hands, action: Action) -> None:
    """Asterisk itself takes such a transfer, and hangs up on the caller."""
    caller = hands.calls()
    outcome = hands.act(action, to="999")
    assert (outcome.ok, outcome.reason) == (False, Reason.REFUSED), outcome
    hands.hears(caller, AGENT_HZ)
    caller.hang_up()
    hands.idle()
    assert hands.sink.kinds() == ["started", "offered", "connected", "ended"]


def test_a_ringing_caller_is_not_sent_nowhere(lab: Lab, hands: Hands) -> None:
    lab.phone("101", Behaviour.NO_ANSWER)
    caller = hands.rings()
    assert hands.act(Action.REDIRECT, agent=None, to="999").reason is Reason.REFUSED
    lab.phone("101", answer_after=0.1)
    hands.does(Action.REDIRECT, agent=None, to="101")
    hands.told(CallEventType.CONNECTED)
    caller.hang_up()
    hands.idle()


@pytest.mark.parametrize(
    ("action", "values"),
    [
        (Action.CONSULT, {"to": "103"}),
        (Action.TRANSFER, {"to": "103"}),
        (Action.CONFERENCE, {"to": "103"}),
        (Action.PARK, {}),
    ],
)
def test_who_asks_somebody_parts_nobody(hands: Hands, action: Action, values: dict[str, str]) -> None:
    """A second Atxfer would complete the first; a transfer would send the wrong one on."""
    caller = hands.calls()
    hands.does(Action.CONSULT, to="102")
    hands.hears(hands.phone("101"), SECOND_HZ)
    outcome = hands.act(action, **values)  # type: ignore[arg-type]
    assert (outcome.ok, outcome.reason) == (False, Reason.REFUSED), outcome
    hands.does(Action.RETURN)
    hands.hears(caller, AGENT_HZ)
    caller.hang_up()
    hands.idle()


def test_music_ends_with_who_holds_though_nobody_listens(lab: Lab, hands: Hands) -> None:
    """The agent sends the held caller on by keys, after the listener has died."""
    caller = hands.calls()
    hands.does(Action.HOLD)
    hands.hears(caller, tones.MUSIC)
    hands.link.stop()
    lab.press_phone("101", "##102")
    hands.hears(caller, SECOND_HZ)
    until(lambda: lab.channels() == 2, what="the music to be gone")
    caller.hang_up()
    lab.wait_idle()


def test_what_is_done_leaves_no_line_in_the_companys_records(lab: Lab, hands: Hands) -> None:
    records = lab.dir / "company" / "log" / "cdr-csv" / "Master.csv"
    before = len(records.read_text().splitlines()) if records.exists() else 0
    caller = hands.calls()
    hands.does(Action.HOLD)
    hands.does(Action.RESUME)
    hands.does(Action.RECORD)
    caller.hang_up()
    hands.idle()
    until(lambda: records.exists() and len(records.read_text().splitlines()) > before, what="the call's own record")
    rows = records.read_text().splitlines()[before:]
    assert [row for row in rows if "ringbridge-act" in row or "rb-" in row] == []
