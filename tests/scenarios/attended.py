"""Attended transfers: by feature code and by REFER with Replaces, while the target rings, given up, between queues."""

from __future__ import annotations

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
    offered,
    queued,
    started,
    together,
    unoffered,
    unqueued,
)
from scenarios.moving import (
    Arrived,
    arrives,
    both_talk,
    done,
    held,
    merged,
    moved_hold,
    moved_resume,
    moves,
    over,
    resumed,
    softphone,
)
from scenarios.softphone import Leg
from scenarios.stage import PHONES, Stage


@scenario(
    "attended_refer",
    "106 holds, consults 107 on a second line, then sends REFER with Replaces.",
    family="attended",
)
def attended_refer(stage: Stage) -> Expected:
    one, target = arrives(stage), softphone(stage, "107")
    hold = one.leg.hold()
    second = one.phone.call("107", aside=" (to 107)")
    rings = target.rings()
    answers = rings.sees("answers")
    second.sees("is answered")
    stage.talk(0.5)
    one.leg.refer_replacing(second)
    sent = done(one)
    consult = stage.talks("106", "107", answers, sent)
    second.sees("is released")
    first = stage.talks(one.caller, "106", one.answers, sent)
    after = both_talk(one, "107", sent)
    customer = [
        *one.began(first),
        held(hold),
        moves(one, sent, "107"),
        connected(after),
        over(one, after.until, [first, after]),
    ]
    consultation = [
        started(second.lines[0], "106", "107", "internal"),
        offered(rings.sees("rings")),
        connected(consult),
        merged(sent),
    ]
    return Expected([Call("customer", customer), Call("consultation", consultation)])


@scenario(
    "attended_code",
    "106 consults 102 by feature code (*2102) and hangs up: the caller has 102.",
    family="attended",
)
def attended_code(stage: Stage) -> Expected:
    stage.answers("102")
    one = arrives(stage)
    pressed = one.leg.press("*2102")
    rings, answers = stage.sees("102", "rings"), stage.sees("102", "answers")
    stage.talk(1.0)
    gone = one.leg.hang_up()
    consult = stage.talks("106", "102", answers, gone)
    first = stage.talks(one.caller, "106", one.answers, _parted(stage, rings, answers))
    after = both_talk(one, "102", gone)
    customer = [
        *one.began(first),
        moved_hold("106", pressed),
        moves(one, gone, "102"),
        connected(after),
        over(one, after.until, [first, after]),
    ]
    consultation = [
        started(rings, "106", "102", "internal"),
        offered(rings),
        connected(consult),
        merged(gone),
    ]
    return Expected([Call("customer", customer), Call("consultation", consultation)])


@scenario(
    "blonde_refer",
    "106 consults 107 and sends REFER with Replaces while it rings; 107 answers.",
    family="attended",
)
def blonde_refer(stage: Stage) -> Expected:
    one, target = arrives(stage), softphone(stage, "107", after=None)
    hold = one.leg.hold()
    second = one.phone.call("107", aside=" (to 107)")
    rings = target.rings()
    ringing = rings.sees("rings")
    second.sees("hears ringing")
    stage.talk(0.5)
    sent = one.leg.refer_replacing(second)
    first = stage.talks(one.caller, "106", one.answers, sent)
    one.leg.sees("is told that its transfer went well")
    stage.talk(0.5)
    answers = target.rings(len(target.legs)).answer()
    after = both_talk(one, "107", answers)
    again = "Completed while the target still rings: the ringing target is offered again on the survivor"
    customer = [
        *one.began(first),
        held(hold),
        moves(one, sent, {"dialled": "107"}),
        offered(sent, "107", ruling=again),
        connected(after),
        over(one, after.until, [first, after]),
    ]
    consultation = [
        started(second.lines[0], "106", "107", "internal"),
        offered(ringing),
        merged(sent),
    ]
    return Expected([Call("customer", customer), Call("consultation", consultation)])


