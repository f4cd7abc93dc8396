"""Actions on a call over AMI, where the PBX is silent, refuses, or says what cannot be."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from doubles.ami_links import HASTY, QUICK, events_until, linked
from doubles.sink import Sink
from recorded import wire
from rig import until

from bridge.domain.actions import Action, Side
from bridge.domain.calls import Directory
from bridge.pbx.ami.link import AmiLink
from bridge.pbx.port import ActionOrder, Outcome, Reason
from bridge.pbx.sim.ami import FakeAsterisk, message
from bridge.uptime import uptime

COMMAND = "f44868bd-339b-40cb-a91b-6931e2120fb5"
CALLER, AGENT = "PJSIP/trunk-00000000", "PJSIP/101-00000001"


@pytest.fixture
def server() -> Iterator[FakeAsterisk]:
    with FakeAsterisk() as fake:
        fake.answers |= {
            name: lambda fields: message({"Response": "Success", "Message": "done"}, fields)
            for name in ("setvar", "hangup", "redirect", "blindtransfer", "atxfer", "park", "playdtmf", "cancelatxfer")
        }
        yield fake


@contextmanager
def talking(server: FakeAsterisk, hasty: bool = False) -> Iterator[tuple[AmiLink, str]]:
    """A link that has heard a caller and an agent begin to talk."""
    sink = Sink()
    with linked(server, sink, timings=HASTY if hasty else QUICK) as link:
        link.set_directory(Directory(agents={"PJSIP/101": "anna"}))
        server.send(b"".join(events_until(wire("asterisk-22", "simple"), b"Event: HangupRequest")))
        until(lambda: "call.connected" in sink.kinds())
        yield link, str(sink.heard[0].call)


def act(link: AmiLink, call: str, action: Action, seconds: float = 20.0, **values: object) -> Outcome:
    order = {"agent": "anna", "ring_seconds": 10, "context": "from-internal", **values}
    return link.act(ActionOrder(action, call, COMMAND, until=uptime() + seconds, **order))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("action", "values"),
    [
        (Action.HOLD, {}),
        (Action.CONSULT, {"to": "102"}),
        (Action.PARK, {}),
        (Action.RECORD, {}),
        (Action.LISTEN, {"device": "PJSIP/103"}),
        (Action.CONFERENCE, {"to": "102"}),
    ],
)
def test_what_the_pbx_says_nothing_of_is_unknown(
    server: FakeAsterisk, action: Action, values: dict[str, str]
) -> None:
    with talking(server) as (link, call):
        outcome = act(link, call, action, seconds=1.5, **values)
        assert (outcome.ok, outcome.reason) == (False, Reason.TIMEOUT)
    sent = [fields["Action"] for _, fields in server.actions]
    assert sum(sent.count(name) for name in ("Originate", "Atxfer", "Park")) == 1, "and is never sent again"


def test_a_silent_pbx_is_unknown_too(server: FakeAsterisk) -> None:
    server.answers["blindtransfer"] = lambda fields: None
    with talking(server) as (link, call):
        assert act(link, call, Action.TRANSFER, seconds=0.5, to="102").reason is Reason.TIMEOUT
    assert len(server.asked("BlindTransfer")) == 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [("Permission denied", Reason.REFUSED), ("No such channel", Reason.NOT_FOUND)],
)
def test_a_refusal_says_why(server: FakeAsterisk, text: str, reason: Reason) -> None:
    server.answers["blindtransfer"] = lambda fields: message({"Response": "Error", "Message": text}, fields)
    with talking(server) as (link, call):
        outcome = act(link, call, Action.TRANSFER, to="102")
        assert (outcome.ok, outcome.reason) == (False, reason)


def test_whoever_could_not_be_held_is_heard_again(server: FakeAsterisk) -> None:
    server.answers["originate"] = lambda fields: message({"Response": "Error", "Message": "no"}, fields)
    with talking(server) as (link, call):
        assert act(link, call, Action.HOLD).reason is Reason.REFUSED
    values = [fields["Value"] for fields in server.asked("Setvar")]
    assert values == ["-32767", "-32767", "0", "0"]


def test_without_the_volume_nobody_is_held(server: FakeAsterisk) -> None:
    """func_volume is not loaded: music over the agent's voice would be no hold."""
    server.answers["setvar"] = lambda fields: message({"Response": "Error", "Message": "Variable not set"}, fields)
    with talking(server) as (link, call):
        assert act(link, call, Action.HOLD).reason is Reason.REFUSED
    assert server.asked("Originate") == []


