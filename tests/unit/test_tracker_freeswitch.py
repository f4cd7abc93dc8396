"""What the tracker makes of FreeSWITCH's events, one by one."""

from __future__ import annotations

import itertools

import pytest
from story import side, told

from bridge.domain.calls import CallEvent, CallEventType, Directory, Expected
from bridge.pbx.esl.hearing import EVENTS, HEARD, HEARD_CUSTOM, SUBCLASSES, Event
from bridge.pbx.esl.tracker import Tracker

A, B, C, D = (f"{letter * 8}-0000-4000-8000-000000000000" for letter in "abcd")
CALLER, DID = "+15553001001", "+15550001260"
AT = 1_795_330_000.0
CLOCK = itertools.count(int(AT * 1e6), 20_000)
"""FreeSWITCH's clock moves in steps."""


def fresh() -> Tracker:
    tracker = side("freeswitch").tracker()
    assert isinstance(tracker, Tracker)
    return tracker


def event(name: str, uid: str = A, **headers: str) -> Event:
    said = {header.replace("__", "-"): value for header, value in headers.items()}
    return {"Event-Name": name, "Unique-ID": uid, "Event-Date-Timestamp": str(next(CLOCK)), **said}


def custom(subclass: str, uid: str = A, **headers: str) -> Event:
    return {**event("CUSTOM", uid, **headers), "Event-Subclass": subclass}


def caller(uid: str = A, number: str = CALLER, to: str = DID, **headers: str) -> Event:
    return event(
        "CHANNEL_CREATE",
        uid,
        **{
            "Call__Direction": "inbound",
            "Channel__Name": f"sofia/external/{number}@127.0.0.1",
            "variable_sofia_profile_name": "external",
            "Caller__Caller__ID__Number": number,
            "Caller__Caller__ID__Name": "Mallory",
            "Caller__Destination__Number": to,
            **headers,
        },
    )


def phone(uid: str = B, user: str = "101", of: str = A, **headers: str) -> Event:
    belongs = {"Other__Type": "originator", "Other__Leg__Unique__ID": of} if of else {}
    return event(
        "CHANNEL_CREATE",
        uid,
        **{
            "Call__Direction": "outbound",
            "Channel__Name": f"sofia/internal/{user}@127.0.0.1:5066",
            "variable_sofia_profile_name": "internal",
            "variable_dialed_user": user,
            "variable_dialed_domain": "company",
            "Caller__Destination__Number": user,
            **belongs,
            **headers,
        },
    )


def dials(uid: str, user: str, to: str) -> Event:
    return event(
        "CHANNEL_CREATE",
        uid,
        Call__Direction="inbound",
        Channel__Name=f"sofia/internal/{user}@127.0.0.1",
        variable_user_name=user,
        variable_domain_name="company",
        Caller__Caller__ID__Number=user,
        Caller__Destination__Number=to,
    )


def rings(uid: str = B) -> Event:
    return event("CHANNEL_PROGRESS", uid)


def answers(uid: str) -> Event:
    return event("CHANNEL_ANSWER", uid)


def bridged(one: str = A, two: str = B, **headers: str) -> Event:
    return event("CHANNEL_BRIDGE", one, **{"Bridge__A__Unique__ID": one, "Bridge__B__Unique__ID": two, **headers})


def parted(one: str = A, two: str = B, **headers: str) -> Event:
    return event("CHANNEL_UNBRIDGE", one, **{"Bridge__A__Unique__ID": one, "Bridge__B__Unique__ID": two, **headers})


def ends(uid: str, cause: str = "NORMAL_CLEARING", disposition: str = "send_bye", **headers: str) -> Event:
    said = {"Hangup__Cause": cause, "variable_sip_hangup_disposition": disposition}
    return event("CHANNEL_HANGUP_COMPLETE", uid, **{**said, **headers})


def feed(*events: Event, tracker: Tracker | None = None) -> list[CallEvent]:
    tracker = tracker or fresh()
    made = tracker.feed(events, AT).events
    assert tracker.faults == 0
    return made


def stories(*events: Event) -> list[list[str]]:
    tracker = fresh()
    made = feed(*events, tracker=tracker)
    book = tracker.book
    assert not (book.calls or book.channels or book.bridges or book.links or book.wires)
    return list(told(made).values())


