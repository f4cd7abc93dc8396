"""A waiting caller presses a key and is called back, on a real PBX; who is not keeps the place in the queue."""

from __future__ import annotations

import re
from typing import Any

import pytest
from labs import asterisk_only
from rig import until
from stack import QUICK, Site, Stack
from waiting import OFFERED, line, shown, types
from web import Web

from ringbridge_lab.lab import Behaviour, Lab
from ringbridge_lab.people import Caller

pytestmark = [pytest.mark.pbx, pytest.mark.usefixtures("rested")]

FIRST, SECOND = "+16465550111", "+16465550112"


@pytest.fixture(scope="module")
def desk(stack: Stack) -> Site:
    made = stack.make_site("Desk", limits=QUICK, offer_queues=["offer"])
    stack.admin.ok("POST", "/api/v1/dids", {"client_id": made.client, "number": OFFERED})
    return made


@pytest.fixture
def busy(lab: Lab, desk: Site) -> None:
    """The queue's only phone rings and is not answered."""
    lab.phone("105", Behaviour.NO_ANSWER)


def waits(stack: Stack, lab: Lab, caller: str) -> Caller:
    """A caller who has waited long enough to be offered it."""
    before = line(lab)
    person = lab.call(OFFERED, caller=caller)
    until(lambda: len(line(lab)) == len(before) + 1, 20, "the caller in the queue")
    until(lambda: stack.rows("SELECT 1 FROM calls WHERE ended_at IS NULL AND customer_number = ?", caller), 20)
    until(lambda: long_enough(lab), 20, "two seconds of waiting")
    return person


def long_enough(lab: Lab) -> bool:
    return any(seconds >= 3 for _, seconds in shown(lab)[-1:])


def wish(stack: Stack, number: str) -> list[dict[str, Any]]:
    return stack.rows("SELECT * FROM callbacks WHERE source = 'queue' AND number = ?", number)


def asked(lab: Lab, person: Caller) -> None:
    """The key was pressed, and the queue has let the caller go for a moment."""
    before = line(lab)
    person.send("1")
    until(lambda: len(line(lab)) == len(before) - 1, 20, "the caller to be asked")


@pytest.mark.usefixtures("busy")
def test_who_asks_may_hang_up_and_is_called_back_by_an_agent(lab: Lab, stack: Stack, agents: dict[str, Web]) -> None:
    number = "+16465550113"
    person = waits(stack, lab, number)
    asked(lab, person)
    # The number is theirs: 1 confirms it. The PBX hangs up after its thanks.
    person.send("1")
    row = until(lambda: wish(stack, number), 20, stack.tail())[0]
    assert (row["queue"], row["status"]) == ("offer", "queued")
    assert row["joined_at"] < row["created_at"]
    until(lambda: not stack.rows("SELECT 1 FROM calls WHERE ended_at IS NULL AND customer_number = ?", number), 20)
    agents["101"].ok("PUT", "/api/v1/me/state", {"state": "ready"})
    status = "SELECT 1 FROM callbacks WHERE id = ? AND status = ?"
    until(lambda: stack.rows(status, row["id"], "connected"), 40, stack.tail())
    lab.hang_up_phone("101")
    until(lambda: stack.rows(status, row["id"], "done"), 30)
    assert stack.invites(row["id"]) == ["101", number]
    assert len(wish(stack, number)) == 1


@pytest.mark.usefixtures("busy")
def test_whoever_does_not_confirm_stands_where_they_stood(lab: Lab, stack: Stack) -> None:
    first = waits(stack, lab, FIRST)
    waits(stack, lab, SECOND)
    before = line(lab)
    asked(lab, first)
    assert line(lab) == before[1:]
    first.send("3")
    until(lambda: len(line(lab)) == 2, 30, "the caller in the queue again")
    assert line(lab) == before
    assert not wish(stack, FIRST)


@pytest.mark.usefixtures("busy")
def test_a_premium_number_is_refused_and_another_may_be_typed(lab: Lab, stack: Stack) -> None:
    person = waits(stack, lab, FIRST)
    name = line(lab)[0]
    asked(lab, person)
    person.send("2")
    until(lambda: types(lab, name, 1), 20, "the caller to be asked for a number")
    person.send("9005550199#")
    person.send("1")
    # Refused, it asks for another one at once.
    until(lambda: "queue wish answered" in stack.tail(400) and "answer=no" in stack.tail(400), 20, stack.tail())
    until(lambda: types(lab, name, 2), 20, "the caller to be asked for another number")
    person.send("6465550119#")
    person.send("1")
    until(lambda: wish(stack, "+16465550119"), 30, stack.tail())
    assert not wish(stack, "+19005550199")


@pytest.mark.usefixtures("busy")
def test_who_hangs_up_while_typing_asked_for_nothing(lab: Lab, stack: Stack) -> None:
    person = waits(stack, lab, SECOND)
    asked(lab, person)
    person.send("2")
    person.send("64655")
    person.hang_up()
    until(lambda: not stack.rows("SELECT 1 FROM calls WHERE ended_at IS NULL AND customer_number = ?", SECOND), 20)
    assert not wish(stack, SECOND)


@asterisk_only
@pytest.mark.usefixtures("busy")
def test_a_forged_event_makes_no_callback_for_a_queue_that_nobody_waits_in(lab: Lab, stack: Stack) -> None:
    """Whoever may write to the manager can say anything of a call that is there."""
    waits(stack, lab, FIRST)
    with lab.company_ami() as ami:
        channel = ami.command("core show channels concise").split("!", 1)[0].splitlines()[-1]
        uid = ami.command(f"core show channel {channel}")
        uid = re.search(r"UniqueID: (\S+)", uid)[1]  # type: ignore[index]
        for queue, number in (("sales", "+16465550120"), ("offer", "1-800-FLOWERS"), ("offer", "+16465550120\r\nX: y")):
            headers = {"UserEvent": "RingbridgeCallback", "Uniqueid": uid, "Queue": queue, "Question": "1"}
            ami.action("UserEvent", Number=number.replace("\r\n", " "), **headers)
    until(lambda: "queue wish of no caller" in stack.tail(400), 20, stack.tail())
    assert not wish(stack, "+16465550120")
