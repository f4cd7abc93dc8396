"""What agents and supervisors do to real calls over REST, and what they, the history and the audit log are told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from doubles.edge import Stream
from rig import until
from stack import PASSWORD, Stack

from ringbridge_lab.lab import Caller, Lab

pytestmark = pytest.mark.pbx

ANN, BEN, SUE = "101", "102", "103"
CALLER = "+16465550151"


class Desk:
    """One person at their phone: REST, and the stream on which outcomes come."""

    def __init__(self, stack: Stack, extension: str) -> None:
        self.stack = stack
        self.web = stack.sign_in(extension, "paused")
        self.stream = Stream(stack.port, "/api/v1/me/events", dict(self.web.headers))
        assert self.stream.status == 200, self.stream.body

    def close(self) -> None:
        self.stream.close()
        self.web.ok("PUT", "/api/v1/me/state", {"state": "offline"})

    def asks(self, call: str, what: str, body: object = None) -> str:
        """Ask for it; the command's id."""
        return str(self.web.ok("POST", f"/api/v1/calls/{call}/{what}", body)["command"])

    def outcome(self, command: str) -> dict[str, Any]:
        """What the stream says became of it."""
        while True:
            event = self.stream.next(60)
            if event.get("event") == "command":
                data: dict[str, Any] = json.loads(event["data"])
                assert data["command"] == command, "one outcome for each, in order"
                return data

    def does(self, call: str, what: str, body: object = None, action: str = "") -> dict[str, Any]:
        """Ask, and see that the PBX says it is done; the outcome's data."""
        told = self.outcome(self.asks(call, what, body))
        assert (told["ok"], told["reason"], told["action"]) == (True, "done", action or what), told
        return dict(told["data"])

    def fails(self, call: str, what: str, body: object = None) -> dict[str, Any]:
        """Ask for what comes to nothing; the outcome."""
        told = self.outcome(self.asks(call, what, body))
        assert told["ok"] is False and told["detail"], told
        return told


@pytest.fixture(scope="module")
def people(stack: Stack) -> None:
    stack.make_agent(ANN)
    stack.make_agent(BEN)
    stack.admin.ok(
        "POST",
        "/api/v1/agents",
        {
            "username": f"agent{SUE}",
            "password": PASSWORD,
            "name": "Sue",
            "role": "supervisor",
            "devices": [stack.lab.device(SUE)],
            "extension": SUE,
        },
    )


@pytest.fixture
def desks(stack: Stack, people: None) -> Iterator[dict[str, Desk]]:
    stack.wait_ready()
    made: dict[str, Desk] = {}
    try:
        for extension in (ANN, BEN, SUE):
            made[extension] = Desk(stack, extension)
        yield made
    finally:
        for desk in made.values():
            desk.close()


@pytest.fixture
def ann(desks: dict[str, Desk]) -> Desk:
    return desks[ANN]


def live(stack: Stack) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = stack.admin.ok("GET", "/api/v1/calls?live=true")["items"]
    return rows


def history(stack: Stack, call: str) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = stack.admin.ok("GET", f"/api/v1/calls/{call}")["events"]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    return events


def told(stack: Stack, call: str, kind: str, count: int = 1) -> list[dict[str, Any]]:
    """The data of the call's events of that type, once there are so many."""

    def look() -> list[dict[str, Any]] | None:
        found = [event["data"] for event in history(stack, call) if event["type"] == f"call.{kind}"]
        return found if len(found) >= count else None

    found = until(look, 20, what=f"{count} call.{kind}; {[event['type'] for event in history(stack, call)]}")
    assert found is not None
    return found


def rings(lab: Lab, stack: Stack, caller: str = CALLER) -> tuple[Caller, str]:
    """Somebody outside calls 101; the call's id."""
    lab.wait_idle()
    until(lambda: not live(stack), what="no call in progress")
    call = lab.call("+12125550101", caller=caller)
    row = until(lambda: [row for row in live(stack) if row["state"] in ("offered", "connected")])[0]
    return call, str(row["id"])


def talks(lab: Lab, stack: Stack) -> tuple[Caller, str]:
    """Somebody outside talks with 101; the call's id."""
    lab.phone(ANN, answer_after=0.3)
    call, call_id = rings(lab, stack)
    told(stack, call_id, "connected")
    return call, call_id


def ended(lab: Lab, stack: Stack, caller: Caller, call: str) -> list[str]:
    """The caller hangs up; what was told of the call, from its start to its end."""
    caller.hang_up()
    told(stack, call, "ended")
    lab.wait_idle()
    return [event["type"].removeprefix("call.") for event in history(stack, call)]


