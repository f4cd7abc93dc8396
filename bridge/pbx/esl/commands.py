"""The connection of the user that commands: dial, hang up, ask for receipts. All of it runs in the link's hub."""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import replace

import gevent
from gevent.event import AsyncResult, Event

from bridge.domain.errors import RingbridgeError
from bridge.domain.mirroring import Member
from bridge.pbx.calls.acting import legs_to_end
from bridge.pbx.calls.book import Batch
from bridge.pbx.calls.model import Channel
from bridge.pbx.connecting import (
    LinkDown,
    LoginRefused,
    NoReply,
    NotAllowed,
    Pause,
    Timings,
    told,
    was_answered,
)
from bridge.pbx.esl.actions import Act
from bridge.pbx.esl.codec import Event as EslEvent
from bridge.pbx.esl.codec import LocalError
from bridge.pbx.esl.hearing import number
from bridge.pbx.esl.members import set_status
from bridge.pbx.esl.offers import answering
from bridge.pbx.esl.orders import dial_job, forget, hang_up, originate, receipt, remember_since, since
from bridge.pbx.esl.session import JOB, Session
from bridge.pbx.esl.tracker import Tracker
from bridge.pbx.port import ActionOrder, Answer, DialOrder, Outcome, QueueWish, Reason, Receipts
from bridge.settings import Pbx
from bridge.uptime import uptime

log = logging.getLogger(__name__)

KEPT = 24 * 3600.0
"""Seconds after which nobody asks for a receipt any more: its attempt was judged while the link was up."""
_GONE = "no such channel"


