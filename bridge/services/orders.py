"""The mailbox's commands, carried out: a dial or an action at most once ever, a hang-up as often as asked.

A dial passes, in this order: the deadline, the PBX's rate, the attempt's mark in Redis, and one SQL transaction
that moves it on while the lease is ours and dialling is allowed. Whatever fails before the originate leaves ends the
attempt with a reason that uses up no try; after it, only the PBX's answer, its events or reconciliation do.
"""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import structlog
from redis import Redis
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from bridge.domain.attempts import AttemptState
from bridge.domain.errors import Invalid, NotFound, StateError, Unavailable
from bridge.live import clock, screens
from bridge.live.mailbox import Command, Kind, Mailbox
from bridge.pbx.port import DialOrder, Outcome, PbxLink, Reason
from bridge.services import actions, attempts, checking, line, news
from bridge.services.lease import LeaseKeeper
from bridge.services.remembering import expected
from bridge.settings import Settings
from bridge.store.database import Sessions
from bridge.store.models import Agent, Attempt, Callback, Site, Switch
from bridge.store.queries import leases
from bridge.uptime import uptime

log = structlog.get_logger(__name__)

DIALING_SWITCH = "dialing"
STOPPED = "stopped"
_NUMBER = re.compile(r"\+?[0-9]{3,15}")
_ON_THE_LINE = (
    AttemptState.DIALING,
    AttemptState.RINGING,
    AttemptState.ANSWERED,
    AttemptState.CONNECTED,
    AttemptState.UNCERTAIN,
)
BEGIN_SECONDS = 5.0
"""A dial that was sent is begun by the PBX within this, or never."""


