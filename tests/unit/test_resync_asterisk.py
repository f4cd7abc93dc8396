"""The picture after a gap on Asterisk: what Status adds to CoreShowChannels."""

from __future__ import annotations

import pytest
from story import side, told

from bridge.pbx.ami.resync import Snapshot, resync

NOW = 1_795_400_000.0
CALLER, DID = "+15553001001", "+15550001260"
CHANNEL = {
    "Channel": "PJSIP/trunk-00000000",
    "Uniqueid": "1795399990.1",
    "Linkedid": "1795399990.1",
    "ChannelState": "6",
    "CallerIDNum": CALLER,
    "CallerIDName": "Rosa",
    "Context": "menu",
    "Exten": "s",
    "Duration": "00:00:10",
}
"""A caller whom the dialplan has led elsewhere since."""
STATUS = {"Uniqueid": CHANNEL["Uniqueid"], "DNID": DID, "Variable": "CALLERID(pres)=allowed\nTRANSFERERNAME=(null)"}


def test_who_came_unseen_has_the_number_that_was_dialled_and_its_client() -> None:
    tracker = side("asterisk-22").tracker()
    batch = resync(tracker, Snapshot((CHANNEL,), status=(STATUS,)), None, NOW).batch
    assert list(told(batch.events).values()) == [[f"started inbound {CALLER} > {DID}", "uncertain"]]
    assert batch.events[0].data["client"] == "acme"


@pytest.mark.parametrize(
    "status",
    [
        ({**STATUS, "Variable": "CALLERID(pres)=prohib_passed_screen\nTRANSFERERNAME=(null)"},),
        ({**STATUS, "Variable": "TRANSFERERNAME=(null)"},),
        (),
    ],
    ids=["restricted", "not told", "gone since"],
)
def test_who_must_not_be_shown_is_not(status: tuple[dict[str, str], ...]) -> None:
    tracker = side("asterisk-22").tracker()
    batch = resync(tracker, Snapshot((CHANNEL,), status=status), None, NOW).batch
    assert batch.events[0].data["from"]["withheld"] is True
    assert CALLER not in repr(batch) and "Rosa" not in repr(batch)
