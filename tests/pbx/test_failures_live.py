"""What goes wrong on the way from a form to a conversation, on a real PBX: phones, trunks, PBX, listener."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import Counter

import insides
import pytest
from redis import Redis
from rig import until
from stack import QUICK, Site, Stack
from web import Web

from ringbridge_lab.lab import Behaviour, Lab

pytestmark = [pytest.mark.pbx, pytest.mark.usefixtures("rested")]


@pytest.mark.parametrize("extension", ["109", "199"])
def test_a_phone_that_is_not_there_is_told_at_once_and_the_next_agent_is_tried(
    lab: Lab, stack: Stack, site: Site, agents: dict[str, Web], extension: str
) -> None:
    agents[extension].ok("PUT", "/api/v1/me/state", {"state": "ready"})
    callback, visitor = stack.ask(site, "+13125550180")
    attempt = stack.failed(callback)
    assert (attempt["reason"], attempt["agent_device"]) == ("agent_unreachable", lab.device(extension))
    state = agents[extension].ok("GET", "/api/v1/me/state")
    assert (state["state"], state["reason"]) == ("paused", "phone not reachable")
    assert stack.tries(callback) == 0
    agents["102"].ok("PUT", "/api/v1/me/state", {"state": "ready"})
    stack.wait_status(visitor, callback, "done")
    assert stack.invites(callback) == ["102", "+13125550180"]


def test_a_customer_who_answers_to_a_phone_that_is_not_there(
    lab: Lab, stack: Stack, agents: dict[str, Web]
) -> None:
    site = stack.make_site("Unreachable", order="customer_first", limits=QUICK)
    agents["109"].ok("PUT", "/api/v1/me/state", {"state": "ready"})
    callback, _ = stack.ask(site, "+13125550101")
    attempt = stack.failed(callback)
    assert attempt["reason"] == "abandoned"
    state = agents["109"].ok("GET", "/api/v1/me/state")
    assert (state["state"], state["reason"]) == ("paused", "phone not reachable")
    assert (stack.tries(callback), stack.invites(callback)) == (1, ["+13125550101"])


@pytest.mark.parametrize("behaviour", [Behaviour.REJECT, Behaviour.BUSY])
def test_an_agent_who_declines(
    lab: Lab, stack: Stack, site: Site, agent: Web, behaviour: Behaviour
) -> None:
    lab.phone("101", behaviour)
    callback, _ = stack.ask(site, "+13125550102")
    assert stack.failed(callback)["reason"] == "agent_no_answer"
    assert agent.ok("GET", "/api/v1/me/state")["state"] == "paused"
    assert (stack.tries(callback), stack.invites(callback)) == (0, ["101"])


def test_a_pbx_without_its_trunk(lab: Lab, stack: Stack, site: Site, agent: Web) -> None:
    with insides.without_trunk(lab):
        callback, visitor = stack.ask(site, "+13125550105")
        assert stack.failed(callback)["reason"] == "trunk_unreachable"
        view = stack.status(visitor, callback)
        assert (view["status"], stack.tries(callback)) == ("queued", 0)
        assert stack.invites(callback) == ["101"]
        # Not the agent's fault.
        assert agent.ok("GET", "/api/v1/me/state")["state"] != "paused"


def test_congestion_uses_a_try_and_is_tried_again(lab: Lab, stack: Stack, site: Site, agent: Web) -> None:
    callback, visitor = stack.ask(site, "+13125550170")
    attempt = stack.failed(callback)
    assert (attempt["reason"], attempt["q850"]) == ("congestion", 34)
    view = stack.status(visitor, callback)
    assert (view["status"], view["reason"], stack.tries(callback)) == ("queued", "congestion", 1)


def test_a_wrong_number_is_never_called_again(lab: Lab, stack: Stack, site: Site, agent: Web) -> None:
    callback, visitor = stack.ask(site, "+13125550201")
    attempt = stack.failed(callback)
    assert (attempt["reason"], attempt["q850"]) == ("wrong_number", 1)
    view = stack.wait_status(visitor, callback, "failed")
    assert view["reason"] == "wrong_number"
    assert stack.invites(callback) == ["101", "+13125550201"]


def test_an_agent_who_hangs_up_while_the_customer_rings(
    lab: Lab, stack: Stack, site: Site, agent: Web
) -> None:
    callback, _ = stack.ask(site, "+13125550150")
    until(lambda: "+13125550150" in stack.invites(callback))
    lab.hang_up_phone("101")
    attempt = stack.failed(callback)
    assert attempt["reason"] == "agent_hung_up"
    lab.wait_idle()
    assert stack.tries(callback) == 1
    stack.once_each(callback)


@pytest.mark.parametrize("wait", [0.9, 0.97, 1.0, 1.03])
def test_an_agent_who_hangs_up_as_the_customer_answers(
    lab: Lab, stack: Stack, site: Site, agent: Web, wait: float
) -> None:
    """Whoever was first: the attempt ends, once, and nothing is left ringing."""
    callback, _ = stack.ask(site, "+13125550103")
    until(lambda: "+13125550103" in stack.invites(callback))
    # The number answers one second after its INVITE.
    threading.Event().wait(wait)
    lab.hang_up_phone("101")
    ended = until(lambda: [row for row in stack.attempts(callback) if row["state"] in ("done", "failed")])
    assert (ended[0]["state"], ended[0]["reason"]) in {
        ("done", "completed"),
        ("failed", "agent_hung_up"),
        ("failed", "abandoned"),
    }
    lab.wait_idle()
    stack.once_each(callback)
    assert len(stack.attempts(callback)) == 1


@pytest.mark.parametrize("who", ["101", "+13125550151"])
def test_the_pbx_is_killed_as_a_phone_rings(
    lab: Lab, stack: Stack, site: Site, agent: Web, who: str
) -> None:
    if who == "101":
        lab.phone("101", Behaviour.NO_ANSWER)
    callback, visitor = stack.ask(site, "+13125550151")
    until(lambda: who in stack.invites(callback))
    lab.restart_company(kill=True)
    attempt = stack.failed(callback, 60)
    # Whether the customer's phone rang the PBX cannot say: its receipts of the last second may be lost.
    assert attempt["reason"] == "outcome_unknown"
    changes = stack.rows("SELECT new FROM attempt_changes WHERE attempt_id = ? ORDER BY id", attempt["id"])
    assert [row["new"] for row in changes][-2:] == ["uncertain", "failed"]
    view = stack.status(visitor, callback)
    assert (view["status"], view["reason"], stack.tries(callback)) == ("failed", "outcome_unknown", 1)
    stack.wait_ready()
    stack.once_each(callback)
    assert len(stack.attempts(callback)) == 1
    assert stack.rows("SELECT 1 FROM number_locks") == []


def test_two_listeners_and_the_holder_is_killed_in_mid_ring(
    lab: Lab, stack: Stack, site: Site, agent: Web
) -> None:
    log = (stack.folder / "second-listener.log").open("wb")
    command = [sys.executable, "-m", "bridge.cli", "listen", "--pbx", "lab"]
    second = subprocess.Popen(command, env=stack.environ, cwd=stack.folder, stdout=log, stderr=log)
    redis = Redis(unix_socket_path=str(stack.folder / "data" / "redis.sock"), protocol=2, decode_responses=True)
    try:
        until(lambda: b"standing by" in (stack.folder / "second-listener.log").read_bytes(), 20, "the standby")
        lab.phone("101", answer_after=4)
        callback, visitor = stack.ask(site, "+13125550104")
        until(lambda: "101" in stack.invites(callback), 20, stack.tail())
        holder = int(stack.rows("SELECT holder FROM pbx_leases")[0]["holder"].split(":")[1])
        assert holder != second.pid
        os.kill(holder, signal.SIGKILL)
        stack.wait_status(visitor, callback, "connected")
        lease = stack.rows("SELECT holder, epoch FROM pbx_leases")[0]
        # The standby's, or the one's that `up` started anew: whoever was first.
        assert int(lease["holder"].split(":")[1]) != holder
        assert lease["epoch"] > 1
        lab.hang_up_phone("101")
        stack.wait_status(visitor, callback, "done")
        [attempt] = stack.attempts(callback)
        assert [row.number for row in lab.witness(attempt=attempt["id"])] == ["101", "+13125550104"]
        entries: list[tuple[str, dict[str, str]]] = redis.xrange("rb:calls")  # type: ignore[assignment]
        mine = [fields for _, fields in entries if fields.get("call") == attempt["call_id"]]
        assert [int(fields["seq"]) for fields in mine] == list(range(1, len(mine) + 1))
        assert [fields["type"] for fields in mine].count("call.started") == 1
        assert mine[-1]["type"] == "call.ended"
        told = Counter((fields["call"], fields["seq"]) for _, fields in entries if fields.get("call"))
        assert [key for key, count in told.items() if count > 1] == []
    finally:
        second.terminate()
        second.wait(20)
        log.close()
        redis.close()
    assert second.returncode == 0


def test_a_call_lives_on_though_redis_is_flushed_as_the_listener_dies(
    lab: Lab, stack: Stack, site: Site, agent: Web
) -> None:
    """What the database knows of the call is all there is; it goes on under its id, and does not start again."""
    redis = Redis(unix_socket_path=str(stack.folder / "data" / "redis.sock"), protocol=2, decode_responses=True)

    def ids(query: str) -> set[str]:
        return {row["id"] for row in stack.rows(query)}

    def said(call: str) -> list[str]:
        return [row["type"] for row in stack.rows("SELECT type FROM call_events WHERE call_id=? ORDER BY seq", call)]

    try:
        before = ids("SELECT id FROM calls")
        lab.phone("101", answer_after=0.2)
        caller = lab.call("+12125550101", caller="+16465550144", hangup_after=60)
        [call] = until(lambda: ids("SELECT id FROM calls WHERE state='connected'") - before)
        first = said(call)
        os.kill(int(stack.rows("SELECT holder FROM pbx_leases")[0]["holder"].split(":")[1]), signal.SIGKILL)
        redis.flushall()
        until(lambda: len(said(call)) > len(first), 30, stack.tail())
        lab.hang_up_phone("101")
        caller.wait_for("ended")
        until(lambda: said(call)[-1] == "call.ended", 30, stack.tail())
        assert said(call)[len(first) :] == ["call.uncertain", "call.ended"]
        published: list[tuple[str, dict[str, str]]] = redis.xrange("rb:calls")  # type: ignore[assignment]
        mine = [fields for _, fields in published if fields.get("call") == call]
        assert [int(fields["seq"]) for fields in mine] == [len(first) + 1, len(first) + 2]
        [row] = stack.rows("SELECT cause, answered_by FROM calls WHERE id=?", call)
        assert (row["cause"], row["answered_by"]) == ("completed", "person")
        assert ids("SELECT id FROM calls") == before | {call}
    finally:
        redis.close()