TALK = (caller(), phone(), rings(), answers(B), answers(A), bridged())


def test_what_is_subscribed_to_is_what_is_heard() -> None:
    assert set(EVENTS) == set(HEARD)
    assert set(SUBCLASSES) == set(HEARD_CUSTOM)
    tracker = fresh()
    assert all(hasattr(tracker, method) for method in (*HEARD.values(), *HEARD_CUSTOM.values()))


def test_nothing_is_said_of_a_caller_who_has_not_acted_yet() -> None:
    assert feed(caller()) == []


def test_a_caller_served_by_the_pbx_alone_completed() -> None:
    ended = feed(caller(), answers(A), ends(A))[-1]
    assert (ended.data["cause"], ended.data["answered_by"]) == ("completed", "pbx")


@pytest.mark.parametrize(
    "headers",
    [
        {"Caller__Privacy__Hide__Number": "true"},
        {"Caller__Privacy__Hide__Name": "true"},
        {"Caller__Caller__ID__Number": "anonymous"},
    ],
)
def test_a_withheld_number_is_never_shown(headers: dict[str, str]) -> None:
    tracker = fresh()
    heard = (caller(**headers), phone(), rings(), ends(B), ends(A, disposition="recv_bye"))
    batches = [tracker.feed([item], AT) for item in heard]
    events = [item for batch in batches for item in batch.events]
    assert events[0].data["from"]["withheld"] is True
    assert CALLER not in repr([item.data for item in events])
    assert "Mallory" not in repr(events)
    assert '"number":"' + CALLER not in repr([batch.live for batch in batches])


@pytest.mark.parametrize(
    ("cause", "offered", "expected", "q850"),
    [
        ("USER_BUSY", True, "busy", 17),
        ("CALL_REJECTED", True, "rejected", 21),
        ("NO_USER_RESPONSE", True, "no_answer", 18),
        ("NO_ANSWER", True, "no_answer", 19),
        ("NORMAL_CLEARING", True, "no_answer", 16),
        ("NORMAL_CLEARING", False, "failed", 16),
        ("UNALLOCATED_NUMBER", True, "failed", 1),
        ("NO_ROUTE_DESTINATION", True, "failed", 3),
        ("SUBSCRIBER_ABSENT", True, "failed", 20),
        ("USER_NOT_REGISTERED", True, "failed", 20),
        ("DESTINATION_OUT_OF_ORDER", True, "failed", 27),
        ("NORMAL_CIRCUIT_CONGESTION", True, "failed", 34),
        ("GATEWAY_DOWN", True, "failed", 38),
        ("NORMAL_TEMPORARY_FAILURE", True, "failed", 41),
    ],
)
def test_the_callers_own_leg_decides(cause: str, offered: bool, expected: str, q850: int) -> None:
    legs = (phone(), rings(), ends(B, "NO_ANSWER", "send_cancel")) if offered else ()
    ended = feed(caller(), *legs, ends(A, cause, "send_refuse"))[-1]
    assert (ended.data["cause"], ended.data["q850"]) == (expected, q850)


@pytest.mark.parametrize(
    ("cause", "disposition", "reason"),
    [
        ("USER_BUSY", "recv_refuse", "busy"),
        ("CALL_REJECTED", "recv_refuse", "rejected"),
        ("DECLINE", "recv_refuse", "rejected"),
        ("NO_ANSWER", "send_cancel", "no_answer"),
        ("ALLOTTED_TIMEOUT", "send_cancel", "no_answer"),
        ("SUBSCRIBER_ABSENT", "recv_refuse", "unreachable"),
        ("USER_NOT_REGISTERED", "", "unreachable"),
        ("UNALLOCATED_NUMBER", "recv_refuse", "unreachable"),
        ("ORIGINATOR_CANCEL", "send_cancel", "cancelled"),
        ("DESTINATION_OUT_OF_ORDER", "send_cancel", "cancelled"),
        ("LOSE_RACE", "send_cancel", "answered_elsewhere"),
        ("PICKED_OFF", "send_cancel", "answered_elsewhere"),
    ],
)
def test_the_devices_own_leg_says_why(cause: str, disposition: str, reason: str) -> None:
    events = feed(caller(), phone(), ends(B, cause, disposition))
    assert [item.type for item in events] == [CallEventType.STARTED, CallEventType.UNOFFERED]
    assert events[1].data["reason"] == reason


