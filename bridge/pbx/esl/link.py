"""The link to a FreeSWITCH: two connections, one thread, one tracker.

The event user's connection is read all the time and asked for a snapshot after each sign-in; the command user's
connection sends. Nothing is sent twice: a command whose connection breaks has an unknown outcome and says so.
"""

from __future__ import annotations

import logging
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar

import gevent
from gevent.event import AsyncResult, Event

from bridge.domain.calls import Directory, Remembered
from bridge.domain.errors import RingbridgeError, SettingsError, Unavailable
from bridge.domain.mirroring import Member
from bridge.pbx.calls.book import Batch
from bridge.pbx.calls.gap import keep_all
from bridge.pbx.calls.telling import Teller
from bridge.pbx.connecting import (
    ConnectFailed,
    LinkDown,
    LoginRefused,
    NoList,
    NoReply,
    NotAllowed,
    Pause,
    Timings,
)
from bridge.pbx.esl import members
from bridge.pbx.esl.codec import Event as EslEvent
from bridge.pbx.esl.commands import Commander
from bridge.pbx.esl.hearing import EVENTS, SUBCLASSES
from bridge.pbx.esl.hub import HubThread, Work
from bridge.pbx.esl.offers import wishes
from bridge.pbx.esl.resync import Resynced, Snapshot, look_again, resync, still_news, take_snapshot, unseen
from bridge.pbx.esl.session import Session
from bridge.pbx.esl.tracker import Tracker
from bridge.pbx.esl.watch import Watch
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

MAX_GATHERED = 20_000
"""Events kept while a snapshot is taken; each is some 20 kB."""
MAX_OUTCOME = 180.0
"""Seconds for which the outcome of an action is waited for, at most."""
_SLACK = 1.0
_LOOKS_AGAIN = (1.0, 3.0)
"""Seconds after a resync, and after that, at which it is looked whether the PBX lists more by now."""
_VERSION = re.compile(r"\(Version ([^\s)]+)")
_AGE = re.compile(r"(\d{1,9}) (year|day|hour|minute|second)s?\b")
_SECONDS = {"year": 365 * 86400, "day": 86400, "hour": 3600, "minute": 60, "second": 1}


