"""One signed-in ESL connection: every wait has a deadline, a dead peer is noticed, and closing is final.

All of it runs in greenlets of one hub.
"""

from __future__ import annotations

import ssl
import uuid
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any

import gevent
import gevent.ssl
from gevent.event import AsyncResult

from bridge.pbx.connecting import (
    ConnectFailed,
    LinkDown,
    LoginRefused,
    NoReply,
    NotAllowed,
    Timings,
    told,
    trust,
)
from bridge.pbx.esl.codec import Event
from bridge.pbx.esl.hearing import CUSTOM
from bridge.pbx.esl.wire import Wire, why
from bridge.settings import Pbx
from bridge.uptime import uptime

FORMAT = "json"
"""How events are asked for; the codec reads the other too."""
DEFAULT_PASSWORD = "ClueCon"
JOB = "BACKGROUND_JOB"
_QUICK_PING = 1.0
"""A ping that takes longer says too little of the PBX's clock, where that is known already."""
_WHOLE_SECOND = 1.5
"""Further apart than this, two answers were not said by one clock that only goes on."""
_SIGN_OF_LIFE = 4096
"""Bytes that a peer sends within a ping's deadline at least, where it is in the middle of one long answer."""
_DENIED = "permission denied"


class Declined(NotAllowed):
    """The PBX did not take the command."""

    code = "declined"