def test_an_agent_holds_and_takes_off_hold(lab: Lab, stack: Stack, ann: Desk) -> None:
    caller, call = talks(lab, stack)
    ann.does(call, "hold")
    [held] = told(stack, call, "held")
    assert held["by"]["device"] == lab.device(ANN)
    ann.does(call, "resume")
    told(stack, call, "resumed")
    assert ended(lab, stack, caller, call) == ["started", "offered", "connected", "held", "resumed", "ended"]
    words = stack.command("calls", call)
    assert f"Agent {ANN} ({lab.device(ANN)}) put the call on hold" in words


def test_an_agent_sends_a_caller_on(lab: Lab, stack: Stack, ann: Desk) -> None:
    lab.phone(BEN, answer_after=0.3)
    caller, call = talks(lab, stack)
    ann.does(call, "transfer", {"to": BEN})
    told(stack, call, "connected", 2)
    [sent] = told(stack, call, "transferred")
    assert (sent["kind"], sent["by"]["device"]) == ("blind", lab.device(ANN))
    assert "ended" in ended(lab, stack, caller, call)


def test_an_agent_asks_first_then_brings_them_together(lab: Lab, stack: Stack, ann: Desk) -> None:
    lab.phone(BEN, answer_after=0.3)
    caller, call = talks(lab, stack)
    ann.does(call, "transfer", {"to": BEN, "kind": "attended"}, "consult")
    consultation = until(lambda: [row for row in live(stack) if row["id"] != call and row["state"] == "connected"])
    assert len(consultation) == 1
    ann.does(call, "transfer/complete", action="complete")
    [sent] = told(stack, call, "transferred")
    assert (sent["kind"], sent["by"]["device"]) == ("attended", lab.device(ANN))
    ended(lab, stack, caller, call)
    assert stack.admin.ok("GET", f"/api/v1/calls/{call}")["merged_calls"] == [consultation[0]["id"]]


def test_an_agent_asks_first_and_comes_back(lab: Lab, stack: Stack, ann: Desk) -> None:
    lab.phone(BEN, answer_after=0.3)
    caller, call = talks(lab, stack)
    ann.does(call, "transfer", {"to": BEN, "kind": "attended"}, "consult")
    until(lambda: [row for row in live(stack) if row["id"] != call and row["state"] == "connected"])
    ann.does(call, "transfer/cancel", action="return")
    until(lambda: [row["id"] for row in live(stack)] == [call])
    assert "transferred" not in ended(lab, stack, caller, call)


def test_a_third_is_called_in(lab: Lab, stack: Stack, ann: Desk) -> None:
    lab.phone(BEN, answer_after=0.3)
    caller, call = talks(lab, stack)
    ann.does(call, "conference", {"to": BEN})
    heard = told(stack, call, "connected", 2)
    assert lab.device(BEN) in [party["device"] for parties in heard[1:] for party in parties["parties"]]
    # The two of the company would go on without the caller.
    stack.admin.ok("POST", f"/api/v1/calls/{call}/hangup")
    told(stack, call, "ended")
    caller.wait_for("ended")


def test_a_parked_caller_is_fetched_by_another(lab: Lab, stack: Stack, desks: dict[str, Desk]) -> None:
    lab.phone(BEN, answer_after=0.3)
    caller, call = talks(lab, stack)
    data = desks[ANN].does(call, "park")
    assert data["slot"].isdecimal()
    assert desks[BEN].web("POST", f"/api/v1/calls/{call}/hold").status == 404, "it never rang there"
    desks[BEN].does(call, "retrieve")
    fetched = told(stack, call, "connected", 2)[-1]
    assert lab.device(BEN) in [party["device"] for party in fetched["parties"]]
    # Now it is Ben's call.
    until(lambda: desks[BEN].web("GET", f"/api/v1/calls/{call}").status == 200)
    desks[BEN].does(call, "hold")
    ended(lab, stack, caller, call)


def test_a_ringing_call_is_picked_up_by_another(lab: Lab, stack: Stack, desks: dict[str, Desk]) -> None:
    lab.phone(ANN, answer_after=30)
    lab.phone(BEN, answer_after=0.3)
    caller, call = rings(lab, stack)
    told(stack, call, "offered")
    assert "own phone" in desks[ANN].fails(call, "pickup")["detail"]
    desks[BEN].does(call, "pickup")
    [picked] = told(stack, call, "transferred")
    assert (picked["kind"], picked["by"]["device"]) == ("pickup", lab.device(BEN))
    told(stack, call, "connected")
    ended(lab, stack, caller, call)


