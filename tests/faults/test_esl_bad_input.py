"""What no peer should do to the ESL link: no forged event, no lost one, no hang, no growth; refusals are counted."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from doubles.esl_links import ATTEMPT, DIALLER, HASTY, QUICK, READER, USERS, linked, order, pbx
from doubles.sink import Sink
from redis import Redis
from rig import until

from bridge.live import keys
from bridge.pbx.esl import link as esl_link
from bridge.pbx.esl.codec import Event
from bridge.pbx.esl.link import EslLink
from bridge.pbx.port import Reason, Receipts
from bridge.pbx.sim.esl import FakeFreeSWITCH, event_frame, framed, reply
from bridge.services import health
from bridge.services.listener import Listener
from bridge.settings import Settings
from bridge.store.database import Sessions

HOSTILE = {
    "encoded line feed": "Eve%0AEvent-Name: CHANNEL_HANGUP_COMPLETE%0AUnique-ID: forged",
    "encoded CR LF": "Eve%0D%0AEvent-Name: CHANNEL_HANGUP_COMPLETE%0D%0A%0D%0AContent-Length: 9",
    "line feeds": "Eve\nEvent-Name: CHANNEL_HANGUP_COMPLETE\n\nContent-Type: text/event-json\n\n{}",
    "raw controls": "Eve\x00\x01\x07\x08\x0b\x0c\x0e\x1b[2J\x7f\x85\u2028\u2029",
    "a kilobyte of emoji": "\U0001f468\u200d\U0001f469\u200d\U0001f467" * 57,
    "JSON": '","Event-Name":"CHANNEL_HANGUP_COMPLETE","x":"',
    "a frame": "Content-Length: 2\nContent-Type: text/event-json\n\n{}",
    "percent signs": "%%%0%0g%ff%c3%28100%",
}


@pytest.fixture
def server() -> Iterator[FakeFreeSWITCH]:
    with FakeFreeSWITCH(users=USERS) as fake:
        yield fake


def tell(server: FakeFreeSWITCH, data: bytes, user: str = READER) -> None:
    """Bytes to that user's connection, by default the one that reads events."""
    for client in list(server._clients):
        if client.user == user:
            client.send(data)


class Ear:
    """What the tracker of a link is given of channels, event by event."""

    def __init__(self, link: EslLink) -> None:
        self.heard: list[Event] = []
        feed = link.tracker.hear_all

        def hear(events: list[Event], now: float) -> object:
            self.heard.extend(event for event in events if event["Event-Name"].startswith("CHANNEL_"))
            return feed(events, now)

        link.tracker.hear_all = hear  # type: ignore[assignment,method-assign]


def create(uid: str, **more: str) -> dict[str, str]:
    """A phone begins to call."""
    return {
        "Event-Name": "CHANNEL_CREATE",
        "Event-Sequence": "5000",
        "Event-Date-Timestamp": str(int(time.time() * 1e6)),
        "Unique-ID": uid,
        "Channel-Name": "sofia/internal/101@company",
        "Call-Direction": "inbound",
        "Caller-Caller-ID-Number": "101",
        "Caller-Destination-Number": "102",
        "variable_sip_from_user": "101",
        **more,
    }


@pytest.mark.parametrize("encoding", ["json", "plain"])
@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
def test_a_name_becomes_no_event_and_no_header(server: FakeFreeSWITCH, name: str, encoding: str) -> None:
    sink = Sink()
    with linked(server, sink) as link:
        ear = Ear(link)
        for uid in ("a", "b"):
            tell(server, event_frame(create(uid, **{"Caller-Caller-ID-Name": name}), encoding))
        until(lambda: len(ear.heard) == 2)
        assert [event["Unique-ID"] for event in ear.heard] == ["a", "b"]
        assert [event["Event-Name"] for event in ear.heard] == ["CHANNEL_CREATE"] * 2
        assert all(event["Caller-Caller-ID-Name"] == name for event in ear.heard)
        assert all(set(event) == set(create("a")) | {"Caller-Caller-ID-Name"} for event in ear.heard)
        assert link.counts()["refused"] == 0
    assert sink.downs == []