@pytest.mark.parametrize(
    ("action", "command", "error", "words"),
    [
        (Action.PLAY, "originate", "Extension does not exist.", "ringbridge check"),
        (Action.DTMF, "playdtmf", "Channel not found", "just ended"),
    ],
)
def test_a_refusal_of_the_pbxs_is_a_sentence_for_people(
    server: FakeAsterisk, action: Action, command: str, error: str, words: str
) -> None:
    values = {"sound": "beep", "side": Side.BOTH} if action is Action.PLAY else {"digits": "1"}
    server.answers[command] = lambda fields: message({"Response": "Error", "Message": error}, fields)
    with talking(server) as (link, call):
        outcome = act(link, call, action, **values)
        assert not outcome.ok and words in outcome.detail


def test_a_phone_that_nobody_answers(server: FakeAsterisk) -> None:
    def fail(fields: dict[str, str]) -> bytes:
        server.event("OriginateResponse", ActionID=fields["ActionID"], Response="Failure", Reason="3")
        return message({"Response": "Success", "Message": "queued"}, fields)

    server.answers["originate"] = fail
    with talking(server) as (link, call):
        outcome = act(link, call, Action.LISTEN, device="PJSIP/103")
        assert (outcome.ok, outcome.reason) == (False, Reason.FAILED)
    [fields] = server.asked("Originate")
    assert (fields["Channel"], fields["Context"], fields["Exten"]) == ("PJSIP/103", "ringbridge-act", "listen")
    assert "Application" not in fields and "Data" not in fields


@pytest.mark.parametrize(("result", "reason"), [("stale", Reason.STALE), ("invalid", Reason.REFUSED)])
def test_what_our_dialplan_refuses(server: FakeAsterisk, result: str, reason: Reason) -> None:
    def refuse(fields: dict[str, str]) -> bytes:
        server.event("UserEvent", UserEvent="Ringbridge", Command=COMMAND, Result=result)
        return message({"Response": "Success", "Message": "queued"}, fields)

    server.answers["originate"] = refuse
    with talking(server) as (link, call):
        assert act(link, call, Action.PLAY, sound="beep", side=Side.BOTH).reason is reason


@pytest.mark.parametrize(
    ("action", "values"),
    [
        (Action.TRANSFER, {"to": "102\r\nAction: Originate"}),
        (Action.TRANSFER, {"to": "102", "context": "a b"}),
        (Action.TRANSFER, {}),
        (Action.CONSULT, {"to": "${X}"}),
        (Action.DTMF, {"digits": "1,2"}),
        (Action.PLAY, {"sound": "../../etc/passwd", "side": Side.BOTH}),
        (Action.PLAY, {"sound": "/beep", "side": Side.BOTH}),
        (Action.LISTEN, {"device": "Local/101@from-internal"}),
        (Action.LISTEN, {"device": "PJSIP/103&PJSIP/104"}),
        (Action.LISTEN, {"device": "user/103"}),
        (Action.HOLD, {"to": "102"}),
    ],
)
def test_what_is_not_of_its_form_never_leaves(
    server: FakeAsterisk, action: Action, values: dict[str, object]
) -> None:
    with talking(server) as (link, call):
        before = len(server.actions)
        outcome = act(link, call, action, **values)
        assert (outcome.ok, outcome.reason) == (False, Reason.REFUSED)
        assert len(server.actions) == before


def test_the_same_twice_at_once_is_done_once(server: FakeAsterisk) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with talking(server) as (link, call), ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(lambda _: act(link, call, Action.PARK, seconds=2), range(4)))
    assert sorted(outcome.reason for outcome in outcomes) == ["refused", "refused", "refused", "timeout"]
    assert len(server.asked("Park")) == 1


def test_a_link_that_is_down_does_nothing(server: FakeAsterisk) -> None:
    with talking(server) as (link, call):
        server.users["ringbridge-dial"] = "another"
        server.users["ringbridge"] = "another"
        server.cut()
        until(lambda: not link._synced)
        assert act(link, call, Action.HOLD).reason is Reason.LINK_DOWN
    assert server.asked("Setvar") == []
