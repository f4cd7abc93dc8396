"""Legs behind Local channels (FreeSWITCH: loopback legs) that stay or go, and legs that a command moves."""

from __future__ import annotations

import json

from scenarios import scenario
from scenarios.expected import Call, Expected, connected, maybe, offered, started, transferred
from scenarios.moving import arrives, both_talk, done, held, merged, moves, over, softphone
from scenarios.stage import Stage

KEPT, OPTIMISED = "+12125550146", "+12125550156"
"""106 behind a wire that stays, and behind one that may take itself out of the way."""

LETS_GO = {
    "freeswitch": "1.11 lets the caller go when a phone that it called over a loopback leg sends it on"
}
"""Seen each time with a leg that stays and with blind transfers, now and then with attended ones over one that goes."""


def _simple(stage: Stage, did: str) -> Expected:
    one = arrives(stage, did=did)
    stage.talk(1.0)
    talk = stage.talks(one.caller, "106", one.answers, one.leg.hang_up())
    one.caller.sees("is released")
    return Expected([Call("customer", [*one.began(talk), over(one, talk.until, [talk], ended_by="106")])])


@scenario("wire_kept", "The caller reaches 106 through a Local channel that stays.", family="wires")
def wire_kept(stage: Stage) -> Expected:
    return _simple(stage, KEPT)


@scenario("wire_optimised", "The caller reaches 106 through a Local channel that may go.", family="wires")
def wire_optimised(stage: Stage) -> Expected:
    return _simple(stage, OPTIMISED)


def _attended(stage: Stage, did: str, number: str) -> Expected:
    """106, reached through one wire, consults 107 through another and sends REFER with Replaces."""
    one, target = arrives(stage, did=did), softphone(stage, "107")
    hold = one.leg.hold()
    second = one.phone.call(number, aside=f" (to {number})")
    rings = target.rings()
    answers = rings.sees("answers")
    second.sees("is answered")
    stage.talk(0.8)
    one.leg.refer_replacing(second)
    sent = done(one)
    consult = stage.talks("106", "107", answers, sent)
    first = stage.talks(one.caller, "106", one.answers, sent)
    after = both_talk(one, "107", sent)
    rings.sees("is released")
    customer = [
        *one.began(first),
        held(hold),
        moves(one, sent, "107"),
        connected(after, late_ms=700),
        over(one, after.until, [first, after]),
    ]
    consultation = [
        started(second.lines[0], "106", number, {"one_of": ["internal", None]}),
        offered(rings.sees("rings")),
        connected(consult),
        merged(sent),
    ]
    return Expected([Call("customer", customer), Call("consultation", consultation)])


@scenario(
    "wire_kept_attended",
    "106, behind a Local channel that stays, consults 107 behind another, then REFER with Replaces.",
    family="wires",
    cannot=LETS_GO,
)
def wire_kept_attended(stage: Stage) -> Expected:
    return _attended(stage, KEPT, "307")


@scenario(
    "wire_optimised_attended",
    "106, behind a Local channel that may go, consults 107 behind another, then REFER with Replaces.",
    family="wires",
    cannot=LETS_GO,
)
def wire_optimised_attended(stage: Stage) -> Expected:
    return _attended(stage, OPTIMISED, "317")


def _blind(stage: Stage, did: str, number: str) -> Expected:
    """106, reached through one wire, sends the caller on to 107 behind another."""
    target = softphone(stage, "107")
    one = arrives(stage, did=did)
    sent = one.leg.refer(number)
    first = stage.talks(one.caller, "106", one.answers, sent)
    rings = target.rings()
    answers = rings.sees("answers")
    after = both_talk(one, "107", answers)
    rings.sees("is released")
    customer = [
        *one.began(first),
        transferred(sent, "blind", "106", "106", {"dialled": number}),
        offered(rings.sees("rings")),
        connected(after, late_ms=700),
        over(one, after.until, [first, after]),
    ]
    return Expected([Call("customer", customer)])


@scenario(
    "wire_kept_blind",
    "106, behind a Local channel that stays, sends the caller to 107 behind another by REFER.",
    family="wires",
    cannot=LETS_GO,
)
def wire_kept_blind(stage: Stage) -> Expected:
    return _blind(stage, KEPT, "307")


@scenario(
    "wire_optimised_blind",
    "106, behind a Local channel that may go, sends the caller to 107 behind another by REFER.",
    family="wires",
    cannot=LETS_GO,
)
def wire_optimised_blind(stage: Stage) -> Expected:
    return _blind(stage, OPTIMISED, "317")


@scenario(
    "redirected",
    "An administrator's command puts both legs into conference 800, in mid-talk.",
    family="wires",
)
def redirected(stage: Stage) -> Expected:
    one = arrives(stage)
    moved = stage.diary.add("the PBX", "is told to put both legs into conference 800")
    _put_both(stage)
    stage.talk(1.5)
    talk = stage.talks(one.caller, "106", one.answers, one.caller.hangs_up())
    stage.talk(0.3)
    last = one.leg.hang_up()
    again = {**connected(talk), "at": moved.second, "late_ms": 1500, "evidence": [talk.text, moved.text]}
    customer = [
        *one.began(talk),
        maybe(again, "for a moment nobody heard anybody; whether they are said to meet again is open"),
        over(one, last, [talk]),
    ]
    customer[-1]["data"]["talk_ms"]["within"] = 600
    return Expected([Call("customer", customer)])


def _put_both(stage: Stage) -> None:
    if stage.pbx == "freeswitch":
        with stage.lab.company_esl() as esl:
            rows = json.loads(esl.api("show channels as json"))["rows"]
            caller = next(row["uuid"] for row in rows if row["name"].startswith("sofia/external/"))
            esl.api(f"uuid_transfer {caller} -both 800")
        return
    with stage.lab.company_ami() as ami:
        listing = ami.command("core show channels concise")
        names = [row.split("!")[0] for row in listing.splitlines() if row.startswith("PJSIP/")]
        agent = next(name for name in names if name.startswith("PJSIP/106"))
        caller = next(name for name in names if name.startswith("PJSIP/trunk"))
        ami.action(
            "Redirect",
            Channel=agent,
            Context="from-internal",
            Exten="800",
            Priority="1",
            ExtraChannel=caller,
            ExtraContext="from-internal",
            ExtraExten="800",
            ExtraPriority="1",
        )
