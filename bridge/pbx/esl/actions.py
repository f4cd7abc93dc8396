"""Call actions on a FreeSWITCH: one order, what is sent for it, and how it is known what became of it.

An outcome is what the PBX said: the reply to that very command, or the events that the tracker heard after it. All of
it runs in the link's hub.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import gevent

from bridge.domain.actions import Action, Side
from bridge.domain.errors import Invalid, RingbridgeError
from bridge.pbx.calls.acting import Legs, NotPossible, choose
from bridge.pbx.calls.model import CONFERENCE, Channel, Line
from bridge.pbx.connecting import LinkDown, NoReply, NotAllowed
from bridge.pbx.esl import act_orders as orders
from bridge.pbx.esl import reports
from bridge.pbx.esl.channels import LISTENER
from bridge.pbx.esl.codec import LocalError
from bridge.pbx.esl.orders import hang_up
from bridge.pbx.esl.session import Session
from bridge.pbx.esl.tracker import Tracker
from bridge.pbx.port import ActionOrder, Outcome, Reason
from bridge.uptime import uptime

_LOOK = 0.03
"""Seconds between two looks at the picture, while an outcome is waited for."""
_LEAVES = 1.0
"""Within this, who was transferred away from hangs up by himself, if the PBX has him do that."""
_UNKNOWN = Outcome(False, Reason.TIMEOUT, "the PBX did not say what became of it; look at the call")


class Act:
    """One action. Made for it, and run once."""

    def __init__(self, order: ActionOrder, session: Session, tracker: Tracker, deadline: float) -> None:
        """`deadline` is in seconds from now."""
        self._order = order
        self._session = session
        self._tracker = tracker
        self._book = tracker.book
        self._end = uptime() + deadline
        self._sent = False

    def run(self) -> Outcome:
        """Do it. Never raises."""
        try:
            self._order.check()
            if uptime() >= self._order.until:
                return Outcome(False, Reason.STALE, "it is too late for this; nothing was done")
            return _DONE_BY[self._order.action](self, choose(self._book, self._order))
        except Invalid as error:
            return Outcome(False, Reason.REFUSED, error.message)
        except LocalError as error:
            return Outcome(False, Reason.REFUSED, error.message)
        except NotPossible as error:
            return Outcome(False, error.reason, error.detail)
        except NotAllowed as error:
            return Outcome(False, Reason.REFUSED, f"the PBX refused: {error.message}")
        except LinkDown as error:
            return _UNKNOWN if self._sent else Outcome(False, Reason.LINK_DOWN, error.message)
        except NoReply as error:
            return Outcome(False, Reason.TIMEOUT, error.message)

    # --- hold ---

    def hold(self, legs: Legs) -> Outcome:
        own = _sure(legs.own)
        if own.held:
            raise NotPossible("the call is on hold already")
        reports.check(self._ask(orders.hold(own.uid)))
        return self._known(lambda: own.held, "on hold")

    def resume(self, legs: Legs) -> Outcome:
        own = _sure(legs.own)
        if not own.held:
            raise NotPossible("the call is not on hold")
        reports.check(self._ask(orders.resume(own.uid)))
        return self._known(lambda: not own.held, "off hold")

    # --- sent elsewhere ---

    def transfer(self, legs: Legs) -> Outcome:
        own, customer = _sure(legs.own), self._one(legs)
        room = customer.bridge
        reports.check(self._ask(orders.transfer(customer.uid, self._to, self._order.context)))
        done = self._known(lambda: customer.bridge != room or self._is_gone(customer), "transferred")
        if done.ok:
            self._leave(own)
        return done

    def redirect(self, legs: Legs) -> Outcome:
        caller = _sure(legs.customer)
        reports.check(self._ask(orders.transfer(caller.uid, self._to, self._order.context)))
        return Outcome(True, Reason.DONE, "sent on")

    def park(self, legs: Legs) -> Outcome:
        own, customer = _sure(legs.own), self._one(legs)
        self._need("mod_valet_parking", "park")
        back = self._book.party(own).extension
        customer.slot = ""
        reports.check(self._ask(orders.park(customer.uid, back, self._order.context)))
        done = self._known(lambda: customer.parked and customer.slot != "", "parked")
        if not done.ok:
            return done
        self._leave(own)
        return Outcome(True, Reason.DONE, "parked", {"slot": customer.slot})

    def _leave(self, own: Channel) -> None:
        """Who let the other side go is not left alone in a call that is over for him."""
        if not self._wait(lambda: self._is_gone(own), _LEAVES) and own.bridge is None:
            self._ask(hang_up(own.uid))

    # --- asking somebody first ---

    def consult(self, legs: Legs) -> Outcome:
        own = _sure(legs.own)
        self._one(legs)
        if own.consults in self._book.calls:
            raise NotPossible("somebody is being consulted already")
        shown = self._book.party(own).extension
        ring = self._order.ring_seconds
        reports.check(self._ask(orders.consult(own.uid, self._to, self._order.context, shown, ring)))
        if not self._wait(lambda: own.consults != "" or self._is_gone(own)):
            return _UNKNOWN
        asked = own.consults

        def rings() -> bool:
            call = self._book.calls.get(asked)
            return call is None or any(leg.offered or leg.state == Line.UP for leg in self._book.live_legs(call))

        if not self._wait(rings):
            return _UNKNOWN
        if asked not in self._book.calls:
            return Outcome(False, Reason.FAILED, "it could not be reached")
        return Outcome(True, Reason.DONE, "it rings")

    def complete(self, legs: Legs) -> Outcome:
        own, customer = _sure(legs.own), _sure(legs.customer)
        asked = _sure_call(legs)
        if any(leg.state == Line.UP for leg in legs.others):
            reports.check(self._ask(hang_up(own.uid)))
        else:
            # The PBX would let the customer go with who asks.
            reports.check(self._ask(orders.note_asking(customer.uid, own.uid)))
            reports.check(self._ask(orders.let_ring(own.uid)))
            reports.check(self._ask(orders.wait(customer.uid)))
            # Until this one is gone, the customer's leg does not go on to where it was sent.
            self._drop([own])
        return self._known(lambda: asked not in self._book.calls and self._is_gone(own), "transferred")

    def back(self, legs: Legs) -> Outcome:
        own, customer, asked = _sure(legs.own), _sure(legs.customer), _sure_call(legs)
        self._drop(self._book.channels[uid] for uid in self._book.calls[asked].legs)
        return self._known(
            lambda: asked not in self._book.calls and own in self._book.reach(customer), "back to the customer"
        )

    # --- more people ---

    def conference(self, legs: Legs) -> Outcome:
        own, customer = _sure(legs.own), self._one(legs)
        bridge = self._book.bridges.get(own.bridge or "")
        if bridge is not None and bridge.type == CONFERENCE:
            raise NotPossible("this is a conference already")
        self._need("mod_conference", "hold a conference")
        self._need("mod_loopback", "dial for somebody else")
        order = self._order
        shown = self._book.party(own).extension
        answer = self._ring(
            orders.ask_in(self._to, order.context, order.command, customer.uid, shown, self._ring_seconds())
        )
        if not answer.startswith("+OK"):
            return reports.not_reached(answer)
        # Not before the room is there: who were sent into none would be lost.
        if not self._wait(lambda: any(leg.bridge for leg in self._made())):
            self._drop(self._made())
            return Outcome(False, Reason.FAILED, "the PBX made no conference; see its profile `default`")
        if self._is_gone(own) or own.bridge is None:
            self._drop(self._made())
            return Outcome(False, Reason.FAILED, "the call was over when it was answered")
        reports.check(self._ask(orders.meet(own.uid, order.command)))
        return self._known(
            lambda: any(customer in heard and own in heard for heard in map(self._book.reach, self._made())),
            "in conference",
        )

    def fetch(self, legs: Legs) -> Outcome:
        customer = legs.customer
        if customer is None:
            raise NotPossible("who calls is not known; it can be answered only where it rings")
        order = self._order
        rings = order.action == Action.PICKUP
        shown, ring = self._shown(customer), self._ring_seconds()
        answer = self._ring(
            orders.fetch(order.device or "", customer.uid, order.command, shown, ring, rings=rings)
        )
        if not answer.startswith("+OK"):
            return reports.not_reached(answer)
        if not self._wait(lambda: self._has(customer) or not self._made()):
            return _UNKNOWN
        if self._has(customer):
            return Outcome(True, Reason.DONE, "connected")
        return Outcome(False, Reason.FAILED, "somebody else was quicker, or the caller is gone")

    def _has(self, customer: Channel) -> bool:
        return any(customer in self._book.reach(leg) for leg in self._made())

    def watch(self, legs: Legs) -> Outcome:
        own, order = _sure(legs.own), self._order
        here = self._listener(legs)
        if here is not None:
            reports.check(self._ask(orders.change_mode(here.uid, order.action)))
            reports.check(self._ask(orders.watch_again(here.uid, own.uid)))
        else:
            shown = self._book.party(own).extension
            answer = self._ring(
                orders.watch(order.device or "", own.uid, order.command, order.action, shown, self._ring_seconds())
            )
            if not answer.startswith("+OK"):
                return reports.not_reached(answer)
        while uptime() < self._end:
            if any(bug.function == "eavesdrop" for bug in self._bugs(own)):
                return Outcome(True, Reason.DONE, "connected")
            gevent.sleep(_LOOK)
        return _UNKNOWN

    def _listener(self, legs: Legs) -> Channel | None:
        """This supervisor's leg, where he listens to somebody of this call already."""
        heard = {leg.uid for leg in (legs.own, legs.customer, *legs.others) if leg is not None}
        for leg in self._book.channels.values():
            if leg.role == LISTENER and leg.device == self._order.device and leg.dialler in heard:
                return leg if leg.state == Line.UP else None
        return None

    # --- sounds ---

    def play(self, legs: Legs) -> Outcome:
        sides = {Side.BOTH: (legs.own, legs.customer), Side.AGENT: (legs.own,), Side.CUSTOMER: (legs.customer,)}
        for leg in sides[self._order.side or Side.BOTH]:
            answer = self._ask(orders.play(_sure(leg).uid, self._order.sound or ""))
            reports.check(answer, otherwise="the PBX has no such sound, or it is being played already")
        return Outcome(True, Reason.DONE, "it plays")

    def stop(self, legs: Legs) -> Outcome:
        stopped = False
        for leg in filter(None, (legs.own, legs.customer)):
            for bug in self._bugs(leg):
                if bug.function == "displace":
                    reports.check(self._ask(orders.stop(leg.uid, bug.target)))
                    stopped = True
        if not stopped:
            raise NotPossible("nothing is being played")
        return Outcome(True, Reason.DONE, "stopped")

    def dial_tones(self, legs: Legs) -> Outcome:
        reports.check(self._ask(orders.dial_tones(self._one(legs).uid, self._order.digits or "")))
        return Outcome(True, Reason.DONE, "sent")

    # --- recording ---

    def record(self, legs: Legs) -> Outcome:
        if self._recordings(legs):
            # Paused or not: from here on it holds what is said.
            return self.change_recording(legs)
        file = f"{legs.call.id}-{self._order.command[:8]}.wav"
        customer = self._one(legs)
        # Who hears music is busy with it until then.
        leg = legs.own if legs.own is not None and legs.own.held else customer
        reports.check(self._ask(orders.record(leg.uid, file)))
        while uptime() < self._end:
            if any(bug.target.endswith(f"/{file}") for bug in self._bugs(leg)):
                return Outcome(True, Reason.DONE, "recording", {"file": f"{orders.FOLDER}/{file}"})
            gevent.sleep(_LOOK)
        return _UNKNOWN

    def change_recording(self, legs: Legs) -> Outcome:
        verb, words = {
            Action.RECORD: ("unmask", "recording"),
            Action.PAUSE: ("mask", "paused"),
            Action.UNPAUSE: ("unmask", "recording"),
            Action.UNRECORD: ("stop", "the recording has ended"),
        }[self._order.action]
        found = self._recordings(legs)
        if not found:
            raise NotPossible("the call is not being recorded")
        for leg, file in found:
            reports.check(self._ask(orders.change_recording(leg.uid, verb, file)))
        return Outcome(True, Reason.DONE, words, {"file": f"{orders.FOLDER}/{found[0][1]}"})

    def _recordings(self, legs: Legs) -> list[tuple[Channel, str]]:
        """Recordings of ours that run on a leg of the call, asked of the PBX: another process may have begun them."""
        found = []
        for leg in dict.fromkeys(leg.uid for leg in (legs.customer, legs.own, *legs.others) if leg is not None):
            for bug in self._bugs(self._book.channels[leg]):
                folder, _, file = bug.target.rpartition("/")
                if bug.function == "session_record" and folder.rpartition("/")[2] == orders.FOLDER:
                    found.append((self._book.channels[leg], file))
        return found

    def _bugs(self, leg: Channel) -> list[reports.Bug]:
        return reports.bugs(self._ask(orders.media(leg.uid), asks=True))

    # --- sending, and seeing what comes of it ---

    @property
    def _to(self) -> str:
        return self._order.to or ""

    def _one(self, legs: Legs) -> Channel:
        """The other side, where it is one."""
        if len(legs.others) > 1:
            people = "this is a conference; that takes two people"
            if self._order.action not in (Action.DTMF, Action.RECORD):
                raise NotPossible(people)
        return _sure(legs.customer)

    def _need(self, module: str, use: str) -> None:
        answer = self._ask(orders.module(module), asks=True).strip()
        if answer != "true":
            raise NotPossible(f"the PBX cannot {use}: {module} is not loaded")

    def _ring_seconds(self) -> int:
        """As long as it may ring, and no longer than its outcome is waited for."""
        return max(1, min(self._order.ring_seconds, int(self._end - uptime())))

    def _shown(self, leg: Channel) -> str | None:
        party = self._book.party(leg)
        return None if party.withheld else party.number or party.extension

    def _ask(self, command: str, *, asks: bool = False) -> str:
        """Run a command and give its answer; one that only `asks` changes nothing."""
        answer = self._session.run(command, max(self._end - uptime(), 0.1))
        self._sent = self._sent or not asks
        return answer

    def _ring(self, command: str) -> str:
        """Ring somebody until he answers or does not; for nobody, once the call is over."""
        job = gevent.spawn(_reported, self._session, command, max(self._end - uptime(), 0.1) + 1.0)
        self._sent = True
        dropped = False
        while not job.ready():
            if not dropped and self._order.call not in self._book.calls and self._made():
                dropped = True
                self._drop(self._made())
            gevent.sleep(_LOOK)
        if isinstance(job.value, RingbridgeError):
            raise job.value
        return str(job.value)

    def _made(self) -> list[Channel]:
        """The legs that the PBX has made for this command."""
        return [leg for leg in self._book.channels.values() if leg.command == self._order.command]

    def _drop(self, legs: Iterable[Channel]) -> None:
        for leg in list(legs):
            self._ask(hang_up(leg.uid))

    def _is_gone(self, leg: Channel) -> bool:
        return leg.uid not in self._book.channels

    def _known(self, seen: Callable[[], bool], words: str) -> Outcome:
        """What the events say of it."""
        return Outcome(True, Reason.DONE, words) if self._wait(seen) else _UNKNOWN

    def _wait(self, seen: Callable[[], bool], seconds: float = 1e9) -> bool:
        end = min(self._end, uptime() + seconds)
        while not seen():
            if uptime() >= end:
                return False
            gevent.sleep(_LOOK)
        return True