def test_a_phone_with_two_registrations_rings_once() -> None:
    [story] = stories(
        caller(), phone(B), phone(C), rings(B), rings(C), answers(C), ends(B, "LOSE_RACE", "send_cancel"),
        answers(A), bridged(A, C), ends(C), ends(A, disposition="recv_bye"),
    )
    assert story[1:-1] == ["offered 101", f"connected {CALLER} 101"]


def test_early_media_alone_is_no_ring() -> None:
    assert stories(
        caller(), phone(), event("CHANNEL_PROGRESS_MEDIA", B), ends(B, "NO_ANSWER", "send_cancel"), ends(A, "NO_ANSWER")
    ) == [
        [
            f"started inbound {CALLER} > {DID}",
            "unoffered 101 no_answer",
            f"ended no_answer 19 inbound {CALLER} > {DID} - by -",
        ]
    ]


# --- whose device ---


@pytest.mark.parametrize(
    ("known", "device"),
    [("user/101@company", "user/101@company"), ("user/101", "user/101"), ("user/999", "user/101")],
)
def test_a_phone_is_called_as_the_directory_calls_it(known: str, device: str) -> None:
    tracker = Tracker("lab", ("sofia/external",), Directory(agents={known: "anna"}))
    offered = feed(caller(), phone(), rings(), tracker=tracker)[-1]
    assert offered.data["party"]["device"] == device
    assert offered.data["party"]["agent"] == ("anna" if device == known else None)


@pytest.mark.parametrize(
    ("trunks", "direction"),
    [
        (("sofia/external",), "inbound"),
        (("sofia/external/*",), "inbound"),
        (("sofia/gateway/trunk",), "inbound"),
        (("sofia/other",), None),
    ],
)
def test_trunks_are_what_the_settings_name(trunks: tuple[str, ...], direction: str | None) -> None:
    tracker = Tracker("lab", trunks)
    assert feed(caller(), answers(A), tracker=tracker)[0].data["direction"] == direction


@pytest.mark.parametrize("trunks", [("sofia/gateway/trunk",), ("sofia/gateway/*",), ("sofia/external",)])
def test_a_call_out_by_a_gateway_is_outbound(trunks: tuple[str, ...]) -> None:
    leg = event(
        "CHANNEL_CREATE",
        B,
        Call__Direction="outbound",
        Channel__Name="sofia/external/+15552160101",
        variable_sip_gateway_name="trunk",
        variable_sofia_profile_name="external",
        Caller__Destination__Number="+15552160101",
        Other__Type="originator",
        Other__Leg__Unique__ID=A,
    )
    started, offered = feed(dials(A, "101", "+15552160101"), leg, rings(), tracker=Tracker("lab", trunks))
    assert (started.data["direction"], started.data["from"]["device"]) == ("outbound", "user/101")
    party = offered.data["party"]
    assert (party["device"], party["number"]) == ("sofia/gateway/trunk", "+15552160101")


def test_a_user_who_registers_from_outside_is_inside() -> None:
    leg = phone(variable_sofia_profile_name="external", Channel__Name="sofia/external/101@192.0.2.7")
    assert feed(caller(), leg, rings())[-1].data["party"]["extension"] == "101"


# --- transfers ---


def test_who_hangs_up_while_the_dialplan_goes_on_has_transferred_nobody() -> None:
    [story] = stories(
        *TALK,
        ends(B, disposition="recv_bye"),
        parted(Caller__Transfer__Source="1:x:bl_xfer:102/default/XML"),
        phone(C, "102"), rings(C), answers(C), bridged(A, C, Caller__Transfer__Source="1:x:bl_xfer:102/default/XML"),
        ends(C), ends(A, disposition="recv_bye"),
    )
    assert not any(line.startswith("transferred") for line in story)
    assert story[-2] == f"connected {CALLER} 102"


