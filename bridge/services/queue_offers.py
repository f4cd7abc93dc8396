"""A caller who waits in a queue asks to be called back: a stranger's word, judged, kept in SQL, and only then answered.

What the PBX says of the queue must be what its call events said before; so nobody gets a callback in another
client's name. The caller's place in the line is that of their first joining of the queue.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

import structlog
from prometheus_client import Counter
from redis import Redis
from sqlalchemy import select
from sqlalchemy.orm import Session

from bridge.domain.errors import Invalid, RateLimited, Unavailable
from bridge.domain.numbers import mask, parse_number
from bridge.live import jobs
from bridge.pbx.port import Answer, Outcome, QueueWish
from bridge.services import news, phoned
from bridge.services.callbacks import DIAL_JOB
from bridge.settings import Settings
from bridge.store.database import Sessions
from bridge.store.models import Call, Callback, Client, IdempotencyKey, Site
from bridge.store.queries.keys import wait_for_lock

log = structlog.get_logger(__name__)

WISHES = Counter("ringbridge_queue_wishes_total", "Waiting callers who asked to be called back", ["then"])
_ROOM = 200
_SEEN_SECONDS = 3.0
"""The recorder may be behind: the call is waited for so long, less than the caller waits for the answer."""
_LOOK_SECONDS = 0.1


class NotYet(Exception):
    """The call events that would bear this wish out are not in SQL."""


class Offers:
    """Takes wishes from the link's thread, and answers them in one of its own."""

    def __init__(
        self,
        settings: Settings,
        pbx: str,
        sessions: Sessions,
        redis: Redis,
        is_ours: Callable[[], bool],
        tell: Callable[[QueueWish, Answer], Outcome],
    ) -> None:
        """`is_ours` says whether the lease is held still: another listener hears the same wish."""
        self._settings = settings
        self._pbx = pbx
        self._sessions = sessions
        self._redis = redis
        self._is_ours = is_ours
        self._tell = tell
        self._waiting: queue.Queue[QueueWish] = queue.Queue(_ROOM)

    def add(self, wish: QueueWish) -> None:
        """Never waits: where there is no room the caller hears nothing, and waits on."""
        try:
            self._waiting.put_nowait(wish)
        except queue.Full:
            WISHES.labels("no_room").inc()

    def run(self, stop: threading.Event) -> None:
        """Until `stop`."""
        while not stop.is_set():
            try:
                wish = self._waiting.get(timeout=0.3)
            except queue.Empty:
                continue
            if not self._is_ours():
                continue
            answer = self._judge(wish, stop)
            outcome = self._tell(wish, answer)
            log.info("queue wish answered", call=wish.call, answer=str(answer), told=outcome.reason.value)

    def _judge(self, wish: QueueWish, stop: threading.Event) -> Answer:
        until = time.monotonic() + _SEEN_SECONDS
        while True:
            try:
                return accept(self._sessions, self._redis, self._settings, self._pbx, wish, now=datetime.now(UTC))
            except NotYet:
                if time.monotonic() >= until or stop.wait(_LOOK_SECONDS):
                    WISHES.labels("unknown").inc()
                    log.warning("queue wish of no caller who waits there", call=wish.call)
                    return Answer.BACK
            except Unavailable as error:
                WISHES.labels("unavailable").inc()
                log.warning("queue wish not kept", call=wish.call, why=error.message)
                return Answer.BACK
            except Exception as error:  # noqa: BLE001 - a stranger's word must not end the listener
                WISHES.labels("fault").inc()
                log.error("queue wish not kept", call=wish.call, error=type(error).__name__)
                return Answer.BACK


def accept(
    sessions: Sessions, redis: Redis, settings: Settings, pbx: str, wish: QueueWish, *, now: datetime
) -> Answer:
    """Make the wish a callback: `YES` once it is on disk. Raises NotYet, Unavailable."""
    made: Callback | None = None
    try:
        with sessions.begin() as session:
            answer, made = _accept(session, settings, pbx, wish, now)
    except (Invalid, RateLimited) as error:
        # Taken back whole, counts included.
        answer, then = Answer.NO if isinstance(error, Invalid) else Answer.BACK, error.code
    else:
        then = "callback" if made is not None else str(answer)
    if made is not None:
        news.publish(redis, session)
        if made.queued_at is not None:
            jobs.enqueue(redis, jobs.DIAL, DIAL_JOB, made.id)
    WISHES.labels(then).inc()
    log.info("queue wish", call=wish.call, then=then, number=mask(wish.number))
    return answer


def _accept(
    session: Session, settings: Settings, pbx: str, wish: QueueWish, now: datetime
) -> tuple[Answer, Callback | None]:
    call = session.get(Call, wish.call)
    if call is None or call.pbx != pbx or call.queue != wish.queue:
        raise NotYet
    waits = call.direction == "inbound" and call.connected_at is None and call.attempt_id is None
    site = _site(session, call) if waits else None
    if site is None:
        return Answer.BACK, None
    client = session.get_one(Client, site.client_id)
    number = parse_number(wish.number, client.region)
    wait_for_lock(session, f"queue wish {call.id}")
    before = session.get(IdempotencyKey, (site.id, f"call:{call.id}"))
    if before is not None:
        return _again(session, before, number), None
    waiting = phoned.waiting(session, site.client_id, number)
    if waiting is not None:
        # One call back is enough; they keep the earlier place.
        return Answer.YES, None
    if phoned.closed(session, site, call.queue, now):
        return Answer.BACK, None
    row = phoned.add(
        session,
        settings,
        site,
        number,
        source=phoned.QUEUE,
        queue=call.queue,
        joined_at=phoned.joined(session, call),
        due=now,
        now=now,
    )
    session.add(
        IdempotencyKey(
            site_id=site.id, key=f"call:{call.id}", body_hash="", callback_id=row.id, created_at=now
        )
    )
    return Answer.YES, row


def _again(session: Session, before: IdempotencyKey, number: str) -> Answer:
    """A call asks once: the same wish heard twice is one, another number is none."""
    row = session.get(Callback, before.callback_id or "")
    return Answer.YES if row is not None and row.number == number else Answer.BACK


def _site(session: Session, call: Call) -> Site | None:
    """The site of the call's own client that offers it in this queue; the oldest where several do."""
    client = session.get(Client, call.client_id or "")
    if client is None or not client.active:
        return None
    sites = select(Site).where(Site.client_id == client.id, Site.active).order_by(Site.created_at, Site.id)
    return next((site for site in session.scalars(sites) if call.queue in site.offer_queues), None)
