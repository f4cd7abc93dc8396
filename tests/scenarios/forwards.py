"""Ring groups, and calls that the PBX sends on where a phone is busy or does not answer."""

from __future__ import annotations

from ringbridge_lab.lab import Behaviour
from scenarios import scenario
from scenarios.diary import Line
from scenarios.expected import Expected, connected, ended, offered, one_call, started, together, unoffered
from scenarios.stage import Customer, Stage

GROUP = "+12125550114"
"""101, 102 and 103 at once."""
ON_TO_102 = "+12125550115"
"""101 for three seconds, then 102."""
ON_OUTSIDE = "+12125550116"
ON_TO_GROUP = "+12125550117"
"""101 for three seconds, then 102 and 103."""
OUTSIDE = "+16465550101"


@scenario(
    "ring_group",
    "A ring group of 101, 102 and 103: all ring, 102 answers, the others stop.",
    family="forwards",
)
def ring_group(stage: Stage) -> Expected:
    stage.phones(Behaviour.NO_ANSWER)
    stage.answers("102", after=0.8)
    caller = stage.call(GROUP)
    rings = [stage.sees(phone, "rings") for phone in ("101", "102", "103")]
    answers = stage.sees("102", "answers")
    stops = [stage.sees(phone, "stops ringing") for phone in ("101", "103")]
    caller.sees("is answered")
    stage.talk()
    over = caller.hangs_up()
    talk = stage.talks(caller, "102", answers, stage.sees("102", "is released"))
    return one_call(
        started(caller.dials, "caller", GROUP),
        together(*([offered(line)] for line in rings)),
        together([connected(talk)], *([unoffered(line, "answered_elsewhere")] for line in stops)),
        ended(over, caller.dials, "caller", GROUP, "completed", talks=[talk], ended_by="caller"),
    )


@scenario(
    "ring_group_given_up",
    "A ring group of 101, 102 and 103: all ring, the caller gives up.",
    family="forwards",
)
def ring_group_given_up(stage: Stage) -> Expected:
    stage.phones(Behaviour.NO_ANSWER)
    caller = stage.call(GROUP)
    rings = [stage.sees(phone, "rings") for phone in ("101", "102", "103")]
    caller.sees("hears ringing")
    over = caller.hangs_up()
    stops = [stage.sees(phone, "stops ringing") for phone in ("101", "102", "103")]
    return one_call(
        started(caller.dials, "caller", GROUP),
        together(*([offered(line)] for line in rings)),
        together(*([unoffered(line, "cancelled")] for line in stops)),
        ended(over, caller.dials, "caller", GROUP, "cancelled", q850=None, ended_by="caller"),
    )


@scenario(
    "ring_group_one_busy",
    "A ring group of 101, 102 and 103: 101 is busy, 103 declines, 102 answers.",
    family="forwards",
)
def ring_group_one_busy(stage: Stage) -> Expected:
    stage.phones(Behaviour.BUSY, "101")
    stage.phones(Behaviour.REJECT, "103")
    stage.answers("102", after=0.8)
    caller = stage.call(GROUP)
    busy, declines = stage.sees("101", "answers 486"), stage.sees("103", "answers 603")
    rings, answers = stage.sees("102", "rings"), stage.sees("102", "answers")
    caller.sees("is answered")
    stage.talk()
    over = caller.hangs_up()
    talk = stage.talks(caller, "102", answers, stage.sees("102", "is released"))
    return one_call(
        started(caller.dials, "caller", GROUP),
        together(
            [unoffered(busy, "busy")],
            [unoffered(declines, "rejected")],
            [offered(rings), connected(talk)],
        ),
        ended(over, caller.dials, "caller", GROUP, "completed", talks=[talk], ended_by="caller"),
    )