def _sure(leg: Channel | None) -> Channel:
    if leg is None:
        raise NotPossible("nobody is connected in this call")
    return leg


def _sure_call(legs: Legs) -> str:
    if legs.consultation is None:
        raise NotPossible("nobody is being consulted in this call")
    return legs.consultation.id


def _reported(session: Session, command: str, deadline: float) -> str | RingbridgeError:
    try:
        return session.run(command, deadline)
    except RingbridgeError as error:
        return error


_DONE_BY: dict[Action, Callable[[Act, Legs], Outcome]] = {
    Action.HOLD: Act.hold,
    Action.RESUME: Act.resume,
    Action.TRANSFER: Act.transfer,
    Action.CONSULT: Act.consult,
    Action.COMPLETE: Act.complete,
    Action.RETURN: Act.back,
    Action.CONFERENCE: Act.conference,
    Action.PARK: Act.park,
    Action.RETRIEVE: Act.fetch,
    Action.PICKUP: Act.fetch,
    Action.REDIRECT: Act.redirect,
    Action.PLAY: Act.play,
    Action.STOP: Act.stop,
    Action.DTMF: Act.dial_tones,
    Action.RECORD: Act.record,
    Action.PAUSE: Act.change_recording,
    Action.UNPAUSE: Act.change_recording,
    Action.UNRECORD: Act.change_recording,
    Action.LISTEN: Act.watch,
    Action.WHISPER: Act.watch,
    Action.BARGE: Act.watch,
}