def test_a_called_leg_that_dials_was_transferred() -> None:
    [story] = stories(
        dials(A, "101", "103"), phone(B, "103"), rings(), answers(B), answers(A), bridged(),
        parted(), ends(A),
        phone(C, "102", of=B, Other__Leg__Destination__Number="102"), rings(C), answers(C), bridged(B, C),
        ends(C, disposition="recv_bye"), ends(B),
    )
    assert story[3:6] == ["transferred blind 101 101 > 102", "offered 102", "connected 103 102"]


def test_a_transfer_completed_while_the_target_rings_is_attended_and_offers_it_again() -> None:
    """101 holds the caller, calls 102 on a second line and sends REFER with Replaces before 102 answers."""
    first, second = stories(
        *TALK,
        dials(C, "101", "102"), phone(D, "102", of=C), rings(D),
        ends(B, "NORMAL_CLEARING"),
        parted(variable_att_xfer_kill_uuid=C, Caller__Transfer__Source="1:x:bl_xfer:park/default/inline"),
        answers(D), ends(C, variable_endpoint_disposition="ATTENDED_TRANSFER", variable_transfer_to=f"satt:{A}"),
        bridged(A, D), ends(D), ends(A, disposition="recv_bye"),
    )
    assert first[3:] == [
        "transferred attended 101 101 > 102",
        "offered 102",
        f"connected {CALLER} 102",
        f"ended completed 16 inbound {CALLER} > {DID} person by {CALLER}",
    ]
    assert second == ["started internal 101 > 102", "offered 102", "merged"]


def test_sofias_transfer_events_say_nothing_twice() -> None:
    first, second = stories(
        *TALK,
        dials(C, "101", "102"), phone(D, "102", of=C), rings(D), answers(D), answers(C), bridged(C, D),
        custom("sofia::replaced", C, att_xfer_replaced_by=A),
        custom("sofia::transferor", B, att_xfer_original_call_id=A, att_xfer_destination_call_id=D),
        custom("sofia::transferee", A),
        parted(C, D), ends(C), ends(B), parted(A, B), bridged(A, D),
        ends(D), ends(A, disposition="recv_bye"),
    )
    assert [line for line in first if "transferred" in line] == ["transferred attended 101 101 > 102"]
    assert second[-1] == "merged"


def test_two_calls_of_one_phone_that_are_joined_were_transferred_by_it() -> None:
    """Nothing but the bridge says so, as when an operator's command joins them."""
    first, _ = stories(
        *TALK,
        dials(C, "101", "102"), phone(D, "102", of=C), rings(D), answers(D), answers(C), bridged(C, D),
        parted(C, D), ends(C), parted(), ends(B), bridged(A, D), ends(D), ends(A, disposition="recv_bye"),
    )
    assert "transferred attended 101 101 > 102" in first


def test_a_consultation_given_up_is_cancelled_and_the_customer_goes_on() -> None:
    customer, consultation = stories(
        *TALK,
        phone(C, "102", of=B), rings(C), ends(C, "ORIGINATOR_CANCEL", "send_cancel"),
        ends(A, disposition="recv_bye"), ends(B),
    )
    assert consultation[1:3] == ["offered 102", "unoffered 102 cancelled"]
    assert customer[-1] == f"ended completed 16 inbound {CALLER} > {DID} person by {CALLER}"


# --- queues ---


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({"CC__Cause": "Cancel", "CC__Cancel__Reason": "TIMEOUT"}, "timeout"),
        ({"CC__Cause": "Cancel", "CC__Cancel__Reason": "NO_AGENT_TIMEOUT"}, "timeout"),
        ({"CC__Cause": "Cancel", "CC__Cancel__Reason": "EXIT_WITH_KEY"}, "left"),
        ({"CC__Cause": "Cancel", "CC__Cancel__Reason": "BREAK_OUT"}, "left"),
        ({"CC__Cause": "Cancel", "CC__Cancel__Reason": "BREAK_OUT", "Answer__State": "hangup"}, "abandoned"),
        ({"CC__Cause": "Terminated"}, "answered"),
    ],
)
def test_why_a_caller_waits_no_longer(headers: dict[str, str], reason: str) -> None:
    def queue(action: str, **more: str) -> Event:
        said = {"CC__Action": action, "CC__Queue": "support@company", "CC__Member__Session__UUID": A}
        return custom("callcenter::info", A, **said, **more)

    events = feed(caller(), answers(A), queue("member-queue-start"), queue("member-queue-end", **headers))
    assert events[1].data == {"queue": "support", "position": 1}
    assert events[2].data == {"queue": "support", "reason": reason}


