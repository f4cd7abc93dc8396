"""The opening of a connection that is recorded: sign in as the link does, and hear what it hears, or everything."""

from __future__ import annotations

from collections import deque
from typing import Literal

from bridge.domain.errors import Forbidden, Unavailable
from bridge.pbx.esl.codec import Decoder, EslProtocolError, Frame, encode
from bridge.pbx.esl.hearing import CUSTOM, EVENTS, SUBCLASSES


class Opening:
    """What to say to an event socket, as (bytes, the same without the secret)."""

    events = 0

    def __init__(
        self, username: str, secret: str, *, everything: bool = False, encoding: Literal["json", "plain"] = "json"
    ) -> None:
        self._decoder = Decoder()
        names = ["ALL"] if everything else [*EVENTS, CUSTOM, *SUBCLASSES]
        hidden = "x" * len(secret.encode())
        login = f"userauth {username}:" if "@" in username else "auth "
        subscription = encode(" ".join(["event", encoding, *names]))
        self._steps = deque(
            [(encode(login + secret), encode(login + hidden)), (subscription, subscription)],
        )
        self._refusals = deque(
            [
                f"the PBX does not take {f'user {username!r}' if '@' in username else 'us'} with this secret",
                f"the PBX lets {f'user {username!r}' if '@' in username else 'us'} hear too little: "
                + (
                    'everything is for one with esl-allowed-events "all", or none set'
                    if everything
                    else "`ringbridge check` says what its esl-allowed-events lacks"
                ),
            ]
        )
        self.ready = False
        """Signed in, and hearing events."""

    @property
    def goodbye(self) -> bytes:
        """What ends the connection in good manners."""
        return encode("exit")

    def heard(self, data: bytes) -> list[tuple[bytes, bytes]]:
        """What to send now. Raises Unavailable where it is no event socket, Forbidden where we are refused."""
        try:
            frames = self._decoder.feed(data)
        except EslProtocolError as error:
            if self.ready:
                # What it said is recorded all the same: it is what one records for.
                return []
            raise Unavailable(error.message) from None
        return [step for frame in frames for step in self._hear(frame)]

    def _hear(self, frame: Frame) -> list[tuple[bytes, bytes]]:
        self.events += frame.event is not None
        if self.ready:
            return []
        if frame.kind == "rejection":
            raise Forbidden(
                "the PBX lets nobody in from this machine's address (apply-inbound-acl); `ringbridge check` says "
                "the line to change"
            )
        if frame.kind == "reply":
            refusal = self._refusals.popleft()
            if not frame.headers.get("Reply-Text", "").startswith("+OK"):
                raise Forbidden(refusal)
            self.ready = not self._refusals
        if self._steps and frame.kind in ("auth_request", "reply"):
            return [self._steps.popleft()]
        return []