def test_bytes_that_are_no_text_cost_a_letter_and_no_event(server: FakeFreeSWITCH) -> None:
    name = "Caller-Caller-ID-Name"
    as_json = event_frame(create("a", **{name: "E????v"})).replace(b"????", b"\xff\xfe\xc3\x28")
    lines = [f"{header}: {value}\n".encode() for header, value in create("a").items()]
    raw, quoted = (b"%s: E%sv\n" % (name.encode(), text) for text in (b"\xff\xfe\xc3\x28", b"%FF%FE%C3%28"))
    with linked(server, Sink()) as link:
        ear = Ear(link)
        tell(server, as_json)
        for line in (raw, quoted):
            tell(server, framed("text/event-plain", b"".join([*lines, line, b"\n"])))
        until(lambda: len(ear.heard) == 3)
        assert {event[name] for event in ear.heard} == {"E\ufffd\ufffd\ufffd(v"}


def test_an_event_of_300_headers_is_an_event(server: FakeFreeSWITCH) -> None:
    with linked(server, Sink()) as link:
        ear = Ear(link)
        many = {f"variable_sip_h_X-{number}": "x" * 50 for number in range(300)}
        tell(server, event_frame(create("a", **many)) + event_frame(create("b")))
        until(lambda: len(ear.heard) == 2)
        assert set(many) <= set(ear.heard[0])


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"{", "refused_json"),
        (b"not json", "refused_json"),
        (b"[" * 100_000, "refused_json"),
        (b'["Event-Name"]', "refused_not_object"),
        (b"null", "refused_not_object"),
        (b"{}", "refused_empty"),
        (json.dumps({f"h{n}": "" for n in range(5000)}).encode(), "refused_too_many_headers"),
    ],
)
def test_one_event_that_cannot_be_read_is_counted_and_costs_no_other(
    server: FakeFreeSWITCH, body: bytes, reason: str
) -> None:
    sink = Sink()
    with linked(server, sink) as link:
        ear = Ear(link)
        tell(server, framed("text/event-json", body) + event_frame(create("a")))
        until(lambda: len(ear.heard) == 1)
        counts = link.counts()
        assert (counts[reason], counts["refused"]) == (1, 1)
    assert sink.downs == []
    # What was counted outlives the connection it came over.
    assert link.counts()[reason] == 1


@pytest.mark.parametrize(
    "liar",
    [
        b"Content-Length: 3\nContent-Type: text/event-json\n\n" + json.dumps(create("x")).encode(),
        b"Content-Length: -5\nContent-Type: text/event-json\n\n",
        b"Content-Length: many\nContent-Type: text/event-json\n\n",
        b"Content-Length: 99999999999\nContent-Type: text/event-json\n\n",
        b"Content-Length: 5000000\nContent-Type: text/event-json\n\n",
        b"Content-Length: 2\nContent-Length: 20000\nContent-Type: text/event-json\n\n{}",
        b"Content-Type: text/event-json\nX: " + b"y" * 70_000,
        b"\xff" * 300_000,
    ],
    ids=["short", "negative", "word", "huge", "too long for an event", "two", "no end", "rubbish"],
)
def test_a_length_that_lies_ends_the_connection_and_the_link_recovers(
    server: FakeFreeSWITCH, liar: bytes
) -> None:
    sink = Sink()
    with linked(server, sink) as link:
        tell(server, event_frame(create("a")))
        until(lambda: link._watch._highest is not None)
        tell(server, liar + event_frame(create("b")))
        until(lambda: any("not understood" in reason for reason in sink.downs))
        until(lambda: len(sink.facts) >= 2)
        ear = Ear(link)
        tell(server, event_frame(create("c")))
        until(lambda: ear.heard)
        assert [event["Unique-ID"] for event in ear.heard] == ["c"]


def test_a_length_beyond_what_comes_swallows_no_more_than_one_connection(server: FakeFreeSWITCH) -> None:
    """The frames after it are taken for its body; that is no JSON, so nothing of it is believed."""
    sink = Sink()
    with linked(server, sink) as link:
        ear = Ear(link)
        good = event_frame(create("a"))
        tell(server, b"Content-Length: %d\nContent-Type: text/event-json\n\n" % (len(good) + 60) + good)
        tell(server, event_frame(create("b")))
        until(lambda: any("not understood" in reason for reason in sink.downs))
        until(lambda: len(sink.facts) >= 2)
        assert ear.heard == []
        assert link.counts()["refused_json"] == 1