def test_a_caller_who_has_nobody_yet_is_sent_elsewhere(lab: Lab, stack: Stack, ann: Desk) -> None:
    lab.phone(ANN, answer_after=30)
    lab.phone(BEN, answer_after=0.3)
    caller, call = rings(lab, stack)
    told(stack, call, "offered")
    ann.does(call, "redirect", {"to": BEN})
    [heard] = told(stack, call, "connected")
    assert lab.device(BEN) in [party["device"] for party in heard["parties"]]
    ended(lab, stack, caller, call)


def test_a_call_is_recorded_without_what_is_left_out(lab: Lab, stack: Stack, ann: Desk) -> None:
    caller, call = talks(lab, stack)
    assert "record" in ann.fails(call, "record", {"state": "paused"})["detail"]
    file = ann.does(call, "record", {"state": "on"})["file"]
    assert file.startswith("ringbridge/") and file.endswith(".wav")
    for state, action in (("paused", "pause"), ("on", "record"), ("off", "unrecord")):
        assert ann.does(call, "record", {"state": state}, action)["file"] == file
    assert ended(lab, stack, caller, call) == ["started", "offered", "connected", "ended"]


def test_sounds_and_keys(lab: Lab, stack: Stack, ann: Desk) -> None:
    caller, call = talks(lab, stack)
    ann.does(call, "dtmf", {"digits": "12"})
    assert ann.fails(call, "stop")["reason"] == "refused"
    assert ann.fails(call, "play", {"sound": "no/such-sound"})["reason"] in ("failed", "refused")
    assert ended(lab, stack, caller, call) == ["started", "offered", "connected", "ended"]


def test_a_supervisor_listens_whispers_barges_and_is_written_down(
    lab: Lab, stack: Stack, desks: dict[str, Desk]
) -> None:
    lab.phone(SUE, answer_after=0.3)
    caller, call = talks(lab, stack)
    assert desks[ANN].web("POST", f"/api/v1/calls/{call}/listen").status == 403
    for what in ("listen", "whisper", "barge"):
        desks[SUE].does(call, what)
    rows = stack.admin.ok("GET", f"/api/v1/audit?object={call}")["items"]
    assert [(row["action"], row["actor"]) for row in rows] == [
        (f"calls.{what}", f"agent{SUE}") for what in ("barge", "whisper", "listen")
    ]
    kinds = ended(lab, stack, caller, call)
    assert kinds[:3] == ["started", "offered", "connected"] and kinds[-1] == "ended"
    since = "SELECT id FROM calls WHERE started_at >= (SELECT started_at FROM calls WHERE id = ?)"
    assert stack.rows(since, call) == [{"id": call}]


def test_a_supervisor_sends_on_an_agents_caller(lab: Lab, stack: Stack, desks: dict[str, Desk]) -> None:
    lab.phone(BEN, answer_after=0.3)
    caller, call = talks(lab, stack)
    desks[SUE].does(call, "transfer", {"to": BEN})
    [sent] = told(stack, call, "transferred")
    assert sent["by"]["device"] == lab.device(ANN)
    ended(lab, stack, caller, call)


def test_nothing_happens_that_may_not(lab: Lab, stack: Stack, desks: dict[str, Desk]) -> None:
    caller, call = talks(lab, stack)
    assert desks[ANN].web("POST", f"/api/v1/calls/{call}/transfer", {"to": "+442079460123"}).status == 422
    assert desks[BEN].web("POST", f"/api/v1/calls/{call}/transfer", {"to": BEN}).status == 404
    for what in ("resume", "transfer/complete", "transfer/cancel", "retrieve"):
        assert desks[ANN].fails(call, what)["reason"] == "refused", what
    assert ended(lab, stack, caller, call) == ["started", "offered", "connected", "ended"]
    gone = desks[ANN].web("POST", f"/api/v1/calls/{call}/hold")
    assert (gone.status, gone.body["code"]) == (409, "conflict")


def test_actions_asked_for_at_once_are_done_in_order(lab: Lab, stack: Stack, ann: Desk) -> None:
    caller, call = talks(lab, stack)
    commands = [ann.asks(call, what) for what in ("hold", "resume", "hold", "resume")]
    assert [ann.outcome(command)["action"] for command in commands] == ["hold", "resume", "hold", "resume"]
    kinds = ended(lab, stack, caller, call)
    assert kinds[3:-1] == ["held", "resumed", "held", "resumed"]


