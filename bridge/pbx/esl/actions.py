"""Call actions on a FreeSWITCH: one order, what is sent for it, and how it is known what became of it.

An outcome is what the PBX said: the reply to that very command, or the events that the tracker heard after it. All of
it runs in the link's hub.
"""

from __future__ import annotations

from collections.abc import Callable

import gevent

from bridge.domain.actions import Action, Side
from bridge.domain.errors import Invalid
from bridge.pbx.calls.acting import Legs, NotPossible, choose
from bridge.pbx.calls.model import CONFERENCE, Channel, Line
from bridge.pbx.connecting import LinkDown, NoReply, NotAllowed
from bridge.pbx.esl import act_orders as orders
from bridge.pbx.esl import reports
from bridge.pbx.esl.asking import LOOK, UNKNOWN, Asking, sure, sure_call
from bridge.pbx.esl.codec import LocalError
from bridge.pbx.esl.orders import hang_up
from bridge.pbx.port import Outcome, Reason
from bridge.uptime import uptime

_BETWEEN_KEYS = 0.3
"""FreeSWITCH itself leaves 20 ms between two keys, which is too short for many: an Asterisk doubles or drops them."""
_MUSIC_BEGINS = 0.5
"""Music begins a sixth of a second after the hold; who is taken back before that would hear it for ever."""
_TAKEN_BACK = 0.4
"""Within this a phone answers that it is held no more; no event says so."""
_LEAVES = 1.0
"""Within this, who was transferred away from hangs up by himself, if the PBX has him do that."""