# --- our own dials ---

ORDER = Expected("aaaaaaaa-1111-4111-8111-000000000000", agent="anna", agent_device="user/101", number="+15552160101")


@pytest.mark.parametrize("job", [ORDER.attempt, f"rb-dial-{ORDER.attempt}"])
def test_a_dial_that_never_became_a_channel_is_a_call_that_ended(job: str) -> None:
    tracker = fresh()
    tracker.expect(ORDER)
    report = event("BACKGROUND_JOB", Job__UUID=job, _body="-ERR USER_NOT_REGISTERED\n")
    [story] = told(feed(report, tracker=tracker)).values()
    assert story == [
        "started outbound 101 > +15552160101",
        "unoffered 101 unreachable",
        "ended failed 20 outbound 101 > +15552160101 - by -",
    ]
    assert tracker.live_attempts() == frozenset()
    assert feed(report, tracker=tracker) == []


def test_a_job_of_somebody_elses_is_none_of_ours() -> None:
    assert feed(event("BACKGROUND_JOB", Job__UUID=A, _body="-ERR NO_ANSWER\n")) == []


def test_a_second_leg_that_could_not_be_made_is_unoffered() -> None:
    tracker = fresh()
    tracker.expect(ORDER)
    leg = phone(B, of="", variable_rb_attempt=ORDER.attempt, variable_rb_leg="agent")
    over = custom(
        "ringbridge::dial",
        B,
        Ringbridge__Attempt=ORDER.attempt,
        Ringbridge__Leg="customer",
        Ringbridge__Result="over",
        Ringbridge__Cause="INVALID_GATEWAY",
    )
    events = feed(leg, rings(), answers(B), over, over, ends(B, "INVALID_GATEWAY"), tracker=tracker)
    assert [str(item.type) for item in events].count("call.unoffered") == 1
    assert events[-1].data["cause"] == "failed"
    assert events[0].call == f"lab-{ORDER.attempt}"


# --- what is not as it should be ---


def test_an_event_without_headers_is_no_fault_of_the_next() -> None:
    tracker = fresh()
    tracker.feed([{"Event-Name": "CHANNEL_CREATE"}, {"Event-Name": "CUSTOM"}, {}, caller(), answers(A)], AT)
    assert tracker.faults == 1
    assert set(tracker.book.channels) == {A}


@pytest.mark.parametrize("stamp", ["", "x", "-1", "9" * 30, "٣"])
def test_a_time_that_is_none_is_now(stamp: str) -> None:
    started = feed({**caller(), "Event-Date-Timestamp": stamp}, {**answers(A), "Event-Date-Timestamp": stamp})[0]
    assert started.at.timestamp() == AT


def test_the_echo_of_a_channel_that_has_ended_is_not_heard() -> None:
    tracker = fresh()
    feed(caller(), answers(A), ends(A), tracker=tracker)
    assert feed({**answers(A), "Call-Direction": "inbound"}, tracker=tracker) == []
    assert not tracker.book.channels


@pytest.mark.parametrize(
    ("said", "withheld"),
    [
        ({"Caller-Privacy-Hide-Number": "true"}, True),
        ({"Caller-Privacy-Hide-Name": "true"}, True),
        ({"variable_sip_Privacy": "id"}, True),
        ({"variable_sip_Privacy": "ID;critical"}, True),
        ({"variable_sip_Privacy": "user"}, True),
        ({"variable_sip_Privacy": "header"}, True),
        ({"variable_sip_Privacy": "full"}, True),
        ({"variable_sip_Privacy": "none"}, False),
        ({"variable_sip_from_user": "anonymous"}, True),
        ({"variable_sip_from_user": "anonymous", "variable_sip_Privacy": "none"}, False),
        ({}, False),
    ],
)
def test_who_asks_not_to_be_shown_is_not_shown_in_whatever_way(said: dict[str, str], withheld: bool) -> None:
    """FreeSWITCH heeds `id` alone, names the channel by the number, and takes a number from P-Asserted-Identity."""
    birth = {
        "Event-Name": "CHANNEL_CREATE",
        "Unique-ID": "a",
        "Call-Direction": "inbound",
        "Channel-Name": "sofia/external/+16465550177@127.0.0.1",
        "variable_sofia_profile_name": "external",
        "Caller-Caller-ID-Number": "+16465550177",
        "Caller-Caller-ID-Name": "Some One",
        "Caller-Destination-Number": "+12125550101",
        **said,
    }
    tracker = Tracker("lab", ("sofia/external",))
    batch = tracker.feed([birth, {"Event-Name": "CHANNEL_ANSWER", "Unique-ID": "a"}], 1_795_400_000.0)
    [started] = batch.events
    assert started.data["from"].get("withheld", False) is withheld
    kept = f"{started.data} {batch.live}"
    assert ("6465550177" in kept, "Some One" in kept) == (not withheld, not withheld)


