"""After a gap: what became of the attempts in flight, judged by live calls, the events seen, and the PBX's receipts.

An attempt is judged once its call has been missing from the live picture for some seconds, and once the recorder has
read whatever the events said of it. Nothing here dials.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import structlog
from redis import Redis
from sqlalchemy import select
from sqlalchemy.orm import Session

from bridge.domain.attempts import AttemptState
from bridge.domain.calls import CallEvent
from bridge.domain.errors import Unavailable
from bridge.domain.retrying import NOT_DIALED, OUTCOME_UNKNOWN
from bridge.live import keys
from bridge.live.calls import acknowledged, id_key
from bridge.live.connection import DOWN
from bridge.pbx.port import PbxFacts, PbxLink, Receipts
from bridge.services import attempts, news
from bridge.services.lease import LeaseKeeper
from bridge.services.open_calls import OpenCalls
from bridge.services.orders import BEGIN_SECONDS
from bridge.store.database import Sessions
from bridge.store.models import Attempt, AttemptChange, Call
from bridge.store.queries import leases
from bridge.uptime import uptime

log = structlog.get_logger(__name__)

SETTLE_SECONDS = 3.0
"""A channel appears within this after its originate, and its end is told within this after it is over."""
TOO_LATE_SECONDS = BEGIN_SECONDS + 2.0
"""After this a dial that was sent before its call was first missed is refused by the PBX; it counts whole seconds."""
RECORDER_SECONDS = 30.0
"""How long a recorder that lags is waited for."""
GIVE_UP = timedelta(minutes=15)
"""An attempt whose receipts cannot be had by then has an unknown outcome for good."""
_RESTART_SLACK = timedelta(seconds=5)
"""Clocks of PBX and database may differ, and the receipt is on disk up to a second late."""

NOT_ANSWERED = "no_answer"
"""As where the PBX said so: busy and rejected cannot be told from it any more."""

_JUDGED = (
    AttemptState.DIALING,
    AttemptState.RINGING,
    AttemptState.ANSWERED,
    AttemptState.CONNECTED,
    AttemptState.UNCERTAIN,
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """How an uncertain attempt ends."""

    state: AttemptState
    reason: str | None


def judge(
    receipts: Receipts,
    *,
    agent_first: bool,
    seen_answered: bool,
    seen_connected: bool,
    sent_at: datetime | None,
    started_at: datetime | None,
    now: datetime,
    missing_for: float,
) -> Verdict | None:
    """The verdict on an attempt whose call is not alive; None where it must be asked again.

    `seen_answered` and `seen_connected` are what the events said before the gap, `sent_at` is when its originate left,
    `started_at` the PBX's boot (None where unknown), `missing_for` the seconds in which no call of it was alive, on a
    clock of this machine alone.
    """
    if seen_connected:
        return Verdict(AttemptState.DONE, None)
    if receipts.answered and agent_first:
        # The agent was on the line already: whoever answers is joined with them at once.
        return Verdict(AttemptState.DONE, "end_not_seen")
    if seen_answered or receipts.answered or (receipts.customer and receipts.answered is None):
        # They may have talked. Nobody is called again by itself who may have.
        return Verdict(AttemptState.FAILED, OUTCOME_UNKNOWN)
    if missing_for < TOO_LATE_SECONDS:
        # An originate that was held up on its way may still arrive and be begun.
        return None
    if sent_at is None or started_at is None or started_at > sent_at - _RESTART_SLACK:
        # What is not in the receipts proves nothing: those of the last second before a restart may be lost.
        return Verdict(AttemptState.FAILED, OUTCOME_UNKNOWN)
    if receipts.customer is False:
        return Verdict(AttemptState.FAILED, NOT_DIALED)
    if receipts.customer:
        # It rang, was never answered, and rings no more: what a PBX calls busy, rejected or not answered.
        return Verdict(AttemptState.FAILED, NOT_ANSWERED)
    if now - sent_at > GIVE_UP:
        return Verdict(AttemptState.FAILED, OUTCOME_UNKNOWN)
    return None


class Reconciler:
    """Judges attempts of one PBX for as long as its link is up. One thread runs it."""

    def __init__(
        self,
        pbx: str,
        sessions: Sessions,
        redis: Redis,
        link: PbxLink,
        keeper: LeaseKeeper,
        in_work: Callable[[], frozenset[str]],
        all_published: Callable[[], bool],
        publish: Callable[[CallEvent], None],
    ) -> None:
        """`in_work` names the attempts being dialled now; `all_published` says that no event waits here."""
        self._pbx = pbx
        self._sessions = sessions
        self._redis = redis
        self._link = link
        self._keeper = keeper
        self._in_work = in_work
        self._all_published = all_published
        self._facts: PbxFacts | None = None
        self._missing: dict[str, float] = {}
        self._open_calls = OpenCalls(pbx, sessions, link.live_calls, self._recorder_has_read, publish)
        self._marks: dict[str, str] = {}
        """Attempt or call to the end of `rb:calls` when it was first missed: the recorder must have read that far."""
        self._wake = threading.Event()
        self.counts: Counter[str] = Counter()

    def resynced(self, facts: PbxFacts) -> None:
        """The live picture is whole again."""
        self._missing = {}
        self._marks = {}
        self._open_calls.begin_again()
        self._facts = facts
        self._wake.set()

    def link_down(self) -> None:
        """Nothing can be judged now."""
        self._facts = None

    def run(self, stop: threading.Event) -> None:
        """Look once a second, until `stop`."""
        said = False
        while not stop.is_set():
            try:
                self.step()
                said = False
            except (Unavailable, *DOWN) as error:
                if not said:
                    log.warning("reconciliation waits for the database or Redis", why=str(error))
                said = True
            self._wake.wait(1.0)
            self._wake.clear()

    def wake(self) -> None:
        """End a wait in `run`."""
        self._wake.set()

    def step(self) -> None:
        """One look at every attempt in flight, and at the calls left open. Raises Unavailable, and redis' errors."""
        facts = self._facts
        if facts is None:
            return
        self._attempts(facts)
        if self._facts is facts:
            self._open_calls.step()

    def _attempts(self, facts: PbxFacts) -> None:
        with self._sessions.read() as session:
            rows = session.execute(
                select(Attempt.id, Attempt.state).where(
                    Attempt.pbx == self._pbx, Attempt.state.in_([str(state) for state in _JUDGED])
                )
            ).all()
        alive = self._link.live_attempts() | self._in_work()
        missing = self._missing
        for gone in missing.keys() - {attempt for attempt, _state in rows if attempt not in alive}:
            missing.pop(gone, None)
            self._marks.pop(gone, None)
        for attempt, state in rows:
            if attempt in alive:
                continue
            since = missing.setdefault(attempt, uptime())
            if uptime() - since < SETTLE_SECONDS or self._facts is not facts:
                continue
            if state != AttemptState.UNCERTAIN and not self._doubt(attempt, since):
                continue
            self._settle(attempt, facts, since)

    def _doubt(self, attempt: str, since: float) -> bool:
        """Make the attempt uncertain, once the recorder has read what the events said of it. True when it is now."""
        if not self._recorder_has_read(attempt) and uptime() - since < RECORDER_SECONDS:
            return False
        with self._sessions.begin() as session:
            row = session.get(Attempt, attempt)
            if row is None or row.state not in _JUDGED or not leases.is_held(session, self._keeper.lease):
                return False
            if row.state != AttemptState.UNCERTAIN:
                attempts.move(session, attempt, AttemptState.UNCERTAIN, reason="lost", now=datetime.now(UTC))
                self.counts["uncertain"] += 1
        news.publish(self._redis, session)
        return True

    def _recorder_has_read(self, who: str) -> bool:
        if not self._all_published():
            return False
        mark = self._marks.get(who)
        if mark is None:
            newest = cast(Any, self._redis.xrevrange(keys.CALLS, count=1))
            mark = self._marks[who] = str(newest[0][0]) if newest else "0-0"
        done = acknowledged(self._redis)
        return done is None or id_key(done) >= id_key(mark)

    def _settle(self, attempt: str, facts: PbxFacts, since: float) -> None:
        missing_for = uptime() - since
        receipts = self._link.receipts(attempt)
        with self._sessions.begin() as session:
            row = session.get(Attempt, attempt)
            if row is None or row.state != AttemptState.UNCERTAIN:
                return
            if not leases.is_held(session, self._keeper.lease):
                return
            now = datetime.now(UTC)
            verdict = judge(
                receipts,
                agent_first=row.agent_first,
                seen_answered=_seen(session, attempt, AttemptState.ANSWERED),
                seen_connected=_seen_connected(session, attempt),
                sent_at=row.sent_at,
                started_at=facts.started_at,
                now=now,
                missing_for=missing_for,
            )
            if verdict is None:
                return
            attempts.move(session, attempt, verdict.state, reason=verdict.reason, now=now, over=True)
            self.counts[f"reconciled_{verdict.reason or verdict.state}"] += 1
            log.info("reconciled", attempt=attempt, state=str(verdict.state), reason=verdict.reason)
        news.publish(self._redis, session)


def _seen_connected(session: Session, attempt: str) -> bool:
    if _seen(session, attempt, AttemptState.CONNECTED):
        return True
    calls = select(Call.id).where(Call.attempt_id == attempt, Call.connected_at.is_not(None))
    return session.execute(calls.limit(1)).first() is not None


def _seen(session: Session, attempt: str, state: AttemptState) -> bool:
    changes = select(AttemptChange.id).where(AttemptChange.attempt_id == attempt, AttemptChange.new == str(state))
    return session.execute(changes.limit(1)).first() is not None