@scenario(
    "blonde_code",
    "106 calls 107 by feature code (*2107) and hangs up while it rings; 107 answers.",
    family="attended",
)
def blonde_code(stage: Stage) -> Expected:
    one, target = arrives(stage), softphone(stage, "107", after=None)
    pressed = one.leg.press("*2107")
    rings = target.rings()
    ringing = rings.sees("rings")
    stage.talk(0.5)
    gone = one.leg.hang_up()
    if stage.pbx == "freeswitch":
        return _let_go(stage, one, pressed, rings, gone)
    stage.talk(0.5)
    answers = rings.answer()
    first = stage.talks(one.caller, "106", one.answers, ringing)
    after = both_talk(one, "107", answers)
    again = "Completed while the target still rings: the ringing target is offered again on the survivor"
    customer = [
        *one.began(first),
        moved_hold("106", pressed),
        moves(one, gone, {"dialled": "107"}),
        offered(gone, "107", ruling=again),
        connected(after),
        over(one, after.until, [first, after]),
    ]
    consultation = [
        started(ringing, "106", "107", "internal"),
        offered(ringing),
        merged(gone),
    ]
    return Expected([Call("customer", customer), Call("consultation", consultation)])


def _let_go(stage: Stage, one: Arrived, pressed: Line, rings: Leg, gone: Line) -> Expected:
    """FreeSWITCH's att_xfer ends with the one who consults: nobody is left for the caller."""
    ringing, stops = rings.sees("rings"), rings.sees("stops ringing")
    one.caller.sees("is released")
    talk = stage.talks(one.caller, "106", one.answers, gone)
    customer = [*one.began(talk), moved_hold("106", pressed), over(one, gone, [talk], ended_by="106")]
    consultation = [
        started(ringing, "106", "107", "internal"),
        offered(ringing),
        unoffered(stops, "cancelled"),
        _ended_inside(gone, ringing, "107", "cancelled", [], q850=None),
    ]
    notes = [
        "FreeSWITCH gives the consultation up, and the caller with it: the agent who consults was all they had."
    ]
    return Expected([Call("customer", customer), Call("consultation", consultation)], notes=notes)


@scenario(
    "attended_given_up",
    "106 holds, consults 107, ends the consultation and goes on with the caller.",
    family="attended",
)
def attended_given_up(stage: Stage) -> Expected:
    one, target = arrives(stage), softphone(stage, "107")
    hold = one.leg.hold()
    second = one.phone.call("107", aside=" (to 107)")
    rings = target.rings()
    answers = rings.sees("answers")
    second.sees("is answered")
    stage.talk(0.5)
    consult = stage.talks("106", "107", answers, second.hang_up())
    rings.sees("is released")
    back = one.leg.resume()
    stage.talk(1.0)
    talk = stage.talks(one.caller, "106", one.answers, one.leg.hang_up())
    one.caller.sees("is released")
    customer = [*one.began(talk), held(hold), resumed(back), over(one, talk.until, [talk], ended_by="106")]
    dials = second.lines[0]
    consultation = [
        started(dials, "106", "107", "internal"),
        offered(rings.sees("rings")),
        connected(consult),
        _ended_inside(consult.until, dials, "107", "completed", [consult]),
    ]
    return Expected([Call("customer", customer), Call("consultation", consultation)])


@scenario(
    "attended_given_up_ringing",
    "106 holds and calls 107, gives up while it rings, and goes on with the caller.",
    family="attended",
)
def attended_given_up_ringing(stage: Stage) -> Expected:
    one, target = arrives(stage), softphone(stage, "107", after=None)
    hold = one.leg.hold()
    second = one.phone.call("107", aside=" (to 107)")
    rings = target.rings()
    second.sees("hears ringing")
    stage.talk(0.5)
    gives_up = second.hang_up()
    stops = rings.sees("stops ringing")
    back = one.leg.resume()
    stage.talk(1.0)
    talk = stage.talks(one.caller, "106", one.answers, one.leg.hang_up())
    one.caller.sees("is released")
    customer = [*one.began(talk), held(hold), resumed(back), over(one, talk.until, [talk], ended_by="106")]
    dials = second.lines[0]
    consultation = [
        started(dials, "106", "107", "internal"),
        offered(rings.sees("rings")),
        unoffered(stops, "cancelled"),
        _ended_inside(gives_up, dials, "107", "cancelled", [], q850=None),
    ]
    return Expected([Call("customer", customer), Call("consultation", consultation)])


