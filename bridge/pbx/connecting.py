"""What every link shares: its deadlines, its pauses between tries, and why a connection failed."""

from __future__ import annotations

import random
import re
import ssl
from dataclasses import dataclass
from pathlib import Path

from bridge.domain.errors import RingbridgeError
from bridge.pbx.port import DialOrder

GATHER_SECONDS = 0.01
"""How long a link that hears very much lets more come before it reads on."""
_FIRST_SECOND = 1_000_000_000
_DIGITS = re.compile(r"\d{3,}")


@dataclass(frozen=True, slots=True)
class Timings:
    """Deadlines and pauses, all in seconds."""

    connect: float = 5.0
    login: float = 5.0
    ping_every: float = 5.0
    ping_deadline: float = 4.0
    action: float = 5.0
    resync: float = 4.0
    presentation: float = 0.5
    """How long a call from outside may wait for the answer whether its number may be shown."""
    commands: float = 1.0
    """How long the resync waits for the command user's sign-in."""
    retry_first: float = 0.3
    retry_most: float = 20.0
    refused_first: float = 30.0
    """After a refused login; long, since fail2ban counts."""
    refused_most: float = 900.0


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


class LinkDown(RingbridgeError):
    """The connection to the PBX is gone."""

    code = "link_down"
    status = 503


class LoginRefused(RingbridgeError):
    """The PBX refused the login."""

    code = "login_refused"


class ConnectFailed(RingbridgeError):
    """The PBX cannot be reached."""

    code = "connect_failed"
    status = 503


class NoReply(RingbridgeError):
    """The PBX did not answer in time; whether it did what was asked is unknown."""

    code = "no_reply"
    status = 504


class NoList(NoReply):
    """The PBX answered, and the answer is no list of its channels: what it has is not known, and it is not nothing."""


class NotAllowed(RingbridgeError):
    """The PBX does not let this user ask what the link must know."""

    code = "not_allowed"


def trust(context: ssl.SSLContext, ca: Path | None) -> ssl.SSLContext:
    """The context with this certificate authority too. Raises ConnectFailed for a bad file."""
    if ca is not None:
        try:
            context.load_verify_locations(cafile=str(ca))
        except (OSError, ssl.SSLError):
            raise ConnectFailed(f"the certificate authority {ca} of tls_ca cannot be read") from None
    return context


def was_answered(receipt: str | None) -> bool | None:
    """What the receipt of a customer's leg says of its answer: None where an older dialplan of ours wrote it."""
    _, _, state = (receipt or "").partition("-")
    return {"answered": True, "dialed": False}.get(state)


def told(text: str) -> str:
    """The PBX's words for a person, without anything that could be a number."""
    return _DIGITS.sub("...", text)[:200] or "it gave no reason"


def joined_at(order: DialOrder, until: int) -> int:
    """The second, of the PBX's own clock, in which whom an order is for joined the line.

    `until` is the order's last moment on that clock. However long the phone rings, the place stays the same.
    """
    return max(until - round(order.until - order.joined), _FIRST_SECOND)
