"""Numbers leave a recording, and nothing else does."""

from __future__ import annotations

import re
import time
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from recorded import wire

from bridge.pbx.esl.codec import Decoder
from bridge.pbx.masking import NumberMask
from bridge.pbx.sim.esl import events_of
from bridge.pbx.trace import Row, rows

NOW = str(int(time.time()))
KEPT = (
    b"5f0c6a52-7d1b-4f4e-9e65-012345678901",
    b"1763793180.12345678",
    b"Content-Length: 1234567\n",
    b'"Event-Sequence":"12345678"',
    NOW.encode(),
    NOW.encode() + b"123456",
    b"101",
    b"127.0.0.1:12011",
    b"cc93a683ca",
    b"123456789012345678901",
)
MASKED = (
    b"+15551234567",
    b"4915112345678",
    b"sip:+442071234567@host",
    b"%2B15551234567",
    b"%2015551234567",
    b"9995551234",
)
WORDS = (*KEPT, *MASKED, b" ", b"\n", b'","', b"%0A", b"x", b"\xff", b"555", b"1234567", b"+")


def masked(chunks: list[bytes]) -> bytes:
    mask = NumberMask()
    done = [row for chunk in chunks for row in mask.add(Row(0.0, True, chunk))]
    done += mask.rest()
    assert [len(row.data) for row in done] == [len(chunk) for chunk in chunks]
    return b"".join(row.data for row in done)


@pytest.mark.parametrize("text", KEPT, ids=[text.decode().replace(NOW, "now") for text in KEPT])
def test_what_is_no_number_stays(text: bytes) -> None:
    assert masked([b"\n" + text + b"\n"]) == b"\n" + text + b"\n"


@pytest.mark.parametrize("text", MASKED)
def test_a_number_goes_wherever_it_stands(text: bytes) -> None:
    [digits] = re.findall(rb"(?:%20|%2B)?([0-9]{7,})", text)
    out = masked([b'"a":"' + text + b'"\n'])
    assert digits not in out
    assert out.count(b"555") >= 1


def test_the_same_number_is_the_same_other_one_and_another_is_another() -> None:
    out = masked([b"+15551234567 15551234567 +15551234568"])
    one, two, three = re.findall(rb"[0-9]+", out)
    assert one == two != three
    assert out.startswith(b"+")


texts = st.lists(st.lists(st.sampled_from(WORDS), max_size=2).map(b"".join), max_size=12).map(b",".join)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(texts, st.lists(st.integers(0, 400), max_size=8))
@example(b"+15551234567", [4, 5, 6])
@example(b"x" * 200 + b"5551234567", [205, 206])
def test_the_same_however_it_is_cut(data: bytes, places: list[int]) -> None:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    whole = masked([data])
    assert masked([data[a:b] for a, b in pairwise(edges)]) == whole
    assert masked([data[i : i + 1] for i in range(len(data))]) == whole


@pytest.mark.parametrize("encoding", ["json", "plain"])
def test_a_masked_conversation_is_the_same_without_its_numbers(encoding: str) -> None:
    recorded = list(rows(wire(f"freeswitch-1.11-{encoding}", "simple")))
    mask = NumberMask()
    # The times of a recording of today stay; these are of another day.
    mask._now = 1795330400.0
    done = [row for one in recorded for row in mask.add(one)] + mask.rest()
    assert [(row.t, row.received, len(row.data)) for row in done] == [
        (row.t, row.received, len(row.data)) for row in recorded
    ]
    before = [event for _, event in events_of(row.data for row in recorded if row.received)]
    after = [event for _, event in events_of(row.data for row in done if row.received)]
    numbers = {e["Caller-Caller-ID-Number"] for e in before if len(e.get("Caller-Caller-ID-Number", "")) > 6}
    assert numbers
    assert not any(number.lstrip("+") in value for number in numbers for e in after for value in e.values())
    assert [e["Event-Name"] for e in after] == [e["Event-Name"] for e in before]
    for name in ("Unique-ID", "Event-Sequence", "Event-Date-Timestamp", "Caller-Channel-Created-Time"):
        assert [e.get(name) for e in after] == [e.get(name) for e in before]
    assert not Decoder().refused


def test_what_we_send_keeps_its_place() -> None:
    mask = NumberMask()
    assert mask.add(Row(0.1, True, b"+1555")) == []
    done = mask.add(Row(0.2, False, b"api status\n\n"))
    assert [(row.t, row.received) for row in done] == [(0.1, True), (0.2, False)]
