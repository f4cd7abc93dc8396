"""Blind transfers: to an extension, a queue, outside; refused, unanswered, and back again."""

from __future__ import annotations

from typing import Any

from ringbridge_lab.lab import Behaviour
from scenarios import scenario
from scenarios.expected import (
    Call,
    Expected,
    connected,
    ended,
    offered,
    queued,
    started,
    together,
    transferred,
    unoffered,
    unqueued,
)
from scenarios.moving import arrives, moved_hold, moved_resume
from scenarios.stage import PHONES, Stage


@scenario("blind_refer", "106 sends the caller to 102 by REFER; 102 answers.", family="blind")
def blind_refer(stage: Stage) -> Expected:
    stage.answers("102")
    one = arrives(stage)
    sent = one.leg.refer("102")
    first = stage.talks(one.caller, "106", one.answers, sent)
    second = stage.talks(one.caller, "102", stage.sees("102", "answers"), _ends(stage, one.caller))
    return Expected(
        [
            Call(
                "customer",
                [
                    *one.began(first),
                    transferred(sent, "blind", "106", "106", {"dialled": "102"}),
                    offered(stage.sees("102", "rings")),
                    connected(second),
                    _over(one, second.until, [first, second]),
                ],
            )
        ]
    )


@scenario("blind_code", "101 sends the caller to 102 by feature code (##102).", family="blind")
def blind_code(stage: Stage) -> Expected:
    stage.answers("101")
    stage.answers("102")
    caller = stage.call("+12125550101")
    rings, answers = stage.sees("101", "rings"), stage.sees("101", "answers")
    caller.sees("is answered")
    stage.talk(0.5)
    pressed = stage.diary.add("101", "presses ##102")
    stage.lab.press_phone("101", "##102")
    left = stage.sees("101", "is released")
    rings_next = stage.sees("102", "rings")
    first = stage.talks(caller, "101", answers, rings_next)
    second = stage.talks(caller, "102", stage.sees("102", "answers"), _ends(stage, caller))
    return Expected(
        [
            Call(
                "customer",
                [
                    started(caller.dials, "caller", "+12125550101"),
                    offered(rings),
                    connected(first),
                    moved_hold("101", pressed),
                    moved_resume("101", left),
                    transferred(left, "blind", "101", "101", {"dialled": "102"}),
                    offered(rings_next),
                    connected(second),
                    ended(
                        second.until,
                        caller.dials,
                        "caller",
                        "+12125550101",
                        "completed",
                        talks=[first, second],
                        ended_by="caller",
                    ),
                ],
            )
        ]
    )


@scenario(
    "blind_to_queue",
    "106 sends the caller to queue support by REFER; five phones ring, 103 answers.",
    family="blind",
)
def blind_to_queue(stage: Stage) -> Expected:
    stage.phones(Behaviour.NO_ANSWER)
    stage.answers("103", after=0.8)
    one = arrives(stage)
    sent = one.leg.refer("850")
    first = stage.talks(one.caller, "106", one.answers, sent)
    answers = stage.sees("103", "answers")
    others = [extension for extension in PHONES if extension != "103"]
    stops = [stage.sees(extension, "stops ringing") for extension in others]
    second = stage.talks(one.caller, "103", answers, _ends(stage, one.caller))
    return Expected(
        [
            Call(
                "customer",
                [
                    *one.began(first),
                    transferred(sent, "blind", "106", "106", {"dialled": "850"}),
                    queued(sent, "support"),
                    together(*[[offered(stage.sees(extension, "rings"))] for extension in PHONES]),
                    together(
                        [unqueued(answers, "support", "answered")],
                        [connected(second)],
                        *[[unoffered(line, "answered_elsewhere")] for line in stops],
                    ),
                    _over(one, second.until, [first, second]),
                ],
            )
        ]
    )


@scenario("blind_outside", "106 sends the caller to a number outside by REFER, who answers.", family="blind")
def blind_outside(stage: Stage) -> Expected:
    number = "+16465550101"
    mobile = stage.outside(number, "mobile")
    one = arrives(stage)
    sent = one.leg.refer(number)
    first = stage.talks(one.caller, "106", one.answers, sent)
    rings, answers = stage.sees(number, "rings"), stage.sees(number, "answers")
    second = stage.talks(one.caller, mobile, answers, _ends(stage, one.caller))
    return Expected(
        [
            Call(
                "customer",
                [
                    *one.began(first),
                    transferred(sent, "blind", "106", "106", {"dialled": number}),
                    offered(rings, mobile),
                    connected(second),
                    _over(one, second.until, [first, second]),
                ],
            )
        ]
    )


@scenario(
    "blind_refused", "106 sends the caller to 103, which is busy: the PBX lets the caller go.", family="blind"
)
def blind_refused(stage: Stage) -> Expected:
    stage.phones(Behaviour.BUSY, "103")
    one = arrives(stage)
    sent = one.leg.refer("103")
    first = stage.talks(one.caller, "106", one.answers, sent)
    over = one.caller.sees("is released")
    return Expected(
        [
            Call(
                "customer",
                [
                    *one.began(first),
                    transferred(sent, "blind", "106", "106", {"dialled": "103"}),
                    unoffered(stage.sees("103", "answers 486"), "busy"),
                    _over(one, over, [first], ended_by=None, q850=17),
                ],
            )
        ]
    )


@scenario(
    "blind_refused_back",
    "106 sends the caller to 202, where 102 is busy: the caller comes back to 106.",
    family="blind",
)
def blind_refused_back(stage: Stage) -> Expected:
    stage.phones(Behaviour.BUSY, "102")
    one = arrives(stage)
    sent = one.leg.refer("202")
    first = stage.talks(one.caller, "106", one.answers, sent)
    again = one.phone.rings(2)
    second = stage.talks(one.caller, "106", again.sees("answers"), _ends(stage, one.caller))
    return Expected(
        [
            Call(
                "customer",
                [
                    *one.began(first),
                    transferred(sent, "blind", "106", "106", {"dialled": "202"}),
                    unoffered(stage.sees("102", "answers 486"), "busy"),
                    offered(again.sees("rings")),
                    connected(second),
                    _over(one, second.until, [first, second]),
                ],
            )
        ]
    )


@scenario(
    "blind_unanswered_back",
    "106 sends the caller to 202, where 102 rings for 3 s in vain: the caller comes back to 106.",
    family="blind",
)
def blind_unanswered_back(stage: Stage) -> Expected:
    stage.phones(Behaviour.NO_ANSWER, "102")
    one = arrives(stage)
    sent = one.leg.refer("202")
    first = stage.talks(one.caller, "106", one.answers, sent)
    again = one.phone.rings(2)
    second = stage.talks(one.caller, "106", again.sees("answers"), _ends(stage, one.caller))
    return Expected(
        [
            Call(
                "customer",
                [
                    *one.began(first),
                    transferred(sent, "blind", "106", "106", {"dialled": "202"}),
                    offered(stage.sees("102", "rings")),
                    unoffered(stage.sees("102", "stops ringing"), "no_answer"),
                    offered(again.sees("rings")),
                    connected(second),
                    _over(one, second.until, [first, second]),
                ],
            )
        ]
    )


def _ends(stage: Stage, caller: Any) -> Any:
    """They talk; then the caller hangs up."""
    stage.talk(1.0)
    return caller.hangs_up()


def _over(
    one: Any, line: Any, talks: Any, *, ended_by: str | None = "caller", q850: int = 16
) -> dict[str, Any]:
    return ended(
        line, one.caller.dials, "caller", one.did, "completed", talks=talks, ended_by=ended_by, q850=q850
    )
