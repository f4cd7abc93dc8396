"""Calls that go from hand to hand without a transfer: pickups, parking, holds, conferences."""

from __future__ import annotations

import re
from typing import Any

from ringbridge_lab.lab import Behaviour
from scenarios import scenario
from scenarios.diary import Line
from scenarios.expected import (
    Call,
    Expected,
    Spec,
    Talk,
    connected,
    ended,
    event,
    maybe,
    offered,
    started,
    together,
    transferred,
    unoffered,
)
from scenarios.moving import arrives, held, merged, moved_resume, over, resumed, softphone
from scenarios.stage import Stage

INSIDE: Any = {"one_of": ["internal", None]}
"""What is dialled is no phone: where such a call goes is not known at its start."""


def _picked(stage: Stage, digits: str) -> Expected:
    """101 rings, 107 dials the code and has the caller."""
    stage.phones(Behaviour.NO_ANSWER, "101")
    picker = softphone(stage, "107")
    caller = stage.call("+12125550101")
    rings = stage.sees("101", "rings")
    caller.sees("hears ringing")
    stage.talk(0.5)
    leg = picker.call(digits)
    answered = leg.sees("is answered")
    stops = stage.sees("101", "stops ringing")
    caller.sees("is answered")
    stage.talk(1.0)
    talk = stage.talks(caller, "107", answered, caller.hangs_up())
    customer = [
        started(caller.dials, "caller", "+12125550101"),
        offered(rings),
        together(
            [
                transferred(stops, "pickup", "107", "101", "107"),
                maybe(offered(answered, "107"), "107 never rang"),
                connected(talk),
            ],
            [unoffered(stops, "answered_elsewhere")],
        ),
        ended(
            talk.until, caller.dials, "caller", "+12125550101", "completed", talks=[talk], ended_by="caller"
        ),
    ]
    own = [
        started(
            leg.lines[0], None, None, None, ruling="A pickup adds no call, or one that is merged at once"
        ),
        merged(stops),
    ]
    own[0]["data"] |= {
        "direction": INSIDE,
        "from": {"one_of": ["107", None]},
        "to": {"one_of": [{"dialled": digits}, None]},
    }
    return Expected(
        [Call("customer", customer), Call("pickup", own, optional="whether the code is a call of its own")]
    )


@scenario("pickup_directed", "101 rings; 107 picks the call up by dialling *8101.", family="sharing")
def pickup_directed(stage: Stage) -> Expected:
    return _picked(stage, "*8101")


@scenario(
    "pickup_group", "101 rings; 107 picks up whatever rings in its group by dialling *8.", family="sharing"
)
def pickup_group(stage: Stage) -> Expected:
    return _picked(stage, "*8")


def _parked(stage: Stage, fetches: str) -> Expected:
    """106 sends the caller to 700 by REFER; somebody fetches the caller from the first slot."""
    one = arrives(stage)
    sent = one.leg.refer("700")
    first = stage.talks(one.caller, "106", one.answers, sent)
    one.leg.sees("is told that its transfer went well")
    stage.talk(1.0)
    phone = one.phone if fetches == "106" else softphone(stage, fetches)
    slot = _slot(stage)
    leg = phone.call(slot, aside=f" (to {slot})")
    answered = leg.sees("is answered")
    stage.talk(1.0)
    second = stage.talks(one.caller, fetches, answered, one.caller.hangs_up())
    leg.sees("is released")
    customer = [
        *one.began(first),
        transferred(sent, "blind", "106", "106", {"dialled": "700"}),
        connected(second, late_ms=600),
        over(one, second.until, [first, second]),
    ]
    retrieval = [
        started(leg.lines[0], fetches, slot, INSIDE),
        event("merged", answered, {"into": {"call": ["customer"]}}, late_ms=600),
    ]
    notes = [
        "Who fetches is answered before it hears the caller: until then it is a call of its own.",
        f"{slot} is a slot of the car park: who fetches is offered nothing; it began a call that is merged.",
    ]
    return Expected([Call("customer", customer), Call("retrieval", retrieval)], notes=notes)


def _slot(stage: Stage) -> str:
    """Where the caller waits, as the PBX would announce it."""
    if stage.pbx == "asterisk":
        return "701"
    with stage.lab.company_esl() as esl:
        found = re.search(r">(7\d\d)<", esl.api("valet_info company"))
    assert found is not None
    return found[1]


@scenario(
    "park_retrieve", "106 parks the caller by REFER to 700 and fetches the caller itself.", family="sharing"
)
def park_retrieve(stage: Stage) -> Expected:
    return _parked(stage, "106")


@scenario(
    "park_retrieve_other", "106 parks the caller by REFER to 700; 107 fetches the caller.", family="sharing"
)
def park_retrieve_other(stage: Stage) -> Expected:
    return _parked(stage, "107")


@scenario(
    "park_given_up", "106 parks the caller by REFER to 700; the caller gives up there.", family="sharing"
)
def park_given_up(stage: Stage) -> Expected:
    one = arrives(stage)
    sent = one.leg.refer("700")
    first = stage.talks(one.caller, "106", one.answers, sent)
    one.leg.sees("is told that its transfer went well")
    stage.talk(1.0)
    gone = one.caller.hangs_up()
    customer = [
        *one.began(first),
        transferred(sent, "blind", "106", "106", {"dialled": "700"}),
        over(one, gone, [first], ended_by=None),
    ]
    customer[-1]["data"]["ended_by"] = {"one_of": ["caller", None]}
    return Expected([Call("customer", customer)])