def test_a_leg_whose_birth_is_told_after_its_callers_end_is_no_call() -> None:
    """Seen where FreeSWITCH's own INVITE could not be made, on a busy machine."""
    late = phone(Hangup__Cause="DESTINATION_OUT_OF_ORDER")
    told_late = (caller(), ends(A, "DESTINATION_OUT_OF_ORDER"), late, ends(B, "DESTINATION_OUT_OF_ORDER"))
    assert [len(story) for story in stories(*told_late)] == [2]


def test_a_caller_who_is_left_alone_and_hangs_up_has_ended_the_call() -> None:
    """As on Asterisk: the agent has left, or sent the caller on; the caller waits, hears a menu, and gives up."""
    caller = {"Unique-ID": "a", "Call-Direction": "inbound", "Channel-Name": "sofia/external/x"}
    agent = {
        "Unique-ID": "b",
        "Call-Direction": "outbound",
        "Channel-Name": "sofia/internal/y",
        "variable_dialed_user": "101",
        "Other-Type": "originator",
        "Other-Leg-Unique-ID": "a",
    }
    pair = {"Bridge-A-Unique-ID": "a", "Bridge-B-Unique-ID": "b"}
    bye = {"Event-Name": "CHANNEL_HANGUP_COMPLETE", "variable_sip_hangup_disposition": "recv_bye"}
    tracker = Tracker("lab", ("sofia/external",))
    events = [
        {"Event-Name": "CHANNEL_CREATE", **caller},
        {"Event-Name": "CHANNEL_CREATE", **agent},
        {"Event-Name": "CHANNEL_ANSWER", "Unique-ID": "b"},
        {"Event-Name": "CHANNEL_BRIDGE", **pair},
        {**bye, "Unique-ID": "b"},
        {"Event-Name": "CHANNEL_UNBRIDGE", **pair},
    ]
    assert tracker.feed(events, 1_795_400_000.0).events[-1].type is CallEventType.CONNECTED
    [ended] = tracker.feed([{**bye, "Unique-ID": "a"}], 1_795_400_009.0).events
    assert ended.data["ended_by"]["device"] == "sofia/external"

def half(uid: str, side: str, other: str, **headers: str) -> Event:
    return event(
        "CHANNEL_CREATE",
        uid,
        Channel__Name=f"loopback/102-{side}",
        variable_other_loopback_leg_uuid=other,
        Caller__Destination__Number="102",
        **headers,
    )


@pytest.mark.parametrize("first", [0, 1], ids=["near half first", "far half first"])
def test_who_is_asked_over_a_wire_is_offered_the_consultation(first: int) -> None:
    near = half(C, "a", D, Call__Direction="outbound", Other__Type="originator", Other__Leg__Unique__ID=B)
    far = half(D, "b", C, Call__Direction="inbound")
    wire = (near, far) if first == 0 else (far, near)
    asked = phone("eeeeeeee-0000-4000-8000-000000000000", "102", of=D)
    made = feed(*TALK, *wire, asked, rings(asked["Unique-ID"]))
    offered = [one for one in made if one.type is CallEventType.OFFERED]
    started = [one for one in made if one.type is CallEventType.STARTED]
    assert [one.call for one in offered] == [one.call for one in started]
    assert len({one.call for one in offered}) == 2


