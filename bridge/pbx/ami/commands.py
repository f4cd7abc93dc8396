"""The connection of the user that commands: dial, hang up, ask for receipts. All of it runs in the link's loop."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from bridge.domain.errors import RingbridgeError
from bridge.domain.mirroring import Member
from bridge.pbx.ami.actions import Actions
from bridge.pbx.ami.codec import LocalError, Message
from bridge.pbx.ami.hearing import DIAL_ACTION
from bridge.pbx.ami.members import pause
from bridge.pbx.ami.offers import answering
from bridge.pbx.ami.orders import RECEIPTS, originate
from bridge.pbx.ami.session import Reply, Session, connect, header, resolver
from bridge.pbx.ami.tracker import Tracker
from bridge.pbx.calls.acting import legs_to_end
from bridge.pbx.calls.book import Batch
from bridge.pbx.calls.model import Channel
from bridge.pbx.connecting import LinkDown, LoginRefused, NoReply, Pause, Timings, told, was_answered
from bridge.pbx.port import ActionOrder, Answer, DialOrder, Outcome, QueueWish, Reason, Receipts
from bridge.settings import Pbx
from bridge.uptime import uptime

log = logging.getLogger(__name__)


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
        self._tried = asyncio.Event()
        self._actions = Actions(tracker)
        self.reports = self._actions.reports
        """To be shown every event, once the tracker has heard it."""
        self.fault = "not connected yet"
        """Why there is no connection, for a person."""

    @property
    def up(self) -> bool:
        """Whether commands can be sent."""
        return self._session is not None and self._session.up

    async def tried(self) -> None:
        """Wait until the first try is over, however it ended; not for long."""
        try:
            async with asyncio.timeout(self._timings.commands):
                await self._tried.wait()
        except TimeoutError:
            log.info("the command user of PBX %s is not signed in yet", self._pbx.name)

    async def keep(self) -> None:
        """Connect, again and again, until cancelled."""
        pause = Pause(self._timings)
        while True:
            refused = False
            try:
                await self._once(pause)
            except RingbridgeError as error:
                self.fault = error.message
                refused = isinstance(error, LoginRefused)
                (log.error if refused else log.warning)("PBX %s, commands: %s", self._pbx.name, error.message)
                self._tried.set()
            except Exception as error:
                # The link must outlive whatever one connection does.
                self.fault = f"a fault in the link ({type(error).__name__}); it is in the log"
                log.exception("the command connection of %s failed", self._pbx.name)
            self._changed()
            await asyncio.sleep(pause.next(refused=refused))

    async def _once(self, pause: Pause) -> None:
        lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        session = await connect(
            self._pbx,
            self._pbx.command_username,
            self._secret,
            on_events=_ignore,
            on_lost=resolver(lost),
            events=False,
            timings=self._timings,
        )
        try:
            await session.learn_clock()
            self._session = session
            self._tried.set()
            pause.reset()
            self._changed()
            self.fault = await lost
        finally:
            self._session = None
            self._tried.clear()
            session.close()

    async def dial(self, order: DialOrder, deadline: float) -> Outcome:
        """One Originate, or none. See PbxLink."""
        session = self._session
        if session is None or not session.up:
            return Outcome(False, Reason.LINK_DOWN, f"the command user is not signed in: {self.fault}")
        if uptime() >= order.until:
            return Outcome(False, Reason.STALE, "it is too late for this dial; nothing was dialled")
        until = session.pbx_time(order.until)
        if until is None:
            return Outcome(False, Reason.LINK_DOWN, "the PBX does not say its time; nothing was dialled")
        try:
            fields = originate(order, int(until))
        except LocalError as error:
            return Outcome(False, Reason.REFUSED, error.message)
        if not self._synced():
            return Outcome(
                False, Reason.LINK_DOWN, "the PBX's events are not being read; nothing was dialled"
            )
        self._tracker.expect(replace(order.expected, attempt=order.attempt))
        try:
            reply = await session.ask(
                "Originate", fields, deadline=deadline, action_id=f"{DIAL_ACTION}{order.attempt}"
            )
        except (LinkDown, LocalError) as error:
            self._tracker.unexpect(order.attempt)
            return Outcome(False, Reason.LINK_DOWN, error.message)
        except NoReply as error:
            return Outcome(False, Reason.TIMEOUT, error.message)
        if reply.ok:
            return Outcome(True, Reason.SENT, "the PBX dials")
        self._tracker.unexpect(order.attempt)
        return Outcome(False, Reason.REFUSED, f"the PBX refused: {told(reply.text)}")

    async def hangup(self, call_id: str, agent: str | None) -> Outcome:
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
        return await self._hang_up_legs(session, legs)

    async def _hang_up_legs(self, session: Session, legs: list[Channel]) -> Outcome:
        asked = [session.ask("Hangup", {"Channel": leg.name, "Cause": "16"}) for leg in legs]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        if any(isinstance(answer, Reply) and answer.ok for answer in answers):
            return Outcome(True, Reason.SENT, "hung up")
        if any(isinstance(answer, NoReply) for answer in answers):
            return Outcome(False, Reason.TIMEOUT, "the PBX did not answer; look whether the call has ended")
        refusals = [answer for answer in answers if isinstance(answer, Reply)]
        if refusals:
            return Outcome(False, Reason.REFUSED, f"the PBX refused: {told(refusals[0].text)}")
        return Outcome(False, Reason.LINK_DOWN, "the link to the PBX is down; the call goes on")

    async def act(self, order: ActionOrder, deadline: float) -> Outcome:
        """Do something to a call; `deadline` is in seconds from now. See PbxLink."""
        session = self._session
        if session is None or not session.up:
            return Outcome(False, Reason.LINK_DOWN, f"the command user is not signed in: {self.fault}")
        if uptime() >= order.until:
            return Outcome(False, Reason.STALE, "it is too late for this; nothing was done")
        if not self._synced():
            return Outcome(False, Reason.LINK_DOWN, "the PBX's events are not being read; nothing was done")
        return await self._actions.act(session, order)

    async def set_member(self, handles: Sequence[str], member: Member, deadline: float) -> Outcome:
        """Pause or unpause those members in all their queues. See PbxLink."""
        session = self._session
        if session is None or not session.up:
            return Outcome(False, Reason.LINK_DOWN, f"the command user is not signed in: {self.fault}")
        try:
            replies = [await session.ask("QueuePause", pause(one, member), deadline=deadline) for one in handles]
        except (LinkDown, LocalError) as error:
            return Outcome(False, Reason.LINK_DOWN, error.message)
        except NoReply as error:
            return Outcome(False, Reason.TIMEOUT, error.message)
        if not replies:
            return Outcome(False, Reason.NOT_FOUND, "that phone is in no queue")
        for reply in replies:
            if not reply.ok:
                gone = "interface not found" in reply.text.lower()
                return Outcome(False, Reason.NOT_FOUND if gone else Reason.REFUSED, told(reply.text))
        return Outcome(True, Reason.DONE)

    async def answer(self, wish: QueueWish, answer: Answer) -> Outcome:
        """Set what the caller's dialplan waits for. See PbxLink."""
        session = self._session
        fields = answering(wish, answer)
        if session is None or not session.up or fields is None:
            return Outcome(False, Reason.LINK_DOWN, f"the command user is not signed in: {self.fault}")
        try:
            reply = await session.ask("Setvar", fields)
        except (LinkDown, LocalError) as error:
            return Outcome(False, Reason.LINK_DOWN, error.message)
        except NoReply as error:
            return Outcome(False, Reason.TIMEOUT, error.message)
        if reply.ok:
            return Outcome(True, Reason.SENT)
        return Outcome(False, Reason.REFUSED, f"the PBX refused: {told(reply.text)}")

    async def receipts(self, attempt: str) -> Receipts:
        """What AstDB says of the attempt's legs. See PbxLink."""
        agent, customer = await self._receipt(f"{attempt}-agent"), await self._receipt(f"{attempt}-customer")
        return Receipts(_was_dialled(agent), _was_dialled(customer), was_answered(customer))

    async def _receipt(self, key: str) -> str | None:
        """What AstDB holds there, empty where nothing; None where that is not known."""
        session = self._session
        if session is None:
            return None
        try:
            reply = await session.ask("DBGet", {"Family": RECEIPTS, "Key": key}, listed=None)
        except (LinkDown, NoReply, LocalError):
            return None
        if reply.ok:
            return next((header(item, "val") for item in reply.items), "?")
        return "" if "not found" in reply.text.lower() else None


def _was_dialled(receipt: str | None) -> bool | None:
    return None if receipt is None else bool(receipt)


def _ignore(messages: list[Message]) -> None:
    """The command user hears no events."""
