"""Two things at once: hang-ups in the very millisecond of each other, of the answer, of the bridge, of a transfer.

How such a call ends is decided inside the PBX: each way that the rulings allow is accepted.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from scenarios import scenario
from scenarios.diary import Line
from scenarios.expected import Call, Expected, Spec, ended, event, maybe, offered, started, together
from scenarios.moving import moved_resume, outsider, softphone
from scenarios.softphone import Leg
from scenarios.stage import Stage

DID = "+12125550106"
OPEN = "whether it still came to that was decided by a race inside the PBX"
EITHER: Any = {"one_of": ["completed", "cancelled", "no_answer", "failed"]}


def at_once(*acts: Callable[[], object]) -> None:
    """Do these in the same moment, each from a thread of its own."""
    gate = threading.Barrier(len(acts))

    def act(do: Callable[[], object]) -> None:
        gate.wait(10)
        do()

    threads = [threading.Thread(target=act, args=(do,)) for do in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)


def _over(leg: Leg) -> Line:
    """The last line of a call, once it is over."""
    for _ in range(3000):
        if leg.state == "over":
            return next(line for line in reversed(leg.lines) if not line.what.startswith("hears"))
        threading.Event().wait(0.01)
    raise AssertionError(f"{leg.phone.who} is still in its call: {[line.text for line in leg.lines]}")


def _joined(who: list[Any], line: Line, *, sure: bool) -> Spec:
    spec = event("connected", line, {"parties": who}, late_ms=500)
    return spec if sure else maybe(spec, OPEN)


def _gave_up(line: Line) -> Spec:
    """106 was not accepted, or cancelled as it answered."""
    reasons = ["cancelled", "rejected", "no_answer"]
    return maybe(event("unoffered", line, {"party": "106", "reason": {"one_of": reasons}}, late_ms=500), OPEN)


def _end(dials: Line, line: Line, cause: Any, by: Any, *, talked: Any = None) -> Spec:
    spec = ended(line, dials, "caller", DID, "completed", q850=None, within=500, late_ms=1000)
    spec["data"] |= {"cause": cause, "ended_by": by, "answered_by": {"one_of": ["person", "pbx", None]}}
    for key in ("wait_ms", "talk_ms"):
        del spec["data"][key]
    if talked is not None:
        spec["data"]["talk_ms"] = talked
    return spec


def _calls(
    stage: Stage, after: float | None = 0.3, then: dict[str, Callable[[Leg], object]] | None = None
) -> tuple[Leg, Leg]:
    """A caller whom this test plays calls 106; both legs, while it rings."""
    phone, caller = softphone(stage, "106", after=after), outsider(stage)
    out = caller.call(DID, then=then)
    leg = phone.rings()
    leg.sees("rings")
    return out, leg


def _customer(out: Leg, leg: Leg, *more: Spec) -> Expected:
    begun = [started(out.lines[0], "caller", DID), offered(leg.sees("rings"))]
    return Expected([Call("customer", [*begun, *more])])


@scenario("race_both_hang_up", "106 and the caller hang up in the same millisecond.", family="races")
def race_both_hang_up(stage: Stage) -> Expected:
    out, leg = _calls(stage)
    answered = leg.sees("answers")
    out.sees("is answered")
    stage.talk(0.5)
    at_once(out.hang_up, leg.hang_up)
    last = _over(out)
    return _customer(
        out,
        leg,
        _joined(["caller", "106"], answered, sure=True),
        _end(out.lines[0], last, "completed", {"one_of": ["caller", "106"]}),
    )


@scenario(
    "race_hang_up_at_answer",
    "The caller hangs up in the millisecond in which the answer arrives.",
    family="races",
)
def race_hang_up_at_answer(stage: Stage) -> Expected:
    out, leg = _calls(stage, then={"is answered": Leg.hang_up})
    answered = leg.sees("answers")
    last = _over(out)
    _over(leg)
    return _customer(
        out,
        leg,
        _gave_up(last),
        _joined(["caller", "106"], answered, sure=False),
        _end(out.lines[0], last, EITHER, {"one_of": ["caller", None]}),
    )


@scenario(
    "race_cancel_and_answer", "The caller gives up in the millisecond in which 106 answers.", family="races"
)
def race_cancel_and_answer(stage: Stage) -> Expected:
    out, leg = _calls(stage, after=None)
    out.sees("hears")
    stage.talk(0.3)
    at_once(out.hang_up, lambda: leg.state == "ringing" and leg.answer())
    last = _over(out)
    _over(leg)
    return _customer(
        out,
        leg,
        _gave_up(last),
        _joined(["caller", "106"], last, sure=False),
        _end(out.lines[0], last, EITHER, {"one_of": ["caller", None]}),
    )


@scenario(
    "race_callee_leaves_at_bridge",
    "106 hangs up in the millisecond in which its answer is acknowledged.",
    family="races",
)
def race_callee_leaves_at_bridge(stage: Stage) -> Expected:
    phone, caller = softphone(stage, "106", after=None), outsider(stage)
    # Asterisk may have forgotten the call before it is asked whether the number may be shown; then it is not.
    number = stage.people["caller"]["number"]
    stage.people["caller"]["number"] = {"one_of": [number, None]}
    out = caller.call(DID)
    leg = phone.rings()
    leg.then["is acknowledged"] = Leg.hang_up
    out.sees("hears")
    answered = leg.answer()
    last = _over(leg)
    _over(out)
    return _customer(
        out,
        leg,
        _gave_up(last),
        _joined(["caller", "106"], answered, sure=False),
        _end(out.lines[0], last, EITHER, {"one_of": ["106", None]}),
    )


@scenario(
    "race_hang_up_at_blind",
    "106 sends the caller to 107 by REFER; the caller hangs up in that millisecond.",
    family="races",
)
def race_hang_up_at_blind(stage: Stage) -> Expected:
    target = softphone(stage, "107", after=None)
    out, leg = _calls(stage)
    answered = leg.sees("answers")
    out.sees("is answered")
    stage.talk(0.5)
    at_once(lambda: leg.refer("107"), out.hang_up)
    last = _over(out)
    stage.talk(0.5)
    leg.hang_up()
    for ringing in list(target.legs):
        _over(ringing)
    blind: Spec = {"kind": "blind", "by": "106", "from": "106", "to": {"dialled": "107"}}
    late = maybe(event("offered", last, {"party": "107"}, late_ms=500), OPEN)
    back = maybe(event("unoffered", last, {"party": "107", "reason": "cancelled"}, late_ms=1000), OPEN)
    return _customer(
        out,
        leg,
        _joined(["caller", "106"], answered, sure=True),
        maybe(event("transferred", last, blind, late_ms=500), OPEN),
        late,
        back,
        _end(out.lines[0], last, "completed", {"one_of": ["caller", "106", None]}),
    )


@scenario(
    "race_hang_up_at_attended",
    "106 consults 107 and sends REFER with Replaces; 107 hangs up in that millisecond.",
    family="races",
)
def race_hang_up_at_attended(stage: Stage) -> Expected:
    target = softphone(stage, "107")
    out, leg = _calls(stage)
    answered = leg.sees("answers")
    out.sees("is answered")
    # A phone that holds in the very moment of its answer is another race: FreeSWITCH may not join the two at all then.
    stage.talk(0.3)
    hold = leg.hold()
    second = leg.phone.call("107", aside=" (to 107)")
    rings = target.rings()
    got = rings.sees("answers")
    second.sees("is answered")
    stage.talk(0.5)
    at_once(lambda: leg.refer_replacing(second), rings.hang_up)
    gone = _over(rings)
    _over(second)
    stage.talk(0.8)
    leg.hang_up()
    out.hang_up()
    # Whatever 107 saw after its first call.
    later = stage.diary.lines("107")
    again = [line for line in later if line.what == "rings"][1:]
    stops = [line for line in later if line.what == "stops ringing"]
    customer = [
        started(out.lines[0], "caller", DID),
        offered(leg.sees("rings")),
        _joined(["caller", "106"], answered, sure=True),
        event("held", hold, {"by": "106"}),
        together(
            [moved_resume("106", gone)],
            # FreeSWITCH finds no call to replace, and sends the caller to 107 blindly, or calls itself to get there.
            [maybe(event("transferred", gone, {"by": "106", "from": "106"}, late_ms=1000), OPEN)],
            [
                maybe(event("offered", gone, {"party": "107"}, again, late_ms=1000), OPEN),
                maybe(event("unoffered", gone, {"party": "107"}, stops, late_ms=3000), OPEN),
            ],
            # It rings again before it answers.
            [{**_joined(["caller", "107"], gone, sure=False), "late_ms": 1500}],
        ),
        _end(out.lines[0], gone, "completed", {"one_of": ["caller", "106", "107", None]}),
    ]
    customer[-1]["late_ms"] = 3000
    own = [
        started(second.lines[0], "106", "107", "internal"),
        offered(rings.sees("rings")),
        _joined(["106", "107"], got, sure=True),
        maybe(event("merged", gone, {"into": {"call": ["customer"]}}, late_ms=1000), OPEN),
        maybe(event("ended", gone, {"cause": "completed"}, late_ms=1000), OPEN),
    ]
    return Expected([Call("customer", customer), Call("consultation", own)])
