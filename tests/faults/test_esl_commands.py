"""What the ESL link sends to dial, to hang up and to ask for receipts, and what it makes of the answers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from doubles.esl_links import ATTEMPT, DIALLER, USERS, linked, order
from doubles.sink import Sink
from hypothesis import given
from hypothesis import strategies as st
from rig import until

from bridge.domain.calls import Directory
from bridge.pbx.esl import commands
from bridge.pbx.esl.codec import LocalError, encode
from bridge.pbx.esl.orders import originate
from bridge.pbx.port import Reason, Receipts
from bridge.pbx.sim.esl import FakeFreeSWITCH, events_of
from bridge.pbx.trace import received
from bridge.uptime import uptime

TRACES = Path(__file__).parent.parent / "traces" / "freeswitch-1.11-json"
SIMPLE = TRACES / "simple" / "wire.jsonl.gz"


@pytest.fixture
def server() -> Iterator[FakeFreeSWITCH]:
    with FakeFreeSWITCH(users=USERS) as fake:
        yield fake


def test_an_unanswered_originate_is_unknown_and_never_repeated(server: FakeFreeSWITCH) -> None:
    sink = Sink()
    with linked(server, sink) as link:
        server.silent = True
        assert link.dial(order(until=uptime() + 0.3)).reason is Reason.TIMEOUT
    assert bytes(server.raw).count(b"expand originate") == 1


def test_one_originate_for_one_dial(server: FakeFreeSWITCH) -> None:
    sink = Sink()
    with linked(server, sink) as link:
        outcome = link.dial(order(caller_id="+12125550100"))
        assert (outcome.ok, outcome.reason) == (True, Reason.SENT)
    [(user, command, headers)] = [row for row in server.commands if "originate" in row[1]]
    assert user == DIALLER
    assert headers == {"Job-UUID": ATTEMPT}
    for value in ("user/101", "sofia/gateway/trunk/+16465550101", "+12125550100", ATTEMPT):
        assert value in command


@pytest.mark.parametrize(
    "bad",
    [
        {"number": "+1646555010a"},
        {"number": "+16465550101\n\napi shutdown"},
        {"number": "12"},
        {"number": "${system(x)}"},
        {"dial_string": "sofia/gateway/trunk/1,user/2"},
        {"dial_string": "sofia/gateway/trunk/1|user/2"},
        {"dial_string": "[x=y]sofia/gateway/trunk/1"},
        {"dial_string": "sofia/gateway/trunk/1 &system(x)"},
        {"dial_string": "sofia/gateway/trunk/${x}"},
        {"agent_device": "user/101,user/102"},
        {"agent_device": "user/101}x"},
        {"agent_device": "loopback/101"},
        {"agent_device": "user/101\n"},
        {"caller_id": "Anna <1>"},
        {"attempt": "a b"},
        {"attempt": ATTEMPT.upper()},
        {"first": "both"},
        {"agent_ring_seconds": 0},
        {"customer_ring_seconds": 301},
        {"customer_ring_seconds": "1,x=y"},
    ],
)
def test_what_does_not_match_its_pattern_never_leaves(
    server: FakeFreeSWITCH, bad: dict[str, object]
) -> None:
    sink = Sink()
    with linked(server, sink) as link:
        outcome = link.dial(order(**bad))
        assert (outcome.ok, outcome.reason) == (False, Reason.REFUSED)
        assert "555" not in outcome.detail
        assert link.live_attempts() == frozenset()
    assert b"expand originate" not in server.raw


def test_a_dial_that_may_not_be_sent_says_what_to_change(server: FakeFreeSWITCH) -> None:
    server.allowed_api[DIALLER] = {"hash", "uuid_kill", "strepoch"}
    sink = Sink()
    with linked(server, sink) as link:
        outcome = link.dial(order())
        assert outcome.reason is Reason.REFUSED
        assert "expand originate" in outcome.detail and "esl-allowed-api" in outcome.detail
        assert "6465550101" not in outcome.detail
        assert link.live_attempts() == frozenset()


def test_without_the_pbxs_time_nothing_is_dialled(server: FakeFreeSWITCH) -> None:
    server.allowed_api[DIALLER] = {"expand", "originate", "hash", "uuid_kill"}
    sink = Sink()
    with linked(server, sink) as link:
        outcome = link.dial(order())
        assert outcome.reason is Reason.LINK_DOWN
        assert "strepoch" in outcome.detail
    assert b"expand originate" not in server.raw


def test_receipts_of_yesterday_are_deleted_and_todays_are_not(
    server: FakeFreeSWITCH, monkeypatch: pytest.MonkeyPatch
) -> None:
    deleted: list[str] = []

    def answer(arguments: str) -> str:
        verb, _, rest = arguments.partition("/")
        if verb == "delete":
            deleted.append(rest)
        return "+OK\n" if verb == "delete" else "1795330380"

    server.answers["hash"] = answer
    younger = ATTEMPT.replace("5f0c", "6f0c")
    with linked(server, Sink()) as link:
        assert link.dial(order()).ok
        assert link.dial(order(attempt=younger)).ok
        assert deleted == []
        monkeypatch.setattr(commands, "KEPT", -1.0)
        assert link.dial(order(attempt=ATTEMPT.replace("5f0c", "7f0c"))).ok
        until(lambda: len(deleted) >= 4, what="old receipts to go")
    legs = [(attempt, leg) for attempt in (ATTEMPT, younger) for leg in ("agent", "customer")]
    assert deleted[:4] == [f"ringbridge/{attempt}-{leg}" for attempt, leg in legs]


def test_receipts(server: FakeFreeSWITCH) -> None:
    server.hash[f"ringbridge/{ATTEMPT}-agent"] = "1795330380"
    sink = Sink()
    with linked(server, sink) as link:
        assert link.receipts(ATTEMPT) == Receipts(True, False)
        for held, answered in (("1795330380", None), ("1795330380-dialed", False), ("1795330381-answered", True)):
            server.hash[f"ringbridge/{ATTEMPT}-customer"] = held
            assert link.receipts(ATTEMPT) == Receipts(True, True, answered)
        # A PBX without mod_hash knows of no receipt, and so of no dial either.
        server.answers["hash"] = lambda arguments: "-ERR hash Command not found!\n"
        assert link.receipts(ATTEMPT) == Receipts(None, None)


def test_work_that_nobody_waits_for_any_more_is_not_begun(server: FakeFreeSWITCH) -> None:
    """A dial whose deadline passed while the hub was busy must not be sent late."""
    begun: list[str] = []
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        held.set()
        release.wait(20)

    with linked(server, Sink()) as link:
        busy = threading.Thread(target=link._hub.ask, args=(hold, 20.0, None))
        busy.start()
        assert held.wait(20)
        link._hub.ask(lambda: begun.append("late"), 0.05, None)
        release.set()
        busy.join(20)
        assert link._hub.ask(lambda: "in time", 20.0, "") == "in time"
    assert begun == []


def test_a_dial_that_never_became_a_channel_is_a_call_that_failed(server: FakeFreeSWITCH) -> None:
    server.answers["expand"] = lambda arguments: "-ERR USER_NOT_REGISTERED\n"
    sink = Sink()
    with linked(server, sink) as link:
        assert link.dial(order()).ok
        until(lambda: "call.ended" in sink.kinds())
        assert link.live_attempts() == frozenset()
    assert sink.kinds()[0] == "call.started"
    assert sink.heard[0].data["attempt"] == ATTEMPT
    assert sink.heard[-1].data["cause"] == "failed"


@pytest.mark.parametrize("body", ["-ERR STALE_DATE\n", "-USAGE: <call url> <exten>|&<application_name>\n"])
def test_a_dial_that_the_pbx_did_not_begin_is_over_at_once(server: FakeFreeSWITCH, body: str) -> None:
    server.answers["expand"] = lambda arguments: body
    sink = Sink()
    with linked(server, sink) as link:
        assert link.dial(order()).ok
        until(lambda: sink.kinds() == ["call.started", "call.ended"])
        assert link.live_attempts() == frozenset()


def test_a_dial_that_came_twice_ends_nothing(server: FakeFreeSWITCH) -> None:
    """Its first command may be ringing: what the PBX says of the second is no word of the call's."""
    server.answers["expand"] = lambda arguments: "-ERR LOSE_RACE\n"
    sink = Sink()
    with linked(server, sink) as link:
        fed = []
        feed = link.tracker.hear_all

        def hear(events: list[dict[str, str]], now: float) -> object:
            fed.extend(events)
            return feed(events, now)

        link.tracker.hear_all = hear  # type: ignore[assignment,method-assign]
        assert link.dial(order()).ok
        until(lambda: any(event.get("Job-UUID") == ATTEMPT for event in fed))
        assert link._hub.ask(lambda: True, 20.0, False)
    assert sink.kinds() == []


