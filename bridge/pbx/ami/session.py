"""One signed-in AMI connection: every wait has a deadline, a dead peer is noticed, and closing is final."""

from __future__ import annotations

import asyncio
import ssl
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bridge.pbx.ami.codec import Message
from bridge.pbx.ami.hearing import UNHEARD, event_time
from bridge.pbx.ami.wire import Answered, OneConnection, Wire
from bridge.pbx.connecting import ConnectFailed, LinkDown, LoginRefused, NoReply, Timings, trust
from bridge.settings import Pbx
from bridge.uptime import uptime

_QUICK_PING = 1.0
"""A ping that takes longer says too little of the PBX's clock, where that is known already."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What the PBX answered to one action."""

    ok: bool
    text: str
    items: tuple[Mapping[str, Any], ...] = ()
    """The events of a list, without its start and end."""
    headers: Mapping[str, Any] | None = None


class Session:
    """One connection of one user. Made by `open`, ended by `close` or by the peer; never revived."""

    def __init__(self, manager: OneConnection, wire: Wire, timings: Timings) -> None:
        self._manager = manager
        self._wire = wire
        self._timings = timings
        self._pinger: asyncio.Task[None] | None = None
        self._ahead: float | None = None

    @classmethod
    async def open(
        cls,
        host: str,
        port: int,
        username: str,
        secret: str,
        *,
        on_events: Callable[[list[Message]], None],
        on_lost: Callable[[str], None],
        tls: ssl.SSLContext | None = None,
        events: bool = True,
        ignore: Collection[str] = (),
        timings: Timings | None = None,
    ) -> Session:
        """Connect and sign in. Raises ConnectFailed, LoginRefused, or LocalError for an unsendable secret.

        `on_lost` is called at most once, and not after `close`.
        """
        timings = timings or Timings()
        lost: list[str] = []
        ready = False

        def _lost(reason: str) -> None:
            lost.append(reason)
            if ready:
                on_lost(reason)

        wire = Wire(on_events, _lost, ignore)
        manager = OneConnection(
            host=host,
            port=port,
            username=username,
            secret=secret,
            events="on" if events else "off",
            ssl=tls if tls is not None else False,
            protocol_factory=lambda: wire,
            loop=asyncio.get_running_loop(),
        )
        where = f"{host}:{port}"
        try:
            async with asyncio.timeout(timings.connect):
                await manager.connect()
        except TimeoutError:
            raise ConnectFailed(f"{where} does not answer within {timings.connect:g} s") from None
        except ssl.SSLCertVerificationError as error:
            raise ConnectFailed(
                f"the certificate of {where} is not trusted: {error.verify_message}"
            ) from None
        except (OSError, ssl.SSLError) as error:
            told = error.strerror or type(error).__name__
            raise ConnectFailed(f"{where} cannot be reached: {told}") from None
        session = cls(manager, wire, timings)
        try:
            await session._sign_in(username, where, lost)
        except BaseException:
            wire.close()
            raise
        ready = True
        if lost:
            raise ConnectFailed(f"{where}: {lost[0]}")
        session._pinger = asyncio.create_task(session._ping())
        return session

    async def _sign_in(self, username: str, where: str, lost: list[str]) -> None:
        # panoramisk signs in from a callback of the connecting task, which may run a moment after it.
        async with asyncio.timeout(self._timings.login):
            await self._manager.asked.wait()
        if self._manager.fault is not None:
            raise self._manager.fault
        future: asyncio.Future[Any] | None = self._manager.authenticated_future
        if future is None:
            raise ConnectFailed(f"{where}: {lost[0] if lost else 'the connection closed at once'}")
        try:
            async with asyncio.timeout(self._timings.login):
                reply = await asyncio.shield(future)
        except TimeoutError:
            raise ConnectFailed(
                f"{where} does not answer the login; is it an Asterisk manager port?"
            ) from None
        except LinkDown:
            raise ConnectFailed(f"{where}: {lost[0] if lost else 'the connection closed at once'}") from None
        if not reply.success:
            raise LoginRefused(
                f"login refused: {where} does not take user {username!r} with this secret; "
                "compare both with manager.conf (deny and permit too)"
            )

    @property
    def version(self) -> str:
        """The manager interface's version, from its greeting."""
        return self._wire.decoder.version or ""

    @property
    def up(self) -> bool:
        """Whether actions can be sent."""
        return not self._wire.closed

    @property
    def events(self) -> int:
        """Events so far, with those that nobody hears."""
        return self._wire.events

    @property
    def refused(self) -> int:
        """Messages so far that could not be used."""
        return self._wire.decoder.skipped

    async def ask(
        self,
        action: str,
        fields: Mapping[str, str | Iterable[str]] | None = None,
        *,
        deadline: float | None = None,
        listed: bool | None = False,
        action_id: str | None = None,
    ) -> Reply:
        """Send one action and wait for its answer; `listed` for a list of events up to its end.

        Raises LinkDown where nothing was sent, NoReply where nothing is known, LocalError for unsendable values.
        """
        action_id = action_id or f"rb-{uuid.uuid4().hex}"
        sent: dict[str, Any] = {"Action": action, "ActionID": action_id}
        for name, value in (fields or {}).items():
            sent[name] = value if isinstance(value, str) else list(value)
        future = self._wire.send(sent, as_list=listed)
        try:
            async with asyncio.timeout(deadline or self._timings.action):
                answer = await future
        except TimeoutError:
            raise NoReply from None
        except LinkDown:
            raise NoReply("the connection broke before the PBX answered") from None
        finally:
            self._wire.drop(action_id)
        return _reply(answer)

    def ask_all(self, action: str, asked: Sequence[tuple[Mapping[str, str], Answered]]) -> list[str]:
        """Ask the same of many in one go, as `Wire.ask_all`. Deadlines are the asker's."""
        return self._wire.ask_all(action, asked)

    def drop(self, question: str) -> None:
        """Wait no longer for that answer; if it still comes, it is ignored."""
        self._wire.drop(question)

    async def _ping(self) -> None:
        while self.up:
            await asyncio.sleep(self._timings.ping_every)
            before = self._wire.received
            try:
                await self.learn_clock()
            except (NoReply, LinkDown):
                # A busy PBX may answer late; one that sends nothing at all is gone.
                if self.up and self._wire.received == before:
                    self._wire.give_up(f"no answer to a ping within {self._timings.ping_deadline:g} s")
            except Exception as error:  # noqa: BLE001 - without pings nobody would notice a dead peer
                self._wire.give_up(f"the answer to a ping is not understood ({type(error).__name__})")

    async def learn_clock(self) -> None:
        """Ping, and learn from the answer what the PBX's clock says. Raises as `ask` does."""
        asked = uptime()
        reply = await self.ask("Ping", deadline=self._timings.ping_deadline)
        heard = uptime()
        at = event_time(Message({"Timestamp": header(reply.headers or {}, "timestamp")}.items()), 0.0)
        if at and (self._ahead is None or heard - asked < _QUICK_PING):
            # As if it had been said only now: an answer that was slow makes a deadline early, never late.
            self._ahead = at - heard

    def pbx_time(self, at: float) -> float | None:
        """What the PBX's clock says (seconds since 1970) at that uptime of ours, or less; None where it never said."""
        return None if self._ahead is None else at + self._ahead

    def give_up(self, reason: str) -> None:
        """End it as if the peer had, and say why."""
        self._wire.give_up(reason)

    def close(self) -> None:
        """End it: no reconnect, no callback, nobody left waiting."""
        if self._pinger is not None:
            self._pinger.cancel()
            self._pinger = None
        self._manager.close()
        self._wire.close()


