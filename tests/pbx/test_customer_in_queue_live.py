"""The customer is called first and waits in the PBX's queue, at their place in the line, for whoever is free."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from rig import until
from stack import QUICK, Site, Stack
from waiting import OFFERED, line
from web import Web

from ringbridge_lab.lab import Behaviour, Lab

pytestmark = [pytest.mark.pbx, pytest.mark.usefixtures("rested")]

CUSTOMER, CALLER = "+16465550114", "+16465550115"


@pytest.fixture(scope="module")
def shop(stack: Stack) -> Site:
    made = stack.make_site("Queueing", order="customer_in_queue", limits=QUICK, offer_queues=["offer"])
    stack.admin.ok("POST", "/api/v1/dids", {"client_id": made.client, "number": OFFERED})
    return made


@pytest.fixture(scope="module")
def five(stack: Stack) -> Web:
    """The agent whose phone is in that queue."""
    stack.make_agent("105")
    return stack.sign_in("105", "offline")


@pytest.fixture
def working(five: Web, agents: dict[str, Web]) -> Iterator[None]:
    """Two agents are ready, and the queue's one is the later of them: who is kept and who takes the call are two."""
    agents["101"].ok("PUT", "/api/v1/me/state", {"state": "ready"})
    five.ok("PUT", "/api/v1/me/state", {"state": "ready"})
    yield
    five.ok("PUT", "/api/v1/me/state", {"state": "offline"})


@pytest.mark.usefixtures("working")
def test_whoever_is_free_takes_the_customer_out_of_the_queue(lab: Lab, stack: Stack, shop: Site) -> None:
    made, visitor = stack.ask(shop, CUSTOMER, queue="offer")
    stack.wait_status(visitor, made, "connected")
    # Nobody rang 101: the queue's own phone took it, and 101 may take another call now.
    assert stack.invites(made) == [CUSTOMER]
    (call,) = until(lambda: stack.rows("SELECT * FROM calls WHERE callback_id = ? AND agent_id IS NOT NULL", made), 20)
    name = stack.rows("SELECT username FROM agents WHERE id = ?", call["agent_id"])[0]["username"]
    assert (name, call["queue"]) == ("agent105", "offer")
    taken = "SELECT agent_device FROM attempts WHERE callback_id = ? AND agent_id = ?"
    assert stack.rows(taken, made, call["agent_id"])[0]["agent_device"] == lab.device("105")
    assert not stack.rows("SELECT 1 FROM agent_states WHERE reserved_by IS NOT NULL")
    lab.hang_up_phone("105")
    stack.wait_status(visitor, made, "done")


def test_the_customer_stands_where_they_would_have_stood(
    lab: Lab, stack: Stack, shop: Site, agents: dict[str, Web]
) -> None:
    # The queue's phone rings and is not answered, so whoever waits there goes on waiting.
    lab.phone("105", Behaviour.NO_ANSWER)
    made, _ = stack.ask(shop, CUSTOMER, queue="offer")
    # Whole seconds are what a queue orders by.
    late = "SELECT 1 FROM callbacks WHERE id = ? AND joined_at < datetime('now', '-3 seconds')"
    until(lambda: stack.rows(late, made), 40, "three seconds after the wish")
    lab.call(OFFERED, caller=CALLER)
    until(lambda: len(line(lab)) == 1, 40, "the caller in the queue")
    (caller,) = line(lab)
    assert not stack.attempts(made)
    # Now somebody is free, so the customer is called, who comes into the queue later than the caller.
    agents["101"].ok("PUT", "/api/v1/me/state", {"state": "ready"})
    until(lambda: len(line(lab)) == 2, 60, "the customer in the queue")
    assert line(lab)[1] == caller
    until(lambda: [row["state"] for row in stack.attempts(made)] == ["answered"], 20, "an attempt that is answered")


def test_a_customer_who_gives_up_waiting_costs_no_agent_a_pause(
    lab: Lab, stack: Stack, shop: Site, agents: dict[str, Web]
) -> None:
    lab.phone("105", Behaviour.NO_ANSWER)
    agents["101"].ok("PUT", "/api/v1/me/state", {"state": "ready"})
    made, _ = stack.ask(shop, CUSTOMER, queue="offer")
    until(lambda: len(line(lab)) == 1, 60, "the customer in the queue")
    lab.hang_up_all()
    assert stack.failed(made)["reason"] == "abandoned"
    assert stack.tries(made) == 1
    assert not stack.rows("SELECT 1 FROM agent_states WHERE state = 'paused'")
    assert not stack.rows("SELECT 1 FROM agent_states WHERE reserved_by IS NOT NULL")
