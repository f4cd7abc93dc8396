"""Links to a fake Asterisk, and a dial order that fits one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from rig import until

from bridge.domain.calls import Expected
from bridge.pbx.ami.link import AmiLink
from bridge.pbx.connecting import Timings
from bridge.pbx.port import DialOrder
from bridge.pbx.sim.ami import FakeAsterisk, Fields, after_login, trace
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
    presentation=20,
    commands=20,
    retry_first=0.02,
    retry_most=0.1,
    refused_first=30,
    refused_most=60,
)
"""Tries again at once, and waits for an answer longer than a busy machine needs."""
HASTY = replace(QUICK, connect=2, login=1, ping_deadline=0.3, action=1, resync=1, presentation=0.5, commands=1)
"""For a peer that does not answer; against one that does, a busy machine may cut the link."""


def pbx(port: int, **more: object) -> Pbx:
    """Its settings: a user that reads and one that commands."""
    values = {
        "name": "lab",
        "port": port,
        "secret": "reader-secret",
        "command_secret": "dialler-secret",
        **more,
    }
    return Pbx.model_validate(values)


@contextmanager
def linked(
    server: FakeAsterisk, sink: Sink, timings: Timings = QUICK, observe: bool = False, wait: bool = True
) -> Iterator[AmiLink]:
    """A link that runs; with `wait` it has had its snapshot."""
    link = AmiLink(pbx(server.port), sink, observe=observe, timings=timings)
    link.start()
    try:
        if wait:
            until(lambda: sink.facts, what="the resync")
        yield link
    finally:
        link.stop()


def order(**more: object) -> DialOrder:
    """Agent first, on a trunk."""
    values: dict[str, object] = {
        "attempt": ATTEMPT,
        "first": "agent",
        "agent_device": "PJSIP/101",
        "agent_extension": "101",
        "number": "+16465550101",
        "dial_string": "PJSIP/+16465550101@trunk",
        "caller_id": None,
        "agent_ring_seconds": 15,
        "customer_ring_seconds": 25,
        "expected": Expected(ATTEMPT, agent="anna", agent_device="PJSIP/101", number="+16465550101"),
        "until": uptime() + 20.0,
        **more,
    }
    return DialOrder(**values)  # type: ignore[arg-type]


def events_until(path: Path, stop: bytes) -> list[bytes]:
    """What a recorded PBX said after the sign-in, up to there."""
    data = after_login(trace(path))
    return [data[: data.index(stop)]]


def channel(uid: str, name: str, **more: str) -> Fields:
    """One item of CoreShowChannels."""
    return {
        "Channel": name,
        "Uniqueid": uid,
        "Linkedid": more.pop("link", uid),
        "ChannelState": "6",
        "Duration": "00:00:10",
        **more,
    }