@pytest.mark.parametrize(
    ("headers", "resumed"),
    [
        (
            {"Event__Calling__Function": "switch_ivr_unhold", "variable_remote_audio_media_flow": "recvonly"},
            True,
        ),
        ({"Event__Calling__Function": "switch_channel_mark_hold"}, True),
        ({"variable_remote_audio_media_flow": "sendrecv"}, True),
        ({"variable_remote_audio_media_flow": "sendonly"}, False),
        ({"variable_remote_audio_media_flow": "recvonly"}, False),
    ],
    ids=["by us", "of a snapshot", "at the phone", "the phone's hold ends", "our hold ends"],
)
def test_a_hold_that_nobody_takes_back_is_not_resumed(headers: dict[str, str], resumed: bool) -> None:
    made = feed(*TALK, event("CHANNEL_HOLD", B), event("CHANNEL_UNHOLD", B, **headers))
    assert (made[-1].type is CallEventType.RESUMED) is resumed


@pytest.mark.parametrize("first", [A, B])
def test_who_is_moved_with_the_other_was_transferred_by_nobody(first: str) -> None:
    # `uuid_transfer -both`: neither hangs up, and each is told where it was sent.
    tracker = fresh()
    second = B if first == A else A
    talk = event("CHANNEL_BRIDGE", first, Bridge__A__Unique__ID=first, Bridge__B__Unique__ID=second)
    heard = [*tracker.feed([caller(), phone(), event("CHANNEL_ANSWER", B), talk], AT).events]
    apart = event(
        "CHANNEL_UNBRIDGE",
        first,
        Bridge__A__Unique__ID=first,
        Bridge__B__Unique__ID=second,
        Caller__Transfer__Source="1795330000:x:bl_xfer:800/default/XML",
    )
    heard += tracker.feed([apart], AT).events
    for uid, when in ((first, "1795330000"), (second, "1795330001")):
        source = f"{when}:{uid}:bl_xfer:800/default/XML"
        meets = custom("conference::maintenance", uid, Action="add-member", Caller__Transfer__Source=source)
        heard += tracker.feed([{**meets, "Conference-Unique-ID": "room"}], AT).events
    assert CallEventType.CONNECTED in {each.type for each in heard}
    assert CallEventType.TRANSFERRED not in {each.type for each in heard}


def refers_to(uid: str, *, out: bool, **headers: str) -> Event:
    """Half of the call that FreeSWITCH makes to itself, because of a REFER with Replaces by B for A."""
    made = phone(uid, "102", of="") if out else caller(uid)
    return {**made, "variable_sip_h_X-FS-Refer-For": A, "variable_sip_h_X-FS-Refer-From": B, **headers}


@pytest.mark.parametrize("out_first", [True, False])
def test_a_pbx_that_calls_itself_to_transfer_makes_no_further_call(out_first: bool) -> None:
    tracker = fresh()
    far = "eeeeeeee-0000-4000-8000-000000000000"
    halves = [refers_to(C, out=True), refers_to(D, out=False)]
    talk = event("CHANNEL_BRIDGE", A, Bridge__A__Unique__ID=A, Bridge__B__Unique__ID=B)
    meets = event("CHANNEL_BRIDGE", D, Bridge__A__Unique__ID=D, Bridge__B__Unique__ID=far)
    asks = event("CHANNEL_HANGUP_COMPLETE", B, variable_endpoint_disposition="ATTENDED_TRANSFER")
    moved = event("CHANNEL_BRIDGE", A, Bridge__A__Unique__ID=A, Bridge__B__Unique__ID=C)
    heard = [caller(), phone(), event("CHANNEL_ANSWER", B), talk, *(halves if out_first else halves[::-1])]
    heard += [phone(far, "102", of=D), event("CHANNEL_ANSWER", far), meets, asks, moved]
    made = tracker.feed(heard, AT).events
    assert len({one.call for one in made}) == 1
    assert [one.type for one in made][-3:] == [
        CallEventType.OFFERED,
        CallEventType.TRANSFERRED,
        CallEventType.CONNECTED,
    ]


def test_a_stranger_with_such_headers_is_a_caller() -> None:
    tracker = fresh()
    made = tracker.feed([refers_to(D, out=False), phone(C, "102", of=D)], AT).events
    assert made[0].type is CallEventType.STARTED
    assert made[0].data["direction"] == "inbound"