@scenario(
    "forward_on_busy", "101 is busy; the PBX sends the caller on to 102, who answers.", family="forwards"
)
def forward_on_busy(stage: Stage) -> Expected:
    stage.phones(Behaviour.BUSY, "101")
    stage.answers("102")
    caller = stage.call(ON_TO_102)
    busy = stage.sees("101", "answers 486")
    return _goes_on(stage, caller, ON_TO_102, [unoffered(busy, "busy")], "102")


@scenario(
    "forward_on_no_answer",
    "101 does not answer in three seconds; the PBX sends the caller on to 102.",
    family="forwards",
)
def forward_on_no_answer(stage: Stage) -> Expected:
    stage.phones(Behaviour.NO_ANSWER, "101")
    stage.answers("102")
    caller = stage.call(ON_TO_102)
    rings, stops = stage.sees("101", "rings"), stage.sees("101", "stops ringing")
    return _goes_on(stage, caller, ON_TO_102, [offered(rings), unoffered(stops, "no_answer")], "102")


@scenario(
    "forward_outside",
    "101 is busy; the PBX sends the caller on to a number outside, who answers.",
    family="forwards",
)
def forward_outside(stage: Stage) -> Expected:
    stage.phones(Behaviour.BUSY, "101")
    caller = stage.call(ON_OUTSIDE)
    stage.outside(OUTSIDE, "mobile")
    busy = stage.sees("101", "answers 486")
    return _goes_on(stage, caller, ON_OUTSIDE, [unoffered(busy, "busy")], OUTSIDE, handle="mobile")


@scenario(
    "forward_to_group",
    "101 is busy; the PBX sends the caller on to the group of 102 and 103; 103 answers.",
    family="forwards",
)
def forward_to_group(stage: Stage) -> Expected:
    stage.phones(Behaviour.BUSY, "101")
    stage.phones(Behaviour.NO_ANSWER, "102")
    stage.answers("103", after=0.8)
    caller = stage.call(ON_TO_GROUP)
    busy = stage.sees("101", "answers 486")
    rings = [stage.sees(phone, "rings") for phone in ("102", "103")]
    answers, stops = stage.sees("103", "answers"), stage.sees("102", "stops ringing")
    caller.sees("is answered")
    stage.talk()
    over = caller.hangs_up()
    talk = stage.talks(caller, "103", answers, stage.sees("103", "is released"))
    return one_call(
        started(caller.dials, "caller", ON_TO_GROUP),
        unoffered(busy, "busy"),
        together(*([offered(line)] for line in rings)),
        together([connected(talk)], [unoffered(stops, "answered_elsewhere")]),
        ended(over, caller.dials, "caller", ON_TO_GROUP, "completed", talks=[talk], ended_by="caller"),
    )


@scenario(
    "forward_reaches_nobody",
    "101 is busy; the PBX sends the caller on to 102, who is busy too.",
    family="forwards",
)
def forward_reaches_nobody(stage: Stage) -> Expected:
    stage.phones(Behaviour.BUSY, "101", "102")
    caller = stage.call(ON_TO_102)
    tries = [stage.sees(phone, "answers 486") for phone in ("101", "102")]
    over = caller.sees("is released (Q.850 17)")
    return one_call(
        started(caller.dials, "caller", ON_TO_102),
        *(unoffered(line, "busy") for line in tries),
        ended(over, caller.dials, "caller", ON_TO_102, "busy", q850=17),
    )


def _goes_on(
    stage: Stage, caller: Customer, did: str, first: list[dict[str, object]], second: str, handle: str = ""
) -> Expected:
    """After what came of the first phone another answers, and the caller hangs up."""
    rings: Line = stage.sees(second, "rings")
    answers = stage.sees(second, "answers")
    caller.sees("is answered")
    stage.talk()
    over = caller.hangs_up()
    talk = stage.talks(caller, handle or second, answers, stage.sees(second, "is released"))
    return one_call(
        started(caller.dials, "caller", did),
        *first,
        offered(rings, handle or second),
        connected(talk),
        ended(over, caller.dials, "caller", did, "completed", talks=[talk], ended_by="caller"),
    )
