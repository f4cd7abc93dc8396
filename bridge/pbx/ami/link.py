"""The link to an Asterisk: two connections, one thread, one tracker.

The event user's connection is read all the time and asked for a snapshot after each sign-in; the command user's
connection sends. Nothing is sent twice: a command whose connection breaks has an unknown outcome and says so.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import random
import re
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, TypeVar

from bridge.domain.calls import Directory
from bridge.domain.errors import RingbridgeError, SettingsError, Unavailable
from bridge.pbx.ami.codec import LocalError, Message
from bridge.pbx.ami.model import Channel
from bridge.pbx.ami.orders import RECEIPTS, originate
from bridge.pbx.ami.presentation import HIDDEN, Presentation
from bridge.pbx.ami.resync import Resynced, Snapshot, resync
from bridge.pbx.ami.session import LoginRefused, NoReply, Reply, Session, Timings, tls_context
from bridge.pbx.ami.tracker import UNHEARD, Batch, Tracker
from bridge.pbx.ami.wire import LinkDown
from bridge.pbx.port import DialOrder, LinkSink, Outcome, PbxFacts, Reason, Receipts
from bridge.settings import Pbx

log = logging.getLogger(__name__)
T = TypeVar("T")

MAX_GATHERED = 200_000
"""Events kept while a snapshot is taken."""
_SLACK = 1.0
_DIGITS = re.compile(r"\d{3,}")


class NotAllowed(RingbridgeError):
    """The PBX does not let this user ask what the link must know."""

    code = "not_allowed"


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
        self._presentation = Presentation(self.tracker.parties, self._track, self._timings.presentation)
        self.sink_faults = 0
        """Batches that the sink did not take."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._main: asyncio.Task[None] | None = None
        self._stopping = threading.Event()
        self._events: Session | None = None
        self._commands: Session | None = None
        self._command_fault = "not connected yet"
        self._command_tried: asyncio.Event | None = None
        self._gathered: list[Message] | None = None
        self._booted: float | None = None
        self._lost_at: float | None = None
        self._synced = False

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
        loop, thread, main = self._loop, self._thread, self._main
        if loop is not None and main is not None and not loop.is_closed():
            try:
                loop.call_soon_threadsafe(main.cancel)
            except RuntimeError:
                log.debug("the link of %s had ended already", self._pbx.name)
        if thread is not None and thread is not threading.current_thread():
            thread.join(10)

    def _run(self, ready: threading.Event) -> None:
        async def begin() -> None:
            self._loop = asyncio.get_running_loop()
            self._main = asyncio.current_task()
            self._command_tried = asyncio.Event()
            ready.set()
            keepers = [asyncio.create_task(self._keep_events())]
            if not self._observe:
                keepers.append(asyncio.create_task(self._keep_commands()))
            try:
                await asyncio.gather(*keepers)
            finally:
                for keeper in keepers:
                    keeper.cancel()
                await asyncio.gather(*keepers, return_exceptions=True)
                for session in (self._events, self._commands):
                    if session is not None:
                        session.close()
                self._events = self._commands = None
                self._synced = False

        try:
            asyncio.run(begin())
        except asyncio.CancelledError:
            log.debug("the link of %s has ended", self._pbx.name)

    # --- the connection that reads ---

    async def _keep_events(self) -> None:
        pause = Pause(self._timings)
        while True:
            lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            try:
                session = await self._open(
                    self._pbx.username,
                    self._secret,
                    on_events=self._hear,
                    on_lost=_resolve(lost),
                    events=True,
                )
                self._events = session
                try:
                    await self._come_up(session)
                    pause.reset()
                    reason = await lost
                finally:
                    self._events = None
                    self._synced = False
                    self._gathered = None
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
        if not self._observe and self._command_tried is not None:
            try:
                await asyncio.wait_for(self._command_tried.wait(), self._timings.commands)
            except TimeoutError:
                # The events matter more: without them the picture is wrong.
                log.info("the command user of PBX %s is not signed in yet", self._pbx.name)
        detail = "connected"
        if not self._observe and self._commands is None:
            detail = f"connected for events only: {self._command_fault}"
        snapshot, version = await self._snapshot(session)
        self._say(lambda: self._sink.link_up(detail))
        since, self._lost_at = self._lost_at, None
        now = time.time()
        try:
            done = resync(self.tracker, snapshot, since, now)
        except Exception as error:
            # A fault here must not keep the events that follow from being heard.
            self.tracker.faults += 1
            log.exception("the resync of PBX %s failed (%s)", self._pbx.name, type(error).__name__)
            done = Resynced(Batch(*self.tracker.book.take()), 0, 0)
        self._deliver(done.batch)
        gathered, self._gathered = self._gathered or [], None
        for message in gathered:
            if message.get("Event") == "FullyBooted":
                self._note_boot(message)
        # One that does not say it has booted is still at it.
        started = datetime.fromtimestamp(self._booted if self._booted is not None else now, UTC)
        facts = PbxFacts(started, version, done.appeared, done.vanished)
        self._synced = True
        self._say(lambda: self._sink.resynced(facts))
        self._apply(gathered)

    async def _snapshot(self, session: Session) -> tuple[Snapshot, str]:
        core = await session.ask("CoreSettings", deadline=self._timings.resync)
        channels = await self._list(session, "CoreShowChannels")
        if not channels.ok:
            raise NotAllowed(
                f"user {self._pbx.username!r} may not list the PBX's channels ({_told(channels.text)}); "
                "give it write = reporting in manager.conf and reload"
            )
        bridges = await self._list(session, "BridgeList")
        queued = await self._list(session, "QueueStatus")
        entries = tuple(item for item in queued.items if _header(item, "event") == "QueueEntry")
        version = _header(core.headers or {}, "asteriskversion") if core.ok else ""
        shown = await asyncio.gather(*(self._presentable(session, item) for item in channels.items))
        return Snapshot(tuple(shown), bridges.items, entries), version

    async def _presentable(self, session: Session, item: Mapping[str, str]) -> Mapping[str, str]:
        if item.get("Uniqueid") in self.tracker.book.channels or not self._presentation.concerns(item):
            return item
        if not await self._presentation.hidden(session, item.get("Channel", "")):
            return item
        return {**item, "CallerIDNum": HIDDEN, "CallerIDName": HIDDEN}

    async def _list(self, session: Session, action: str) -> Reply:
        return await session.ask(action, deadline=self._timings.resync, listed=None)

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
        self._deliver(self.tracker.feed(messages, time.time()))

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
        self._say(lambda: self._sink.link_down(reason))

    # --- the connection that commands ---

    async def _keep_commands(self) -> None:
        pause = Pause(self._timings)
        while True:
            lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            try:
                session = await self._open(
                    self._pbx.command_username,
                    self._command_secret,
                    on_events=_ignore,
                    on_lost=_resolve(lost),
                    events=False,
                )
                self._commands = session
                self._command_try_over()
                pause.reset()
                try:
                    self._command_fault = await lost
                finally:
                    self._commands = None
                    if self._command_tried is not None:
                        self._command_tried.clear()
                    session.close()
                await asyncio.sleep(pause.next())
                continue
            except RingbridgeError as error:
                self._command_fault = error.message
                refused = isinstance(error, LoginRefused)
                (log.error if refused else log.warning)("PBX %s, commands: %s", self._pbx.name, error.message)
                wait = pause.next(refused=refused)
            self._command_try_over()
            await asyncio.sleep(wait)

    def _command_try_over(self) -> None:
        if self._command_tried is not None:
            self._command_tried.set()

    async def _open(
        self,
        username: str,
        secret: str,
        *,
        on_events: Callable[[list[Message]], None],
        on_lost: Callable[[str], None],
        events: bool,
    ) -> Session:
        if events:
            # From the first byte on: what happens while the snapshot is taken is applied after it.
            self._gathered = []
            self._booted = None
        return await Session.open(
            self._pbx.host,
            self._pbx.port,
            username,
            secret,
            on_events=on_events,
            on_lost=on_lost,
            tls=tls_context(self._pbx.tls_ca) if self._pbx.tls else None,
            events=events,
            ignore=UNHEARD,
            timings=self._timings,
        )

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

    def live_attempts(self) -> frozenset[str]:
        """See PbxLink."""
        if self._thread is None:
            return self.tracker.live_attempts()

        async def look() -> frozenset[str] | None:
            return self.tracker.live_attempts()

        found = self._await(look(), 5.0, None)
        if found is None:
            raise Unavailable("the link to the PBX is too busy to say which calls are alive")
        return found

    def dial(self, order: DialOrder) -> Outcome:
        """See PbxLink."""
        down = Outcome(False, Reason.LINK_DOWN, "the link to the PBX is down; nothing was dialled")
        unknown = Outcome(False, Reason.TIMEOUT, "the PBX did not answer; whether it dials is unknown")
        if self._observe:
            return Outcome(False, Reason.REFUSED, "observe mode never dials; set dialing.mode to dial")
        if self._thread is None or self._stopping.is_set():
            return down
        deadline = min(max(order.deadline_seconds, 0.1), 60.0)
        return self._await(self._dial(order, deadline), deadline + _SLACK, unknown)

    async def _dial(self, order: DialOrder, deadline: float) -> Outcome:
        try:
            fields = originate(order)
        except LocalError as error:
            return Outcome(False, Reason.REFUSED, error.message)
        session = self._commands
        if session is None or not session.up:
            return Outcome(
                False, Reason.LINK_DOWN, f"the command user is not signed in: {self._command_fault}"
            )
        if not self._synced:
            return Outcome(
                False, Reason.LINK_DOWN, "the PBX's events are not being read; nothing was dialled"
            )
        self.tracker.expect(replace(order.expected, attempt=order.attempt))
        try:
            reply = await session.ask("Originate", fields, deadline=deadline)
        except (LinkDown, LocalError) as error:
            self.tracker.unexpect(order.attempt)
            return Outcome(False, Reason.LINK_DOWN, error.message)
        except NoReply as error:
            return Outcome(False, Reason.TIMEOUT, error.message)
        if reply.ok:
            return Outcome(True, Reason.SENT, "the PBX dials")
        self.tracker.unexpect(order.attempt)
        return Outcome(False, Reason.REFUSED, f"the PBX refused: {_told(reply.text)}")

    def hangup(self, call: str, agent: str | None) -> Outcome:
        """See PbxLink."""
        down = Outcome(False, Reason.LINK_DOWN, "the link to the PBX is down; the call goes on")
        if self._observe:
            return Outcome(False, Reason.REFUSED, "observe mode sends no commands; hang up on the phone")
        if self._thread is None or self._stopping.is_set():
            return down
        unknown = Outcome(False, Reason.TIMEOUT, "the PBX did not answer; look whether the call has ended")
        return self._await(self._hangup(call, agent), 2 * self._timings.action + _SLACK, unknown)

    async def _hangup(self, call_id: str, agent: str | None) -> Outcome:
        book = self.tracker.book
        call = book.calls.get(call_id)
        if call is None:
            return Outcome(False, Reason.NOT_FOUND, "that call is over")
        if agent is None:
            legs = [book.channels[uid] for uid in call.legs]
        else:
            guest = [book.channels[call.guest]] if call.guest in book.channels else []
            legs = [leg for leg in [*guest, *book.live_legs(call)] if book.party(leg).agent == agent]
            legs = sorted(legs, key=lambda leg: (leg.bridge is not None, leg.state, leg.born))[-1:]
        if not legs:
            return Outcome(False, Reason.NOT_FOUND, "that agent has no phone in the call")
        session = self._commands
        if session is None or not session.up:
            return Outcome(
                False, Reason.LINK_DOWN, f"the command user is not signed in: {self._command_fault}"
            )
        if agent is not None:
            self.tracker.leg_wants_end(legs[0], call, None, time.time())
            self._deliver(Batch(*book.take()))
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
            return Outcome(False, Reason.REFUSED, f"the PBX refused: {_told(refusals[0].text)}")
        return Outcome(False, Reason.LINK_DOWN, "the link to the PBX is down; the call goes on")

    def receipts(self, attempt: str) -> Receipts:
        """See PbxLink."""
        nothing = Receipts(None, None)
        if self._observe or self._thread is None or self._stopping.is_set():
            return nothing
        return self._await(self._receipts(attempt), 2 * self._timings.action + _SLACK, nothing)

    async def _receipts(self, attempt: str) -> Receipts:
        return Receipts(await self._receipt(f"{attempt}-agent"), await self._receipt(f"{attempt}-customer"))

    async def _receipt(self, key: str) -> bool | None:
        session = self._commands
        if session is None:
            return None
        try:
            reply = await session.ask("DBGet", {"Family": RECEIPTS, "Key": key}, listed=None)
        except (LinkDown, NoReply, LocalError):
            return None
        if reply.ok:
            return True
        return False if "not found" in reply.text.lower() else None

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


class Pause:
    """How long to wait before the next try: doubling, with jitter, and far longer after a refusal."""

    def __init__(self, timings: Timings) -> None:
        self._timings = timings
        self.reset()

    def reset(self) -> None:
        """The connection was good: begin small again."""
        self._next = self._timings.retry_first
        self._next_refused = self._timings.refused_first

    def next(self, *, refused: bool = False) -> float:
        """Seconds to wait now."""
        if refused:
            wait, self._next_refused = (
                self._next_refused,
                min(self._next_refused * 2, self._timings.refused_most),
            )
        else:
            wait, self._next = self._next, min(self._next * 2, self._timings.retry_most)
        return wait * random.uniform(0.5, 1.0)


def _resolve(future: asyncio.Future[str]) -> Callable[[str], None]:
    def resolve(reason: str) -> None:
        if not future.done():
            future.set_result(reason)

    return resolve


def _ignore(messages: list[Message]) -> None:
    """The command user hears no events."""


def _header(item: Mapping[str, Any], name: str) -> str:
    for key, value in item.items():
        if key.lower() == name:
            return str(value)
    return ""


def _told(text: str) -> str:
    """The PBX's words for a person, without anything that could be a number."""
    return _DIGITS.sub("...", text)[:200] or "it gave no reason"
