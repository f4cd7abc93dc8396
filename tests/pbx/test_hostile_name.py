"""Names that callers choose to do harm with, in raw SIP to a real PBX: each is one call and nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from links import Link, Sink, link_to
from rig import until
from sip import RawCaller
from stack import Stack
from web import Web

from bridge.domain.calls import CallEventType, Directory
from ringbridge_lab.lab import Lab

pytestmark = pytest.mark.pbx

CALLER, DID = "+16465550133", "+12125550101"
NAMES = {
    "encoded line feeds": b"Ann%0AEvent-Name: CHANNEL_HANGUP_COMPLETE%0AUnique-ID: 1%0AHangup-Cause: USER_BUSY",
    "encoded line ends": b"%0D%0A%0D%0AContent-Length: 999999%0D%0A%0D%0A",
    "encoded event": b"x%0D%0A%0D%0AEvent: Hangup%0D%0AUniqueid: 1%0D%0ACause: 17%0D%0A%0D%0A",
    "encoded twice": b"x%250AEvent-Name: CHANNEL_HANGUP_COMPLETE",
    "controls": b"a\x01\x02\x07\x08\x0b\x0c\x1b[2J\x7fz",
    "encoded controls": b"a%00%01%1B%7Fz",
    "a kilobyte of emoji": "📞".encode() * 256,
    "invalid UTF-8": b"\xff\xfe\xc3\x28\xa0\xed\xa0\x80",
    "cut in a character": "Ünï".encode()[:-1],
    "quotes and braces": rb"\"}, {\"Event-Name\": \"HEARTBEAT\", ${hupall} {rb_attempt=1} [x=y]",
    "a variable": b"${system(touch /tmp/x)}${SHELL(true)}",
}


@pytest.fixture
def sink() -> Sink:
    return Sink()


@pytest.fixture
def link(lab: Lab, sink: Sink) -> Iterator[Link]:
    made = link_to(lab, sink)
    made.set_directory(Directory(agents={lab.device("101"): "anna"}))
    made.start()
    try:
        until(lambda: sink.facts, what="the resync")
        yield made
    finally:
        made.stop()
        assert made.tracker.faults == 0


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES.keys())
def test_a_hostile_name_is_one_call_and_nothing_else(lab: Lab, link: Link, sink: Sink, name: bytes) -> None:
    lab.phone("101", answer_after=0.3)
    caller = RawCaller(lab, DID, CALLER, name)
    try:
        status = caller.call()
        if status == 200:
            until(lambda: sink.of(CallEventType.CONNECTED))
            caller.hang_up()
        until(lambda: sink.of(CallEventType.ENDED))
    finally:
        caller.close()
    lab.wait_idle()
    # FreeSWITCH decodes some names into what no phone can read: its own INVITE is lost or refused, and nobody answers.
    assert status == 200 or lab.pbx == "freeswitch"
    ended = len(sink.heard)
    first, last = sink.heard[0], sink.heard[-1].data
    assert {event.call for event in sink.heard} == {first.call}
    assert (last["from"]["number"], last["to"]["number"]) == (CALLER, DID)
    if status == 200:
        assert sink.kinds() == ["started", "offered", "connected", "ended"]
        assert (last["cause"], last["ended_by"]["number"]) == ("completed", CALLER)
    else:
        assert (sink.kinds()[0], sink.kinds()[-1]) == ("started", "ended")
        assert sink.of(CallEventType.CONNECTED) == []
    said = first.data["from"]["name"]
    assert said is None or (said.isprintable() and len(said) <= 200), said
    # Whoever calls next is heard as ever, on the same connection.
    lab.call(DID, caller="+16465550111", hangup_after=0.3).wait_for("ended")
    until(lambda: len(sink.of(CallEventType.ENDED)) == 2)
    assert sink.kinds()[ended:] == ["started", "offered", "connected", "ended"]
    assert sink.downs == []
    assert sink.live == {}


def test_hostile_names_go_through_to_the_call_history(lab: Lab, stack: Stack, agent: Web) -> None:
    lab.phone("101", answer_after=0.3)
    connected = "SELECT id FROM calls WHERE customer_number = ? AND connected_at IS NOT NULL"
    ended = "SELECT from_party, cause FROM calls WHERE customer_number = ? AND ended_at IS NOT NULL"
    # On each PBX these reach the phone.
    names = [NAMES[name] for name in ("encoded line feeds", "controls", "a kilobyte of emoji", "invalid UTF-8")]
    for last, name in enumerate(names):
        number = f"+1646555013{last}"
        caller = RawCaller(lab, DID, number, name)
        try:
            assert caller.call() == 200
            until(lambda number=number: stack.rows(connected, number), what="the call to be written down")
            caller.hang_up()
            [row] = until(lambda number=number: stack.rows(ended, number), what="its end")
        finally:
            caller.close()
        assert row["cause"] == "completed"
        said = json.loads(row["from_party"])["name"]
        assert said is None or said.isprintable()
        lab.wait_idle()
    assert len(stack.rows("SELECT id FROM calls")) == len(names)
    shown = agent.ok("GET", "/api/v1/calls")["items"]
    assert [call["cause"] for call in shown] == ["completed"] * len(names)
    # The listener says what it counts every few seconds, first some seconds after its start.
    counted = until(lambda: "link_faults" in (found := counters(stack)) and found, what="the listener's counters")
    assert counted
    assert float(counted["link_faults"]) == float(counted["link_sink_faults"]) == 0


def counters(stack: Stack) -> dict[str, str]:
    """What the listener counts, as /metrics shows it."""
    metrics = stack.public("GET", "/metrics").body.decode()
    return dict(re.findall(r'^ringbridge_listener\{.*\bcounter="(\w+)".*\} (\S+)$', metrics, re.MULTILINE))