@scenario(
    "attended_code_refused",
    "106 calls 103 by feature code, which is busy: 106 is back with the caller.",
    family="attended",
)
def attended_code_refused(stage: Stage) -> Expected:
    stage.phones(Behaviour.BUSY, "103")
    one = arrives(stage)
    pressed = one.leg.press("*2103")
    busy = stage.sees("103", "answers 486")
    stage.talk(2.0)
    talk = stage.talks(one.caller, "106", one.answers, one.caller.hangs_up())
    # No witness says when the phone was called: it takes a moment to say that it is busy.
    moment = 500
    customer = [
        *one.began(talk),
        moved_hold("106", pressed),
        moved_resume("106", busy),
        over(one, talk.until, [talk], within=moment),
    ]
    consultation = [
        started(busy, "106", "103", "internal"),
        unoffered(busy, "busy"),
        _ended_inside(busy, busy, "103", "busy", [], q850=17, ended_by=None, within=moment),
    ]
    return Expected([Call("customer", customer), Call("consultation", consultation)])


@scenario(
    "attended_two_queues",
    "A caller of queue desk has 106, who consults queue support, gets 103, and sends REFER with Replaces.",
    family="attended",
)
def attended_two_queues(stage: Stage) -> Expected:
    stage.phones(Behaviour.NO_ANSWER)
    stage.answers("103", after=0.8)
    other = softphone(stage, "107", after=None)
    one = arrives(stage, did="+12125550140")
    stopped = other.rings().sees("stops ringing")
    hold = one.leg.hold()
    second = one.phone.call("850", aside=" (to 850)")
    answers = stage.sees("103", "answers")
    second.sees("is answered")
    stage.talk(0.5)
    one.leg.refer_replacing(second)
    sent = done(one)
    consult = stage.talks("106", "103", answers, sent)
    first = stage.talks(one.caller, "106", one.answers, sent)
    after = both_talk(one, "103", sent)
    began = one.began(first)
    customer = [
        began[0],
        queued(one.caller.dials, "desk"),
        together([began[1]], [offered(other.rings().sees("rings"))]),
        together(
            [unqueued(one.answers, "desk", "answered")],
            [began[2]],
            [unoffered(stopped, "answered_elsewhere")],
        ),
        held(hold),
        moves(one, sent, "103"),
        connected(after),
        over(one, after.until, [first, after]),
    ]
    stops = [stage.sees(phone, "stops ringing") for phone in PHONES if phone != "103"]
    consultation = [
        started(second.lines[0], "106", "850", {"one_of": ["internal", None]}),
        queued(second.lines[0], "support"),
        together(*[[offered(stage.sees(phone, "rings"))] for phone in PHONES]),
        together(
            [unqueued(answers, "support", "answered")],
            [connected(consult)],
            *[[unoffered(line, "answered_elsewhere")] for line in stops],
        ),
        merged(sent),
    ]
    return Expected([Call("customer", customer), Call("consultation", consultation)])


def _parted(stage: Stage, rings: Line, answers: Line) -> Line:
    """Asterisk parts the caller from the agent as it calls the target, FreeSWITCH when the target answers."""
    return rings if stage.pbx == "asterisk" else answers


def _ended_inside(
    line: Line,
    dials: Line,
    to: str,
    cause: str,
    talks: list[Talk],
    *,
    q850: int | None = 16,
    ended_by: str | None = "106",
    within: int = 200,
) -> Spec:
    return ended(
        line,
        dials,
        "106",
        to,
        cause,
        talks=talks,
        direction="internal",
        q850=q850,
        ended_by=ended_by,
        within=within,
    )