def tls_context(ca: Path | None) -> ssl.SSLContext:
    """Verify the PBX's certificate, by the system's authorities and this one. Raises ConnectFailed for a bad file."""
    return trust(ssl.create_default_context(), ca)


def _reply(answer: Any) -> Reply:
    messages = answer if isinstance(answer, list) else [answer]
    first = messages[0]
    items = tuple(dict(item) for item in messages[1:] if not str(item.event).endswith("Complete"))
    ok = first.response in ("Success", "Follows", "Goodbye")
    return Reply(ok, str(first.message), items, dict(first))


def header(item: Mapping[str, Any], name: str) -> str:
    """A header by its name in lower case; empty where there is none."""
    for key, value in item.items():
        if key.lower() == name:
            return str(value)
    return ""


async def connect(
    pbx: Pbx,
    username: str,
    secret: str,
    *,
    on_events: Callable[[list[Message]], None],
    on_lost: Callable[[str], None],
    events: bool,
    timings: Timings,
) -> Session:
    """A session by the settings of a PBX. Raises as `Session.open` does."""
    return await Session.open(
        pbx.host,
        pbx.port,
        username,
        secret,
        on_events=on_events,
        on_lost=on_lost,
        tls=tls_context(pbx.tls_ca) if pbx.tls else None,
        events=events,
        ignore=UNHEARD,
        timings=timings,
    )


def resolver(future: asyncio.Future[str]) -> Callable[[str], None]:
    """A callback that gives the future its result, once."""

    def resolve(reason: str) -> None:
        if not future.done():
            future.set_result(reason)

    return resolve
