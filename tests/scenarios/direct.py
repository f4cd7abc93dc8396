"""A call from outside straight to one phone."""

from __future__ import annotations

from ringbridge_lab.lab import Behaviour
from scenarios import scenario
from scenarios.expected import Call, Expected, connected, ended, offered, started, unoffered
from scenarios.stage import Stage

DID = "+12125550101"
PATIENCE = "+12125550112"
"""101, which the PBX gives three seconds."""


@scenario("answered", "Inbound DID to 101, who answers; the caller hangs up.", family="direct")
def answered(stage: Stage) -> Expected:
    stage.answers("101")
    caller = stage.call(DID)
    rings, answers = stage.sees("101", "rings"), stage.sees("101", "answers")
    caller.sees("is answered")
    stage.talk()
    over = caller.hangs_up()
    talk = stage.talks(caller, "101", answers, stage.sees("101", "is released"))
    return Expected(
        [
            Call(
                "customer",
                [
                    started(caller.dials, "caller", DID),
                    offered(rings),
                    connected(talk),
                    ended(over, caller.dials, "caller", DID, "completed", talks=[talk], ended_by="caller"),
                ],
            )
        ]
    )


@scenario("answered_agent_ends", "Inbound DID to 101, who answers and hangs up.", family="direct")
def answered_agent_ends(stage: Stage) -> Expected:
    stage.answers("101")
    caller = stage.call(DID)
    rings, answers = stage.sees("101", "rings"), stage.sees("101", "answers")
    caller.sees("is answered")
    stage.talk()
    over = stage.hangs_up("101")
    talk = stage.talks(caller, "101", answers, over)
    caller.sees("is released")
    return Expected(
        [
            Call(
                "customer",
                [
                    started(caller.dials, "caller", DID),
                    offered(rings),
                    connected(talk),
                    ended(over, caller.dials, "caller", DID, "completed", talks=[talk], ended_by="101"),
                ],
            )
        ]
    )


@scenario("busy", "Inbound DID to 101, which is busy (486).", family="direct")
def busy(stage: Stage) -> Expected:
    stage.phones(Behaviour.BUSY, "101")
    caller = stage.call(DID)
    answer, over = stage.sees("101", "answers 486"), caller.sees("is released (Q.850 17)")
    return Expected(
        [
            Call(
                "customer",
                [
                    started(caller.dials, "caller", DID),
                    unoffered(answer, "busy"),
                    ended(over, caller.dials, "caller", DID, "busy", q850=17),
                ],
            )
        ]
    )


@scenario("rejected", "Inbound DID to 101, which declines (603).", family="direct")
def rejected(stage: Stage) -> Expected:
    stage.phones(Behaviour.REJECT, "101")
    caller = stage.call(DID)
    answer, over = stage.sees("101", "answers 603"), caller.sees("is released")
    return Expected(
        [
            Call(
                "customer",
                [
                    started(caller.dials, "caller", DID),
                    unoffered(answer, "rejected"),
                    ended(over, caller.dials, "caller", DID, "rejected", q850=21),
                ],
            )
        ]
    )


@scenario(
    "no_answer",
    "Inbound DID to 101, which rings until the PBX gives up after three seconds.",
    family="direct",
)
def no_answer(stage: Stage) -> Expected:
    stage.phones(Behaviour.NO_ANSWER, "101")
    caller = stage.call(PATIENCE)
    rings, stops = stage.sees("101", "rings"), stage.sees("101", "stops ringing")
    over = caller.sees("is released")
    return Expected(
        [
            Call(
                "customer",
                [
                    started(caller.dials, "caller", PATIENCE),
                    offered(rings),
                    unoffered(stops, "no_answer"),
                    ended(over, caller.dials, "caller", PATIENCE, "no_answer", q850=None),
                ],
            )
        ]
    )


@scenario("caller_gives_up", "Inbound DID to 101; 101 rings, the caller gives up.", family="direct")
def caller_gives_up(stage: Stage) -> Expected:
    stage.phones(Behaviour.NO_ANSWER, "101")
    caller = stage.call(DID)
    rings = stage.sees("101", "rings")
    caller.sees("hears ringing")
    over = caller.hangs_up()
    stops = stage.sees("101", "stops ringing")
    return Expected(
        [
            Call(
                "customer",
                [
                    started(caller.dials, "caller", DID),
                    offered(rings),
                    unoffered(stops, "cancelled"),
                    ended(over, caller.dials, "caller", DID, "cancelled", q850=None, ended_by="caller"),
                ],
            )
        ]
    )
