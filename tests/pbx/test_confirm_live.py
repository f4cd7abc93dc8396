"""Press 1: a customer who is called first says by a key that the call is wanted; only then an agent's phone rings."""

from __future__ import annotations

import pytest
from rig import until
from stack import QUICK, Site, Stack
from web import Web

from ringbridge_lab.errors import LabError
from ringbridge_lab.lab import Lab

pytestmark = [pytest.mark.pbx, pytest.mark.usefixtures("rested")]


@pytest.fixture(scope="module")
def asking(stack: Stack) -> Site:
    """A site whose customers are asked, by a sound that the lab's PBX has."""
    protection = {"press_1": "lab/notice"}
    return stack.make_site("Asking", order="customer_first", limits=QUICK, protection=protection)


def press(lab: Lab, stack: Stack, callback: str, digit: str) -> bool:
    """The customer presses a key, once they have answered; whether they could."""
    found = [row for attempt in stack.attempts(callback) for row in lab.witness(attempt=attempt["id"])]
    with lab.world_ami() as ami:
        lines = ami.command("core show channels concise").splitlines()
    rows = [line.split("!") for line in lines if line.startswith("PJSIP/")]
    for row in rows:
        if found and row[-1] == found[0].leg and row[4] == "Up":
            try:
                lab.press(row[0], digit)
            except LabError:
                return False
            return True
    return False


def test_who_presses_1_talks_with_the_agent(lab: Lab, stack: Stack, asking: Site, agent: Web) -> None:
    callback, visitor = stack.ask(asking, "+13125550105")
    until(lambda: press(lab, stack, callback, "1"), 40, "the customer to press 1")

    def connected() -> bool:
        # Whoever pressed before they were asked presses again.
        return stack.status(visitor, callback)["status"] == "connected" or not press(lab, stack, callback, "1")

    until(connected, 40, "the agent to be there")
    stack.wait_status(visitor, callback, "connected")
    assert stack.invites(callback) == ["+13125550105", "101"]
    lab.hang_up_phone("101")
    stack.wait_status(visitor, callback, "done")
    stack.once_each(callback)


@pytest.mark.parametrize("key", ["", "2"])
def test_whoever_does_not_press_1_costs_no_agent_a_ring(
    lab: Lab, stack: Stack, asking: Site, agent: Web, key: str
) -> None:
    callback, visitor = stack.ask(asking, "+13125550106" if key else "+13125550107")
    if key:
        until(lambda: press(lab, stack, callback, key), 40, "the customer to press a key")
    view = stack.wait_status(visitor, callback, "failed", seconds=60)
    assert view["reason"] == "not_confirmed"
    assert [(row["state"], row["reason"]) for row in stack.attempts(callback)] == [("failed", "not_confirmed")]
    assert len(stack.invites(callback)) == 1
    lab.wait_idle()
    free = "SELECT 1 FROM agent_states WHERE state = 'ready' AND reserved_by IS NULL"
    until(lambda: stack.rows(free), 20, "101 to be free")
