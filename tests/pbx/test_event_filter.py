"""The event filter of our manager.conf on a real Asterisk: what nobody hears stays away, and nothing else."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from labs import asterisk_only
from rig import until
from stack import pbx_table

import ringbridge_dialplan
from bridge.pbx.ami.dialogue import Dialogue
from bridge.pbx.ami.hearing import UNHEARD
from bridge.settings import Pbx
from ringbridge_lab.lab import Lab

pytestmark = [pytest.mark.pbx, asterisk_only]

DID = "+12125550101"


@pytest.mark.parametrize("name", ["Anna", "Event: VarSet", "x\\r\\nEvent: CEL\\r\\n"])
def test_a_call_is_heard_whole_and_without_what_nobody_hears(lab: Lab, name: str) -> None:
    pbx = Pbx.model_validate(pbx_table(lab))
    lab.phone("101", answer_after=0.3)
    with Dialogue(pbx, pbx.username, pbx.read_secret()) as reader:
        lab.call(DID, caller="+16465550111", name=name, hangup_after=1)
        until(lambda: counted(reader)["Hangup"] == 2, what="both legs' end")
        heard = counted(reader)
    assert heard["Newchannel"] == 2
    assert heard["DialBegin"] == heard["DialEnd"] == 1
    assert heard["BridgeEnter"] == heard["BridgeLeave"] == 2
    manager = ringbridge_dialplan.asterisk_manager(reader_secret="r" * 16, command_secret="c" * 16)
    held_back = set(re.findall(r"\w+", manager.partition("^Event: (")[2].partition(")")[0]))
    assert held_back and held_back <= UNHEARD
    assert not held_back & set(heard)


def counted(reader: Dialogue) -> Counter[str]:
    """The events so far, by name."""
    return Counter(message.event for message in reader.watch(0.1))