class Session:
    """One connection of one user. Made by `open`, ended by `close` or by the peer; never revived."""

    def __init__(self, pbx: Pbx, username: str, timings: Timings, on_events: Callable[[list[Event]], None]) -> None:
        self._pbx = pbx
        self._username = username
        self._timings = timings
        self._hand_on = on_events
        self._where = f"{pbx.host}:{pbx.port}"
        self._user = f"user {username!r}" if "@" in username else "the password's owner"
        self._wire: Wire
        self._ready: Callable[[str], None] | None = None
        self._lost: str | None = None
        self._pinger: gevent.Greenlet | None = None
        self._ahead: deque[float] = deque(maxlen=8)
        self._jobs: dict[str, AsyncResult[Event]] = {}
        self._allowed_events = ""

    @classmethod
    def open(
        cls,
        pbx: Pbx,
        username: str,
        secret: str,
        *,
        on_events: Callable[[list[Event]], None],
        on_lost: Callable[[str], None],
        names: Sequence[str],
        subclasses: Sequence[str] = (),
        timings: Timings | None = None,
    ) -> Session:
        """Connect, sign in, and hear the events of these names and subclasses.

        Raises ConnectFailed, LoginRefused, NotAllowed for events that this user may not hear, LinkDown and NoReply
        where the PBX stops to answer, LocalError for an unsendable secret. `on_lost` is called at most once, never
        where `open` raised, and not after `close`.
        """
        session = cls(pbx, username, timings or Timings(), on_events)
        session._wire = Wire(
            pbx.host, pbx.port, session._hear, session._on_lost, _tls_context(pbx) if pbx.tls else None
        )
        try:
            session._connect()
            session._sign_in(secret)
            session._subscribe(names, subclasses)
        except BaseException:
            session.close()
            raise
        if session._lost is not None:
            raise ConnectFailed(f"{session._where}: {session._lost}")
        session._ready = on_lost
        session._pinger = gevent.spawn(session._ping)
        return session

    def _on_lost(self, reason: str) -> None:
        self._lost = reason
        jobs, self._jobs = self._jobs, {}
        for job in jobs.values():
            job.set_exception(LinkDown())
        if self._ready is not None:
            self._ready(reason)

    # --- beginning ---

    def _connect(self) -> None:
        connected = False
        try:
            with gevent.Timeout(self._timings.connect, False):
                self._wire.connect()
                connected = True
        except ssl.SSLCertVerificationError as error:
            raise ConnectFailed(f"the certificate of {self._where} is not trusted: {why(error)}") from None
        except OSError as error:
            raise ConnectFailed(f"{self._where} cannot be reached: {why(error)}") from None
        if not connected:
            raise ConnectFailed(f"{self._where} does not answer within {self._timings.connect:g} s")

    def _sign_in(self, secret: str) -> None:
        greeted = self._wire.greeted(self._timings.login)
        if self._wire.rejected:
            raise LoginRefused(
                f"login refused: {self._where} lets nobody in from this machine's address; add it to the list that "
                "apply-inbound-acl in event_socket.conf.xml names, and run fs_cli -x reloadacl"
            )
        if self._lost is not None:
            raise ConnectFailed(f"{self._where}: {self._lost}")
        if not greeted:
            raise ConnectFailed(
                f"{self._where} does not answer the login; is it a FreeSWITCH event socket (mod_event_socket)?"
            )
        by_name = "@" in self._username
        command = f"userauth {self._username}:{secret}" if by_name else f"auth {secret}"
        try:
            reply = self._wire.ask(command, deadline=self._timings.login)
        except (NoReply, LinkDown):
            why_not = self._lost or "no answer to the login"
            if by_name and self._lost is None:
                # FreeSWITCH repeats the user's permissions in its reply, and cuts the whole at 512 bytes.
                why_not += "; keep esl-allowed-events and esl-allowed-api of this user short (400 letters together)"
            raise ConnectFailed(f"{self._where}: {why_not}") from None
        if not reply.headers.get("Reply-Text", "").startswith("+OK"):
            wrong = (
                f"user {self._username!r} with this secret; compare both with the user's esl-password in the directory"
                if by_name
                else "this password; compare it with event_socket.conf.xml"
            )
            raise LoginRefused(f"login refused: {self._where} does not take {wrong}")
        self._allowed_events = reply.headers.get("Allowed-Events", "all")

    def _subscribe(self, names: Sequence[str], subclasses: Sequence[str]) -> None:
        words = [*names, *([CUSTOM, *subclasses] if subclasses else [])]
        reply = self._wire.ask(f"event {FORMAT} {' '.join(words)}", deadline=self._timings.login)
        text = reply.headers.get("Reply-Text", "")
        if text.startswith("+OK"):
            return
        if _DENIED in text:
            allowed = set(self._allowed_events.replace(",", " ").split())
            missing = " ".join(word for word in words if word not in allowed)
            raise NotAllowed(
                f"{self._user} may not hear all events that are needed; add {missing or ' '.join(words)} to its "
                "esl-allowed-events in the directory (CUSTOM and its subclasses last) and run reloadxml"
            )
        raise ConnectFailed(f"{self._where} sends no events: {told(text)}")

    # --- asking ---

    @property
    def up(self) -> bool:
        """Whether commands can be sent."""
        return not self._wire.closed

    @property
    def events(self) -> int:
        """Events so far."""
        return self._wire.events

    @property
    def counts(self) -> Counter[str]:
        """What came and was refused, by reason. From any thread: each is copied before it is looked through."""
        refused, odd = dict(self._wire.decoder.refused), dict(self._wire.counts)
        return Counter({f"refused_{reason}": count for reason, count in refused.items()} | odd)

    def api(self, command: str, deadline: float | None = None) -> str:
        """Run an API command and give its answer; one that fails begins with -ERR.

        Raises NotAllowed, LinkDown where nothing was sent, NoReply where nothing is known, LocalError.
        """
        reply = self._wire.ask(f"api {command}", deadline=deadline or self._timings.action)
        if reply.kind == "api_response":
            return reply.text
        text = reply.headers.get("Reply-Text", "")
        if _DENIED in text:
            raise NotAllowed(self._denied(command))
        raise NoReply(f"the PBX does not understand what was asked: {told(text)}")

    def start_job(self, command: str, job: str, deadline: float | None = None) -> None:
        """Have an API command run in the background, under this Job-UUID. Comes back when the PBX took it.

        Raises as `api`, and Declined where the PBX did not take it.
        """
        reply = self._wire.ask(f"bgapi {command}", {"Job-UUID": job}, deadline=deadline or self._timings.action)
        text = reply.headers.get("Reply-Text", "")
        if _DENIED in text:
            raise NotAllowed(self._denied(command))
        if not text.startswith("+OK"):
            raise Declined(told(text))
        if reply.headers.get("Job-UUID", job) != job:
            # Replies and commands have lost each other: none can be believed any more.
            self._wire.give_up("the PBX answered another command than the one sent")
            raise NoReply("the PBX answered another command than the one sent")

    def run(self, command: str, deadline: float | None = None) -> str:
        """Run an API command in the background and wait for its report. Raises as `start_job`."""
        end = uptime() + (deadline or self._timings.action)
        job = str(uuid.uuid4())
        report: AsyncResult[Event] = AsyncResult()
        self._jobs[job] = report
        try:
            self.start_job(command, job, end - uptime())
            if not report.wait(max(end - uptime(), 0.001)) and not report.ready():
                raise NoReply("the PBX took the command and did not report on it")
            if report.exception is not None:
                raise NoReply("the connection broke before the PBX reported")
        finally:
            self._jobs.pop(job, None)
        return str(report.value.get("_body", ""))

    def _denied(self, command: str) -> str:
        # `expand` runs another command, which the user must be allowed as well.
        said = command.split()[: 2 if command.startswith("expand ") else 1]
        words = " ".join(dict.fromkeys(word for word in said if word.isidentifier()))
        return (
            f"{self._user} may not use {words or 'what is needed'}; add it to its esl-allowed-api in the directory "
            "and run reloadxml"
        )

    def _hear(self, events: list[Event]) -> None:
        if self._jobs:
            for event in events:
                if event.get("Event-Name") == JOB:
                    job = self._jobs.pop(event.get("Job-UUID", ""), None)
                    if job is not None:
                        job.set(event)
        self._hand_on(events)

    # --- staying ---

    def _ping(self) -> None:
        while self.up:
            gevent.sleep(self._timings.ping_every)
            frames, received = self._wire.frames, self._wire.received
            try:
                self.learn_clock()
            except (NoReply, LinkDown):
                # A busy PBX may answer late; one that sends no whole frame, and no part of a long one, is gone.
                grown = self._wire.received - received
                if self.up and self._wire.frames == frames and grown < _SIGN_OF_LIFE:
                    self._wire.give_up(f"no answer to a ping within {self._timings.ping_deadline:g} s")
            except Exception as error:  # noqa: BLE001 - without pings nobody would notice a dead peer
                self._wire.give_up(f"the answer to a ping is not understood ({type(error).__name__})")

    def learn_clock(self) -> None:
        """Ping, and learn from the answer what the PBX's clock says. Raises as `api`, but not NotAllowed."""
        asked = uptime()
        try:
            text = self.api("strepoch", self._timings.ping_deadline).strip()
        except NotAllowed:
            return
        heard = uptime()
        if text.isascii() and text.isdecimal() and len(text) == 10 and (
            not self._ahead or heard - asked < _QUICK_PING
        ):
            # As if it had been said only now: an answer that was slow makes a deadline early, never late.
            ahead = int(text) - heard
            if any(abs(ahead - other) > _WHOLE_SECOND for other in self._ahead):
                # The clock was set.
                self._ahead.clear()
            self._ahead.append(ahead)

    def pbx_time(self, at: float) -> float | None:
        """What the PBX's clock says (seconds since 1970) at that uptime of ours, or less; None where it never said."""
        # It says whole seconds, so each answer is up to one too little, and the highest of some is the best.
        return at + max(self._ahead) if self._ahead else None

    def give_up(self, reason: str) -> None:
        """End it as if the peer had, and say why."""
        self._wire.give_up(reason)

    def close(self) -> None:
        """End it: no reconnect, no callback, nobody left waiting."""
        self._ready = None
        if self._pinger is not None:
            self._pinger.kill(block=False)
            self._pinger = None
        self._wire.close()
        self._on_lost("closed")


def _tls_context(pbx: Pbx) -> Any:
    """For an event socket behind a TLS tunnel, since FreeSWITCH's own has none. Raises ConnectFailed."""
    # gevent's own class: the default one would block every greenlet.
    context = gevent.ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_default_certs()
    return trust(context, pbx.tls_ca)
