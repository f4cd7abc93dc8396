"""What a listener does while another holds the lease: wait, and offer itself where that one is cut off.

A holder that is gone, frozen or without SQL loses the lease by itself. One that reaches SQL but not its PBX, or not
Redis, keeps it alone as long as nobody else could do better: so a standby that reaches both says so in the lease's
row, and the holder, which alone knows what it is doing just then, stops in order and lets go.
"""

from __future__ import annotations

import socket

import structlog
from redis import Redis

from bridge.live.connection import DOWN
from bridge.settings import Pbx
from bridge.store.database import Sessions
from bridge.store.queries import leases
from bridge.uptime import uptime

log = structlog.get_logger(__name__)

_LOOK_SECONDS = 0.5
_PROBE_SECONDS = 1.0
_GIVE_WAY_SECONDS = 2.0
"""Who gave the lease up leaves it to the other for so long."""
_REST_SECONDS = 3.0
_FRUITLESS_SECONDS = 60.0
_FRUITLESS_MOST = 900.0
"""Who never got through (a wrong secret, perhaps) does not ask again soon: a lease going to and fro helps nobody."""


class Standby:
    """Looks after the holder of one PBX's lease."""

    def __init__(self, sessions: Sessions, redis: Redis, pbx: Pbx) -> None:
        self._sessions = sessions
        self._redis = redis
        self._pbx = pbx
        self._look_at = 0.0
        self._claim_at = 0.0
        self._fruitless = _FRUITLESS_SECONDS

    def gave(self, *, well: bool) -> None:
        """We gave the lease up; `well` where we had been connected before."""
        now = uptime()
        self._claim_at = now + _GIVE_WAY_SECONDS
        self._look_at = now + (_REST_SECONDS if well else self._fruitless)
        self._fruitless = _FRUITLESS_SECONDS if well else min(self._fruitless * 2, _FRUITLESS_MOST)

    def gives_way(self) -> bool:
        """Whether the lease, though free, is another's to take."""
        return uptime() < self._claim_at

    def look(self) -> None:
        """Ask for the lease where its holder cannot work and we can. Raises Unavailable."""
        now = uptime()
        if now < self._look_at:
            return
        self._look_at = now + _LOOK_SECONDS
        with self._sessions.read() as session:
            epoch = leases.ailing(session, self._pbx.name)
        if epoch is None or not self._could_work():
            return
        with self._sessions.begin() as session:
            leases.ask(session, self._pbx.name, epoch)

    def _could_work(self) -> bool:
        """Whether Redis answers here, and something at the PBX's port. It is not signed in to: a PBX counts those."""
        try:
            self._redis.ping()
            socket.create_connection((self._pbx.host, self._pbx.port), _PROBE_SECONDS).close()
        except DOWN:
            return False
        return True
