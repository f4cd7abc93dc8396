"""The ESL link beside a FreeSWITCH that does not list its channels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from doubles.esl_links import QUICK, USERS, linked, order
from doubles.sink import Sink
from recorded import wire
from rig import until

from bridge.pbx.port import Reason
from bridge.pbx.sim.esl import FakeFreeSWITCH, events_of
from bridge.pbx.trace import received


@pytest.fixture
def server() -> Iterator[FakeFreeSWITCH]:
    with FakeFreeSWITCH(users=USERS) as fake:
        yield fake


@pytest.mark.parametrize("answer", ["+OK\n", "-ERR SQL disabled, no data available!\n", "-ERR command not found\n"])
def test_what_is_no_list_is_no_empty_list_and_ends_no_call(server: FakeFreeSWITCH, answer: str) -> None:
    """A core without its database (-nosql) never lists a channel, and its events are as good as any other's."""
    pieces = list(events_of(received(wire("freeswitch-1.11-json", "simple"))))
    talking = next(at for at, (_, event) in enumerate(pieces, 1) if event["Event-Name"] == "CHANNEL_BRIDGE")
    sink = Sink()
    for verb in ("show", "uuid_dump"):
        server.answers[verb] = lambda arguments: answer
    with linked(server, sink, wait=False) as link:
        until(lambda: sink.ups)
        server.tell(pieces[:talking])
        until(lambda: "call.connected" in sink.kinds())
        server.cut()
        until(lambda: len(sink.ups) >= 2)
        assert "does not list its channels" in sink.ups[-1]
        assert link.dial(order()).reason is Reason.LINK_DOWN
        server.tell(pieces[talking:])
        until(lambda: "call.ended" in sink.kinds())
    assert sink.kinds() == ["call.started", "call.offered", "call.connected", "call.uncertain", "call.ended"]
    assert sink.heard[-1].data["cause"] == "completed"
    assert not sink.facts


def test_once_the_pbx_lists_its_channels_it_is_looked_at(server: FakeFreeSWITCH) -> None:
    server.answers["show"] = lambda arguments: "-ERR SQL disabled, no data available!\n"
    sink = Sink()
    with linked(server, sink, timings=replace(QUICK, refused_first=0.2), wait=False):
        until(lambda: sink.ups)
        assert not sink.facts
        del server.answers["show"]
        until(lambda: sink.facts)
