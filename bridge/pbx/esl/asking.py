"""What a call action asks of a FreeSWITCH, and how it sees what comes of it.

An outcome is what the PBX said: the reply to that very command, or the events that the tracker heard after it. All of
it runs in the link's hub.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import gevent

from bridge.domain.actions import Action
from bridge.domain.errors import RingbridgeError
from bridge.pbx.calls.acting import Legs, NotPossible
from bridge.pbx.calls.model import Channel, Line
from bridge.pbx.esl import act_orders as orders
from bridge.pbx.esl import reports
from bridge.pbx.esl.channels import LISTENER
from bridge.pbx.esl.orders import hang_up
from bridge.pbx.esl.session import Session
from bridge.pbx.esl.tracker import Tracker
from bridge.pbx.port import ActionOrder, Outcome, Reason
from bridge.uptime import uptime

LOOK = 0.03
"""Seconds between two looks at the picture, while an outcome is waited for."""
_SETTLED = 0.5
UNKNOWN = Outcome(False, Reason.TIMEOUT, "the PBX did not say what became of it; look at the call")


class Asking:
    """One order, the connection that it goes to, and the picture in which its outcome shows."""

    def __init__(self, order: ActionOrder, session: Session, tracker: Tracker, deadline: float) -> None:
        """`deadline` is in seconds from now."""
        self.order = order
        self.session = session
        self.tracker = tracker
        self.book = tracker.book
        self.end = uptime() + deadline
        self.sent = False

    # --- sending ---

    @property
    def to(self) -> str:
        return self.order.to or ""

    def one(self, legs: Legs) -> Channel:
        """The other side, where it is one."""
        if len(legs.others) > 1:
            people = "this is a conference; that takes two people"
            if self.order.action not in (Action.DTMF, Action.RECORD):
                raise NotPossible(people)
        return sure(legs.customer)

    def need(self, module: str, use: str) -> None:
        answer = self.ask(orders.module(module), asks=True).strip()
        if answer != "true":
            raise NotPossible(f"the PBX cannot {use}: {module} is not loaded")

    def settle(self, legs: Legs) -> None:
        """Wait until the people are together long enough for FreeSWITCH to do something with a leg and the other one.

        It takes no order for a leg before that one has heard some frames in its bridge, and hears none while the other
        leg waits for it: for ten seconds, after which there is no music, and a consultation that loses the caller.
        """
        now, since = self.session.pbx_time(uptime()), legs.call.talk_since
        # Its clock is known to a second: the wait may be longer than needed, and is never missed for that.
        if now is not None and since is not None and abs(now - since) < _SETTLED + 1.0:
            gevent.sleep(min(_SETTLED, max(0.0, since + _SETTLED - now)))

    def ring_seconds(self) -> int:
        """As long as it may ring, and no longer than its outcome is waited for."""
        return max(1, min(self.order.ring_seconds, int(self.end - uptime())))

    def shown(self, leg: Channel) -> str | None:
        party = self.book.party(leg)
        return None if party.withheld else party.number or party.extension

    def ask(self, command: str, *, asks: bool = False) -> str:
        """Run a command and give its answer; one that only `asks` changes nothing."""
        answer = self.session.run(command, max(self.end - uptime(), 0.1))
        self.sent = self.sent or not asks
        return answer

    def ring(self, command: str) -> str:
        """Ring somebody until he answers or does not; for nobody, once the call is over."""
        job = gevent.spawn(_reported, self.session, command, max(self.end - uptime(), 0.1) + 1.0)
        self.sent = True
        dropped = False
        while not job.ready():
            if not dropped and self.order.call not in self.book.calls and self.made():
                dropped = True
                self.drop(self.made())
            gevent.sleep(LOOK)
        if isinstance(job.value, RingbridgeError):
            raise job.value
        return str(job.value)

    def made(self) -> list[Channel]:
        """The legs that the PBX has made for this command."""
        return [leg for leg in self.book.channels.values() if leg.command == self.order.command]

    def drop(self, legs: Iterable[Channel]) -> None:
        for leg in list(legs):
            self.ask(hang_up(leg.uid))

    def is_gone(self, leg: Channel) -> bool:
        return leg.uid not in self.book.channels

    def known(self, seen: Callable[[], bool], words: str) -> Outcome:
        """What the events say of it."""
        return Outcome(True, Reason.DONE, words) if self.wait(seen) else UNKNOWN

    def wait(self, seen: Callable[[], bool], seconds: float = 1e9) -> bool:
        end = min(self.end, uptime() + seconds)
        while not seen():
            if uptime() >= end:
                return False
            gevent.sleep(LOOK)
        return True

    # --- what the PBX lists, and what the picture holds ---

    def has(self, customer: Channel) -> bool:
        return any(customer in self.book.reach(leg) for leg in self.made())

    def listener(self, legs: Legs) -> Channel | None:
        """This supervisor's leg, where he listens to somebody of this call already."""
        heard = {leg.uid for leg in (legs.own, legs.customer, *legs.others) if leg is not None}
        for leg in self.book.channels.values():
            if leg.role == LISTENER and leg.device == self.order.device and leg.dialler in heard:
                return leg if leg.state == Line.UP else None
        return None

    def recordings(self, legs: Legs) -> list[tuple[Channel, str]]:
        """Recordings of ours that run on a leg of the call, asked of the PBX: another process may have begun them."""
        found = []
        for leg in dict.fromkeys(
            leg.uid for leg in (legs.customer, legs.own, *legs.others) if leg is not None
        ):
            for bug in self.bugs(self.book.channels[leg]):
                folder, _, file = bug.target.rpartition("/")
                if bug.function == "session_record" and folder.rpartition("/")[2] == orders.FOLDER:
                    found.append((self.book.channels[leg], file))
        return found

    def bugs(self, leg: Channel) -> list[reports.Bug]:
        return reports.bugs(self.ask(orders.media(leg.uid), asks=True))


def sure(leg: Channel | None) -> Channel:
    if leg is None:
        raise NotPossible("nobody is connected in this call")
    return leg


def sure_call(legs: Legs) -> str:
    if legs.consultation is None:
        raise NotPossible("nobody is being consulted in this call")
    return legs.consultation.id


def _reported(session: Session, command: str, deadline: float) -> str | RingbridgeError:
    try:
        return session.run(command, deadline)
    except RingbridgeError as error:
        return error
