"""Actions on calls, through the mailbox: in order, beside each other, once, and always with an answer."""

from __future__ import annotations

import json
import uuid
from typing import Any, cast

import pytest
from doubles.listening import Stage
from rig import until

from bridge.live import keys, mailbox
from bridge.pbx.port import PbxLink
from bridge.services.lease import LeaseKeeper
from bridge.services.orders import Orders

pytestmark = pytest.mark.faults


def act(stage: Stage, action: str, seconds: float = 10, **data: object) -> str:
    """Put an action into the mailbox; the command's id."""
    body = {"action": action, "call": "c1", "agent": "ann", "asker": "ann", **data}
    return mailbox.send(stage.redis, "lab", "action", body, seconds, to="agent:ann")


def acts(stage: Stage) -> list[tuple[str | None, str | None]]:
    return [(found["action"], found["agent"]) for found in stage.pbx.acts]


def told(stage: Stage, command: str) -> dict[str, Any]:
    """What the screens were told of a command; the answer comes first."""

    def look() -> list[dict[str, Any]]:
        entries = [fields for _, fields in stage.redis.xrange(keys.SCREENS) if fields["id"] == command]
        assert all((fields["to"], fields["event"]) == ("agent:ann", "command") for fields in entries)
        return [json.loads(fields["data"]) for fields in entries]

    found = until(look, what="an event for the screens")
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize(
    ("answer", "ok"),
    [
        ({"reason": "done", "detail": "parked", "data": {"slot": "701"}}, True),
        ({"reason": "failed", "detail": "nobody answered"}, False),
        ({"reason": "not_found", "detail": "that call is over"}, False),
    ],
)
def test_an_action_and_its_outcome_on_the_screen(stage: Stage, answer: dict[str, Any], ok: bool) -> None:
    stage.listen()
    stage.wait_connected()
    stage.pbx.acted = answer
    command = act(stage, "transfer", to="102")
    reply, data = stage.reply(command), answer.get("data", {})
    assert (reply.ok, reply.reason, reply.detail, reply.data) == (ok, answer["reason"], answer["detail"], data)
    shown = told(stage, command)
    assert shown == {"command": command, "action": "transfer", "ok": ok, **answer, "data": data}
    assert [(found["to"], found["call"], found["agent"]) for found in stage.pbx.acts] == [("102", "c1", "ann")]
    until(lambda: stage.redis.hget(keys.listen_metrics("lab"), f"command_transfer_{answer['reason']}") == "1")


def test_what_nobody_may_ask_for_is_not_done(stage: Stage) -> None:
    stage.listen()
    stage.wait_connected()
    wrong: list[tuple[str, dict[str, object]]] = [
        ("shout", {}),
        ("transfer", {}),
        ("transfer", {"to": "102\r\nAction: Originate"}),
        ("transfer", {"to": ["102"]}),
        ("hold", {"to": "102"}),
        ("hold", {"call": None}),
        ("hold", {"call": ""}),
        ("hold", {"agent": {"a": 1}}),
        ("play", {"sound": "../x", "side": "both"}),
        ("play", {"sound": "hi", "side": "everyone"}),
        ("play", {"sound": "hi", "side": []}),
        ("dtmf", {"digits": "1" * 33}),
        ("listen", {"device": "Local/1@x"}),
        ("listen", {}),
    ]
    commands = [act(stage, action, **data) for action, data in wrong]
    commands.append(mailbox.send(stage.redis, "lab", "action", {"action": "hold", "call": "c1"}, 10, command_id="x"))
    commands.append(mailbox.send(stage.redis, "lab", "action", {}, 10))
    assert {stage.reply(command).reason for command in commands} == {"not_understood"}
    assert stage.pbx.acts == []
    assert stage.reply(act(stage, "hold")).ok


def test_what_comes_too_late_is_not_done(stage: Stage) -> None:
    command = act(stage, "hold", seconds=-0.001)
    stage.listen()
    assert stage.reply(command).reason == "stale"
    stage.wait_connected()
    assert stage.pbx.acts == []


def test_without_the_pbx_nothing_is_done(stage: Stage) -> None:
    listener = stage.listen()
    stage.wait_connected(listener.pid)
    stage.pbx.close()
    until(lambda: not stage.holder_pid(), what="a listener without its PBX")
    assert stage.reply(act(stage, "hold")).reason == "link_down"


