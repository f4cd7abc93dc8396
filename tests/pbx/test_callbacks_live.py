"""From a visitor's form to two people in conversation, on a real PBX; the world's witness is believed, not we."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from redis import Redis
from rig import until
from stack import QUICK, Site, Stack
from web import Web

from ringbridge_lab import tones
from ringbridge_lab.errors import LabError
from ringbridge_lab.lab import Behaviour, Lab

pytestmark = [pytest.mark.pbx, pytest.mark.usefixtures("rested")]


def found(lab: Lab, leg: str) -> Path | None:
    """The recording of what that leg hears, once it was begun."""
    try:
        return lab.recording(leg)
    except LabError:
        return None


def test_form_to_conversation_each_hears_the_other(lab: Lab, stack: Stack, site: Site, agent: Web) -> None:
    number = "+16465550105"
    callback, visitor = stack.ask(site, "(646) 555-0105", name="Smith & Sons, {Ltd} | $5", note="call me")
    stack.wait_status(visitor, callback, "connected")
    legs = {row.number: row.leg for row in lab.witness(attempt=stack.attempts(callback)[0]["id"])}
    assert set(legs) == {"101", number}
    # Three seconds of conversation (8,000 bytes a second), so that the recordings hold it.
    heard = {who: until(lambda leg=leg: found(lab, leg), 10, who) for who, leg in legs.items()}
    for path in heard.values():
        until(lambda path=path: path.stat().st_size > 3 * 8000, 15, f"{path.name} to grow")
    assert lab.hang_up_phone("101") == 1
    view = stack.wait_status(visitor, callback, "done")
    assert view["reason"] is None or isinstance(view["reason"], str)
    lab.wait_idle()
    until(lambda: tones.has_tone(heard["101"], 1050, at_least_seconds=1), what="the customer heard by 101")
    until(lambda: tones.has_tone(heard[number], 330, at_least_seconds=1), what="101 heard by the customer")
    stack.once_each(callback)
    attempt = stack.attempts(callback)[0]
    assert attempt["state"] == "done"
    call = until(
        lambda: [row for row in agent.ok("GET", "/api/v1/calls")["items"] if row["callback_id"] == callback]
    )
    assert call[0]["direction"] == "outbound"
    assert call[0]["cause"] == "completed"


@pytest.mark.parametrize(
    ("number", "reason", "q850"),
    [("+13125550140", "busy", 17), ("+13125550150", "no_answer", None), ("+13125550160", "rejected", 21)],
)
def test_the_customer_cannot_be_reached(
    lab: Lab, stack: Stack, site: Site, agent: Web, number: str, reason: str, q850: int | None
) -> None:
    callback, visitor = stack.ask(site, number)
    attempt = until(
        lambda: [row for row in stack.attempts(callback) if row["state"] == "failed"], 40, f"{stack.tail()}"
    )[0]
    assert attempt["reason"] == reason
    if q850 is not None:
        assert attempt["q850"] == q850
    view = stack.status(visitor, callback)
    # Queued again, for later: one try used up, and told why.
    assert (view["status"], view["reason"]) == ("queued", reason)
    assert stack.invites(callback) == ["101", number]


def test_an_agent_who_does_not_answer_uses_no_try_and_is_not_rung_for_ever(
    lab: Lab, stack: Stack, site: Site, agent: Web
) -> None:
    lab.phone("101", Behaviour.NO_ANSWER)
    callback, visitor = stack.ask(site, "+13125550101")
    until(lambda: [row for row in stack.attempts(callback) if row["state"] == "failed"], 40, stack.tail())
    assert stack.attempts(callback)[0]["reason"] == "agent_no_answer"
    assert agent.ok("GET", "/api/v1/me/state")["state"] == "paused"
    assert stack.invites(callback) == ["101"]
    assert stack.rows("SELECT tries FROM callbacks WHERE id = ?", callback) == [{"tries": 0}]
    # The agent comes back: a new attempt is made.
    lab.reset_phones()
    agent.ok("PUT", "/api/v1/me/state", {"state": "ready"})
    stack.wait_status(visitor, callback, "connected")
    assert stack.invites(callback) == ["101", "101", "+13125550101"]
    lab.hang_up_phone("101")
    stack.wait_status(visitor, callback, "done")
    stack.once_each(callback)


def test_cancelled_before_anybody_is_free(lab: Lab, stack: Stack, site: Site, agent: Web) -> None:
    agent.ok("PUT", "/api/v1/me/state", {"state": "paused", "reason": "lunch"})
    callback, visitor = stack.ask(site, "+13125550102")
    assert stack.status(visitor, callback)["status"] == "queued"
    visitor.ok("DELETE", f"/api/v1/callbacks/{callback}")
    assert stack.status(visitor, callback)["status"] == "cancelled"
    agent.ok("PUT", "/api/v1/me/state", {"state": "ready"})
    # A later callback is made; the cancelled one stays so.
    other, web = stack.ask(site, "+13125550103")
    stack.wait_status(web, other, "connected")
    lab.hang_up_phone("101")
    stack.wait_status(web, other, "done")
    assert stack.invites(callback) == []


def test_cancelled_while_the_customer_rings(lab: Lab, stack: Stack, site: Site, agent: Web) -> None:
    callback, visitor = stack.ask(site, "+13125550151")
    stack.wait_status(visitor, callback, "calling_customer")
    until(lambda: "+13125550151" in stack.invites(callback))
    visitor.ok("DELETE", f"/api/v1/callbacks/{callback}")
    stack.wait_status(visitor, callback, "cancelled")
    lab.wait_idle()
    assert stack.invites(callback) == ["101", "+13125550151"]
    assert [row["state"] for row in stack.attempts(callback)] == ["cancelled"]


def test_two_agents_are_never_given_one_number(
    lab: Lab, stack: Stack, site: Site, agent: Web, agents: dict[str, Web]
) -> None:
    agents["102"].ok("PUT", "/api/v1/me/state", {"state": "ready"})
    first, web = stack.ask(site, "+13125550104")
    second, _ = stack.ask(site, "+13125550104", note="again")
    stack.wait_status(web, first, "connected")
    other = stack.ask(site, "+13125550106")
    stack.wait_status(other[1], other[0], "connected")
    assert stack.attempts(second) == [], "the number is in a call already"
    for extension in ("101", "102"):
        lab.hang_up_phone(extension)
    stack.wait_status(web, first, "done")
    stack.wait_status(other[1], other[0], "done")


def test_the_switch_stops_all_dialling(lab: Lab, stack: Stack, site: Site, agent: Web) -> None:
    stack.command("dialing", "stop")
    callback, visitor = stack.ask(site, "+13125550107")
    # Seen and left alone: enqueued, looked at by the worker, and not dialled.
    until(lambda: stack.rows("SELECT 1 FROM callbacks WHERE id = ? AND queued_at IS NOT NULL", callback))
    until(lambda: f"callback={callback} result=stopped" in stack.tail(400), what="the worker's word")
    assert stack.attempts(callback) == []
    stack.command("dialing", "start")
    stack.wait_status(visitor, callback, "connected")
    lab.hang_up_phone("101")
    stack.wait_status(visitor, callback, "done")


def test_customer_first(lab: Lab, stack: Stack, agent: Web) -> None:
    site = stack.make_site("Customer First", order="customer_first", limits=QUICK)
    callback, visitor = stack.ask(site, "+13125550109")
    stack.wait_status(visitor, callback, "connected")
    assert stack.invites(callback) == ["+13125550109", "101"]
    lab.hang_up_phone("101")
    stack.wait_status(visitor, callback, "done")
    stack.once_each(callback)


def test_the_pbx_is_killed_in_mid_call(lab: Lab, stack: Stack, site: Site, agent: Web) -> None:
    callback, visitor = stack.ask(site, "+13125550100")
    stack.wait_status(visitor, callback, "connected")
    lab.restart_company(kill=True)
    # They were connected, so the wish is met; how long they talked is not known.
    view = stack.wait_status(visitor, callback, "done", "failed", seconds=60)
    assert view["status"] == "done"
    stack.wait_ready()
    assert agent.ok("GET", "/api/v1/calls")["items"][0]["cause"] == "uncertain"
    assert stack.invites(callback) == ["101", "+13125550100"]


def test_redis_is_killed_in_mid_call(lab: Lab, stack: Stack, site: Site, agent: Web) -> None:
    callback, visitor = stack.ask(site, "+13125550110")
    stack.wait_status(visitor, callback, "connected")
    os.kill(stack.pid("redis-server"), signal.SIGKILL)
    lab.hang_up_phone("101")
    stack.wait_status(visitor, callback, "done", seconds=60)
    stack.wait_ready()
    agent.ok("PUT", "/api/v1/me/state", {"state": "ready"})
    after, web = stack.ask(site, "+13125550111")
    stack.wait_status(web, after, "connected")
    lab.hang_up_phone("101")
    stack.wait_status(web, after, "done")
    stack.once_each(callback)
    stack.once_each(after)


@pytest.mark.parametrize(
    "victim", ["worker --queue dial", "listen --pbx", "recorder", "scheduler", "redis-server"]
)
def test_a_process_is_killed_while_callbacks_come_in(
    lab: Lab, stack: Stack, site: Site, agent: Web, victim: str
) -> None:
    numbers = [f"+1415555018{n}" for n in range(3)]
    with ThreadPoolExecutor(3) as pool:
        asked = list(pool.map(lambda number: stack.ask(site, number), numbers))
    os.kill(stack.pid(victim), signal.SIGKILL)
    ready = threading.Event()

    def back_to_work() -> None:
        while not ready.wait(0.3):
            if agent.ok("GET", "/api/v1/me/state")["state"] in ("wrapup", "paused"):
                agent.ok("PUT", "/api/v1/me/state", {"state": "ready"})

    keeper = threading.Thread(target=back_to_work)
    keeper.start()
    try:
        for callback, visitor in asked:
            # Nobody is forgotten: done, or tried and told why and when again; or perhaps talked with, and told so.
            def settled(callback: str = callback, visitor: Web = visitor) -> bool:
                view = stack.status(visitor, callback)
                told = view["status"] == "queued" and view["reason"] and stack.attempts(callback)
                return view["status"] == "done" or bool(told) or view["reason"] == "outcome_unknown"

            try:
                until(settled, 90, victim)
            except AssertionError:
                pytest.fail(f"{victim}: {stack.status(visitor, callback)} {stack.attempts(callback)}\n{stack.tail()}")
    finally:
        ready.set()
        keeper.join()
    lab.wait_idle()
    for callback, _ in asked:
        stack.once_each(callback)
    for number in numbers:
        reached = [row for row in lab.witness() if row.number == number and row.attempt]
        assert reached, number
    stack.wait_ready()


def switches(pid: int) -> int:
    """How often a process gave up its turn: hundreds of times a second while it asks for SQLite's lock."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("voluntary_ctxt_switches")).split()[1])


