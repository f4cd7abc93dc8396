"""Calls to queues. `who answers a caller` differs: mod_callcenter at once, app_queue where the agent does."""

from __future__ import annotations

from typing import Any

from ringbridge_lab.lab import Behaviour
from scenarios import scenario
from scenarios.diary import Line
from scenarios.expected import (
    Call,
    Expected,
    Spec,
    connected,
    ended,
    event,
    offered,
    one_call,
    queued,
    started,
    together,
    unoffered,
    unqueued,
)
from scenarios.stage import PHONES, Customer, Stage

SUPPORT, IMPATIENT, SALES = "+12125550110", "+12125550111", "+12125550120"
BEHIND, NEXT, PAIR = "+12125550121", "+12125550122", "+12125550123"


def _position(stage: Stage) -> int | dict[str, object]:
    """mod_callcenter names none; the tracker counts."""
    return 1 if stage.pbx == "asterisk" else {"one_of": [1, None]}


def waits(stage: Stage, caller: Customer, did: str, queue: str) -> list[Spec]:
    """How each of these begins."""
    return [started(caller.dials, caller.handle, did), queued(caller.dials, queue, _position(stage))]


@scenario(
    "queue_ring_all",
    "The queue support rings 101 to 105 at once; 103 answers, the others stop.",
    family="queues",
)
def queue_ring_all(stage: Stage) -> Expected:
    stage.phones(Behaviour.NO_ANSWER)
    stage.answers("103", after=1.0)
    caller = stage.call(SUPPORT)
    rings = [stage.sees(phone, "rings") for phone in PHONES]
    answers = stage.sees("103", "answers")
    stops = [stage.sees(phone, "stops ringing") for phone in PHONES if phone != "103"]
    stage.talk()
    over = caller.hangs_up()
    talk = stage.talks(caller, "103", answers, stage.sees("103", "is released"))
    return one_call(
        *waits(stage, caller, SUPPORT, "support"),
        together(*([offered(line)] for line in rings)),
        together(
            [unqueued(answers, "support", "answered")],
            [connected(talk)],
            *([unoffered(line, "answered_elsewhere")] for line in stops),
        ),
        ended(over, caller.dials, "caller", SUPPORT, "completed", talks=[talk], ended_by="caller"),
    )


@scenario(
    "queue_in_turn",
    "The queue sales rings in turn: of two callers each reaches another agent.",
    family="queues",
)
def queue_in_turn(stage: Stage) -> Expected:
    stage.phones(Behaviour.ANSWER)
    calls, phone = [], Line(stage.diary.zero, "", "", 0.0)
    for handle, number in (("caller", "+16465550111"), ("second", "+16465550122")):
        caller = stage.call(SALES, handle, number=number)
        rings = stage.first("rings", after=caller.dials)
        assert rings.who != phone.who, "the queue rang the same phone twice"
        phone = rings
        answers = stage.sees(rings.who, "answers")
        caller.sees("is answered")
        stage.talk()
        over = caller.hangs_up()
        talk = stage.talks(caller, rings.who, answers, stage.sees(rings.who, "is released"))
        stage.over()
        steps = [
            *waits(stage, caller, SALES, "sales"),
            offered(rings),
            together([unqueued(answers, "sales", "answered")], [connected(talk)]),
            ended(over, caller.dials, handle, SALES, "completed", talks=[talk], ended_by=handle),
        ]
        calls.append(Call(handle, steps))
    return Expected(calls)


@scenario(
    "queue_behind_local",
    "The queue behind: its one member is 101 behind a Local channel (loopback leg).",
    family="queues",
)
def queue_behind_local(stage: Stage) -> Expected:
    stage.answers("101")
    caller = stage.call(BEHIND)
    rings, answers = stage.sees("101", "rings"), stage.sees("101", "answers")
    caller.sees("is answered")
    stage.talk()
    over = stage.hangs_up("101")
    talk = stage.talks(caller, "101", answers, over)
    caller.sees("is released")
    return one_call(
        *waits(stage, caller, BEHIND, "behind"),
        offered(rings),
        together([unqueued(answers, "behind", "answered")], [connected(talk)]),
        ended(over, caller.dials, "caller", BEHIND, "completed", talks=[talk], ended_by="101"),
        notes=[
            "That the member is reached over a Local channel (a loopback leg) shows nowhere: the party is the phone."
        ],
    )


