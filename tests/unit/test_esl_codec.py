"""The ESL codec: any bytes, cut anywhere, and any command."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from recorded import TRACES, name_of, scenario_of, wire

from bridge.commands.bench.traffic import TRUNKS
from bridge.pbx.esl.codec import (
    MAX_COMMAND_HEADERS,
    MAX_LINE,
    Decoder,
    EslProtocolError,
    Event,
    Frame,
    LocalError,
    SomeRead,
    encode,
)
from bridge.pbx.esl.hearing import READ
from bridge.pbx.esl.tracker import Tracker
from bridge.pbx.sim.esl import GREETING, event_frame, events_of, framed, reply
from bridge.pbx.trace import received

RECORDED = sorted(TRACES.glob("freeswitch-*/*/wire.jsonl.gz"))
TWICE = sorted(
    scenario_of(path)
    for path in TRACES.glob("freeswitch-1.11-plain/*/wire.jsonl.gz")
    if "originate" not in scenario_of(path)
)
"""Heard by two connections at once, one in each encoding."""
HOSTILE = "Eve\nEvent-Name: CHANNEL_HANGUP_COMPLETE\nX-Spoof: yes"


# A busy machine is slow, and that says nothing of the codec.
whenever = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def outcome(chunks: list[bytes]) -> tuple[list[Frame], str | None, dict[str, int]]:
    """What a decoder makes of the chunks: frames, its error, and what it refused."""
    decoder = Decoder(max_block=300, max_body=500, max_answer=700, max_event_headers=20)
    frames: list[Frame] = []
    fault = None
    for chunk in chunks:
        try:
            frames += decoder.feed(chunk)
        except EslProtocolError as error:
            frames += error.before
            fault = error.message
            break
    return frames, fault, dict(decoder.refused)


def cuts(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


def as_json(body: bytes) -> bytes:
    return b"Content-Length: %d\nContent-Type: text/event-json\n\n%s" % (len(body), body)


def as_plain(body: bytes) -> bytes:
    return b"Content-Length: %d\nContent-Type: text/event-plain\n\n%s" % (len(body), body)


def read(data: bytes) -> list[Event]:
    """The events of some bytes of which nothing is refused."""
    decoder = Decoder()
    events = [frame.event for frame in decoder.feed(data) if frame.event is not None]
    assert not decoder.refused
    return events


BODIES = (
    b'{"Event-Name":"CHANNEL_CREATE","Unique-ID":"1"}',
    b'{"a":"1","a":"2"}',
    b'{"a":["x","y"],"b":null,"c":1e400,"d":{"e":[]},"f":true,"g":["z"],"h":[]}',
    b'{"a":"\\ud800","\\udfff":"\\u0041"}',
    b'{"a":"\xff\xc3"}',
    b'{"a":"' + b"y" * 300 + b'"}',
    b"[]",
    b"[" * 480,
    b'"text"',
    b"{}",
    b"",
    b"{not json",
    b"Event-Name: X\nA: b%0AC: d\n\n",
    b"Event-Name: X\nContent-Length: 2\n\nok",
    b"Event-Name: X\nContent-Length: 9\n\nok",
    b"no blank line",
)
WORDS = (
    GREETING,
    reply("+OK accepted"),
    reply("+OK Job-UUID: 1", {"Job-UUID": "1"}),
    framed("api/response", b"+OK\n"),
    framed("api/response", b"x" * 600),
    framed("log/data", b"text"),
    framed("text/disconnect-notice", b"bye"),
    framed("text/event-xml", b"<event/>"),
    *map(as_json, BODIES),
    *map(as_plain, BODIES),
    b"Content-Length: 600\nContent-Type: text/event-json\n\n",
    b"Content-Length: -1\nContent-Type: text/event-json\n\n",
    b"Content-Length: 007\nContent-Type: text/event-json\n\n",
    b"Content-Length: 4\nContent-Length: 2\nContent-Type: log/data\n\n",
    b"Content-Length: 3\nContent-Type: text/event-plain\n\n",
    b"Content-Type: text/event-json\n\n",
    b"Content-",
    b"\n\n",
    b"\n",
    b"\xff",
    b"\x00",
    b"Content-Type: x" + b"y" * 290 + b"\n\n",
)
pieces = st.lists(
    st.sampled_from(WORDS)
    | st.binary(max_size=12)
    | st.binary(max_size=80).map(as_json)
    | st.binary(max_size=80).map(as_plain),
    max_size=20,
).map(b"".join)


@whenever
@given(pieces, st.lists(st.integers(0, 10_000), max_size=8))
@example(GREETING + framed("log/data", b"") + as_json(b"{}"), [1])
def test_the_same_however_it_is_cut(data: bytes, places: list[int]) -> None:
    whole = outcome([data])
    assert outcome(cuts(data, places)) == whole
    assert outcome([data[i : i + 1] for i in range(len(data))]) == whole


@whenever
@given(st.binary(max_size=400), st.lists(st.integers(0, 500), max_size=4))
def test_any_bytes_parse_or_raise_the_protocol_error(data: bytes, places: list[int]) -> None:
    assert outcome([data]) == outcome(cuts(data, places))


@whenever
@given(pieces)
def test_all_is_text_without_surrogates(data: bytes) -> None:
    for frame in outcome([data])[0]:
        for headers in (frame.headers, frame.event or {}):
            for name, value in headers.items():
                (name + value).encode("utf-8")
        frame.text.encode("utf-8")


headers = st.dictionaries(
    st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{0,20}", fullmatch=True).filter(lambda name: name != "Content-Length"),
    # FreeSWITCH does not encode the percent sign of what looks encoded already, and has no empty value nor NUL.
    st.text(st.characters(exclude_characters="%\x00", exclude_categories=["Cs"]), min_size=1, max_size=30).filter(
        lambda text: text != "_undef_"
    ),
    min_size=1,
    max_size=10,
)


@whenever
@given(headers, st.none() | st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30))
def test_both_encodings_of_any_event_come_out_alike(event: Event, body: str | None) -> None:
    if body is not None:
        event = {**event, "_body": body, "Content-Length": str(len(body.encode()))}
    for encoding in ("json", "plain"):
        assert read(event_frame(event, encoding)) == [event]


@pytest.mark.parametrize("path", RECORDED, ids=name_of)
def test_traces_parse_alike_byte_by_byte(path: Path) -> None:
    data = b"".join(received(path))
    decoder = Decoder()
    whole = decoder.feed(data)
    assert not decoder.refused
    bytewise = Decoder()
    assert [frame for i in range(len(data)) for frame in bytewise.feed(data[i : i + 1])] == whole
    assert sum(frame.event is not None for frame in whole) == data.count(b"Content-Type: text/event-")
    assert whole[0].kind == "auth_request"
    assert whole[-1].kind in ("disconnect", "event")


@pytest.mark.parametrize("path", RECORDED, ids=name_of)
def test_which_headers_are_read_at_once_changes_nothing(path: Path) -> None:
    data = b"".join(received(path))
    for some, every in zip(Decoder(READ).feed(data), Decoder().feed(data), strict=True):
        if some.event is not None and every.event is not None:
            asked = ("Unique-ID", "Caller-Transfer-Source", "variable_rb_attempt", "No-Such-Header", *every.event)
            assert [some.event.get(name) for name in asked] == [every.event.get(name) for name in asked]
            assert "No-Such-Header" not in some.event
        assert some == every


@pytest.mark.parametrize("path", [path for path in RECORDED if "json" in name_of(path)], ids=name_of)
def test_the_tracker_seldom_asks_for_another_header(path: Path) -> None:
    decoder, tracker = Decoder(READ), Tracker("pbx", TRUNKS)
    events = [frame.event for frame in decoder.feed(b"".join(received(path))) if frame.event is not None]
    heard = [event for event in events if event.get("Event-Name") in READ or event.get("Event-Subclass") in READ]
    tracker.feed(heard, 0.0)
    whole = [event for event in heard if not isinstance(event, SomeRead) or event.is_whole]
    # A channel whose birth was not heard, say.
    assert len(whole) <= max(1, len(heard) // 20)


@whenever
@given(headers, st.sampled_from(sorted(READ)))
@example({"variable_sip_Privacy": "\n", "Unique-ID": "\u2028"}, "CHANNEL_CREATE")
def test_any_event_says_the_same_whichever_headers_are_read_at_once(event: dict[str, str], kind: str) -> None:
    data = event_frame({"Event-Name": kind, **event, "Unique-ID": "1"}, "json")
    [some], [every] = Decoder(READ).feed(data), Decoder().feed(data)
    assert some.event is not None
    assert some.event["Unique-ID"] == "1"
    assert some == every


@pytest.mark.parametrize(
    "rest",
    [
        b'"Unique-ID":["1","2"],"a":["x"]',
        b'"a":{"b":[1]},"Unique-ID":null',
        b'"Unique-ID":"a\xffb"',
        b'"a":"a\xffb\x01","Unique-ID":"1"',
        b'"Unique-ID":"\\ud800","a":"1"',
        b'"a":"\\ud800","Unique-ID":"1"',
        b'"Unique-ID":"1","a":"2","a":"3","Unique-ID":"4"',
        b'"Other-Type":"\\",\\"Unique-ID\\":\\"x","Unique-ID":"1"',
        b'"Event-Name":"CHANNEL_ANSWER"',
    ],
)
def test_odd_json_says_the_same_whichever_headers_are_read_at_once(rest: bytes) -> None:
    data = as_json(b'{"Event-Name":"CHANNEL_CREATE",' + rest + b"}")
    [some], [every] = Decoder(READ).feed(data), Decoder().feed(data)
    assert some.event is not None
    assert some.event.get("Unique-ID") == (every.event or {}).get("Unique-ID")
    assert some == every


def test_what_is_broken_counts_whichever_headers_are_read_at_once() -> None:
    many = ",".join(f'"variable_{i}":"x"' for i in range(5000))
    deep = '"a":' + "[" * 100_000 + "]" * 100_000 + "}"
    for rest, reason in (('"a":"b"', "json"), ("a}", "json"), (deep, "json"), (many + "}", "too_many_headers")):
        decoder = Decoder(READ)
        assert decoder.feed(as_json(b'{"Event-Name":"CHANNEL_CREATE",' + rest.encode())) == []
        assert decoder.refused == {reason: 1}


@pytest.mark.parametrize("scenario", TWICE)
def test_one_call_heard_in_both_encodings_reads_the_same(scenario: str) -> None:
    heard = [
        [event for _, event in events_of(received(wire(f"freeswitch-1.11-{encoding}", scenario)))]
        for encoding in ("json", "plain")
    ]
    assert len(heard[0]) == len(heard[1])
    # The two values that hold a caller's literal %0A: in the plain encoding it looks like a real line feed.
    lossy = {"variable_sip_full_from", "variable_sip_from_display"} if "hostile" in scenario else set()
    for one, other in zip(*heard, strict=True):
        assert {k: v for k, v in one.items() if k not in lossy} == {k: v for k, v in other.items() if k not in lossy}


def test_a_callers_name_forges_no_header() -> None:
    heard = [event for _, event in events_of(received(wire("freeswitch-1.11-json", "hostile_name")))]
    assert any(event.get("Caller-Caller-ID-Name") == HOSTILE for event in heard)
    assert not any("X-Spoof" in event for event in heard)
    assert [event["Event-Name"] for event in heard].count("CHANNEL_HANGUP_COMPLETE") == 2


@pytest.mark.parametrize("encoding", ["json", "plain"])
@pytest.mark.parametrize(
    "name",
    [
        HOSTILE,
        "a\r\nEvent-Name: FORGED",
        "".join(map(chr, range(1, 32))) + "\x7f\u2028",
        "\U0001f642" * 256,
        "x\n\nContent-Length: 2\nContent-Type: text/event-json\n\n{}",
    ],
    ids=["newline", "crlf", "controls", "emoji", "frame"],
)
def test_no_value_becomes_a_header_or_a_frame(name: str, encoding: str) -> None:
    event = {"Event-Name": "CHANNEL_CREATE", "Caller-Caller-ID-Name": name, "Unique-ID": "1"}
    assert read(event_frame(event, encoding)) == [event]


def test_bytes_that_are_no_utf_8_spoil_their_value_only() -> None:
    expected = {"Event-Name": "X", "Caller-Caller-ID-Name": "a\ufffdb", "Unique-ID": "1"}
    assert read(as_json(b'{"Event-Name":"X","Caller-Caller-ID-Name":"a\xffb","Unique-ID":"1"}')) == [expected]
    for name in (b"a\xffb", b"a%FFb"):
        assert read(as_plain(b"Event-Name: X\nCaller-Caller-ID-Name: %s\nUnique-ID: 1\n\n" % name)) == [expected]


def test_lists_and_what_is_no_text_become_what_plain_would_show() -> None:
    [event] = read(as_json(b'{"a":["x","y"],"b":["z"],"c":[],"d":null,"e":5,"f":{"g":[1]}}'))
    assert event == {"a": "ARRAY::x|:y", "b": "z", "c": "", "d": "", "e": "5", "f": '{"g": [1]}'}


def test_of_two_headers_the_same_counts_in_both_encodings() -> None:
    assert read(as_json(b'{"a":"1","b":"2","a":"3"}')) == [{"a": "3", "b": "2"}]
    assert read(as_plain(b"a: 1\nb: 2\na: 3\n\n")) == [{"a": "3", "b": "2"}]


def test_an_event_of_300_headers_is_read_and_one_of_5000_refused() -> None:
    for encoding in ("json", "plain"):
        many = {f"variable_{i}": "x" for i in range(300)}
        assert read(event_frame(many, encoding)) == [many]
        decoder = Decoder()
        assert decoder.feed(event_frame({f"variable_{i}": "x" for i in range(5000)}, encoding)) == []
        assert decoder.refused == {"too_many_headers": 1}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (as_json(b"{"), "json"),
        (as_json(b'{"a":"b"} x'), "json"),
        (as_json(b"[" * 200_000), "json"),
        (as_json(b'{"a":' + b"9" * 5000 + b"}"), "json"),
        (as_json(b'["a"]'), "not_object"),
        (as_json(b"{}"), "empty"),
        (as_plain(b"a: b\n"), "length"),
        (as_plain(b"a: b\nContent-Length: 9\n\nshort"), "length"),
        (as_plain(b"a: b\n\nbody without a length"), "length"),
    ],
)
def test_an_unreadable_event_is_counted_and_its_neighbours_are_not(data: bytes, reason: str) -> None:
    decoder = Decoder()
    good = as_json(b'{"Event-Name":"X"}')
    frames = decoder.feed(good + data + good)
    assert [frame.event for frame in frames] == [{"Event-Name": "X"}] * 2
    assert decoder.refused == {reason: 1}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", "not a FreeSWITCH"),
        (b"Asterisk Call Manager/9.0.0\r\n", "not a FreeSWITCH"),
        (GREETING + b"Content-Length: 5\nContent-Type: text/event-json\n\n" + b'{"a":"b"}', "was not true"),
        (GREETING + b"Content-Length: x\nContent-Type: text/event-json\n\n", "no number"),
        (GREETING + b"Content-Length: -5\nContent-Type: log/data\n\n", "no number"),
        (GREETING + b"Content-Length: 4194305\nContent-Type: text/event-json\n\n", "more than 4194304"),
        (GREETING + b"Content-Length: 99999999\nContent-Type: api/response\n\n", "more than 16777216"),
        (GREETING + b"Content-Length: 1\nContent-Length: 2\nContent-Type: log/data\n\n", "two headers"),
        (GREETING + b"Content-Length: 1\nno colon\n\n", "without a colon"),
        (GREETING + b"Content-Length: 1\n\nx", "without a Content-Type"),
        (GREETING + b"Content-Type: " + b"x" * 70_000, "more than 65536"),
    ],
)
def test_what_leaves_no_frame_to_trust_ends_the_connection(data: bytes, reason: str) -> None:
    decoder = Decoder()
    with pytest.raises(EslProtocolError, match=reason) as caught:
        decoder.feed(data)
    assert [frame.kind for frame in caught.value.before][:1] == (["auth_request"] if data.startswith(GREETING) else [])
    with pytest.raises(EslProtocolError, match=reason):
        decoder.feed(GREETING)


def test_kinds_and_what_comes_with_them() -> None:
    kinds = Decoder().feed(
        GREETING
        + reply("+OK Job-UUID: 7", {"Job-UUID": "7"})
        + framed("api/response", "Ünï\n\n".encode())
        + framed("text/disconnect-notice", b"bye")
        + framed("text/rude-rejection", b"Access Denied, go away.\n")
        + framed("log/data", b"line")
        + framed("text/event-xml", b"<event/>")
        + event_frame({"Event-Name": "HEARTBEAT"})
    )
    assert [(frame.kind, frame.text) for frame in kinds] == [
        ("auth_request", ""),
        ("reply", ""),
        ("api_response", "Ünï\n\n"),
        ("disconnect", "bye"),
        ("rejection", "Access Denied, go away.\n"),
        ("log", "line"),
        ("other", "<event/>"),
        ("event", ""),
    ]
    assert (kinds[1].headers["Reply-Text"], kinds[1].headers["Job-UUID"]) == ("+OK Job-UUID: 7", "7")
    assert kinds[-1].event == {"Event-Name": "HEARTBEAT"}


def test_a_list_of_channels_may_be_longer_than_any_event() -> None:
    rows = json.dumps([{"uuid": "x" * 1000}] * 5000)
    [frame] = Decoder().feed(framed("api/response", rows.encode()))
    assert frame.text == rows


def test_nothing_is_kept_of_what_was_read() -> None:
    decoder = Decoder()
    data = event_frame({"Event-Name": "X", "a": "b" * 9000})
    for _ in range(200):
        for start in range(0, len(data), 4096):
            decoder.feed(data[start : start + 4096])
    assert len(decoder._buffer) == 0


texts = st.text(max_size=40) | st.sampled_from(
    ["api status\n\napi shutdown", "a\r\nb", "\x00", "\u2028", "api originate user/101 &park", " "]
)


@whenever
@given(texts, st.dictionaries(texts | st.sampled_from(["Job-UUID", "content-length"]), texts, max_size=4))
def test_exactly_one_command_or_an_error_that_is_ours(command: str, more: dict[str, str]) -> None:
    try:
        data = encode(command, more)
    except LocalError:
        return
    assert data.endswith(b"\n\n") and data.count(b"\n\n") == 1
    lines = data.removesuffix(b"\n\n").decode().split("\n")
    assert lines == [command, *(f"{name}: {value}" for name, value in more.items())]
    assert command.strip()
    assert not any(name.lower() == "content-length" for name in more)
    assert not any(c in data for c in (b"\r", b"\x00"))


@pytest.mark.parametrize(
    ("command", "more"),
    [
        ("api status\napi shutdown", {}),
        ("api status\r", {}),
        ("", {}),
        ("  ", {}),
        ("api \x00", {}),
        ("api \x85", {}),
        ("api " + "x" * MAX_LINE, {}),
        ("bgapi status", {"Job-UUID": "1\n\napi shutdown"}),
        ("bgapi status", {"Job-UUID: x\nA": "1"}),
        ("bgapi status", {"": "1"}),
        ("bgapi status", {"Content-Length": "5"}),
        ("bgapi status", {"Job-UUID": "x" * MAX_LINE}),
        ("bgapi status", {f"h{i}": "1" for i in range(MAX_COMMAND_HEADERS + 1)}),
    ],
)
def test_what_would_not_be_one_command_is_refused(command: str, more: dict[str, str]) -> None:
    with pytest.raises(LocalError) as caught:
        encode(command, more)
    assert "shutdown" not in repr(caught.value) + str(caught.value.details)


def test_the_bytes_of_a_command() -> None:
    assert encode("api show channels as json") == b"api show channels as json\n\n"
    assert encode("bgapi originate Ünï", {"Job-UUID": "1"}) == "bgapi originate Ünï\nJob-UUID: 1\n\n".encode()
