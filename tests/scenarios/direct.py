"""A call from outside straight to one phone."""

from __future__ import annotations

from ringbridge_lab.lab import Behaviour
from scenarios import scenario
from scenarios.expected import Call, Expected, connected, ended, maybe, offered, one_call, started, unoffered
from scenarios.softphone import Leg
from scenarios.stage import Stage

DID = "+12125550101"
OTHER = "+12125550102"
MESSAGE = "+12125550113"
"""101, which the PBX gives three seconds; then it takes a message."""
ANNOUNCEMENT = "+12125550130"
BY_ITSELF = "+12125550124"
"""106, which is asked to answer by itself."""
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
    return one_call(
        started(caller.dials, "caller", DID),
        offered(rings),
        connected(talk),
        ended(over, caller.dials, "caller", DID, "completed", talks=[talk], ended_by="caller"),
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
    return one_call(
        started(caller.dials, "caller", DID),
        offered(rings),
        connected(talk),
        ended(over, caller.dials, "caller", DID, "completed", talks=[talk], ended_by="101"),
    )


@scenario("busy", "Inbound DID to 101, which is busy (486).", family="direct")
def busy(stage: Stage) -> Expected:
    stage.phones(Behaviour.BUSY, "101")
    caller = stage.call(DID)
    answer, over = stage.sees("101", "answers 486"), caller.sees("is released (Q.850 17)")
    return one_call(
        started(caller.dials, "caller", DID),
        unoffered(answer, "busy"),
        ended(over, caller.dials, "caller", DID, "busy", q850=17),
    )


@scenario("rejected", "Inbound DID to 101, which declines (603).", family="direct")
def rejected(stage: Stage) -> Expected:
    stage.phones(Behaviour.REJECT, "101")
    caller = stage.call(DID)
    answer, over = stage.sees("101", "answers 603"), caller.sees("is released")
    return one_call(
        started(caller.dials, "caller", DID),
        unoffered(answer, "rejected"),
        ended(over, caller.dials, "caller", DID, "rejected", q850=21),
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
    return one_call(
        started(caller.dials, "caller", PATIENCE),
        offered(rings),
        unoffered(stops, "no_answer"),
        ended(over, caller.dials, "caller", PATIENCE, "no_answer", q850=None),
    )


@scenario("caller_gives_up", "Inbound DID to 101; 101 rings, the caller gives up.", family="direct")
def caller_gives_up(stage: Stage) -> Expected:
    stage.phones(Behaviour.NO_ANSWER, "101")
    caller = stage.call(DID)
    rings = stage.sees("101", "rings")
    caller.sees("hears ringing")
    over = caller.hangs_up()
    stops = stage.sees("101", "stops ringing")
    return one_call(
        started(caller.dials, "caller", DID),
        offered(rings),
        unoffered(stops, "cancelled"),
        ended(over, caller.dials, "caller", DID, "cancelled", q850=None, ended_by="caller"),
    )


@scenario("voicemail", "Inbound DID to 101, which does not answer; the PBX takes a message.", family="direct")
def voicemail(stage: Stage) -> Expected:
    stage.phones(Behaviour.NO_ANSWER, "101")
    caller = stage.call(MESSAGE)
    rings, stops = stage.sees("101", "rings"), stage.sees("101", "stops ringing")
    caller.sees("is answered")
    stage.talk()
    over = caller.hangs_up()
    end = ended(over, caller.dials, "caller", MESSAGE, "cancelled", answered_by="pbx", ended_by="caller")
    end["ruling"] = "completed needs that nobody was offered; else who hung up decides"
    return one_call(
        started(caller.dials, "caller", MESSAGE),
        offered(rings),
        unoffered(stops, "no_answer"),
        end,
    )


@scenario(
    "announcement", "Inbound DID to an announcement: the PBX alone speaks, and hangs up.", family="direct"
)
def announcement(stage: Stage) -> Expected:
    caller = stage.call(ANNOUNCEMENT)
    caller.sees("is answered")
    over = caller.sees("is released")
    return one_call(
        started(caller.dials, "caller", ANNOUNCEMENT),
        ended(over, caller.dials, "caller", ANNOUNCEMENT, "completed", answered_by="pbx"),
    )


@scenario(
    "two_at_once",
    "Two callers, to 101 and to 102, whose calls overlap; the first to come is the first to go.",
    family="direct",
)
def two_at_once(stage: Stage) -> Expected:
    stage.answers("101")
    stage.answers("102")
    first = stage.call(DID)
    one = stage.sees("101", "rings")
    second = stage.call(OTHER, "second", number="+16465550122", name="Second Sørensen")
    two = stage.sees("102", "rings")
    answers = stage.sees("101", "answers"), stage.sees("102", "answers")
    first.sees("is answered"), second.sees("is answered")
    stage.talk()
    over = [first.hangs_up()]
    stage.talk(0.3)
    over.append(second.hangs_up())
    talks = [
        stage.talks(first, "101", answers[0], stage.sees("101", "is released")),
        stage.talks(second, "102", answers[1], stage.sees("102", "is released")),
    ]
    calls = []
    for caller, rings, talk, end, did in zip(
        (first, second), (one, two), talks, over, (DID, OTHER), strict=True
    ):
        steps = [
            started(caller.dials, caller.handle, did),
            offered(rings),
            connected(talk),
            ended(end, caller.dials, caller.handle, did, "completed", talks=[talk], ended_by=caller.handle),
        ]
        calls.append(Call(caller.handle, steps))
    return Expected(calls)


@scenario("twenty_milliseconds_of_talk", "101 answers and hangs up 20 ms later.", family="direct")
def twenty_milliseconds_of_talk(stage: Stage) -> Expected:
    stage.answers("101", hangup_after=0.02)
    caller = stage.call(DID)
    rings, answers, over = (stage.sees("101", what) for what in ("rings", "answers", "hangs up"))
    caller.sees("is released")
    talk = stage.talks(caller, "101", answers, over)
    return one_call(
        started(caller.dials, "caller", DID),
        offered(rings),
        connected(talk),
        ended(over, caller.dials, "caller", DID, "completed", talks=[talk], ended_by="101"),
    )


@scenario(
    "twenty_milliseconds_of_ringing",
    "A caller rings 101 and gives up as soon as it has dialled.",
    family="direct",
)
def twenty_milliseconds_of_ringing(stage: Stage) -> Expected:
    stage.phones(Behaviour.NO_ANSWER, "101")
    stage.knows("101")
    caller = stage.call(DID)
    # Asterisk may have forgotten the call before it is asked whether the number may be shown; then it is not.
    for item in ("number", "name"):
        stage.people["caller"][item] = {"one_of": [stage.people["caller"][item], None]}
    over = caller.hangs_up()
    stage.over()
    rang = [offered(line) for line in stage.diary.lines("101") if line.what == "rings"]
    why = "101 heard of the call in the very moment in which the caller left"
    tried = [maybe(one, why) for one in rang]
    stops = [line for line in stage.diary.lines("101") if line.what == "stops ringing"]
    tried += [maybe(unoffered(line, "cancelled"), why) for line in stops]
    return one_call(
        started(caller.dials, "caller", DID),
        *tried,
        ended(over, caller.dials, "caller", DID, "cancelled", q850=None, ended_by="caller"),
    )


@scenario(
    "intercom",
    "102 dials the intercom of 106, whose phone is asked to answer by itself, and does.",
    family="direct",
)
def intercom(stage: Stage) -> Expected:
    phone = stage.softphone("106")
    phone.manner = by_itself
    caller = stage.call("*80106", "102", phone="102")
    answers = stage.sees("106", "answers")
    caller.sees("is answered")
    stage.talk()
    over = caller.hangs_up()
    talk = stage.talks(caller, "106", answers, over)
    stage.sees("106", "is released")
    return one_call(
        started(caller.dials, "102", "*80106", "internal"),
        offered(answers),
        connected(talk),
        ended(
            over,
            caller.dials,
            "102",
            "*80106",
            "completed",
            talks=[talk],
            direction="internal",
            ended_by="102",
        ),
    )


@scenario(
    "auto_answer", "Inbound DID to 106, whose phone is asked to answer by itself, and does.", family="direct"
)
def auto_answer(stage: Stage) -> Expected:
    phone = stage.softphone("106")
    phone.manner = by_itself
    caller = stage.call(BY_ITSELF)
    answers = stage.sees("106", "answers")
    caller.sees("is answered")
    stage.talk()
    over = caller.hangs_up()
    talk = stage.talks(caller, "106", answers, over)
    stage.sees("106", "is released")
    return one_call(
        started(caller.dials, "caller", BY_ITSELF),
        offered(answers),
        connected(talk),
        ended(over, caller.dials, "caller", BY_ITSELF, "completed", talks=[talk], ended_by="caller"),
    )


def by_itself(leg: Leg) -> None:
    """A phone answers at once where the PBX asks it to, as such phones do; else it rings."""
    asked = leg.invite is not None and "answer-after=0" in leg.invite.get("call-info")
    leg.answer() if asked else leg.ring()