def test_hangup_finds_the_agents_leg(server: FakeFreeSWITCH) -> None:
    sink = Sink()
    with linked(server, sink) as link:
        link.set_directory(Directory(agents={"user/101": "anna"}))
        recorded = list(events_of(received(SIMPLE)))
        names = [event["Event-Name"] for _, event in recorded]
        hung_up = names.index("CHANNEL_HANGUP") if "CHANNEL_HANGUP" in names else names.index("CHANNEL_HANGUP_COMPLETE")
        server.send(b"".join(raw for raw, _ in recorded[:hung_up]))
        until(lambda: "call.connected" in sink.kinds())
        call = sink.heard[0].call
        assert call is not None
        [leg] = [c.uid for c in link.tracker.book.channels.values() if c.device == "user/101"]
        assert link.hangup(call, "bert").reason is Reason.NOT_FOUND
        assert link.hangup("lab-no-such", "anna").reason is Reason.NOT_FOUND
        assert link.hangup(call, "anna").reason is Reason.NOT_FOUND
        server.dumps[leg] = {"Unique-ID": leg}
        assert link.hangup(call, "anna").ok
        assert server.asked("bgapi uuid_kill") == [f"bgapi uuid_kill {leg} NORMAL_CLEARING"] * 2
        assert link.hangup(call, None).ok
        assert len(server.asked("bgapi uuid_kill")) == 4
        server.allowed_api[DIALLER] = {"hash", "strepoch"}
        refused = link.hangup(call, "anna")
        assert refused.reason is Reason.REFUSED
        assert "esl-allowed-api" in refused.detail