@scenario(
    "queue_given_up",
    "The queue support: 101 to 105 ring, nobody answers, the caller gives up.",
    family="queues",
)
def queue_given_up(stage: Stage) -> Expected:
    stage.phones(Behaviour.NO_ANSWER)
    caller = stage.call(SUPPORT)
    rings = [stage.sees(phone, "rings") for phone in PHONES]
    caller.sees("is answered")
    stage.talk(0.5)
    over = caller.hangs_up()
    stops = [stage.sees(phone, "stops ringing") for phone in PHONES]
    return one_call(
        *waits(stage, caller, SUPPORT, "support"),
        together(*([offered(line)] for line in rings)),
        together(
            [unqueued(over, "support", "abandoned")], *([unoffered(line, "cancelled")] for line in stops)
        ),
        ended(
            over,
            caller.dials,
            "caller",
            SUPPORT,
            "abandoned",
            q850=None,
            answered_by="pbx",
            ended_by="caller",
        ),
    )


@scenario(
    "queue_times_out",
    "The queue support with three seconds of patience: 101 to 105 ring, the PBX gives up.",
    family="queues",
)
def queue_times_out(stage: Stage) -> Expected:
    stage.phones(Behaviour.NO_ANSWER)
    caller = stage.call(IMPATIENT)
    rings = [stage.sees(phone, "rings") for phone in PHONES]
    stops = [stage.sees(phone, "stops ringing") for phone in PHONES]
    over = caller.sees("is released")
    queue = "support" if stage.pbx == "asterisk" else "support-briefly"
    reason: Any = "no_answer"
    notes = []
    if stage.pbx == "freeswitch":
        reason = {"one_of": ["no_answer", "cancelled"]}
        notes = [
            "mod_callcenter gives the phones up with the queue's patience, and does not say of each why."
        ]
    return one_call(
        started(caller.dials, "caller", IMPATIENT),
        {**queued(caller.dials, queue, _position(stage)), "evidence": ["queue support", caller.dials.text]},
        together(*([offered(line)] for line in rings)),
        together([unqueued(over, queue, "timeout")], *([unoffered(line, reason)] for line in stops)),
        ended(over, caller.dials, "caller", IMPATIENT, "no_answer", q850=None, answered_by="pbx"),
        notes=notes,
    )


@scenario(
    "queue_next_agent",
    "The queue next: 101 does not answer in two seconds, then 102 rings and answers.",
    family="queues",
)
def queue_next_agent(stage: Stage) -> Expected:
    stage.phones(Behaviour.NO_ANSWER, "101")
    stage.answers("102")
    caller = stage.call(NEXT)
    rings, stops = stage.sees("101", "rings"), stage.sees("101", "stops ringing")
    second, answers = stage.sees("102", "rings"), stage.sees("102", "answers")
    caller.sees("is answered")
    stage.talk()
    over = caller.hangs_up()
    talk = stage.talks(caller, "102", answers, stage.sees("102", "is released"))
    return one_call(
        *waits(stage, caller, NEXT, "next"),
        offered(rings),
        unoffered(stops, "no_answer"),
        offered(second),
        together([unqueued(answers, "next", "answered")], [connected(talk)]),
        ended(over, caller.dials, "caller", NEXT, "completed", talks=[talk], ended_by="caller"),
    )


@scenario(
    "queue_two_devices",
    "The queue pair: its one agent's phone 110 is at two places (104, 105); one answers.",
    family="queues",
)
def queue_two_devices(stage: Stage) -> Expected:
    stage.phones(Behaviour.NO_ANSWER, "104")
    stage.answers("105", after=1.0)
    stage.tones["110"] = 490
    stage.people["110"] = {"extension": "110", "evidence": "phone 110 is at two places (104, 105)"}
    caller = stage.call(PAIR)
    rings = sorted((stage.diary.wait(phone, "rings") for phone in ("104", "105")), key=lambda line: line.at)
    answers = stage.diary.wait("105", "answers")
    stops = stage.diary.wait("104", "stops ringing")
    caller.sees("is answered")
    stage.talk()
    over = caller.hangs_up()
    released = stage.diary.wait("105", "is released")
    talk = stage.talks(caller, "110", answers, released)
    expected = one_call(
        *waits(stage, caller, PAIR, "pair"),
        event("offered", rings[0], {"party": "110"}, rings[1:]),
        together([unqueued(answers, "pair", "answered")], [connected(talk)]),
        ended(over, caller.dials, "caller", PAIR, "completed", talks=[talk], ended_by="caller"),
        notes=[
            "Two registrations of one phone are one device: it is offered once, and that one of them stops is no event."
        ],
    )
    why = "two registrations of one phone are one device, and the other of them has the caller"
    expected.never.append(
        {"type": "call.unoffered", "data": {"party": "110"}, "why": why, "evidence": [stops.text]}
    )
    return expected