@pytest.mark.parametrize("trickle", [False, True], ids=["silent", "a byte at a time"])
def test_a_peer_that_stops_in_the_middle_of_an_event_is_left(server: FakeFreeSWITCH, trickle: bool) -> None:
    sink = Sink()
    over = threading.Event()

    def drip() -> None:
        while not over.wait(0.02):
            tell(server, b"x")

    with linked(server, sink, timings=HASTY) as link:
        tell(server, b"Content-Length: 4000000\nContent-Type: text/event-json\n\n{")
        server.silent = True
        dripping = threading.Thread(target=drip)
        if trickle:
            dripping.start()
        until(lambda: any("ping" in reason for reason in sink.downs))
        over.set()
        if trickle:
            dripping.join(20)
        server.silent = False
        until(lambda: len(sink.facts) >= 2)
        assert link.is_running()


def test_a_long_answer_that_goes_on_coming_is_no_dead_peer(server: FakeFreeSWITCH) -> None:
    sink = Sink()
    # Its 75 pieces take longer than that together, and no pause between two comes near it.
    with linked(server, sink, timings=replace(QUICK, ping_deadline=3)) as link:
        ear = Ear(link)
        server.silent = True
        many = event_frame(create("a", variable_long="x" * 3_000_000))
        for start in range(0, len(many), 40_000):
            tell(server, many[start : start + 40_000])
            threading.Event().wait(0.06)
        until(lambda: ear.heard)
        assert sink.downs == []


def test_a_job_that_never_reports_is_unknown_and_leaves_nothing_behind(server: FakeFreeSWITCH) -> None:
    sink = Sink()
    with linked(server, sink, timings=replace(QUICK, action=1)) as link:
        server.jobs_report = False
        for _ in range(3):
            assert link.receipts(ATTEMPT) == Receipts(None, None)
        assert link.dial(order()).reason is Reason.SENT
        session = link._commander._session
        assert session is not None
        assert session._jobs == {}
        server.jobs_report = True
        until(lambda: link.receipts(ATTEMPT) == Receipts(False, False))
    assert sink.downs == []


def test_a_command_without_a_reply_is_unknown_and_the_next_is_not_taken_for_it(server: FakeFreeSWITCH) -> None:
    """A reply that comes late belongs to the command that was given up, not to the one that waits now."""
    with linked(server, Sink(), timings=replace(QUICK, ping_every=60, action=3)) as link:
        server.silent = True
        assert link.receipts(ATTEMPT) == Receipts(None, None)
        server.silent = False
        # Three commands are without a reply; their late ones must not answer for the next three.
        server.hash[f"ringbridge/{ATTEMPT}-agent"] = "1795330380"
        tell(server, reply("+OK Job-UUID: 1", {"Job-UUID": "1"}) * 3, DIALLER)
        assert link.receipts(ATTEMPT) == Receipts(True, False)


def test_a_reply_that_nobody_waits_for_is_counted(server: FakeFreeSWITCH) -> None:
    sink = Sink()
    with linked(server, sink, timings=replace(QUICK, ping_every=60)) as link:
        tell(server, reply("+OK") + framed("api/response", b"x") + framed("text/unheard-of", b"y"))
        until(lambda: link.counts().get("stray_replies") == 2)
        assert link.counts()["other_frames"] == 1
        assert link.receipts(ATTEMPT) == Receipts(False, False)
    assert sink.downs == []


def test_a_notice_of_disconnection_is_told(server: FakeFreeSWITCH) -> None:
    sink = Sink()
    with linked(server, sink):
        tell(server, framed("text/disconnect-notice", b"killed listener because of lost events\n"))
        until(lambda: any("killed listener because of lost events" in reason for reason in sink.downs))
        until(lambda: len(sink.facts) >= 2)


