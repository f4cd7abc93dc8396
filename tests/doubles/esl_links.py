"""Links to a fake FreeSWITCH, and a dial order that fits one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from rig import until

from bridge.domain.calls import Expected
from bridge.pbx.connecting import Timings
from bridge.pbx.esl.link import EslLink
from bridge.pbx.port import DialOrder
from bridge.pbx.sim.esl import FakeFreeSWITCH
from bridge.settings import Pbx
from bridge.uptime import uptime
from doubles.sink import Sink

ATTEMPT = "5f0c6a52-7d1b-4f4e-9e65-0f6b2f7f9a01"
QUICK = Timings(
    connect=20,
    login=20,
    ping_every=0.1,
    ping_deadline=20,
    action=20,
    resync=20,
    commands=20,
    retry_first=0.02,
    retry_most=0.1,
    refused_first=30,
    refused_most=60,
)
"""Tries again at once, and waits for an answer longer than a busy machine needs."""
HASTY = replace(QUICK, connect=2, login=1, ping_deadline=0.3, action=1, resync=1, commands=1)
"""For a peer that does not answer; against one that does, a busy machine may cut the link."""
READER, DIALLER = "ringbridge@default", "ringbridge-dial@default"
USERS = {READER: "reader-secret", DIALLER: "dialler-secret", "": "socket-secret"}


def pbx(port: int, **more: object) -> Pbx:
    """Its settings: two users of the directory."""
    values = {
        "name": "lab",
        "kind": "freeswitch",
        "port": port,
        "username": READER,
        "secret": "reader-secret",
        "command_username": DIALLER,
        "command_secret": "dialler-secret",
        **more,
    }
    return Pbx.model_validate(values)


@contextmanager
def linked(
    server: FakeFreeSWITCH, sink: Sink, timings: Timings = QUICK, observe: bool = False, wait: bool = True
) -> Iterator[EslLink]:
    """A link that runs; with `wait` it has had its snapshot and may send commands."""
    link = EslLink(pbx(server.port), sink, observe=observe, timings=timings)
    link.start()
    try:
        if wait:
            until(lambda: sink.facts, what="the resync")
        yield link
    finally:
        link.stop()
        assert not link.is_running()


def order(**more: object) -> DialOrder:
    """Agent first, on a gateway."""
    values: dict[str, object] = {
        "attempt": ATTEMPT,
        "first": "agent",
        "agent_device": "user/101",
        "agent_extension": "101",
        "number": "+16465550101",
        "dial_string": "sofia/gateway/trunk/+16465550101",
        "caller_id": None,
        "agent_ring_seconds": 15,
        "customer_ring_seconds": 25,
        "expected": Expected(ATTEMPT, agent="anna", agent_device="user/101", number="+16465550101"),
        "until": uptime() + 20.0,
        **more,
    }
    return DialOrder(**values)  # type: ignore[arg-type]
