"""What an administrator reads of a real call: while it goes on, over REST, and in words."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from rig import until
from stack import Site, Stack
from web import Web

from ringbridge_lab.lab import Lab

pytestmark = pytest.mark.pbx

DID, CALLER = "+12125550101", "+16465550144"


def ended(stack: Stack, **chosen: str) -> list[dict[str, Any]]:
    """The calls that are over, the latest first."""
    query = "&".join(f"{name}={value}" for name, value in {"live": "false", **chosen}.items())
    rows: list[dict[str, Any]] = stack.admin.ok("GET", f"/api/v1/calls?{query}")["items"]
    return rows


def test_a_calls_history(lab: Lab, stack: Stack, site: Site, agent: Web) -> None:
    lab.phone("101", answer_after=1)
    following = subprocess.Popen(
        [sys.executable, "-m", "bridge.cli", "calls", "--follow", "--json"],
        env=stack.environ, cwd=stack.folder, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        call = lab.call(DID, caller=CALLER, name="Ann\x1b[2J")
        assert following.stdout is not None
        told = []
        while not told or told[-1]["type"] != "call.ended":
            told.append(json.loads(following.stdout.readline()))
            if told[-1]["type"] == "call.connected":
                # Not before: who begins to follow is told of calls in progress only.
                call.hang_up()
    finally:
        following.kill()
        following.communicate()
    row = until(lambda: ended(stack, customer_number=CALLER.replace("+", "%2B")))[0]
    events = stack.admin.ok("GET", f"/api/v1/calls/{row['id']}")["events"]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert [(event["call"], event["seq"], event["type"], event["data"]) for event in told] == [
        (row["id"], event["seq"], event["type"], event["data"]) for event in events
    ]
    words = stack.command("calls", row["id"])
    steps = [f"({CALLER})", f"Agent 101 ({lab.device('101')}) rings", "hear each other", "Ended, completed"]
    found = [words.find(step) for step in steps]
    assert found == sorted(found) and -1 not in found, words
    assert "\x1b" not in words
    assert f"{CALLER}) hung up" in words
    assert row["id"] in stack.command("calls", "--all", "--number", CALLER)


def test_a_withheld_number_is_in_no_history(lab: Lab, stack: Stack, agents: dict[str, Web], rested: None) -> None:
    lab.phone("101", answer_after=0.5)
    known = {row["id"] for row in ended(stack)}
    lab.call(DID, caller="+16465550145", withheld=True, hangup_after=1).wait_for("ended")
    row = until(lambda: [row for row in ended(stack) if row["id"] not in known])[0]
    assert "6465550145" not in json.dumps(stack.admin.ok("GET", f"/api/v1/calls/{row['id']}"))
    assert "number withheld" in stack.command("calls", row["id"])
