"""The opening of a connection that is recorded: sign in as the link does, and hear what it hears."""

from __future__ import annotations

from bridge.domain.errors import Forbidden, Unavailable
from bridge.pbx.ami.codec import AmiProtocolError, Decoder, Message, encode_action


class Opening:
    """What to say to a manager interface, as (bytes, the same without the secret)."""

    events = 0

    def __init__(self, username: str, secret: str) -> None:
        self._decoder = Decoder()
        self._username = username
        self._secret = secret
        self._greeted = False
        self.ready = False
        """Signed in, and hearing events."""

    @property
    def goodbye(self) -> bytes:
        """What ends the connection in good manners."""
        return encode_action("Logoff", {"ActionID": "logoff-1"})

    def heard(self, data: bytes) -> list[tuple[bytes, bytes]]:
        """What to send now. Raises Unavailable where it is no AMI, Forbidden where the login is refused."""
        try:
            messages = self._decoder.feed(data)
        except AmiProtocolError as error:
            if self.ready:
                # What it said is recorded all the same: it is what one records for.
                return []
            raise Unavailable(error.message) from None
        for message in messages:
            self._hear(message)
        if self._greeted or self._decoder.version is None:
            return []
        self._greeted = True
        return [(self._login(self._secret), self._login("x" * len(self._secret.encode())))]

    def _hear(self, message: Message) -> None:
        # FullyBooted is the answer to a login.
        self.events += message.get("Event", "FullyBooted") != "FullyBooted"
        if not self.ready and message.get("ActionID") == "login-1":
            if message.get("Response") != "Success":
                raise Forbidden(f"the PBX does not take user {self._username!r} with this secret")
            self.ready = True

    def _login(self, secret: str) -> bytes:
        fields = {"ActionID": "login-1", "Username": self._username, "Secret": secret, "Events": "on"}
        return encode_action("Login", fields)