@scenario("hold_resume", "106 holds the caller and resumes, twice (re-INVITE).", family="sharing")
def hold_resume(stage: Stage) -> Expected:
    one = arrives(stage)
    lines: list[Line] = []
    for _ in range(2):
        lines.append(one.leg.hold())
        stage.talk(0.8)
        lines.append(one.leg.resume())
        stage.talk(0.8)
    talk = stage.talks(one.caller, "106", one.answers, one.leg.hang_up())
    one.caller.sees("is released")
    changes = [held(line) if place % 2 == 0 else resumed(line) for place, line in enumerate(lines)]
    return Expected(
        [Call("customer", [*one.began(talk), *changes, over(one, talk.until, [talk], ended_by="106")])]
    )


@scenario("hold_caller_leaves", "106 holds the caller, who hangs up.", family="sharing")
def hold_caller_leaves(stage: Stage) -> Expected:
    one = arrives(stage)
    hold = one.leg.hold()
    stage.talk(0.5)
    talk = stage.talks(one.caller, "106", one.answers, one.caller.hangs_up())
    one.leg.sees("is released")
    customer = [
        *one.began(talk),
        held(hold),
        moved_resume("106", talk.until),
        over(one, talk.until, [talk]),
    ]
    return Expected([Call("customer", customer)])


@scenario(
    "conference", "The caller, 106 and 107 dial into one conference; 106 leaves, two stay.", family="sharing"
)
def conference(stage: Stage) -> Expected:
    caller = stage.call("+12125550180")
    caller.sees("is answered")
    six, seven = softphone(stage, "106"), softphone(stage, "107")
    one = six.call("800")
    first = one.sees("is answered")
    one.sees("hears")
    two = seven.call("800")
    second = two.sees("is answered")
    two.sees("hears")
    stage.talk(1.0)
    left = one.hang_up()
    stage.talk(0.8)
    gone = caller.hangs_up()
    stage.talk(0.3)
    last = two.hang_up()
    talk_one = stage.talks(caller, "106", first, left)
    talk_two = stage.talks(caller, "107", second, gone)
    customer = [
        started(caller.dials, "caller", "+12125550180"),
        connected(talk_one, late_ms=500),
        connected(talk_two, late_ms=500),
        ended(
            last,
            caller.dials,
            "caller",
            "+12125550180",
            "completed",
            talks=[talk_one, talk_two],
            ended_by="caller",
            within=500,
        ),
    ]
    # Two of the three at least, all the time.
    customer[3]["data"]["talk_ms"] = {
        "about": round((gone.at - first.at).total_seconds() * 1000),
        "within": 500,
    }
    customer[1]["data"] = _with("106", "caller")
    customer[2]["data"] = _with("107", "caller", "106")
    calls = [Call("customer", customer)]
    for leg, line in ((one, first), (two, second)):
        calls.append(
            Call(leg.phone.number, [started(leg.lines[0], leg.phone.number, "800", INSIDE), _joins(line)])
        )
    notes = [
        "Three people who hear each other are one conversation; 106 leaves at its own time, and no event says so."
    ]
    return Expected(calls, notes=notes)


def _with(who: str, *others: str) -> Spec:
    """Somebody comes to hear one of the others, either named first."""
    return {"parties": {"one_of": [pair for other in others for pair in ([who, other], [other, who])]}}


def _joins(line: Line) -> Spec:
    return event("merged", line, {"into": {"call": ["customer"]}}, late_ms=500)


@scenario(
    "three_party",
    "106 talks with the caller and with 107, and sends both to the conference by REFER; then it dials in itself.",
    family="sharing",
)
def three_party(stage: Stage) -> Expected:
    one, other = arrives(stage), softphone(stage, "107")
    hold = one.leg.hold()
    second = one.phone.call("107", aside=" (to 107)")
    rings = other.rings()
    answers = rings.sees("answers")
    second.sees("is answered")
    stage.talk(0.5)
    sent_other = second.refer("800")
    consult = stage.talks("106", "107", answers, sent_other)
    second.sees("is told that its transfer went well")
    sent = one.leg.refer("800")
    first = stage.talks(one.caller, "106", one.answers, sent)
    one.leg.sees("is told that its transfer went well")
    hears = rings.hears("the caller")
    third = one.phone.call("800", aside=" (to 800)")
    joined = third.sees("is answered")
    third.sees("hears")
    stage.talk(1.0)
    third.hang_up()
    stage.talk(0.5)
    last = one.caller.hangs_up()
    stage.talk(0.3)
    end = rings.hang_up()
    talk = Talk(("caller", "107"), sent, last, (one.caller.name, "107"))
    stage.talked.append(talk)
    customer = [
        *one.began(first),
        held(hold),
        together(
            [moved_resume("106", sent)],
            [transferred(sent, "blind", "106", "106", {"dialled": "800"})],
        ),
        {
            **connected(talk, late_ms=800),
            "data": _with("107", "caller"),
            "evidence": [talk.text, hears.text],
        },
        {
            "type": "call.connected",
            "at": joined.second,
            "data": _with("106", "caller", "107"),
            "evidence": [joined.text],
            "late_ms": 500,
        },
        over(one, end, [first, talk]),
    ]
    customer[-1]["data"]["talk_ms"]["within"] = 800
    consultation = [
        started(second.lines[0], "106", "107", "internal"),
        offered(rings.sees("rings")),
        connected(consult),
        transferred(sent_other, "blind", "106", "106", {"dialled": "800"}),
        event("merged", sent, {"into": {"call": ["customer"]}}, late_ms=800),
    ]
    own = [started(third.lines[0], "106", "800", INSIDE), _joins(joined)]
    return Expected([Call("customer", customer), Call("consultation", consultation), Call("106", own)])