FENCE = (
    "${regex(${regex(${regex(${hash(${cond(${strepoch()} <= 1795330380 ? insert_ifempty : select)}/ringbridge/"
    "%s-%s/${strepoch()}-dialed)}|^-ERR.*|error/LOSE_RACE)}|^[0-9a-z-]*$|error/STALE_DATE)}|^[+]OK|%s)}"
)
SAME = (
    "rb_agent=user/101@example.com,rb_number=+16465550101,rb_dial=sofia/gateway/trunk/+16465550101,%s"
    "rb_agent_ring=15,rb_customer_ring=25,"
)


@pytest.mark.parametrize(
    ("first", "caller", "variables", "target"),
    [
        (
            "agent",
            "+12125550100",
            SAME % "rb_caller=+12125550100,"
            + "origination_caller_id_number=+16465550101,origination_caller_id_name=+16465550101,"
            "ignore_early_media=true,originate_timeout=15,call_timeout=15,hangup_after_bridge=true,"
            f"sip_h_X-Ringbridge-Attempt={ATTEMPT}",
            "user/101@example.com",
        ),
        (
            "customer",
            None,
            SAME % ""
            + "origination_caller_id_number=anonymous,origination_caller_id_name=anonymous,"
            "ignore_early_media=true,originate_timeout=25,call_timeout=25,hangup_after_bridge=true,"
            f"sip_h_X-Ringbridge-Attempt={ATTEMPT},"
            f"execute_on_answer_ringbridge=hash:insert/ringbridge/{ATTEMPT}-customer/${{strepoch()}}-answered,"
            f"origination_uuid={ATTEMPT}",
            "sofia/gateway/trunk/+16465550101",
        ),
    ],
)
def test_the_originate_is_the_one_of_the_dialplans_manual(
    first: str, caller: str | None, variables: str, target: str
) -> None:
    made = originate(order(first=first, caller_id=caller, agent_device="user/101@example.com"), 1795330380)
    assert made == (
        f"expand originate {{rb_attempt={ATTEMPT},rb_first={first},rb_leg={first},{variables}}}"
        f"{FENCE % (ATTEMPT, first, target)} +16465550101 XML ringbridge-go"
    )


VALUES = st.text(max_size=40) | st.from_regex(r"(user/)?\+?[0-9a-z@./,{}$|^\\[\] \n]{1,20}", fullmatch=True)


@given(VALUES, VALUES, VALUES, VALUES | st.none(), VALUES)
def test_whatever_the_values_only_one_plain_command_is_ever_built(
    device: str, number: str, dial: str, caller: str | None, attempt: str
) -> None:
    """No value may add a variable, an application, a line or an expansion."""
    plain = originate(order(), 1795330380)
    values = {"agent_device": device, "number": number, "dial_string": dial, "caller_id": caller, "attempt": attempt}
    for name, value in values.items():
        try:
            made = originate(order(**{name: value}), 1795330380)
        except LocalError as error:
            assert error.field == name
            continue
        encode(f"bgapi {made}")
        for mark in "${}()[]|,'\"\\^ =":
            extra = (name == "caller_id" and value is not None) * (mark in ",=")
            assert made.count(mark) == plain.count(mark) + extra


def test_a_number_that_is_too_late_or_no_time_is_no_order() -> None:
    for until_ in (0, 1, 10**10, -5):
        with pytest.raises(LocalError):
            originate(order(), until_)