class EslLink:
    """PbxLink of one FreeSWITCH. Raises SettingsError where a secret is missing, or is FreeSWITCH's default."""

    def __init__(
        self, pbx: Pbx, sink: LinkSink, *, observe: bool = False, timings: Timings | None = None
    ) -> None:
        self._pbx = pbx
        self._sink = sink
        self._observe = observe
        self._timings = timings or Timings()
        self._secret = pbx.read_secret()
        self.tracker = Tracker(pbx.name, pbx.trunks)
        self.sink_faults = 0
        """Batches that the sink did not take."""
        self._teller = Teller(self.tracker.book, self._deliver, gevent.spawn_later)
        self._watch = Watch()
        self._refused: Counter[str] = Counter()
        """What the reading connections of the past refused, by reason, and how many events these heard."""
        self._heard = 0
        self._hub = HubThread(f"esl-{pbx.name}", self._keepers)
        self._events: Session | None = None
        self._commander = Commander(
            pbx,
            "" if observe else pbx.read_command_secret(),
            self._timings,
            self.tracker,
            self._deliver,
            lambda: self._synced,
            self._commands_changed,
        )
        self._detail = ""
        self._gathered: list[EslEvent] | None = None
        self._lost_at: float | None = None
        self._synced: bool = False
        self._looking: gevent.Greenlet | None = None
        self._members = Members()

    # --- thread ---

    def start(self) -> None:
        """See PbxLink."""
        self._hub.start()

    def stop(self) -> None:
        """See PbxLink."""
        self._hub.stop()

    def is_running(self) -> bool:
        """See PbxLink."""
        return self._hub.is_running()

    def _keepers(self, ending: Event) -> Sequence[Work]:
        events = [lambda: self._keep_events(ending)]
        return events if self._observe else [*events, lambda: self._commander.keep(ending)]

    # --- the connection that reads ---

    def _keep_events(self, ending: Event) -> None:
        pause = Pause(self._timings)
        while not ending.is_set():
            try:
                reason = self._once(pause)
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
            ending.wait(wait)

    def _once(self, pause: Pause) -> str:
        """One connection, to its end. Returns why it ended; raises as `Session.open` and `_come_up`."""
        lost: AsyncResult[str] = AsyncResult()
        # From the first byte on: what happens while the snapshot is taken is applied after it.
        self._gathered = []
        self._watch.begin()
        session = Session.open(
            self._pbx,
            self._pbx.username,
            self._secret,
            on_events=self._hear,
            on_lost=lost.set,
            names=EVENTS,
            subclasses=SUBCLASSES,
            timings=self._timings,
        )
        self._events = session
        try:
            self._come_up(session)
            pause.reset()
            reason: str = lost.get()
            return reason
        except (LinkDown, NoReply) as error:
            # Why it was lost says more than that it is.
            raise ConnectFailed(lost.get() if lost.ready() else error.message) from None
        finally:
            self._events = None
            self._synced = False
            self._gathered = None
            if self._looking is not None:
                self._looking.kill(block=False)
                self._looking = None
            # A new one each time: another thread may be looking through the old one.
            self._refused = self._refused + session.counts
            self._heard += session.events
            session.close()
            self._teller.now()

    def _come_up(self, session: Session) -> None:
        if not self._observe:
            self._commander.tried()
        session.learn_clock()
        status = self._ask(session, "status")
        try:
            snapshot = take_snapshot(lambda command: self._ask(session, command), list(self.tracker.book.channels))
        except NoList as error:
            self._go_on_blind(session, error)
            return
        detail = self._detail = self._how_it_does()
        self._say(lambda: self._sink.link_up(detail))
        since, self._lost_at = self._lost_at, None
        now = time.time()
        done = self._resync(snapshot, since, now)
        self._deliver(done.batch)
        gathered, self._gathered = self._gathered or [], None
        version, started = read_status(status, now)
        facts = PbxFacts(self._since(session, started, now), version, done.appeared, done.vanished)
        self._list_members(session)
        self._synced = True
        self._say(lambda: self._sink.resynced(facts))
        self._commands_changed()
        self._apply(still_news(self.tracker, gathered))
        self._looking = gevent.spawn(self._look_again, session)

    def _go_on_blind(self, session: Session, why: NoList) -> None:
        """Hear events without a picture to begin with, and dial nothing. See LinkSink.link_up."""
        log.warning("PBX %s: %s", self._pbx.name, why.message)
        self._detail = f"connected for events only: {why.message}"
        self._say(lambda: self._sink.link_up(self._detail))
        since, self._lost_at = self._lost_at, None
        self._deliver(keep_all(self.tracker.book, since, time.time()))
        gathered, self._gathered = self._gathered or [], None
        self._apply(gathered)
        self._looking = gevent.spawn(self._ask_again, session)

    def _ask_again(self, session: Session) -> None:
        """Until the PBX lists its channels: a new connection takes them in."""
        while True:
            gevent.sleep(self._timings.refused_first)
            try:
                take_snapshot(lambda command: self._ask(session, command))
            except (NoReply, NotAllowed):
                continue
            except LinkDown:
                return
            session.give_up("the PBX lists its channels now")
            return

    def _look_again(self, session: Session) -> None:
        """FreeSWITCH lists a channel up to a second late: one that began just before the first look is found now."""
        for pause in _LOOKS_AGAIN:
            gevent.sleep(pause)
            try:
                if not unseen(lambda command: self._ask(session, command), self.tracker.book):
                    continue
                snapshot = take_snapshot(lambda command: self._ask(session, command))
                self._deliver(look_again(self.tracker, snapshot, time.time()).batch)
            except (LinkDown, NoReply, NotAllowed):
                continue
            except Exception as error:
                # As in a resync: what follows must be heard all the same.
                self.tracker.faults += 1
                log.exception("the second look at PBX %s failed (%s)", self._pbx.name, type(error).__name__)

        while True:
            gevent.sleep(REFRESH_SECONDS)
            self._list_members(session)

    def _list_members(self, session: Session) -> None:
        """A list that is older than an event is not taken; without mod_callcenter there is none."""
        before = self._members.changes
        try:
            found = members.listed(self._ask(session, members.LIST))
        except (LinkDown, NoReply, NotAllowed):
            return
        if self._members.changes == before:
            self._members.take(found)

    def _since(self, session: Session, started: datetime | None, now: float) -> datetime | None:
        """From when on the PBX remembers what it dialled: its start, or that of its receipts."""
        since = self._commander.proven_since = self._commander.since
        clock = session.pbx_time(uptime())
        if started is None or since is None or clock is None:
            return started
        return max(started, datetime.fromtimestamp(since - clock + now, UTC))

    def _ask(self, session: Session, command: str) -> str:
        return session.api(command, self._timings.resync)

    def _resync(self, snapshot: Snapshot, since: float | None, now: float) -> Resynced:
        try:
            return resync(self.tracker, snapshot, since, now)
        except Exception as error:
            # A fault here must not keep the events that follow from being heard.
            self.tracker.faults += 1
            log.exception("the resync of PBX %s failed (%s)", self._pbx.name, type(error).__name__)
            return Resynced(self.tracker.book.take(), 0, 0)

    def _how_it_does(self) -> str:
        if self._observe or self._commander.up:
            return "connected"
        return f"connected for events only: {self._commander.fault}"

    def _commands_changed(self) -> None:
        detail = self._how_it_does()
        if self._synced and detail != self._detail:
            self._detail = detail
            self._say(lambda: self._sink.link_detail(detail))

    def _hear(self, events: list[EslEvent]) -> None:
        session = self._events
        clock = None if session is None else session.pbx_time(uptime())
        doubt = self._watch.hear(events, time.time() if clock is None else clock)
        if self._gathered is None:
            self._apply(events)
        else:
            self._gathered.extend(events)
        if session is None:
            return
        if doubt:
            self._lost_at = self._watch.doubt_since
            session.give_up("events may have been lost: the PBX made very many while the link was behind")
        elif self._gathered is not None and len(self._gathered) > MAX_GATHERED:
            session.give_up("more events came during the resync than can be kept")

    def _apply(self, events: list[EslEvent]) -> None:
        self.tracker.hear_all(events, time.time())
        for event in events:
            if event.get("Event-Subclass") == "callcenter::info":
                members.hear(self._members, event)
        for wish in wishes(events, self.tracker.book):
            self._say(partial(self._sink.asked, wish))
        self._teller.soon()

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
        if self._hub.begun:
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
        if not self._hub.begun:
            return at()

        def look() -> frozenset[str]:
            # Who asks compares it with what was said.
            self._teller.now()
            return at()

        found: frozenset[str] | None = self._hub.ask(look, 5.0, None)
        if found is None:
            raise Unavailable("the link to the PBX is too busy to say which calls are alive")
        return found

    def counts(self) -> Mapping[str, float]:
        """See PbxLink."""
        session = self._events
        refused = self._refused + self._commander.refused + (Counter() if session is None else session.counts)
        return {
            **refused,
            "events": self._heard + (0 if session is None else session.events),
            "refused": refused.total(),
            "faults": self.tracker.faults,
            "sink_faults": self.sink_faults,
            "gaps": self._watch.gaps,
            "out_of_order": self._watch.backwards,
            "lag_seconds": round(self._watch.lag, 3),
            "worst_lag_seconds": round(self._watch.worst_lag, 3),
        }

    def dial(self, order: DialOrder) -> Outcome:
        """See PbxLink."""
        down = Outcome(False, Reason.LINK_DOWN, "the link to the PBX is down; nothing was dialled")
        unknown = Outcome(False, Reason.TIMEOUT, "the PBX did not answer; whether it dials is unknown")
        if self._observe:
            return Outcome(False, Reason.REFUSED, "observe mode never dials; set dialing.mode to dial")
        if not self._hub.begun or self._hub.stopping:
            return down
        deadline = min(max(order.until - uptime(), 0.1), 60.0)
        return self._hub.ask(lambda: self._commander.dial(order, deadline), deadline + _SLACK, unknown)

    def hangup(self, call: str, agent: str | None) -> Outcome:
        """See PbxLink."""
        down = Outcome(False, Reason.LINK_DOWN, "the link to the PBX is down; the call goes on")
        if self._observe:
            return Outcome(False, Reason.REFUSED, "observe mode sends no commands; hang up on the phone")
        if not self._hub.begun or self._hub.stopping:
            return down
        unknown = Outcome(False, Reason.TIMEOUT, "the PBX did not answer; look whether the call has ended")
        return self._hub.ask(
            lambda: self._commander.hangup(call, agent), 2 * self._timings.action + _SLACK, unknown
        )

    def act(self, order: ActionOrder) -> Outcome:
        """See PbxLink."""
        down = Outcome(False, Reason.LINK_DOWN, "the link to the PBX is down; the call goes on as it was")
        unknown = Outcome(False, Reason.TIMEOUT, "the PBX did not say what became of it; look at the call")
        if self._observe:
            return Outcome(False, Reason.REFUSED, "observe mode sends no commands; use the phone")
        if not self._hub.begun or self._hub.stopping:
            return down
        deadline = min(max(order.until - uptime(), 0.1), MAX_OUTCOME)
        return self._hub.ask(lambda: self._commander.act(order, deadline), deadline + _SLACK, unknown)

    def members(self) -> Mapping[str, Member] | None:
        """See PbxLink."""
        return self._members.by_device if self._synced else None

    def set_member(self, device: str, member: Member, seconds: float) -> Outcome:
        """See PbxLink."""
        if self._observe:
            return Outcome(False, Reason.REFUSED, "observe mode sends no commands")
        if not self._hub.begun or self._hub.stopping:
            return Outcome(False, Reason.LINK_DOWN, "the link to the PBX is down")
        unknown = Outcome(False, Reason.TIMEOUT, "the PBX did not answer")
        handles = self._members.handles(device)
        return self._hub.ask(lambda: self._commander.set_member(handles, member, seconds), seconds + _SLACK, unknown)

    def answer(self, wish: QueueWish, answer: Answer) -> Outcome:
        """See PbxLink."""
        if self._observe or not self._hub.begun or self._hub.stopping:
            return Outcome(False, Reason.LINK_DOWN, "the link to the PBX is down; the caller waits on")
        unknown = Outcome(False, Reason.TIMEOUT, "the PBX did not answer; the caller may wait on")
        return self._hub.ask(
            lambda: self._commander.answer(wish, answer), self._timings.action + _SLACK, unknown
        )

    def receipts(self, attempt: str) -> Receipts:
        """See PbxLink."""
        nothing = Receipts(None, None)
        if self._observe or not self._hub.begun or self._hub.stopping:
            return nothing
        return self._hub.ask(
            lambda: self._commander.receipts(attempt), 2 * self._timings.action + _SLACK, nothing
        )


def read_status(text: str, now: float) -> tuple[str, datetime | None]:
    """The PBX's version and when it was started, from what it answers to `status`."""
    version = _VERSION.search(text)
    age = _AGE.findall(text.partition("\n")[0])
    started = now - sum(int(count) * _SECONDS[unit] for count, unit in age) if age else None
    if "is not ready" in text:
        # It is still at its start.
        started = now
    return version[1] if version else "", None if started is None else datetime.fromtimestamp(started, UTC)