def test_a_slow_action_holds_up_no_other_and_no_hang_up(stage: Stage) -> None:
    stage.listen()
    stage.wait_connected()
    stage.pbx.acted = {}
    slow = [act(stage, "listen", device=f"PJSIP/{150 + n}", agent=None, asker=f"s{n}") for n in range(40)]
    until(lambda: len(stage.pbx.acts) == 40, what="forty that listen")
    stage.pbx.acted = {"reason": "done"}
    assert stage.reply(act(stage, "hold")).reason == "done"
    hangup = mailbox.send(stage.redis, "lab", "hangup", {"call": "c1", "agent": None}, 10)
    assert stage.reply(hangup).ok
    stage.pbx.answer_acts(reason="failed", detail="nobody answered")
    assert {stage.reply(command).reason for command in slow} == {"failed"}


def test_the_wishes_of_one_person_stay_in_order(stage: Stage) -> None:
    """Hold and resume at once; the second leaves once the first has its outcome, and what ends it needs not wait."""
    stage.listen()
    stage.wait_connected()
    stage.pbx.acted = {}
    first = act(stage, "hold")
    until(lambda: acts(stage) == [("hold", "ann")])
    second = act(stage, "resume")
    act(stage, "hold", agent="bob", asker="bob")
    act(stage, "complete")
    until(lambda: len(acts(stage)) >= 3)
    assert set(acts(stage)) == {("hold", "ann"), ("hold", "bob"), ("complete", "ann")}
    stage.pbx.answer_acts(reason="done")
    assert stage.reply(first).ok
    until(lambda: acts(stage)[3:] == [("resume", "ann")])
    stage.pbx.answer_acts(reason="done")
    assert stage.reply(second).ok


def test_an_action_cut_short_by_a_crash_is_not_known_and_never_repeated(stage: Stage) -> None:
    first = stage.listen()
    stage.wait_connected(first.pid)
    stage.pbx.acted = {}
    begun, waiting = act(stage, "transfer", to="102"), act(stage, "hold")
    until(lambda: acts(stage) == [("transfer", "ann")])
    first.kill()
    first.wait()
    stage.pbx.acted = {"reason": "done"}
    second = stage.listen()
    stage.wait_connected(second.pid)
    for command in (begun, waiting):
        reply = stage.reply(command)
        assert (reply.ok, reply.reason) == (False, "unknown")
        assert "not known" in reply.detail
        assert told(stage, command)["reason"] == "unknown"
    assert acts(stage) == [("transfer", "ann")]


def test_a_listener_that_is_told_to_stop_waits_for_no_phone_that_rings(stage: Stage) -> None:
    first = stage.listen()
    stage.wait_connected(first.pid)
    stage.pbx.acted = {}
    command = act(stage, "listen", device="PJSIP/150", agent=None, asker="sue")
    until(lambda: len(stage.pbx.acts) == 1)
    first.terminate()
    assert first.wait(20) == 0
    second = stage.listen()
    stage.wait_connected(second.pid)
    assert stage.reply(command).reason == "unknown"
    told(stage, command)
    assert len(stage.pbx.acts) == 1


def test_more_than_can_be_done_at_once_is_refused(stage: Stage) -> None:
    stage.listen()
    stage.wait_connected()
    stage.pbx.acted = {}
    commands = [act(stage, "hold", call=f"c{n}") for n in range(230)]
    until(lambda: len(stage.pbx.acts) >= 200, what="as many as fit")
    refused = [stage.reply(command) for command in commands[-20:]]
    assert {(reply.ok, reply.reason) for reply in refused} == {(False, "refused")}
    stage.pbx.answer_acts(reason="done")
    stage.pbx.acted = {"reason": "done"}
    until(lambda: stage.reply(act(stage, "hold", call=str(uuid.uuid4()))).ok)


def test_a_holder_whose_term_is_over_answers_nothing_any_more(stage: Stage) -> None:
    """The next one says what it finds left over; two answers to one command would contradict each other."""
    box = mailbox.Mailbox(stage.redis, "lab", 1)
    keeper = cast(LeaseKeeper, None)
    link = cast(PbxLink, None)
    orders = Orders(stage.settings, "lab", stage.sessions, stage.redis, box, link, keeper, lambda: True)
    stage.redis.set(keys.epoch("lab"), 1)
    act(stage, "listen", device="PJSIP/150")
    read = box.read(10)
    assert isinstance(read, list)
    orders.close()
    orders.answer(read[0], "done", "")
    assert stage.redis.xlen(keys.SCREENS) == 0
    left = box.left_over()
    assert isinstance(left, list) and [command.id for command in left] == [read[0].id]