class Commander:
    """Keeps the connection up, and sends each command at most once."""

    def __init__(
        self,
        pbx: Pbx,
        secret: str,
        timings: Timings,
        tracker: Tracker,
        deliver: Callable[[Batch], None],
        synced: Callable[[], bool],
        changed: Callable[[], None],
    ) -> None:
        """`changed` is told when commands can be sent, and when they cannot any more."""
        self._pbx = pbx
        self._secret = secret
        self._timings = timings
        self._tracker = tracker
        self._deliver = deliver
        self._synced = synced
        self._changed = changed
        self._session: Session | None = None
        self._tried: Event | None = None
        self.since: int | None = None
        """From which second of the PBX's own clock on it has kept receipts; None where it does not say."""
        self._kept: deque[tuple[float, str]] = deque()
        """Attempts dialled by this process, and when: the PBX keeps their receipts in its memory."""
        self.proven_since: int | None = None
        """What the link last told others of `since`: only then does a receipt that is not there prove anything."""
        self.fault = "not connected yet"
        """Why there is no connection, for a person."""
        self.counts: Counter[str] = Counter()
        """What its connections refused so far, the one that is up left out."""

    @property
    def up(self) -> bool:
        """Whether commands can be sent."""
        return self._session is not None and self._session.up

    @property
    def refused(self) -> Counter[str]:
        """What came over its connections and was refused, by reason."""
        session, before = self._session, self.counts
        return before if session is None else before + session.counts

    def tried(self) -> None:
        """Wait until the first try is over, however it ended; not for long."""
        if self._tried is None or not self._tried.wait(self._timings.commands):
            log.info("the command user of PBX %s is not signed in yet", self._pbx.name)

    def keep(self, ending: Event) -> None:
        """Connect, again and again, until it is over."""
        self._tried = Event()
        pause = Pause(self._timings)
        while not ending.is_set():
            refused = False
            try:
                self._once(pause)
            except RingbridgeError as error:
                self.fault = error.message
                refused = isinstance(error, (LoginRefused, NotAllowed))
                (log.error if refused else log.warning)("PBX %s, commands: %s", self._pbx.name, error.message)
                self._tried.set()
            except Exception as error:
                # The link must outlive whatever one connection does.
                self.fault = f"a fault in the link ({type(error).__name__}); it is in the log"
                log.exception("the command connection of %s failed", self._pbx.name)
            self._changed()
            ending.wait(pause.next(refused=refused))

    def _once(self, pause: Pause) -> None:
        lost: AsyncResult[str] = AsyncResult()
        session = Session.open(
            self._pbx,
            self._pbx.command_username,
            self._secret,
            on_events=_ignore,
            on_lost=lost.set,
            names=(JOB,),
            timings=self._timings,
        )
        tried = self._tried
        try:
            session.learn_clock()
            self.since = self._learn_since(session)
            self._session = session
            if tried is not None:
                tried.set()
            pause.reset()
            self._changed()
            self.fault = lost.get()
        finally:
            self._session = None
            if tried is not None:
                tried.clear()
            # A new one each time: another thread may be looking through the old one.
            self.counts = self.counts + session.counts
            session.close()

    def _learn_since(self, session: Session) -> int | None:
        """Receipts are in the PBX's memory: a restart or a reload of mod_hash forgets them, and this mark with them."""
        now = session.pbx_time(uptime())
        if now is None:
            return None
        try:
            session.run(remember_since(int(now)))
            return number(session.run(since()).strip())
        except NotAllowed as error:
            log.warning("PBX %s, commands: %s", self._pbx.name, error.message)
            return None

    def dial(self, order: DialOrder, deadline: float) -> Outcome:
        """One originate, or none. See PbxLink."""
        session = self._session
        if session is None or not session.up:
            return Outcome(False, Reason.LINK_DOWN, f"the command user is not signed in: {self.fault}")
        if uptime() >= order.until:
            return Outcome(False, Reason.STALE, "it is too late for this dial; nothing was dialled")
        until = session.pbx_time(order.until)
        if until is None:
            return Outcome(
                False,
                Reason.LINK_DOWN,
                "the PBX does not say its time (strepoch in the command user's esl-allowed-api); nothing was dialled",
            )
        try:
            command = originate(order, int(until))
        except LocalError as error:
            return Outcome(False, Reason.REFUSED, error.message)
        if not self._synced():
            return Outcome(
                False, Reason.LINK_DOWN, "the PBX's events are not being read; nothing was dialled"
            )
        self._tracker.expect(replace(order.expected, attempt=order.attempt))
        self._kept.append((uptime(), order.attempt))
        gevent.spawn(self._forget_old, session)
        try:
            session.start_job(command, dial_job(order.attempt), deadline)
        except (LinkDown, LocalError) as error:
            self._tracker.unexpect(order.attempt)
            return Outcome(False, Reason.LINK_DOWN, error.message)
        except NotAllowed as error:
            self._tracker.unexpect(order.attempt)
            return Outcome(False, Reason.REFUSED, f"the PBX refused: {error.message}")
        except NoReply as error:
            return Outcome(False, Reason.TIMEOUT, error.message)
        return Outcome(True, Reason.SENT, "the PBX dials")

    def _forget_old(self, session: Session) -> None:
        """Delete the receipts that are a day old, so that the PBX's memory does not grow without end."""
        while self._kept and uptime() - self._kept[0][0] > KEPT:
            _, attempt = self._kept.popleft()
            for leg in ("agent", "customer"):
                if isinstance(_asked(session, forget(attempt, leg)), RingbridgeError):
                    return

    def hangup(self, call_id: str, agent: str | None) -> Outcome:
        """Hang up that agent's leg, or every leg. See PbxLink."""
        book = self._tracker.book
        call = book.calls.get(call_id)
        if call is None:
            return Outcome(False, Reason.NOT_FOUND, "that call is over")
        legs = legs_to_end(book, call, agent)
        if not legs:
            return Outcome(False, Reason.NOT_FOUND, "that agent has no phone in the call")
        session = self._session
        if session is None or not session.up:
            return Outcome(False, Reason.LINK_DOWN, f"the command user is not signed in: {self.fault}")
        if agent is not None:
            self._tracker.leg_wants_end(legs[0], call, None, time.time())
            self._deliver(book.take())
        return self._hang_up_legs(session, legs)

    def _hang_up_legs(self, session: Session, legs: Sequence[Channel]) -> Outcome:
        asked = [gevent.spawn(_asked, session, hang_up(leg.uid)) for leg in legs]
        gevent.joinall(asked)
        answers = [greenlet.value for greenlet in asked]
        # A leg that is gone already is as good as hung up, but then the PBX did nothing for us.
        if any(isinstance(answer, str) and answer.startswith("+OK") for answer in answers):
            return Outcome(True, Reason.SENT, "hung up")
        if any(isinstance(answer, NoReply) for answer in answers):
            return Outcome(False, Reason.TIMEOUT, "the PBX did not answer; look whether the call has ended")
        for answer in answers:
            if isinstance(answer, NotAllowed):
                return Outcome(False, Reason.REFUSED, f"the PBX refused: {answer.message}")
            if isinstance(answer, str):
                gone = _GONE in answer.lower()
                return Outcome(
                    False,
                    Reason.NOT_FOUND if gone else Reason.REFUSED,
                    "that phone has hung up already" if gone else f"the PBX refused: {told(answer.strip())}",
                )
        return Outcome(False, Reason.LINK_DOWN, "the link to the PBX is down; the call goes on")

    def act(self, order: ActionOrder, deadline: float) -> Outcome:
        """Do something to a call; `deadline` is in seconds from now. See PbxLink."""
        session = self._session
        if session is None or not session.up:
            return Outcome(False, Reason.LINK_DOWN, f"the command user is not signed in: {self.fault}")
        if not self._synced():
            return Outcome(False, Reason.LINK_DOWN, "the PBX's events are not being read; nothing was done")
        return Act(order, session, self._tracker, deadline).run()

    def set_member(self, handles: Sequence[str], member: Member, deadline: float) -> Outcome:
        """Change the status of those agents of mod_callcenter. See PbxLink."""
        session = self._session
        if session is None or not session.up:
            return Outcome(False, Reason.LINK_DOWN, f"the command user is not signed in: {self.fault}")
        if not handles:
            return Outcome(False, Reason.NOT_FOUND, "that phone is in no queue")
        try:
            answers = [session.run(set_status(one, member), deadline) for one in handles]
        except LinkDown as error:
            return Outcome(False, Reason.LINK_DOWN, error.message)
        except NoReply as error:
            return Outcome(False, Reason.TIMEOUT, error.message)
        except (NotAllowed, LocalError) as error:
            return Outcome(False, Reason.REFUSED, error.message)
        for answer in answers:
            if not answer.startswith("+OK"):
                gone = "not found" in answer.lower()
                return Outcome(False, Reason.NOT_FOUND if gone else Reason.REFUSED, told(answer.strip()))
        return Outcome(True, Reason.DONE)

    def answer(self, wish: QueueWish, answer: Answer) -> Outcome:
        """Set what the caller's dialplan waits for. See PbxLink."""
        session = self._session
        command = answering(wish, answer)
        if session is None or not session.up or command is None:
            return Outcome(False, Reason.LINK_DOWN, f"the command user is not signed in: {self.fault}")
        try:
            reply = session.run(command).strip()
        except (LinkDown, LocalError) as error:
            return Outcome(False, Reason.LINK_DOWN, error.message)
        except NotAllowed as error:
            return Outcome(False, Reason.REFUSED, f"the PBX refused: {error.message}")
        except NoReply as error:
            return Outcome(False, Reason.TIMEOUT, error.message)
        if reply.startswith("+OK"):
            return Outcome(True, Reason.SENT)
        return Outcome(False, Reason.REFUSED, f"the PBX refused: {told(reply)}")

    def receipts(self, attempt: str) -> Receipts:
        """What the PBX's hash says of the attempt's legs. See PbxLink."""
        session = self._session
        if session is None:
            return Receipts(None, None)
        try:
            commands = [receipt(attempt, "agent"), receipt(attempt, "customer"), since()]
        except LocalError:
            return Receipts(None, None)
        asked = [gevent.spawn(_in_hash, session, command) for command in commands]
        gevent.joinall(asked)
        agent, customer, kept = (greenlet.value for greenlet in asked)
        begun, proven = number(kept), self.proven_since
        proves = begun is not None and proven is not None and begun <= proven
        return Receipts(_was_dialled(agent, proves), _was_dialled(customer, proves), was_answered(customer))


def _in_hash(session: Session, command: str) -> str | None:
    """What the PBX's hash holds there, empty where nothing; None where that is not known."""
    try:
        text = session.run(command).strip()
    except (LinkDown, NoReply, NotAllowed):
        return None
    return None if text.startswith("-") else text


def _was_dialled(text: str | None, proves: bool) -> bool | None:
    """What a receipt, or its absence, proves."""
    if text:
        return True
    return False if text is not None and proves else None


def _asked(session: Session, command: str) -> str | RingbridgeError:
    try:
        return session.run(command)
    except RingbridgeError as error:
        return error


def _ignore(events: list[EslEvent]) -> None:
    """The session itself looks for the reports of its jobs."""