def test_the_worker_is_killed_between_claim_and_dial(lab: Lab, stack: Stack, site: Site, agent: Web) -> None:
    """Held in the very gap: SQL has the claim, Redis is frozen so that the command cannot leave."""
    worker, server = stack.pid("worker --queue dial"), stack.pid("redis-server")
    redis = Redis(unix_socket_path=str(stack.folder / "data" / "redis.sock"), socket_timeout=5)
    os.kill(worker, signal.SIGSTOP)
    callback, visitor = stack.ask(site, "+14155550181")
    writer = sqlite3.connect(stack.folder / "data" / "ringbridge.db", timeout=10, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    os.kill(worker, signal.SIGCONT)
    until(lambda: redis.llen("rq:queue:dial") == 0, what="the job to be taken")
    before = switches(worker)
    until(lambda: switches(worker) > before + 300, what="the job to wait for its turn to write")
    os.kill(server, signal.SIGSTOP)
    try:
        writer.execute("ROLLBACK")
        writer.close()
        until(lambda: stack.attempts(callback), what="the claim")
        os.kill(worker, signal.SIGKILL)
    finally:
        os.kill(server, signal.SIGCONT)
        redis.close()
    # The claim that was never dialled is closed once its deadline is past, and a new attempt reaches the customer.
    stack.wait_status(visitor, callback, "done", seconds=60)
    first, second = stack.attempts(callback)
    assert (first["state"], first["reason"], second["state"]) == ("failed", "never_sent", "done")
    assert lab.witness(attempt=first["id"]) == []
    assert [row.number for row in lab.witness(attempt=second["id"])] == ["101", "+14155550181"]


def test_the_listener_is_killed_as_the_phones_ring(lab: Lab, stack: Stack, site: Site, agent: Web) -> None:
    lab.phone("101", answer_after=4)
    callback, visitor = stack.ask(site, "+14155550101")
    until(lambda: "101" in stack.invites(callback), 20, "the agent's phone to ring")
    os.kill(stack.pid("listen --pbx"), signal.SIGKILL)
    # The PBX goes on by itself; the next listener takes the call over where it stands.
    stack.wait_status(visitor, callback, "connected", seconds=30)
    lab.hang_up_phone("101")
    stack.wait_status(visitor, callback, "done")
    assert stack.invites(callback) == ["101", "+14155550101"]
    call = stack.attempts(callback)[0]["call_id"]
    events = agent.ok("GET", f"/api/v1/calls/{call}")["events"]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert [event["type"] for event in events].count("call.started") == 1
    assert events[-1]["type"] == "call.ended"
