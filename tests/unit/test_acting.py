"""Which legs an action means, in every state a call can be in; and which values may go with it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bridge.domain.actions import NEEDS, TO_OWN_PHONE, Action, Side, check, outcome_seconds
from bridge.domain.calls import Directory
from bridge.domain.errors import Invalid
from bridge.pbx.calls.acting import Legs, NotPossible, choose, legs_to_end
from bridge.pbx.calls.book import Book
from bridge.pbx.calls.joining import consult, seat
from bridge.pbx.calls.model import Channel, Line
from bridge.pbx.calls.parties import Parties
from bridge.pbx.port import ActionOrder, Reason

AGENTS = {"PJSIP/101": "ann", "PJSIP/102": "bob", "PJSIP/150": "sue"}
ORDER = ActionOrder(
    action=Action.HOLD,
    call="lab-caller",
    command="5b7c6c1e-3f0d-4bb0-8a63-6a6a2e0d9a52",
    context="from-internal",
    ring_seconds=15,
    until=1e9,
)
VALUES = {"to": "102", "digits": "1", "sound": "hi", "side": Side.BOTH, "device": "PJSIP/150"}


class Picture:
    """A call as the tracker would hold it: a caller from outside, and whoever comes to it."""

    def __init__(self, trunk: bool = True) -> None:
        self.book = Book("lab", Parties(("PJSIP/trunk",), Directory(agents=AGENTS)))
        self.born = 100.0
        self.leg("caller", "PJSIP/trunk" if trunk else "PJSIP/160", trunk=trunk, state=Line.UP)

    def leg(self, uid: str, device: str, *, link: str = "caller", **more: object) -> Channel:
        self.born += 1
        facts = {"real": True, "outgoing": link != uid, **more}
        channel = Channel(uid, f"{device}-{uid}", self.born, link, device, **facts)
        self.book.add_channel(channel)
        return channel

    def ring(self, uid: str, device: str) -> Channel:
        return self.leg(uid, device, ringing=True, state=Line.RINGING)

    def meet(self, *uids: str, bridge: str = "b1", kind: str = "basic") -> None:
        for uid in uids:
            channel = self.book.channels[uid]
            channel.state, channel.ringing = Line.UP, False
            self.book.enter(channel, bridge, kind)

    def choose(self, action: Action, **more: object) -> Legs:
        device = "PJSIP/150" if action in TO_OWN_PHONE else None
        return choose(self.book, replace(ORDER, **{"action": action, "device": device, **more}))

    def refuses(self, action: Action, why: str, **more: object) -> None:
        with pytest.raises(NotPossible, match=why) as refused:
            self.choose(action, **more)
        assert refused.value.detail == str(refused.value)


@pytest.fixture
def talk() -> Picture:
    """Somebody from outside talks with 101."""
    picture = Picture()
    picture.leg("ann", "PJSIP/101")
    picture.meet("caller", "ann")
    return picture


def ids(legs: Legs) -> tuple[str | None, str | None, list[str]]:
    return (
        legs.own.uid if legs.own else None,
        legs.customer.uid if legs.customer else None,
        [leg.uid for leg in legs.others],
    )


CONNECTED = [
    Action.HOLD, Action.TRANSFER, Action.CONSULT, Action.CONFERENCE, Action.PARK, Action.PLAY, Action.STOP, Action.DTMF,
    Action.RECORD, Action.PAUSE, Action.UNPAUSE, Action.UNRECORD, Action.LISTEN, Action.WHISPER, Action.BARGE,
]  # fmt: skip


@pytest.mark.parametrize("action", CONNECTED)
def test_in_a_talk_it_is_the_agents_leg_and_the_other_side(talk: Picture, action: Action) -> None:
    for agent in ("ann", None):
        assert ids(talk.choose(action, agent=agent)) == ("ann", "caller", ["caller"])
    talk.refuses(action, "not in the call", agent="bob")
    talk.book.leave(talk.book.channels["ann"])
    talk.refuses(action, "nobody is connected", agent="ann")


def test_a_call_that_is_over_is_not_found(talk: Picture) -> None:
    for action in Action:
        with pytest.raises(NotPossible) as refused:
            talk.choose(action, call="lab-gone")
        assert refused.value.reason is Reason.NOT_FOUND
    with pytest.raises(NotPossible) as refused:
        talk.choose(Action.RETRIEVE)
    assert refused.value.reason is Reason.REFUSED


def test_what_is_played_in_an_empty_call_is_for_nobody() -> None:
    picture = Picture()
    picture.refuses(Action.HOLD, "nobody of the company")
    picture.ring("ann", "PJSIP/101")
    picture.refuses(Action.HOLD, "nobody is connected")


def test_the_phone_in_the_talk_is_meant_not_the_one_that_rings(talk: Picture) -> None:
    talk.ring("second", "PJSIP/101")
    assert ids(talk.choose(Action.HOLD, agent="ann"))[0] == "ann"


def test_on_a_wire_the_people_at_its_ends_are_meant() -> None:
    picture = Picture()
    picture.leg("one", "Local/101", real=False, wire="w", half="1")
    picture.leg("two", "Local/101", link="one", real=False, wire="w", half="2")
    picture.leg("ann", "PJSIP/101", link="two")
    picture.meet("caller", "one")
    picture.meet("two", "ann", bridge="b2")
    assert ids(picture.choose(Action.TRANSFER, agent="ann")) == ("ann", "caller", ["caller"])


def test_who_listens_is_no_part_of_the_talk(talk: Picture) -> None:
    spy = talk.leg("spy", "Local/spy", internal=True, real=False)
    talk.meet(spy.uid)
    ghost = talk.leg("ghost", "PJSIP/150", internal=True)
    talk.meet(ghost.uid)
    assert ids(talk.choose(Action.LISTEN)) == ("ann", "caller", ["caller"])
    talk.refuses(Action.LISTEN, "in this call yourself", device="PJSIP/101")


def test_a_supervisor_who_is_in_the_call_acts_for_themselves_and_watches_another() -> None:
    picture = Picture()
    picture.leg("sue", "PJSIP/150")
    picture.leg("ann", "PJSIP/101")
    picture.meet("caller", "sue", "ann")
    assert ids(picture.choose(Action.HOLD, asker="sue"))[0] == "sue"
    assert ids(picture.choose(Action.HOLD, asker="max"))[0] == "ann"
    picture.refuses(Action.LISTEN, "in this call yourself", asker="sue", device="PJSIP/150")


def test_in_an_internal_call_who_was_called_is_the_agent() -> None:
    picture = Picture(trunk=False)
    picture.leg("bob", "PJSIP/102")
    picture.meet("caller", "bob")
    assert ids(picture.choose(Action.PARK)) == ("bob", "caller", ["caller"])


def test_who_held_takes_off_hold(talk: Picture) -> None:
    talk.leg("bob", "PJSIP/102")
    talk.meet("bob")
    talk.book.channels["ann"].held = True
    assert ids(talk.choose(Action.RESUME)) == ("ann", "caller", ["caller", "bob"])
    assert ids(talk.choose(Action.RESUME, agent="bob"))[0] == "bob"
    # A PBX may take who is on hold out of the bridge.
    talk.book.leave(talk.book.channels["caller"])
    assert ids(talk.choose(Action.RESUME, agent="ann"))[1] == "caller"
    for uid in ("caller", "bob"):
        talk.book.drop_channel(talk.book.channels[uid])
    talk.refuses(Action.RESUME, "nobody is connected")


@pytest.mark.parametrize("action", [Action.COMPLETE, Action.RETURN])
def test_a_consultation_by_its_guest(talk: Picture, action: Action) -> None:
    talk.refuses(action, "nobody is being consulted")
    asked = talk.ring("bob", "PJSIP/102")
    call = consult(talk.book, asked, [asked])
    seat(talk.book, talk.book.channels["ann"], call, 200.0)
    talk.meet("ann", bridge="b2")
    for asked_of in (ORDER.call, call.id):
        legs = talk.choose(action, call=asked_of, agent="ann")
        assert ids(legs) == ("ann", "caller", ["bob"])
        assert (legs.call.id, legs.consultation) == (ORDER.call, call)
    talk.refuses(action, "not in the call", agent="sue")


@pytest.mark.parametrize("action", [Action.COMPLETE, Action.RETURN])
def test_a_consultation_that_the_leg_itself_dialled(talk: Picture, action: Action) -> None:
    asked = talk.ring("bob", "PJSIP/102")
    call = consult(talk.book, asked, [asked])
    talk.book.channels["ann"].consults = call.id
    assert ids(talk.choose(action)) == ("ann", "caller", ["bob"])
    talk.book.forget(call)
    talk.refuses(action, "nobody is being consulted")


def test_with_the_whole_call_ends_who_is_asked(talk: Picture) -> None:
    def ends(call_id: str, agent: str | None = None) -> list[str]:
        return [leg.uid for leg in legs_to_end(talk.book, talk.book.calls[call_id], agent)]

    asked = talk.ring("bob", "PJSIP/102")
    call = consult(talk.book, asked, [asked])
    assert ends(ORDER.call) == ["caller", "ann"]
    seat(talk.book, talk.book.channels["ann"], call, 200.0)
    assert ends(ORDER.call) == ["caller", "ann", "bob"]
    assert (ends(ORDER.call, "ann"), ends(call.id)) == (["ann"], ["bob"])


def test_what_rings_can_be_picked_up_elsewhere() -> None:
    picture = Picture()
    picture.book.channels["caller"].outgoing = False
    picture.refuses(Action.PICKUP, "no phone rings")
    picture.ring("ann", "PJSIP/101")
    assert ids(picture.choose(Action.PICKUP)) == (None, "caller", ["ann"])
    picture.refuses(Action.PICKUP, "your own phone", device="PJSIP/101")
    picture.ring("bob", "PJSIP/102")
    assert ids(picture.choose(Action.PICKUP, device="PJSIP/101")) == (None, "caller", ["ann", "bob"])
    picture.meet("caller", "ann")
    picture.book.drop_channel(picture.book.channels["bob"])
    picture.refuses(Action.PICKUP, "no phone rings")


def test_who_is_parked_can_be_fetched(talk: Picture) -> None:
    talk.refuses(Action.RETRIEVE, "not parked")
    caller = talk.book.channels["caller"]
    talk.book.enter(caller, "p", "parking")
    caller.parked = True
    assert ids(talk.choose(Action.RETRIEVE)) == (None, "caller", [])


def test_who_has_nobody_yet_can_be_sent_elsewhere() -> None:
    picture = Picture()
    caller = picture.book.channels["caller"]
    caller.outgoing = False
    assert ids(picture.choose(Action.REDIRECT)) == (None, "caller", [])
    picture.refuses(Action.REDIRECT, "not in the call", agent="ann")
    picture.ring("ann", "PJSIP/101")
    assert ids(picture.choose(Action.REDIRECT, agent="ann")) == (None, "caller", ["ann"])
    caller.parked = True
    picture.refuses(Action.REDIRECT, "nobody waits")
    caller.parked = False
    picture.meet("caller", "ann")
    picture.refuses(Action.REDIRECT, "transfer the call instead")
    for uid in ("caller", "ann"):
        picture.book.leave(picture.book.channels[uid])
    picture.ring("bob", "PJSIP/102")
    picture.book.drop_channel(caller)
    picture.book.drop_channel(picture.book.channels["ann"])
    picture.refuses(Action.REDIRECT, "nobody waits")


# --- values ---


@pytest.mark.parametrize("action", list(Action))
def test_an_action_takes_what_it_needs_and_nothing_else(action: Action) -> None:
    needs = {name: value for name, value in VALUES.items() if name in NEEDS.get(action, ())}
    check(action, needs)
    check(action, {**dict.fromkeys(VALUES), **needs})
    for name in VALUES:
        wrong = {**needs, name: VALUES[name]} if name not in needs else {**needs, name: None}
        with pytest.raises(Invalid) as refused:
            check(action, wrong)
        assert refused.value.field == name


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("to", ["1", "1" * 17, "10#", "10a", "102\n", "+", "++12", "12+", "\u0661\u0662", "1,2", "a", "", 102]),
        ("digits", ["", "1" * 33, "E", "1w", "1\n", "1,2", 1]),
        ("sound", ["", ".", "..", "a/..", "../a", "/a", "a/", "a//b", "a.b", "a b", "a&b", "a\n", "a" * 101, "\xe4"]),
        ("side", ["all", "", "Both", "both\n"]),
        ("device", ["101", "Local/101@x", "PJSIP/", "PJSIP/a/b", "PJSIP/101\n", "user/1,2", "sofia/a/b", "PJSIP/a&b"]),
    ],
)
def test_no_other_form_reaches_a_pbx(name: str, values: list[object]) -> None:
    action = next(action for action in Action if name in NEEDS.get(action, ()))
    good = {key: value for key, value in VALUES.items() if key in NEEDS[action]}
    for value in values:
        with pytest.raises(Invalid) as refused:
            check(action, {**good, name: value})
        assert refused.value.field == name, value


def test_an_order_checks_itself() -> None:
    order = replace(ORDER, action=Action.PLAY, sound="hi", side=Side.AGENT)
    order.check()
    with pytest.raises(Invalid):
        replace(order, sound="../x").check()


def test_what_rings_first_may_take_as_long_as_it_rings() -> None:
    assert outcome_seconds(Action.HOLD, 15) < 15 < outcome_seconds(Action.LISTEN, 15)
