"""The queue's key on an Asterisk with which no Ringbridge speaks: who asked is not lost, and overtaken by nobody."""

from __future__ import annotations

import re

import pytest
from labs import asterisk_only

from ringbridge_lab.lab import Behaviour, Lab, wait_until

pytestmark = [pytest.mark.pbx, asterisk_only]


def shown(lab: Lab) -> list[tuple[str, int]]:
    """Who waits in the queue, in its order, and for how many seconds."""
    with lab.company_ami() as ami:
        text = ami.command("queue show offer")
    found = re.findall(r"^\s+\d+\. (\S+) \(wait: (\d+):(\d+)", text, re.MULTILINE)
    return [(name, int(minutes) * 60 + int(seconds)) for name, minutes, seconds in found]


def line(lab: Lab) -> list[str]:
    return [name for name, _ in shown(lab)]


def test_where_nobody_answers_the_caller_waits_on_at_the_same_place(lab: Lab) -> None:
    lab.phone("105", Behaviour.NO_ANSWER)
    first = lab.call("+12125550125", caller="+16465550111")
    wait_until(lambda: line(lab), seconds=60, what="the first caller in the queue")
    # The time of joining counts whole seconds.
    wait_until(lambda: shown(lab)[0][1] >= 2, seconds=60, what="a while to pass")
    lab.call("+12125550125", caller="+16465550112")
    wait_until(lambda: len(line(lab)) == 2, seconds=60, what="the second caller in the queue")
    wait_until(lambda: shown(lab)[0][1] >= 4, seconds=60, what="the first to have waited long enough")
    before = line(lab)
    first.send("1")
    wait_until(lambda: line(lab) == before[1:], seconds=60, what="the first caller to be asked")
    first.send("1")
    wait_until(lambda: len(line(lab)) == 2, seconds=60, what="the first caller in the queue again")
    assert line(lab) == before