def test_ten_thousand_events_in_a_burst_all_arrive_in_order(server: FakeFreeSWITCH) -> None:
    sink = Sink()
    count = 10_000
    with linked(server, sink) as link:
        heard: list[int] = []
        feed = link.tracker.hear_all

        def hear(events: list[Event], now: float) -> object:
            heard.extend(int(event["variable_number"]) for event in events if "variable_number" in event)
            return feed(events, now)

        link.tracker.hear_all = hear  # type: ignore[assignment,method-assign]
        padding = {f"variable_{name}": "x" * 20 for name in range(100)}
        batch = b"".join(
            event_frame(
                {**padding, "Event-Name": "CHANNEL_PROGRESS", "Unique-ID": f"u{n}", "variable_number": str(n)}
            )
            for n in range(count)
        )
        sending = threading.Thread(target=tell, args=(server, batch))
        sending.start()
        # Others are served in between.
        assert link.live_calls() == frozenset()
        until(lambda: len(heard) >= count, seconds=60)
        sending.join(20)
        assert heard == list(range(count))
        session = link._events
        assert session is not None
        assert not session._wire.decoder._buffer
        assert link._gathered is None
        assert not link.tracker.book.channels
        assert link.receipts(ATTEMPT) == Receipts(False, False)
    assert sink.downs == []


def test_more_than_can_be_kept_during_a_snapshot_ends_the_connection(
    server: FakeFreeSWITCH, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(esl_link, "MAX_GATHERED", 50)
    once = threading.Event()

    def flood(arguments: str) -> str:
        if not once.is_set():
            once.set()
            tell(server, event_frame(create("a")) * 100)
        return server._api_show(arguments)

    server.answers["show"] = flood
    sink = Sink()
    with linked(server, sink, wait=False):
        until(lambda: any("than can be kept" in reason or "broke" in reason for reason in sink.downs))
        until(lambda: sink.facts)


def test_events_that_may_have_been_lost_bring_a_new_snapshot(server: FakeFreeSWITCH) -> None:
    """We were behind, and so much was made meanwhile that the PBX may have dropped some: seen by number and age."""
    sink = Sink()
    with linked(server, sink) as link:
        now = time.time()

        def numbered(sequence: int, age: float) -> bytes:
            stamp = {"Event-Sequence": str(sequence), "Event-Date-Timestamp": str(int((now - age) * 1e6))}
            return event_frame({**create("a"), **stamp})

        # Holes and a loose order are how a narrow subscription looks; being behind for a while is no loss either.
        for sequence, age in ((1000, 0.0), (90_000, 0.0), (89_940, 0.0), (89_941, 30.0), (90_100, 0.0)):
            tell(server, numbered(sequence, age))
        until(lambda: link._watch._highest == 90_100)
        assert link.counts()["gaps"] == 0
        tell(server, numbered(90_101, 30.0) + numbered(250_000, 0.0))
        until(lambda: any("may have been lost" in reason for reason in sink.downs))
        until(lambda: len(sink.facts) >= 2)
        assert link.counts()["gaps"] == 1
        assert link.counts()["worst_lag_seconds"] > 20
        assert link._watch.doubt_since == pytest.approx(now, abs=1)


@pytest.mark.filterwarnings("ignore:The Result.tuples")
def test_what_was_refused_is_in_the_metrics(
    server: FakeFreeSWITCH, settings: Settings, sessions: Sessions, redis: Redis
) -> None:
    stop = threading.Event()
    settings = settings.model_copy(update={"pbx": (pbx(server.port),)})

    def opener(found: object, sink: object) -> EslLink:
        return EslLink(found, sink, timings=QUICK)  # type: ignore[arg-type]

    listener = Listener(settings, settings.pbx[0], sessions, redis, opener)
    running = threading.Thread(target=listener.run, args=(stop,))
    running.start()
    try:
        until(lambda: redis.hget(keys.listen_metrics("lab"), "connected") == "1", seconds=30)
        tell(server, framed("text/event-json", b"{") * 2)
        until(lambda: redis.hget(keys.listen_metrics("lab"), "link_refused") == "2", seconds=30)
        counters = health.listener_counters(settings, redis)["lab"]
        assert counters["link_refused_json"] == counters["link_refused"]
        assert counters["link_gaps"] == counters["link_faults"] == 0
        assert counters["link_lag_seconds"] >= 0
    finally:
        stop.set()
        running.join(30)
    assert not running.is_alive()
