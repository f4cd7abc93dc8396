"""A real call that goes on while the link to its PBX is lost again and again: what is left of a day's call.

That a whole day passes is reckoned, not waited for, in `tests/unit/test_a_day.py`.
"""

from __future__ import annotations

import pytest
from links import Relay, Sink, link_to
from rig import until

from bridge.domain.calls import CallEventType
from ringbridge_lab.lab import Lab

pytestmark = pytest.mark.pbx

DID = "+12125550101"
GAPS = 12


def test_a_call_outlives_many_gaps_and_many_listeners(lab: Lab) -> None:
    """Each third time another process takes the call over."""
    lab.phone("101", answer_after=0.2)
    relay, sink = Relay(lab.info["company"]["port"]), Sink()
    link = link_to(lab, sink, port=relay.port)
    link.start()
    try:
        until(lambda: sink.facts)
        caller = lab.call(DID)
        until(lambda: sink.of(CallEventType.CONNECTED))
        for gap in range(1, GAPS + 1):
            if gap % 3:
                relay.cut()
            else:
                link.stop()
                link = link_to(lab, sink, port=relay.port)
                link.restore(dict(sink.live))
                link.start()
            until(lambda known=gap + 1: len(sink.facts) == known)
            assert (sink.facts[-1].appeared, sink.facts[-1].vanished) == (0, 0)
        talked = caller.wait_for("answered").at
        caller.hang_up()
        ended = until(lambda: sink.of(CallEventType.ENDED))[0]
    finally:
        link.stop()
        relay.close()
    over = caller.wait_for("ended").at
    assert [event.seq for event in sink.heard] == list(range(1, len(sink.heard) + 1))
    assert len({event.call for event in sink.heard}) == 1
    assert sink.kinds() == ["started", "offered", "connected", *["uncertain"] * GAPS, "ended"]
    assert (ended.data["cause"], ended.data["answered_by"]) == ("completed", "person")
    # No gap's seconds are lost or counted twice; what is left are those between the PBX's doing and the world's seeing.
    assert abs(ended.data["talk_ms"] / 1000 - (over - talked).total_seconds()) < 5
    assert sink.live == {}
