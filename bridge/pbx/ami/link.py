"""The link to an Asterisk: two connections, one thread, one tracker.

The event user's connection is read all the time and asked for a snapshot after each sign-in; the command user's
connection sends. Nothing is sent twice: a command whose connection breaks has an unknown outcome and says so.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

from bridge.domain.calls import Directory, Remembered
from bridge.domain.errors import RingbridgeError, SettingsError, Unavailable
from bridge.domain.mirroring import Member
from bridge.pbx.ami import members
from bridge.pbx.ami.codec import Message
from bridge.pbx.ami.commands import Commander
from bridge.pbx.ami.offers import wishes
from bridge.pbx.ami.presentation import Presentation
from bridge.pbx.ami.resync import CHANNELS, QUESTIONS, QUEUES, Snapshot, resync, still_news
from bridge.pbx.ami.session import Reply, Session, connect, header, resolver
from bridge.pbx.ami.tracker import Tracker
from bridge.pbx.calls.book import Batch
from bridge.pbx.calls.gap import Resynced, keep_all
from bridge.pbx.calls.telling import Teller
from bridge.pbx.connecting import LinkDown, LoginRefused, NoList, NoReply, NotAllowed, Pause, Timings, told
from bridge.pbx.members import REFRESH_SECONDS, Members
from bridge.pbx.port import (
    ActionOrder,
    Answer,
    DialOrder,
    LinkSink,
    Outcome,
    PbxFacts,
    QueueWish,
    Reason,
    Receipts,
)
from bridge.settings import Pbx
from bridge.uptime import uptime

log = logging.getLogger(__name__)
T = TypeVar("T")

MAX_GATHERED = 200_000
"""Events kept while a snapshot is taken."""
MAX_OUTCOME = 180.0
"""Seconds for which the outcome of an action is waited for, at most."""
_SLACK = 1.0


class AmiLink:
    """PbxLink of one Asterisk. Raises SettingsError where a secret is missing."""

    def __init__(
        self, pbx: Pbx, sink: LinkSink, *, observe: bool = False, timings: Timings | None = None
    ) -> None:
        self._pbx = pbx
        self._sink = sink
        self._observe = observe
        self._timings = timings or Timings()
        self._secret = pbx.read_secret()
        self._command_secret = "" if observe else pbx.read_command_secret()
        self.tracker = Tracker(pbx.name, pbx.trunks)
        self._teller = Teller(self.tracker.book, self._deliver, self._later)
        self._presentation = Presentation(self.tracker.parties, self._track, self._timings.presentation)
        self.sink_faults = 0
        """Batches that the sink did not take."""
        self._refused = 0
        """Messages that the reading connections of the past could not use, and the events that these heard."""
        self._heard = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._ending: asyncio.Event | None = None
        self._stopping = threading.Event()
        self._events: Session | None = None
        self._commander = Commander(
            pbx,
            self._command_secret,
            self._timings,
            self.tracker,
            self._deliver,
            lambda: self._synced,
            self._commands_changed,
        )
        self._detail = ""
        self._gathered: list[Message] | None = None
        self._older = 0
        """How many of these came before the PBX was asked for its channels: its answers hold what they say."""
        self._booted: float | None = None
        self._lost_at: float | None = None
        self._synced: bool = False
        self._asking: asyncio.Task[None] | None = None
        self._members = Members()

    # --- thread ---

    def start(self) -> None:
        """See PbxLink."""
        if self._thread is not None:
            return
        ready = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(ready,), name=f"ami-{self._pbx.name}", daemon=True
        )
        self._thread.start()
        ready.wait(5)

    def stop(self) -> None:
        """See PbxLink."""
        self._stopping.set()
        loop, thread, ending = self._loop, self._thread, self._ending
        if loop is not None and ending is not None and not loop.is_closed():
            try:
                loop.call_soon_threadsafe(ending.set)
            except RuntimeError:
                log.debug("the link of %s had ended already", self._pbx.name)
        if thread is not None and thread is not threading.current_thread():
            thread.join(10)

    def _run(self, ready: threading.Event) -> None:
        async def begin() -> None:
            self._loop = asyncio.get_running_loop()
            self._ending = asyncio.Event()
            if self._stopping.is_set():
                self._ending.set()
            ready.set()
            # Not by cancelling this task: of what it waits for, a cancellation may be swallowed.
            keepers = [asyncio.create_task(self._ending.wait()), asyncio.create_task(self._keep_events())]
            if not self._observe:
                keepers.append(asyncio.create_task(self._commander.keep()))
            try:
                over, _ = await asyncio.wait(keepers, return_when=asyncio.FIRST_COMPLETED)
                for task in over:
                    await task
            finally:
                await _end(keepers)
                self._synced = False
                self._teller.now()

        try:
            asyncio.run(begin())
            log.debug("the link of %s has ended", self._pbx.name)
        except BaseException as error:
            # Whoever holds the link asks whether it runs.
            log.critical("the link of PBX %s died of a fault (%s)", self._pbx.name, type(error).__name__)
            log.debug("the fault", exc_info=error)
            ready.set()

    def is_running(self) -> bool:
        """See PbxLink."""
        return self._thread is not None and self._thread.is_alive()

    # --- the connection that reads ---

    async def _keep_events(self) -> None:
        pause = Pause(self._timings)
        while True:
            lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            try:
                # From the first byte on: what happens while the snapshot is taken is applied after it.
                self._gathered, self._booted = [], None
                session = await connect(
                    self._pbx,
                    self._pbx.username,
                    self._secret,
                    on_events=self._hear,
                    on_lost=resolver(lost),
                    events=True,
                    timings=self._timings,
                )
                self._events = session
                try:
                    await self._come_up(session)
                    pause.reset()
                    reason = await lost
                finally:
                    self._events = None
                    self._refused += session.refused
                    self._heard += session.events
                    self._synced = False
                    self._gathered = None
                    if self._asking is not None:
                        self._asking.cancel()
                        self._asking = None
                    session.close()
                    self._presentation.release()
                self._down(reason, time.time())
                wait = pause.next()
            except (LoginRefused, NotAllowed) as error:
                self._down(error.message, None)
                wait = pause.next(refused=True)
            except RingbridgeError as error:
                self._down(error.message, None)
                wait = pause.next()
            except Exception as error:
                # The link must outlive whatever one connection does.
                log.exception("the link of %s failed", self._pbx.name)
                self._down(f"a fault in the link ({type(error).__name__}); it is in the log", None)
                wait = pause.next()
            await asyncio.sleep(wait)

    async def _come_up(self, session: Session) -> None:
        if not self._observe:
            await self._commander.tried()
        try:
            snapshot, version = await self._snapshot(session)
        except NoList as error:
            self._go_on_blind(session, error)
            return
        detail = self._detail = self._how_it_does()
        self._say(lambda: self._sink.link_up(detail))
        since, self._lost_at = self._lost_at, None
        now = time.time()
        try:
            done = resync(self.tracker, snapshot, since, now)
        except Exception as error:
            # A fault here must not keep the events that follow from being heard.
            self.tracker.faults += 1
            log.exception("the resync of PBX %s failed (%s)", self._pbx.name, type(error).__name__)
            done = Resynced(self.tracker.book.take(), 0, 0)
        self._deliver(done.batch)
        gathered, self._gathered = self._gathered or [], None
        for message in gathered:
            if message.get("Event") == "FullyBooted":
                self._note_boot(message)
        # One that does not say it has booted is still at it.
        started = datetime.fromtimestamp(self._booted if self._booted is not None else now, UTC)
        facts = PbxFacts(started, version, done.appeared, done.vanished)
        self._members.take(members.listed(snapshot.members))
        self._synced = True
        self._say(lambda: self._sink.resynced(facts))
        self._commands_changed()
        # Heard again they could ring a phone twice; who waits for an action's outcome is told of them all the same.
        self._commander.reports.hear(gathered[: self._older])
        self._apply(still_news(self.tracker, gathered[self._older :]))
        self._asking = asyncio.create_task(self._look_at_members(session))

    def _go_on_blind(self, session: Session, why: NoList) -> None:
        """Hear events without a picture to begin with, and dial nothing. See LinkSink.link_up."""
        log.warning("PBX %s: %s", self._pbx.name, why.message)
        self._detail = f"connected for events only: {why.message}"
        self._say(lambda: self._sink.link_up(self._detail))
        since, self._lost_at = self._lost_at, None
        self._deliver(keep_all(self.tracker.book, since, time.time()))
        gathered, self._gathered = self._gathered or [], None
        self._apply(gathered)
        self._asking = asyncio.create_task(self._ask_again(session))

    async def _ask_again(self, session: Session) -> None:
        """Until the PBX lists its channels: a new connection takes them in."""
        while session.up:
            await asyncio.sleep(self._timings.refused_first)
            with suppress(NoReply, LinkDown):
                if _is_list(await self._list(session, CHANNELS)):
                    session.give_up("the PBX lists its channels now")

    async def _look_at_members(self, session: Session) -> None:
        """Now and then; a list that is older than an event is not taken."""
        while session.up:
            await asyncio.sleep(REFRESH_SECONDS)
            before = self._members.changes
            with suppress(NoReply, LinkDown):
                reply = await self._list(session, QUEUES)
                if reply.ok and self._members.changes == before:
                    self._members.take(members.listed(reply.items))

    def _how_it_does(self) -> str:
        if self._observe or self._commander.up:
            return "connected"
        return f"connected for events only: {self._commander.fault}"

    def _commands_changed(self) -> None:
        detail = self._how_it_does()
        if self._synced and detail != self._detail:
            self._detail = detail
            self._say(lambda: self._sink.link_detail(detail))

    async def _snapshot(self, session: Session) -> tuple[Snapshot, str]:
        core = await session.ask("CoreSettings", deadline=self._timings.resync)
        answers: dict[str, tuple[Mapping[str, str], ...]] = {}
        for question in QUESTIONS:
            if question == CHANNELS:
                self._older = len(self._gathered or ())
            reply = await self._list(session, question)
            if question == CHANNELS and not _is_list(reply):
                if "ermission" not in reply.text:
                    raise NoList(f"the PBX does not list its channels: {told(reply.text)}")
                raise NotAllowed(
                    f"user {self._pbx.username!r} may not list the PBX's channels ({told(reply.text)}); "
                    "give it write = reporting in manager.conf and reload"
                )
            answers[question] = reply.items
        version = header(core.headers or {}, "asteriskversion") if core.ok else ""
        return Snapshot.of(answers), version

    async def _list(self, session: Session, question: str) -> Reply:
        fields = dict(line.split(": ", 1) for line in question.split("\r\n"))
        return await session.ask(fields.pop("Action"), fields, deadline=self._timings.resync, listed=None)

    def _note_boot(self, message: Message) -> None:
        uptime = message.get("Uptime", "")
        if uptime.isdecimal():
            self._booted = time.time() - int(uptime)

    def _hear(self, messages: list[Message]) -> None:
        if self._gathered is None:
            self._apply(messages)
            return
        self._gathered.extend(messages)
        if len(self._gathered) > MAX_GATHERED and self._events is not None:
            self._events.give_up("more events came during the resync than can be kept")

    def _apply(self, messages: list[Message]) -> None:
        self._presentation.hear(messages, self._events)

    def _track(self, messages: list[Message]) -> None:
        self.tracker.hear_all(messages, time.time())
        for message in messages:
            if message.event in members.HEARD:
                members.hear(self._members, message)
        for wish in wishes(messages, self.tracker.book):
            self._say(partial(self._sink.asked, wish))
        self._commander.reports.hear(messages)
        self._teller.soon()

    def _later(self, seconds: float, what: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_later(seconds, what)

    def _deliver(self, batch: Batch) -> None:
        if batch.events or batch.live:
            self._say(lambda: self._sink.events(batch.events, batch.live))

    def _say(self, tell: Callable[[], None]) -> None:
        try:
            tell()
        except Exception as error:  # noqa: BLE001 - a fault of the listener's must not end the link
            self.sink_faults += 1
            log.error(
                "what the PBX %s said could not be handed on (%s)", self._pbx.name, type(error).__name__
            )

    def _down(self, reason: str, at: float | None) -> None:
        if at is not None and self._lost_at is None:
            self._lost_at = at
        log.warning("PBX %s: %s", self._pbx.name, reason)
        self._teller.now()
        self._say(lambda: self._sink.link_down(reason))

    # --- what others ask, from any thread ---

    def set_directory(self, directory: Directory) -> None:
        """See PbxLink."""
        self.tracker.set_directory(directory)

    def restore(self, live: Mapping[str, str]) -> None:
        """See PbxLink. Raises SettingsError once the link runs."""
        if self._thread is not None:
            raise SettingsError("calls can be restored before the link starts only")
        unread = self.tracker.restore(live)
        if unread:
            log.error("%d calls of the former listener of PBX %s could not be read", unread, self._pbx.name)

    def remember(self, calls: Sequence[Remembered]) -> None:
        """See PbxLink."""
        self.tracker.remember(calls)

    def live_attempts(self) -> frozenset[str]:
        """See PbxLink."""
        return self._look(self.tracker.live_attempts)

    def live_calls(self) -> frozenset[str]:
        """See PbxLink."""
        return self._look(lambda: frozenset(self.tracker.book.calls))

    def _look(self, at: Callable[[], frozenset[str]]) -> frozenset[str]:
        if self._thread is None:
            return at()

        async def look() -> frozenset[str] | None:
            # Who asks compares it with what was said.
            self._teller.now()
            return at()

        found = self._await(look(), 5.0, None)
        if found is None:
            raise Unavailable("the link to the PBX is too busy to say which calls are alive")
        return found

    def counts(self) -> Mapping[str, float]:
        """See PbxLink."""
        session = self._events
        refused = self._refused + (0 if session is None else session.refused)
        events = self._heard + (0 if session is None else session.events)
        return {"events": events, "refused": refused, "faults": self.tracker.faults, "sink_faults": self.sink_faults}

    def dial(self, order: DialOrder) -> Outcome:
        """See PbxLink."""
        down = Outcome(False, Reason.LINK_DOWN, "the link to the PBX is down; nothing was dialled")
        unknown = Outcome(False, Reason.TIMEOUT, "the PBX did not answer; whether it dials is unknown")
        if self._observe:
            return Outcome(False, Reason.REFUSED, "observe mode never dials; set dialing.mode to dial")
        if self._thread is None or self._stopping.is_set():
            return down
        deadline = min(max(order.until - uptime(), 0.1), 60.0)
        return self._await(self._commander.dial(order, deadline), deadline + _SLACK, unknown)

    def hangup(self, call: str, agent: str | None) -> Outcome:
        """See PbxLink."""
        down = Outcome(False, Reason.LINK_DOWN, "the link to the PBX is down; the call goes on")
        if self._observe:
            return Outcome(False, Reason.REFUSED, "observe mode sends no commands; hang up on the phone")
        if self._thread is None or self._stopping.is_set():
            return down
        unknown = Outcome(False, Reason.TIMEOUT, "the PBX did not answer; look whether the call has ended")
        return self._await(self._commander.hangup(call, agent), 2 * self._timings.action + _SLACK, unknown)

    def act(self, order: ActionOrder) -> Outcome:
        """See PbxLink."""
        down = Outcome(False, Reason.LINK_DOWN, "the link to the PBX is down; the call goes on as it was")
        unknown = Outcome(False, Reason.TIMEOUT, "the PBX did not say what became of it; look at the call")
        if self._observe:
            return Outcome(False, Reason.REFUSED, "observe mode sends no commands; use the phone")
        if self._thread is None or self._stopping.is_set():
            return down
        deadline = min(max(order.until - uptime(), 0.1), MAX_OUTCOME)
        return self._await(self._commander.act(order, deadline), deadline + _SLACK, unknown)

    def answer(self, wish: QueueWish, answer: Answer) -> Outcome:
        """See PbxLink."""
        if self._observe or self._thread is None or self._stopping.is_set():
            return Outcome(False, Reason.LINK_DOWN, "the link to the PBX is down; the caller waits on")
        unknown = Outcome(False, Reason.TIMEOUT, "the PBX did not answer; the caller may wait on")
        return self._await(self._commander.answer(wish, answer), self._timings.action + _SLACK, unknown)

    def receipts(self, attempt: str) -> Receipts:
        """See PbxLink."""
        nothing = Receipts(None, None)
        if self._observe or self._thread is None or self._stopping.is_set():
            return nothing
        return self._await(self._commander.receipts(attempt), 2 * self._timings.action + _SLACK, nothing)

    def members(self) -> Mapping[str, Member] | None:
        """See PbxLink."""
        return self._members.by_device if self._synced else None

    def set_member(self, device: str, member: Member, seconds: float) -> Outcome:
        """See PbxLink."""
        if self._observe:
            return Outcome(False, Reason.REFUSED, "observe mode sends no commands")
        if self._thread is None or self._stopping.is_set():
            return Outcome(False, Reason.LINK_DOWN, "the link to the PBX is down")
        unknown = Outcome(False, Reason.TIMEOUT, "the PBX did not answer")
        work = self._commander.set_member(self._members.handles(device), member, seconds)
        return self._await(work, seconds + _SLACK, unknown)

    def _await(self, work: Coroutine[Any, Any, T], deadline: float, otherwise: T) -> T:
        loop = self._loop
        if loop is None or loop.is_closed():
            work.close()
            return otherwise
        try:
            future = asyncio.run_coroutine_threadsafe(work, loop)
        except RuntimeError:
            work.close()
            return otherwise
        try:
            return future.result(deadline)
        except (concurrent.futures.TimeoutError, concurrent.futures.CancelledError):
            future.cancel()
            return otherwise


def _is_list(reply: Reply) -> bool:
    """Asterisk announces a list before its items: an answer that does not is none, and not an empty one."""
    return reply.ok and (bool(reply.items) or bool(header(reply.headers or {}, "eventlist")))


async def _end(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Cancel until they have ended: a wait that is over in the same moment may swallow a cancellation."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=0.1)
    for task in tasks:
        if not task.cancelled():
            task.exception()
