"""Who calls, and what is heard before anybody answers."""

from __future__ import annotations

from scenarios import scenario
from scenarios.diary import Line
from scenarios.expected import Expected, Spec, Talk, connected, ended, offered, one_call, started
from scenarios.softphone import Leg
from scenarios.stage import Customer, Stage

DID = "+12125550101"
SOFT = "+12125550106"
"""A phone that a scenario plays itself."""
ANNOUNCED = "+12125550119"
"""101, after a second of announcement as early media."""
EARLY = "+16465550109"
"""A number outside that plays early media (183) and never says that it rings (180)."""


@scenario("withheld", "A caller who withholds the number; 101 answers.", family="callers")
def withheld(stage: Stage) -> Expected:
    stage.answers("101")
    caller = stage.call(DID, withheld=True)
    stage.sees("101", "rings")
    stage.ask_presentation()
    return _simple(stage, caller)


@scenario(
    "withheld_by_a_softphone",
    "A caller whose own From says anonymous (RFC 3323); 101 answers.",
    family="callers",
)
def anonymous(stage: Stage) -> Expected:
    stage.answers("101")
    caller = stage.call(DID, number="anonymous", name="Anonymous")
    stage.people["caller"] = {
        "number": None,
        "name": None,
        "withheld": True,
        "extension": None,
        "outside": True,
        "evidence": "caller anonymous dials",
    }
    stage.sees("101", "rings")
    return _simple(stage, caller)


@scenario("foreign_name", "A caller whose name is neither ASCII nor Latin; 101 answers.", family="callers")
def foreign_name(stage: Stage) -> Expected:
    stage.answers("101")
    caller = stage.call(DID, name="Łucja 李小龍 Ødegård")
    stage.sees("101", "rings")
    return _simple(stage, caller)


@scenario("no_name", "A caller whom the network gives no name; 101 answers.", family="callers")
def no_name(stage: Stage) -> Expected:
    stage.answers("101")
    caller = stage.call(DID, name="")
    stage.sees("101", "rings")
    return _simple(stage, caller)


@scenario(
    "caller_changes",
    "In mid-call the caller's network says that another number and name are there (connected line).",
    family="callers",
)
def caller_changes(stage: Stage) -> Expected:
    phone = stage.softphone("106")
    phone.answers_after(0.5)
    caller = stage.call(SOFT)
    rings, answers = stage.sees("106", "rings"), stage.sees("106", "answers")
    caller.sees("is answered")
    stage.talk(0.5)
    stage.diary.add(caller.name, "is now somebody else: Second Person +16465550177")
    with stage.lab.world_ami() as ami:
        channel = caller.call.wait_for("answered").detail
        for name, value in (("name,i", "Second Person"), ("num", "+16465550177")):
            ami.action("Setvar", Channel=channel, Variable=f"CONNECTEDLINE({name})", Value=value)
    stage.talk()
    over = caller.hangs_up()
    talk = stage.talks(caller, "106", answers, over)
    stage.sees("106", "is released")
    return one_call(
        started(caller.dials, "caller", SOFT),
        offered(rings),
        connected(talk),
        _over(over, caller, SOFT, talk),
    )


@scenario(
    "early_media",
    "The PBX plays a second of announcement before 101 rings (183 to the caller).",
    family="callers",
)
def early_media(stage: Stage) -> Expected:
    stage.answers("101")
    caller = stage.call(ANNOUNCED)
    caller.sees("hears early media")
    stage.sees("101", "rings")
    return _simple(stage, caller, ANNOUNCED)


@scenario(
    "progress_without_ringing",
    "106 sends 183 with early media, never 180, and answers: nobody can tell before that it rang.",
    family="callers",
)
def progress_without_ringing(stage: Stage) -> Expected:
    phone = stage.softphone("106")
    phone.manner = _only_183
    caller = stage.call(SOFT)
    leg = phone.rings()
    stage.talk(0.7)
    answers = leg.answer()
    caller.sees("is answered")
    stage.talk()
    over = caller.hangs_up()
    talk = stage.talks(caller, "106", answers, over)
    stage.sees("106", "is released")
    return one_call(
        started(caller.dials, "caller", SOFT),
        offered(answers),
        connected(talk),
        _over(over, caller, SOFT, talk),
    )


@scenario(
    "progress_of_a_number",
    "102 dials a number outside that plays early media (183), never rings (180), and answers.",
    family="callers",
)
def progress_of_a_number(stage: Stage) -> Expected:
    stage.outside(EARLY, "customer")
    caller = stage.call(EARLY, "102", phone="102")
    caller.sees("hears early media")
    answers = stage.sees(EARLY, "answers")
    caller.sees("is answered")
    stage.talk()
    over = caller.hangs_up()
    talk = stage.talks(caller, "customer", answers, stage.sees(EARLY, "is released"))
    return one_call(
        started(caller.dials, "102", EARLY, {"one_of": ["outbound", None]}),
        offered(answers, "customer"),
        connected(talk),
        ended(
            over, caller.dials, "102", EARLY, "completed", talks=[talk], direction="outbound", ended_by="102"
        ),
    )


def _only_183(leg: Leg) -> None:
    leg.ring(183)


def _simple(stage: Stage, caller: Customer, did: str = DID) -> Expected:
    """101 has rung; it answers, they talk, the caller hangs up."""
    rings, answers = stage.sees("101", "rings"), stage.sees("101", "answers")
    caller.sees("is answered")
    stage.talk()
    over = caller.hangs_up()
    talk = stage.talks(caller, "101", answers, stage.sees("101", "is released"))
    return one_call(
        started(caller.dials, "caller", did), offered(rings), connected(talk), _over(over, caller, did, talk)
    )


def _over(over: Line, caller: Customer, did: str, talk: Talk) -> Spec:
    return ended(over, caller.dials, "caller", did, "completed", talks=[talk], ended_by="caller")


@scenario("hostile_name", "A caller whose name forges headers of an event; 101 answers.", family="callers")
def hostile_name(stage: Stage) -> Expected:
    name = "Eve %0AEvent-Name: CHANNEL_HANGUP"
    stage.answers("101")
    caller = stage.call(DID, name=name)
    # FreeSWITCH decodes it; whatever becomes of the line feed, it all stays in the name.
    stage.people["caller"]["name"] = {"begins": "Eve "}
    stage.sees("101", "rings")
    return _simple(stage, caller)
