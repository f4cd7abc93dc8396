"""Which legs an action means, for both PBXs: pure, from the picture of calls as it is now."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from bridge.domain.actions import WATCHING, Action
from bridge.pbx.calls.book import Book
from bridge.pbx.calls.model import Call, Channel, Line
from bridge.pbx.port import ActionOrder, Reason


class NotPossible(Exception):
    """The call is in no state for that; `detail` is a sentence for a person."""

    def __init__(self, detail: str, reason: Reason = Reason.REFUSED) -> None:
        super().__init__(detail)
        self.detail = detail
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Legs:
    """Who is concerned.

    | action | own | customer | others |
    |---|---|---|---|
    | complete, return | who consults | who waits meanwhile | who is asked, connected or ringing |
    | retrieve | None | who is parked | nobody |
    | pickup | None | who calls, where that is known | the phones that ring |
    | redirect | None | who calls | the phones that ring |
    | resume | who held | who waits | everybody else in the call |
    | all others | the company's leg that acts | the other side | everybody whom `own` hears |
    """

    call: Call
    own: Channel | None
    customer: Channel | None
    others: tuple[Channel, ...] = ()
    consultation: Call | None = None
    """For complete and return: the call in which `own` asks."""


def legs_to_end(book: Book, call: Call, agent: str | None) -> list[Channel]:
    """What a hang-up means: every leg, or the one where that agent talks, else rings; empty where there is none.

    With every leg goes who is just asked: nobody is left to talk with.
    """
    if agent is None:
        legs = [book.channels[uid] for uid in call.legs]
        asked = dict.fromkeys(id for leg in legs for id in (leg.guest_of, leg.consults) if id and id != call.id)
        return legs + [book.channels[uid] for id in asked if id in book.calls for uid in book.calls[id].legs]
    guest = [book.channels[call.guest]] if call.guest in book.channels else []
    legs = [leg for leg in [*guest, *book.live_legs(call)] if book.party(leg).agent == agent]
    return sorted(legs, key=lambda leg: (leg.bridge is not None, leg.state, leg.born))[-1:]


def choose(book: Book, order: ActionOrder) -> Legs:
    """The legs that the order means. Raises NotPossible."""
    call = book.calls.get(order.call)
    if call is None:
        raise NotPossible("that call is over", Reason.NOT_FOUND)
    return _CHOICES.get(order.action, _talking)(book, call, order)


def _talking(book: Book, call: Call, order: ActionOrder) -> Legs:
    own = _own(book, call, order, lambda leg: bool(_heard(book, leg)))
    others = _heard(book, own)
    if not others:
        raise NotPossible("nobody is connected in this call")
    if order.action in WATCHING and any(leg.device == order.device for leg in (own, *others)):
        raise NotPossible("you are in this call yourself")
    return Legs(call, own, _other_side(call, others), tuple(others))


def _held(book: Book, call: Call, order: ActionOrder) -> Legs:
    own = _own(book, call, order, lambda leg: leg.held)
    others = _rest(book, call, own)
    if not others:
        raise NotPossible("nobody is connected in this call")
    return Legs(call, own, _other_side(call, others), tuple(others))


def _consulting(book: Book, call: Call, order: ActionOrder) -> Legs:
    own = _own(book, call, order, lambda leg: _consultation(book, leg) is not None)
    consultation = _consultation(book, own)
    if consultation is None:
        raise NotPossible("nobody is being consulted in this call")
    home = book.calls[own.call]
    waiting = [leg for leg in _rest(book, home, own) if leg.state == Line.UP]
    asked = _rest(book, consultation, own)
    return Legs(home, own, _other_side(home, waiting), tuple(asked), consultation)


def _ringing(book: Book, call: Call, order: ActionOrder) -> Legs:
    rings = [leg for leg in _rest(book, call) if leg.ringing and leg.outgoing and leg.state != Line.UP]
    if not rings:
        raise NotPossible("no phone rings for this call")
    if all(leg.device == order.device for leg in rings):
        raise NotPossible("it rings at your own phone; answer it there")
    return Legs(call, None, _caller(book, call), tuple(rings))


def _parked(book: Book, call: Call, order: ActionOrder) -> Legs:
    for leg in book.live_legs(call):
        if leg.parked:
            return Legs(call, None, leg)
    raise NotPossible("this call is not parked")


def _waiting(book: Book, call: Call, order: ActionOrder) -> Legs:
    caller = _caller(book, call)
    if order.agent is not None and all(book.party(leg).agent != order.agent for leg in _rest(book, call)):
        raise NotPossible("this agent is not in the call")
    if caller is None or caller.parked:
        raise NotPossible("nobody waits in this call")
    if _heard(book, caller):
        raise NotPossible("somebody talks with this caller already; transfer the call instead")
    return Legs(call, None, caller, tuple(book.ringing(call)))


_CHOICES: Mapping[Action, Callable[[Book, Call, ActionOrder], Legs]] = MappingProxyType(
    {
        Action.RESUME: _held,
        Action.COMPLETE: _consulting,
        Action.RETURN: _consulting,
        Action.PICKUP: _ringing,
        Action.RETRIEVE: _parked,
        Action.REDIRECT: _waiting,
    }
)


def _own(book: Book, call: Call, order: ActionOrder, fits: Callable[[Channel], bool]) -> Channel:
    """The leg of that agent's that fits best; of nobody in particular, of whoever of the company is in the call."""
    agent, watching = order.agent, order.action in WATCHING
    guest = [book.channels[call.guest]] if call.guest in book.channels else []
    legs = [leg for leg in (*guest, *_rest(book, call)) if not leg.trunk]
    if agent is not None:
        legs = [leg for leg in legs if book.party(leg).agent == agent]
        if not legs:
            raise NotPossible("this agent is not in the call")
    if not legs:
        raise NotPossible("nobody of the company is in this call")

    def fitness(leg: Channel) -> tuple[bool, bool, bool, bool, bool, float]:
        whose = book.party(leg).agent
        asks = whose is not None and whose == order.asker and not watching
        return (fits(leg), asks, leg.state == Line.UP, whose is not None, leg.uid != call.first, leg.born)

    return max(legs, key=fitness)


def _rest(book: Book, call: Call, own: Channel | None = None) -> list[Channel]:
    """The people's legs of a call, but for that one."""
    return [leg for leg in book.live_legs(call) if leg is not own and not leg.internal]


def _heard(book: Book, own: Channel) -> list[Channel]:
    """Whom this one hears."""
    return [leg for leg in book.reach(own) if leg is not own and leg.real and not leg.internal]


def _other_side(call: Call, legs: list[Channel]) -> Channel | None:
    """Who of several is the customer: who is outside, else who called, else who was there first."""
    return min(legs, key=lambda leg: (not leg.trunk, leg.uid != call.first, leg.born), default=None)


def _consultation(book: Book, own: Channel) -> Call | None:
    """The call in which this leg asks somebody, while the other side waits."""
    return book.calls.get(own.guest_of or own.consults)


def _caller(book: Book, call: Call) -> Channel | None:
    """Who waits for somebody: whose leg came in, or the first that was answered."""
    legs = [leg for leg in _rest(book, call) if not leg.outgoing or leg.state == Line.UP]
    return min(legs, key=lambda leg: (leg.outgoing, leg.uid != call.first, leg.born), default=None)