class Act(Asking):
    """One action. Made for it, and run once."""

    def run(self) -> Outcome:
        """Do it. Never raises."""
        try:
            self.order.check()
            if uptime() >= self.order.until:
                return Outcome(False, Reason.STALE, "it is too late for this; nothing was done")
            return _DONE_BY[self.order.action](self, choose(self.book, self.order))
        except Invalid as error:
            return Outcome(False, Reason.REFUSED, error.message)
        except LocalError as error:
            return Outcome(False, Reason.REFUSED, error.message)
        except NotPossible as error:
            return Outcome(False, error.reason, error.detail)
        except NotAllowed as error:
            return Outcome(False, Reason.REFUSED, f"the PBX refused: {error.message}")
        except LinkDown as error:
            return UNKNOWN if self.sent else Outcome(False, Reason.LINK_DOWN, error.message)
        except NoReply as error:
            return Outcome(False, Reason.TIMEOUT, error.message)

    # --- hold ---

    def hold(self, legs: Legs) -> Outcome:
        own = sure(legs.own)
        if own.held:
            return Outcome(True, Reason.DONE, "on hold already")
        self.settle(legs)
        reports.check(self.ask(orders.hold(own.uid)))
        done = self.known(lambda: own.held, "on hold")
        gevent.sleep(_MUSIC_BEGINS)
        return done

    def resume(self, legs: Legs) -> Outcome:
        own = sure(legs.own)
        if not own.held:
            raise NotPossible("the call is not on hold")
        reports.check(self.ask(orders.resume(own.uid)))
        return self.known(lambda: not own.held, "off hold")

    def _release(self, own: Channel) -> None:
        """Whoever is held hears again before he goes elsewhere.

        While we hold a phone that was called, FreeSWITCH sends its other side nothing at all, and begins again only as
        that phone answers that it is taken back. It would never hear anybody else.
        """
        if own.held:
            reports.check(self.ask(orders.resume(own.uid)))
            self.wait(lambda: not own.held)
            gevent.sleep(_TAKEN_BACK)

    # --- sent elsewhere ---

    def transfer(self, legs: Legs) -> Outcome:
        own, customer = sure(legs.own), self.one(legs)
        self._release(own)
        room = customer.bridge
        reports.check(self.ask(orders.transfer(customer.uid, self.to, self.order.context)))
        done = self.known(lambda: customer.bridge != room or self.is_gone(customer), "transferred")
        if done.ok:
            self._leave(own)
        return done

    def redirect(self, legs: Legs) -> Outcome:
        caller = sure(legs.customer)
        reports.check(self.ask(orders.transfer(caller.uid, self.to, self.order.context)))
        return Outcome(True, Reason.DONE, "sent on")

    def park(self, legs: Legs) -> Outcome:
        own, customer = sure(legs.own), self.one(legs)
        self.need("mod_valet_parking", "park")
        back = self.book.party(own).extension
        self._release(own)
        customer.slot = ""
        reports.check(self.ask(orders.park(customer.uid, back, self.order.context)))
        done = self.known(lambda: customer.parked and customer.slot != "", "parked")
        if not done.ok:
            return done
        self._leave(own)
        return Outcome(True, Reason.DONE, "parked", {"slot": customer.slot})

    def _leave(self, own: Channel) -> None:
        """Who let the other side go is not left alone in a call that is over for him."""
        if not self.wait(lambda: self.is_gone(own), _LEAVES) and own.bridge is None:
            self.ask(hang_up(own.uid))

    # --- asking somebody first ---

    def consult(self, legs: Legs) -> Outcome:
        own = sure(legs.own)
        self.one(legs)
        if own.consults in self.book.calls:
            raise NotPossible("somebody is being consulted already")
        self._release(own)
        self.settle(legs)
        shown = self.book.party(own).extension
        ring = self.order.ring_seconds
        reports.check(self.ask(orders.consult(own.uid, self.to, self.order.context, shown, ring)))
        if not self.wait(lambda: own.consults != "" or self.is_gone(own)):
            return UNKNOWN
        asked = own.consults

        def rings() -> bool:
            call = self.book.calls.get(asked)
            return call is None or any(
                leg.offered or leg.state == Line.UP for leg in self.book.live_legs(call)
            )

        if not self.wait(rings):
            return UNKNOWN
        if asked not in self.book.calls:
            return Outcome(False, Reason.FAILED, "it could not be reached")
        return Outcome(True, Reason.DONE, "it rings")

    def complete(self, legs: Legs) -> Outcome:
        own, customer = sure(legs.own), sure(legs.customer)
        asked = sure_call(legs)
        if any(leg.state == Line.UP for leg in legs.others):
            reports.check(self.ask(hang_up(own.uid)))
        else:
            # The PBX would let the customer go with who asks.
            reports.check(self.ask(orders.note_asking(customer.uid, own.uid)))
            reports.check(self.ask(orders.let_ring(own.uid)))
            reports.check(self.ask(orders.wait(customer.uid)))
            # Until this one is gone, the customer's leg does not go on to where it was sent.
            self.drop([own])
        return self.known(lambda: asked not in self.book.calls and self.is_gone(own), "transferred")

    def back(self, legs: Legs) -> Outcome:
        own, customer, asked = sure(legs.own), sure(legs.customer), sure_call(legs)
        self.drop(self.book.channels[uid] for uid in self.book.calls[asked].legs)
        return self.known(
            lambda: asked not in self.book.calls and own in self.book.reach(customer), "back to the customer"
        )

    # --- more people ---

    def conference(self, legs: Legs) -> Outcome:
        own, customer = sure(legs.own), self.one(legs)
        bridge = self.book.bridges.get(own.bridge or "")
        if bridge is not None and bridge.type == CONFERENCE:
            raise NotPossible("this is a conference already")
        self.need("mod_conference", "hold a conference")
        self.need("mod_loopback", "dial for somebody else")
        order = self.order
        shown = self.book.party(own).extension
        answer = self.ring(
            orders.ask_in(self.to, order.context, order.command, customer.uid, shown, self.ring_seconds())
        )
        if not answer.startswith("+OK"):
            return reports.not_reached(answer)
        # Not before the room is there: who were sent into none would be lost.
        if not self.wait(lambda: any(leg.bridge for leg in self.made())):
            self.drop(self.made())
            return Outcome(False, Reason.FAILED, "the PBX made no conference; see its profile `default`")
        if self.is_gone(own) or own.bridge is None:
            self.drop(self.made())
            return Outcome(False, Reason.FAILED, "the call was over when it was answered")
        self._release(own)
        reports.check(self.ask(orders.meet(own.uid, order.command)))
        return self.known(
            lambda: any(customer in heard and own in heard for heard in map(self.book.reach, self.made())),
            "in conference",
        )

    def fetch(self, legs: Legs) -> Outcome:
        customer = legs.customer
        if customer is None:
            raise NotPossible("who calls is not known; it can be answered only where it rings")
        order = self.order
        rings = order.action == Action.PICKUP
        shown, ring = self.shown(customer), self.ring_seconds()
        answer = self.ring(
            orders.fetch(order.device or "", customer.uid, order.command, shown, ring, rings=rings)
        )
        if not answer.startswith("+OK"):
            return reports.not_reached(answer)
        if not self.wait(lambda: self.has(customer) or not self.made()):
            return UNKNOWN
        if self.has(customer):
            return Outcome(True, Reason.DONE, "connected")
        return Outcome(False, Reason.FAILED, "somebody else was quicker, or the caller is gone")

    def watch(self, legs: Legs) -> Outcome:
        own, order = sure(legs.own), self.order
        here = self.listener(legs)
        if here is not None:
            reports.check(self.ask(orders.change_mode(here.uid, order.action)))
            reports.check(self.ask(orders.watch_again(here.uid, own.uid)))
        else:
            shown = self.book.party(own).extension
            answer = self.ring(
                orders.watch(
                    order.device or "", own.uid, order.command, order.action, shown, self.ring_seconds()
                )
            )
            if not answer.startswith("+OK"):
                return reports.not_reached(answer)
        while uptime() < self.end:
            if any(bug.function == "eavesdrop" for bug in self.bugs(own)):
                return Outcome(True, Reason.DONE, "connected")
            gevent.sleep(LOOK)
        return UNKNOWN

    # --- sounds ---

    def play(self, legs: Legs) -> Outcome:
        sides = {
            Side.BOTH: (legs.own, legs.customer),
            Side.AGENT: (legs.own,),
            Side.CUSTOMER: (legs.customer,),
        }
        for leg in sides[self.order.side or Side.BOTH]:
            answer = self.ask(orders.play(sure(leg).uid, self.order.sound or ""))
            reports.check(
                answer,
                otherwise="the PBX has no such sound, or it is being played already",
                reason=Reason.FAILED,
            )
        return Outcome(True, Reason.DONE, "it plays")

    def stop(self, legs: Legs) -> Outcome:
        stopped = False
        for leg in filter(None, (legs.own, legs.customer)):
            for bug in self.bugs(leg):
                if bug.function == "displace":
                    reports.check(self.ask(orders.stop(leg.uid, bug.target)))
                    stopped = True
        if not stopped:
            raise NotPossible("nothing is being played")
        return Outcome(True, Reason.DONE, "stopped")

    def dial_tones(self, legs: Legs) -> Outcome:
        customer = self.one(legs)
        for place, digit in enumerate(self.order.digits or ""):
            if place:
                gevent.sleep(_BETWEEN_KEYS)
            reports.check(self.ask(orders.dial_tones(customer.uid, digit)))
        return Outcome(True, Reason.DONE, "sent")

    # --- recording ---

    def record(self, legs: Legs) -> Outcome:
        if self.recordings(legs):
            return self._change(legs, "unmask", "recording")
        file = f"{legs.call.id}-{self.order.command[:8]}.wav"
        customer = self.one(legs)
        # Who hears music is busy with it until then.
        leg = legs.own if legs.own is not None and legs.own.held else customer
        reports.check(self.ask(orders.record(leg.uid, file)))
        while uptime() < self.end:
            if any(bug.target.endswith(f"/{file}") for bug in self.bugs(leg)):
                return Outcome(True, Reason.DONE, "recording", {"file": f"{orders.FOLDER}/{file}"})
            gevent.sleep(LOOK)
        return UNKNOWN

    def change_recording(self, legs: Legs) -> Outcome:
        verb, words = {
            Action.PAUSE: ("mask", "paused"),
            Action.UNPAUSE: ("unmask", "recording"),
            Action.UNRECORD: ("stop", "the recording has ended"),
        }[self.order.action]
        return self._change(legs, verb, words)

    def _change(self, legs: Legs, verb: str, words: str) -> Outcome:
        found = self.recordings(legs)
        if not found:
            raise NotPossible("the call is not being recorded")
        for leg, file in found:
            reports.check(self.ask(orders.change_recording(leg.uid, verb, file)))
        return Outcome(True, Reason.DONE, words, {"file": f"{orders.FOLDER}/{found[0][1]}"})


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
