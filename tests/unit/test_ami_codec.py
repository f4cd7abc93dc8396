"""The AMI codec: any bytes, cut anywhere, and any field values."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from recorded import TRACES, name_of

from bridge.pbx.ami.codec import (
    MAX_ACTION_HEADERS,
    AmiProtocolError,
    Decoder,
    LocalError,
    Message,
    encode_action,
)
from bridge.pbx.sim.ami import trace

RECORDED = sorted(TRACES.glob("asterisk-*/*/wire.jsonl"))
BANNER = b"Asterisk Call Manager/9.0.0\r\n"


def outcome(chunks: list[bytes]) -> tuple[list[tuple[dict[str, str], dict[str, list[str]]]], str | None, int]:
    """What a decoder makes of the chunks: messages, its error, and how many it skipped."""
    decoder = Decoder(max_message=300, max_headers=20)
    messages: list[Message] = []
    fault = None
    for chunk in chunks:
        try:
            messages += decoder.feed(chunk)
        except AmiProtocolError as error:
            messages += error.before
            fault = error.message
            break
    return [(dict(m), dict(m.repeated)) for m in messages], fault, decoder.skipped


def cuts(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


WORDS = (
    b"Event: Hangup",
    b"Channel: PJSIP/101-1",
    b": ",
    b":",
    b"\r\n",
    b"\r\n\r\n",
    b"\r",
    b"\n",
    b"\xc3\x9c",
    b"\xff",
    b"\x00",
    b"Variable: a=b",
    b"Output: x",
    b"no colon",
    b"x" * 200,
    b"A: \xed\xa0\x80",
)
pieces = st.lists(
    st.sampled_from(WORDS) | st.binary(max_size=12),
    max_size=60,
).map(b"".join)


@given(pieces, st.lists(st.integers(0, 10_000), max_size=8))
@example(b"\r\n\r\n\r\nEvent: A\r\n\r\n", [1, 2, 3, 4, 5])
def test_the_same_however_it_is_cut(data: bytes, places: list[int]) -> None:
    stream = BANNER + data
    whole = outcome([stream])
    assert outcome(cuts(stream, places)) == whole
    assert outcome([stream[i : i + 1] for i in range(len(stream))]) == whole


@given(st.binary(max_size=400), st.lists(st.integers(0, 500), max_size=4))
def test_any_bytes_parse_or_raise_the_protocol_error(data: bytes, places: list[int]) -> None:
    assert outcome([data]) == outcome(cuts(data, places))


@given(pieces)
def test_texts_hold_no_surrogates(data: bytes) -> None:
    for message, repeated in outcome([BANNER + data])[0]:
        for text in [*message, *message.values(), *(v for values in repeated.values() for v in values)]:
            text.encode("utf-8")


NAMES = ("Event", "Channel", "Variable", "Output", "A", "x", "", "Nothing")


@given(pieces)
@example(b"Event: A\r\nx:1\r\nx: 2\r\n\r\n")
@example(b"Event: A\r\nx : 1\r\n\rx: 2\r\nx:\r\n\r\n")
def test_a_header_is_the_same_whether_looked_for_or_read_with_all_others(data: bytes) -> None:
    stream = BANNER + b"Event: A\r\n" + data + b"\r\n\r\n"
    try:
        looked, read = Decoder().feed(stream), Decoder().feed(stream)
    except AmiProtocolError:
        return
    for one, other in zip(looked, read, strict=True):
        whole = dict(other)
        for name in filter(None, NAMES):
            assert one.get(name) == whole.get(name)
            assert (name in one) == (name in whole)
        assert one.event == whole.get("Event", "")
        assert one == whole and dict(one.repeated) == dict(other.repeated)


@pytest.mark.parametrize("path", RECORDED, ids=name_of)
def test_traces_parse_alike_byte_by_byte(path: Path) -> None:
    data = b"".join(trace(path))
    whole = Decoder().feed(data)
    decoder = Decoder()
    bytewise = [message for i in range(len(data)) for message in decoder.feed(data[i : i + 1])]
    assert bytewise == whole
    assert decoder.skipped == 0
    assert len(whole) == data.count(b"\r\n\r\n")


def test_an_event_with_accents_empty_values_and_colons() -> None:
    [message] = Decoder().feed(
        BANNER + "Event: Newchannel\r\nCallerIDName: Ünï: ö\r\nAccountCode: \r\nExten:\r\n\r\n".encode()
    )
    assert message == {"Event": "Newchannel", "CallerIDName": "Ünï: ö", "AccountCode": "", "Exten": ""}


def test_repeated_headers_and_lines_without_a_colon_are_all_kept() -> None:
    [message] = Decoder().feed(
        BANNER + b"Response: Success\r\nOutput: one\r\nOutput: two\r\nbare line\r\n\r\n"
    )
    assert message.all("Output") == ["one", "two"]
    assert message["Output"] == "one"
    assert message.all("") == ["bare line"]
    assert message.all("Response") == ["Success"]
    assert message.all("Nothing") == []


def test_a_missing_header_is_none_and_its_item_an_error() -> None:
    [message] = Decoder().feed(BANNER + b"Event: Hangup\r\nCause: 16\r\n\r\n")
    assert message.get("Uniqueid") is None and message.get("Uniqueid", "-") == "-"
    assert "Uniqueid" not in message and "Cause" in message
    with pytest.raises(KeyError):
        message["Uniqueid"]
    assert "16" not in repr(message)


def test_ignored_events_are_counted_and_their_neighbours_are_not() -> None:
    decoder = Decoder(ignore={"VarSet"})
    messages = decoder.feed(
        BANNER + b"Event: VarSet\r\nA: b\r\n\r\nEvent: VarSetting\r\n\r\nEvent: VarSet\r\n\r\n"
    )
    assert [m["Event"] for m in messages] == ["VarSetting"]
    assert decoder.ignored == 2


def test_another_service_is_no_manager_interface() -> None:
    with pytest.raises(AmiProtocolError, match="not an Asterisk manager"):
        Decoder().feed(b"SSH-2.0-OpenSSH_9.2\r\n")


def test_an_endless_message_ends_the_connection_and_keeps_what_came_before() -> None:
    decoder = Decoder(max_message=100)
    with pytest.raises(AmiProtocolError) as caught:
        decoder.feed(BANNER + b"Event: A\r\n\r\nEvent: B\r\nX: " + b"y" * 200)
    assert [m["Event"] for m in caught.value.before] == ["A"]
    with pytest.raises(AmiProtocolError):
        decoder.feed(b"Event: C\r\n\r\n")


def test_a_message_of_too_many_headers_is_skipped_alone() -> None:
    decoder = Decoder(max_headers=3)
    messages = decoder.feed(BANNER + b"A: 1\r\nB: 2\r\nC: 3\r\nD: 4\r\n\r\nEvent: E\r\n\r\n")
    assert messages == [{"Event": "E"}]
    assert decoder.skipped == 1


texts = st.text(max_size=40) | st.sampled_from(
    ["a\r\nAction: Originate", "a\nb", "\x00", "\u2028", "+15550100"]
)


@given(
    texts,
    st.dictionaries(texts | st.sampled_from(["Channel", "Variable"]), texts | st.lists(texts, max_size=3)),
)
def test_exactly_one_action_or_an_error_that_is_ours(name: str, fields: dict[str, str | list[str]]) -> None:
    try:
        data = encode_action(name, fields)
    except LocalError:
        return
    assert data.endswith(b"\r\n\r\n") and data.count(b"\r\n\r\n") == 1
    lines = data.removesuffix(b"\r\n\r\n").decode().split("\r\n")
    expected = [f"Action: {name}"]
    for header, value in fields.items():
        expected += [f"{header}: {item}" for item in ([value] if isinstance(value, str) else value)]
    assert lines == expected
    assert not any(c in data.replace(b"\r\n", b"") for c in (b"\r", b"\n", b"\x00"))


@pytest.mark.parametrize(
    "fields",
    [
        {"Number": "1\r\nAction: Originate"},
        {"Number": "1\n2"},
        {"Number": "\x00"},
        {"Number": "\x7f"},
        {"Bad name": "x"},
        {"": "x"},
        {"Action": "Originate"},
        {"Number": "x" * 1024},
        {"Variable": ["x"] * MAX_ACTION_HEADERS},
    ],
)
def test_what_would_not_be_one_action_is_refused(fields: dict[str, str | list[str]]) -> None:
    with pytest.raises(LocalError) as caught:
        encode_action("Ping", fields)
    assert "1\r" not in str(caught.value)


def test_values_are_not_in_the_error() -> None:
    with pytest.raises(LocalError) as caught:
        encode_action("Originate", {"Exten": "+15550100\n"})
    assert "5550100" not in repr(caught.value) + str(caught.value.details)
