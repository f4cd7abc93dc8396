"""The queue's key on a PBX with which no Ringbridge speaks: who asked is not lost, and overtaken by nobody."""

from __future__ import annotations

import pytest
from waiting import OFFERED, line, shown

from ringbridge_lab.lab import Behaviour, Lab, wait_until

pytestmark = pytest.mark.pbx

def test_where_nobody_answers_the_caller_waits_on_at_the_same_place(lab: Lab) -> None:
    lab.phone("105", Behaviour.NO_ANSWER)
    first = lab.call(OFFERED, caller="+16465550111")
    wait_until(lambda: line(lab), seconds=60, what="the first caller in the queue")
    # The time of joining counts whole seconds.
    wait_until(lambda: shown(lab)[0][1] >= 2, seconds=60, what="a while to pass")
    lab.call(OFFERED, caller="+16465550112")
    wait_until(lambda: len(line(lab)) == 2, seconds=60, what="the second caller in the queue")
    wait_until(lambda: shown(lab)[0][1] >= 4, seconds=60, what="the first to have waited long enough")
    before = line(lab)
    first.send("1")
    wait_until(lambda: line(lab) == before[1:], seconds=60, what="the first caller to be asked")
    first.send("1")
    wait_until(lambda: len(line(lab)) == 2, seconds=60, what="the first caller in the queue again")
    assert line(lab) == before