class Refused(Exception):
    """A dial that will not leave. `ends` is the reason with which the attempt ends, None where it is left alone."""

    def __init__(self, reason: str, detail: str, ends: str | None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail
        self.ends = ends


class Rate:
    """A token bucket: `per_second` dials a second, a second's worth at once and at least one."""

    def __init__(self, per_second: float, now: Callable[[], float] = uptime) -> None:
        self._per_second = per_second
        self._size = max(per_second, 1.0)
        self._tokens = self._size
        self._now = now
        self._at = now()
        self._lock = threading.Lock()

    def reserve(self) -> float:
        """Take the next token; returns the seconds until it may be used."""
        with self._lock:
            now = self._now()
            self._tokens = min(self._size, self._tokens + (now - self._at) * self._per_second)
            self._at = now
            self._tokens -= 1
            return max(0.0, -self._tokens / self._per_second)

    def give_back(self) -> None:
        """A token that was not used."""
        with self._lock:
            self._tokens += 1


@dataclass(frozen=True, slots=True)
class Deadline:
    """When a command goes stale, on this machine's uptime: reckoned from Redis TIME, on the early side."""

    at: float

    @property
    def left(self) -> float:
        return self.at - uptime()


class Orders:
    """Carries out commands of one PBX's mailbox; called from several threads."""

    def __init__(
        self,
        settings: Settings,
        pbx_name: str,
        sessions: Sessions,
        redis: Redis,
        mailbox: Mailbox,
        link: PbxLink,
        keeper: LeaseKeeper,
        is_connected: Callable[[], bool],
    ) -> None:
        self._settings = settings
        self._pbx = settings.find_pbx(pbx_name)
        self._sessions = sessions
        self._redis = redis
        self._mailbox = mailbox
        self._link = link
        self._keeper = keeper
        self._is_connected = is_connected
        self._rate = Rate(self._pbx.max_cps)
        self._stopping = threading.Event()
        self._closed = False
        self.counts: Counter[str] = Counter()

    def stop(self) -> None:
        """Nothing that waits for its turn is dialled any more."""
        self._stopping.set()

    def close(self) -> None:
        """Nothing is answered any more: what is still being done, the next holder finds left over."""
        self._closed = True

    def carry_out(self, command: Command) -> None:
        """Execute one command and answer it. Raises redis' errors; the command is then left over in the mailbox."""
        deadline = Deadline(uptime() + (command.deadline_ms - clock.now_ms(self._redis)) / 1000)
        data: Mapping[str, str] = {}
        if command.kind == Kind.DIAL:
            reason, detail = self._dial(command, deadline)
        elif command.kind == Kind.HANGUP:
            reason, detail = self._hangup(command, deadline)
        elif command.kind == Kind.ACTION:
            reason, detail, data = self._act(command, deadline)
        else:
            reason, detail = "not_understood", "this listener does not know that command"
        self.answer(command, reason, detail, data)

    def answer(self, command: Command, reason: str, detail: str, data: Mapping[str, str] | None = None) -> None:
        """Tell whoever sent it, and the screens, what became of a command."""
        if self._closed:
            return
        ok = reason in (Reason.SENT, Reason.DONE)
        kind = actions.name_of(command)
        self.counts[f"{kind}_{reason}"] += 1
        log.info("command", kind=kind, command=command.id, reason=reason)
        self._mailbox.answer(command, ok, reason, detail, data)
        if command.to:
            body = {
                "command": command.id,
                "action": kind,
                "ok": ok,
                "reason": reason,
                "detail": detail,
                "data": dict(data or {}),
            }
            screens.publish(self._redis, command.to, "command", body, id=command.id)

    def never_sent(self, attempt: str) -> None:
        """A dial command was left over: where its attempt had not begun to dial, it ends now. Raises Unavailable."""
        with self._sessions.begin() as session:
            if not leases.is_held(session, self._keeper.lease):
                return
            self._end_claimed(session, attempt, "never_sent")
        news.publish(self._redis, session)

    def _hangup(self, command: Command, deadline: Deadline) -> tuple[str, str]:
        call, agent = command.data.get("call"), command.data.get("agent")
        if not isinstance(call, str) or not (agent is None or isinstance(agent, str)):
            return "not_understood", "a hang-up names a call"
        if deadline.left <= 0:
            return "stale", "the command came too late and was not carried out"
        outcome = self._link.hangup(call, agent)
        return outcome.reason.value, outcome.detail

    def _act(self, command: Command, deadline: Deadline) -> tuple[str, str, Mapping[str, str]]:
        if deadline.left <= 0:
            return "stale", "the command came too late and was not carried out", {}
        if self._settings.dialing.mode == "observe":
            return "observe", "the settings allow listening only", {}
        if not self._is_connected():
            return "link_down", "the PBX is not connected; the call goes on as it was", {}
        try:
            order = actions.order(command, self._pbx, self._settings.dialing.agent_ring_seconds, uptime())
        except Invalid:
            # What is wrong with it was said to whoever asked; this came into the mailbox by another way.
            return "not_understood", "the command does not say what to do, or not in the form that may be sent", {}
        if not self._keeper.is_valid():
            return "fenced", "another listener has this PBX now", {}
        outcome = self._link.act(order)
        return outcome.reason.value, outcome.detail, outcome.data

    def _dial(self, command: Command, deadline: Deadline) -> tuple[str, str]:
        attempt = command.data.get("attempt")
        if not isinstance(attempt, str):
            return "not_understood", "a dial names an attempt"
        try:
            order = self._prepare(command, attempt, deadline)
        except Refused as refused:
            if refused.ends is not None:
                self._try_end(attempt, refused.ends)
            return refused.reason, refused.detail
        outcome = self._send(order, deadline)
        if outcome is None:
            return "stale", "the listener was held up too long; nothing was dialled"
        if not outcome.ok:
            self._note_failure(attempt, outcome)
        return outcome.reason.value, outcome.detail

    def _prepare(self, command: Command, attempt: str, deadline: Deadline) -> DialOrder:
        """Everything up to the originate. Raises Refused."""
        if deadline.left <= 0:
            raise Refused("stale", "the command came too late; nothing was dialled", "stale")
        if not self._is_connected():
            raise Refused("link_down", "the PBX is not connected; nothing was dialled", "link_down")
        wait = self._rate.reserve()
        if wait >= deadline.left or self._stopping.wait(wait):
            self._rate.give_back()
            raise Refused(
                "stale", "the PBX's limit of dials per second was reached; nothing was dialled", "stale"
            )
        if not self._mailbox.claim_dial(attempt, command):
            raise Refused("duplicate", "this attempt was dialled before", None)
        try:
            with self._sessions.begin() as session:
                order = self._begin(session, attempt, deadline)
        except Unavailable as error:
            # The sweep ends the attempt once its deadline is past: nothing has left.
            raise Refused("unavailable", error.message, None) from None
        news.publish(self._redis, session)
        return order

    def _begin(self, session: Session, attempt: str, deadline: Deadline) -> DialOrder:
        """In one transaction: all conditions, and the move to `dialing`. Raises Refused."""
        if not leases.is_held(session, self._keeper.lease):
            raise Refused("fenced", "another listener has this PBX now", None)
        row = session.get(Attempt, attempt)
        if row is None:
            raise Refused("not_found", "there is no such attempt", None)
        if row.state != AttemptState.CLAIMED or row.pbx != self._pbx.name:
            raise Refused("duplicate", f"the attempt is {row.state} already", None)
        if self._settings.dialing.mode == "observe":
            raise Refused("observe", "the settings allow listening only", "observe")
        switch = session.get(Switch, DIALING_SWITCH)
        if switch is not None and switch.value == STOPPED:
            raise Refused("dialing_stopped", "all dialling is stopped", "dialing_stopped")
        busy = session.execute(
            select(func.count())
            .select_from(Attempt)
            .where(Attempt.pbx == self._pbx.name, Attempt.state.in_([str(state) for state in _ON_THE_LINE]))
        ).scalar_one()
        if busy >= self._pbx.max_channels:
            raise Refused("refused", "the PBX's limit of channels is reached; nothing was dialled", "refused")
        order = self._order(session, row, deadline)
        if not attempts.move(session, attempt, AttemptState.DIALING, now=datetime.now(UTC)):
            raise Refused("duplicate", "somebody else was faster", None)
        return order

    def _order(self, session: Session, row: Attempt, deadline: Deadline) -> DialOrder:
        agent = session.get(Agent, row.agent_id) if row.agent_id else None
        queue, joined = self._place(session, row) if row.agent_id is None else (None, 0.0)
        if queue is None and (agent is None or not row.agent_device):
            raise Refused("agent_gone", "the attempt has no agent with a device", "agent_gone")
        device = row.agent_device or ""
        if not _NUMBER.fullmatch(row.number):
            raise Refused("refused", "the number is none that may be dialled", "refused")
        allowed = self._pbx.caller_ids
        if row.caller_id is not None and allowed and row.caller_id not in allowed:
            raise Refused("refused", "the caller id is none of this PBX's caller_ids", "refused")
        return DialOrder(
            attempt=row.id,
            first="agent" if row.agent_first else "customer",
            agent_device=device,
            agent_extension=(agent.extension if agent is not None else None) or device.partition("/")[2],
            number=row.number,
            dial_string=self._pbx.dial.replace("{number}", row.number),
            caller_id=row.caller_id,
            agent_ring_seconds=self._settings.dialing.agent_ring_seconds,
            customer_ring_seconds=self._settings.dialing.customer_ring_seconds,
            expected=expected(row),
            until=deadline.at,
            queue=queue,
            joined=joined,
            confirm=checking.prompt_of(session, row),
        )

    @staticmethod
    def _place(session: Session, row: Attempt) -> tuple[str | None, float]:
        """The queue in which the customer will wait, as the site has it now, and when they joined it, on our uptime."""
        callback = session.get(Callback, row.callback_id) if row.callback_id else None
        site = session.get(Site, callback.site_id) if callback is not None else None
        if callback is None or site is None or row.agent_first:
            return None, 0.0
        return line.queue_for(callback, site), uptime() - line.waited(callback, datetime.now(UTC))

    def _send(self, order: DialOrder, deadline: Deadline) -> Outcome | None:
        """The originate, or None where it is too late: a process that was stopped meanwhile must not dial now.

        One that is stopped after the last look here sends a dial that the PBX itself finds too late.
        """
        until = min(deadline.at, uptime() + BEGIN_SECONDS)
        if not self._keeper.is_valid():
            # Whoever has the lease now judges this attempt.
            return None
        if deadline.left <= 0:
            self._try_end(order.attempt, "stale", begun=True)
            return None
        outcome = self._link.dial(replace(order, until=until))
        self.counts["originates"] += 1
        return outcome

    def _note_failure(self, attempt: str, outcome: Outcome) -> None:
        """Nothing was dialled, or nobody knows; events that came meanwhile know better."""
        if outcome.reason is not Reason.TIMEOUT:
            self._try_end(attempt, outcome.reason.value, begun=True)
            return
        try:
            with self._sessions.begin() as session:
                row = session.get(Attempt, attempt)
                if row is not None and row.state == AttemptState.DIALING:
                    attempts.move(
                        session,
                        attempt,
                        AttemptState.UNCERTAIN,
                        reason=outcome.reason.value,
                        now=datetime.now(UTC),
                    )
        except Unavailable as error:
            log.error("an attempt could not be marked uncertain yet", attempt=attempt, why=error.message)
            return
        news.publish(self._redis, session)

    def _try_end(self, attempt: str, reason: str, *, begun: bool = False) -> None:
        """End an attempt that never left. Where the database does not answer, sweep or reconciliation do it later."""
        try:
            with self._sessions.begin() as session:
                if begun:
                    self._end(session, attempt, AttemptState.DIALING, reason)
                else:
                    self._end_claimed(session, attempt, reason)
        except Unavailable as error:
            log.error("an attempt could not be ended yet", attempt=attempt, why=error.message)
            return
        news.publish(self._redis, session)

    def _end_claimed(self, session: Session, attempt: str, reason: str) -> None:
        self._end(session, attempt, AttemptState.CLAIMED, reason)

    def _end(self, session: Session, attempt: str, while_in: AttemptState, reason: str) -> None:
        row = session.get(Attempt, attempt)
        if row is None or row.state != while_in or row.pbx != self._pbx.name:
            return
        try:
            attempts.move(
                session, attempt, AttemptState.FAILED, reason=reason, now=datetime.now(UTC), over=True
            )
        except (NotFound, StateError):
            log.info("an attempt ended by itself meanwhile", attempt=attempt)
