"""Callbacks as visitors see them: asked for, looked at, cancelled.

A callback that was answered with 201 is in SQL on disk; Redis only makes it happen sooner.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog
from redis import Redis, RedisError
from sqlalchemy import bindparam, insert, select
from sqlalchemy.orm import Session

from bridge.domain.addresses import limit_key, wide_network
from bridge.domain.attempts import CALLBACK_ENDED, AttemptState, CallbackStatus
from bridge.domain.errors import Conflict, Forbidden, Invalid, NotFound, RateLimited
from bridge.domain.keyed import keyed_hash
from bridge.domain.numbers import parse_number
from bridge.live import jobs, mailbox
from bridge.services import attempts, callback_states, checking, consents, news, promises, zone_rules
from bridge.services.permission import check_entry
from bridge.services.site_limits import site_limits
from bridge.settings import Settings
from bridge.store.database import Sessions
from bridge.store.models import Attempt, Callback, Client, IdempotencyKey, Site, new_id, table
from bridge.store.queries.counters import count_each
from bridge.store.queries.keys import try_key_lock

log = structlog.get_logger(__name__)
DIAL_JOB = "workers.dial.dial_callback"
_TIMES = ("promised_at", "expires_at", "confirmed_at")

# Made once: to build a statement takes longer than to run it.
_SITES = select(Site, Client.region).join(Client, Client.id == Site.client_id)
_SITE = _SITES.where(Site.id == bindparam("site"))
_OPEN_SITES = _SITES.where(Site.active.is_(True), Client.active.is_(True))
_SITE_OF_KEY = _OPEN_SITES.where(Site.key == bindparam("key"))
_SITE_OF_OLD_KEY = _OPEN_SITES.where(Site.previous_key == bindparam("key"))
_KEYS = table(IdempotencyKey)
_KEY = select(_KEYS.c.body_hash, _KEYS.c.answer).where(
    _KEYS.c.site_id == bindparam("site"), _KEYS.c.key == bindparam("name")
)


class IdempotencyMismatch(Invalid):
    """This Idempotency-Key was used before with another body; use a new key for a new request."""

    code = "idempotency_mismatch"


class SiteKeyRevoked(Forbidden):
    """This site key is no longer in use; load the page again, or ask its owner for the new key."""

    code = "site_key_revoked"


class IdempotencyInProgress(Conflict):
    """The first request with this Idempotency-Key is still in work; ask again in a moment."""

    code = "idempotency_in_progress"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a visitor fills in. `when` and `timezone` as in `domain.callbacks.due_from`; None means now.

    What that means in closed hours is said by `services.calendars.place`.
    """

    number: str
    name: str = ""
    when: str | None = None
    timezone: str | None = None
    queue: str | None = None
    page_url: str = ""
    note: str = ""
    consent: str = ""
    """The consent text as it was shown to the visitor; "" where none was."""
    proof: str | None = None
    """`challenge:nonce`, or what the site's own check wants."""

    def digest(self) -> str:
        """What tells two bodies under one key apart."""
        said = asdict(self)
        # A page that sends its request again may have solved another challenge meanwhile.
        del said["proof"]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class OpenSite:
    """A site that takes callbacks, and its client's region."""

    site: Site
    region: str


@dataclass(frozen=True, slots=True)
class CallbackView:
    """What a visitor is told."""

    id: str
    status: str
    reason: str | None
    promised_at: datetime | None
    expires_at: datetime | None
    """When it is given up, if nobody could call by then."""
    confirmed_at: datetime | None

    def as_dict(self) -> dict[str, Any]:
        """The JSON body of `GET /api/v1/callbacks/<id>`."""
        times = {name: news.rfc3339(getattr(self, name)) for name in _TIMES}
        return {**asdict(self), **times}


def create(
    sessions: Sessions,
    redis: Redis,
    settings: Settings,
    site: str | OpenSite,
    wish: Wish,
    *,
    idempotency_key: str | None,
    ip: str,
    now: datetime,
) -> CallbackView:
    """Accept a callback, in one transaction, and enqueue it where it is due now.

    `site` is its id, or what `find_site` has just found. One that closes meanwhile is found closed when the job runs.
    Raises Invalid (and its kinds of `domain.numbers` and `services.calendars`), RateLimited, IdempotencyMismatch,
    IdempotencyInProgress, ProofNeeded, ProofInvalid, BudgetSpent, NotFound for a site that is not there or closed, and
    Unavailable.
    """
    key = settings.secret_key()
    digest = wish.digest()
    with sessions.begin() as session:
        shop = site if isinstance(site, OpenSite) else _open_site(session, site)
        if idempotency_key is not None:
            before = _find_key(session, shop.site.id, idempotency_key, digest)
            if before is not None:
                return before
        used = checking.check(settings, shop.site, wish.proof, ip, now=now)
        row = _new_callback(session, settings, shop.site, shop.region, wish, key, ip, now)
        if used is not None:
            checking.use_once(session, settings, shop.site, used, ip, now)
        if idempotency_key is not None:
            _keep_key(session, row, idempotency_key, digest)
        news.note_callback(session, row)
    if row.status != CallbackStatus.QUEUED:
        news.publish(redis, session)
    elif not jobs.enqueue(redis, jobs.DIAL, DIAL_JOB, row.id, also=lambda pipe: news.write(pipe, session)):
        log.warning("no job for now; the sweep will find the callback", callback=row.id)
    return view_of(row)


def get(sessions: Sessions, callback_id: str) -> CallbackView:
    """Raises NotFound."""
    with sessions.read() as session:
        row = session.get(Callback, callback_id)
        if row is None:
            raise NotFound("there is no such callback")
        return view_of(row)


def cancel(
    sessions: Sessions,
    redis: Redis,
    callback_id: str,
    *,
    now: datetime,
    reason: str = "cancelled_by_visitor",
    first: Callable[[Session, Callback], None] = lambda _session, _row: None,
) -> CallbackView:
    """End a callback at the visitor's wish, also while phones ring. Cancelling twice is one cancel.

    `first` looks at the row in the same transaction, and raises where it must stay. Raises NotFound; Conflict where
    the call is connected, or the callback has ended in another way.
    """
    hang_up: Attempt | None = None
    with sessions.begin() as session:
        row = session.get(Callback, callback_id, with_for_update=True)
        if row is None:
            raise NotFound("there is no such callback")
        first(session, row)
        if row.status == CallbackStatus.CANCELLED:
            return view_of(row)
        if CallbackStatus(row.status) in CALLBACK_ENDED:
            raise Conflict(f"this callback has already ended as {row.status}")
        if row.held_by is None:
            _cancel_unheld(session, row, reason, now)
        else:
            hang_up = _cancel_held(session, row.held_by, reason, now)
        session.refresh(row)
    news.publish(redis, session)
    if hang_up is not None and hang_up.call_id is not None:
        send_hangup(redis, hang_up.pbx, hang_up.call_id)
    return view_of(row)


def send_hangup(redis: Redis, pbx: str, call_id: str) -> None:
    """Ask for the end of a call whose attempt was cancelled. Never raises for Redis."""
    try:
        mailbox.send(redis, pbx, mailbox.Kind.HANGUP, {"call": call_id, "agent": None}, 30)
    except RedisError as error:
        log.warning("the hang-up was not sent", call=call_id, error=type(error).__name__)


def view_of(row: Callback) -> CallbackView:
    """What a visitor is told of that row."""
    return CallbackView(row.id, row.status, row.reason, row.promised_at, row.expires_at, row.confirmed_at)


def token(settings: Settings, callback_id: str) -> str:
    """What lets the visitor, and nobody else, see and cancel this callback; nothing of it is stored."""
    mac = hmac.new(settings.secret_key(), f"callback:{callback_id}".encode(), hashlib.sha256)
    return base64.urlsafe_b64encode(mac.digest()).rstrip(b"=").decode()


def check_token(settings: Settings, callback_id: str, given: str | None) -> None:
    """Raises Forbidden for a token that is not this callback's."""
    if given is None or not hmac.compare_digest(token(settings, callback_id).encode(), given.encode()):
        raise Forbidden("the token does not belong to this callback")


def find_site(sessions: Sessions, key: str, *, now: datetime) -> OpenSite | None:
    """The active site of an active client with this key, or with one that is replaced but still good.

    Raises SiteKeyRevoked for one that is good no more.
    """
    with sessions.read() as session:
        found = session.execute(_SITE_OF_KEY, {"key": key}).one_or_none()
        if found is None:
            found = session.execute(_SITE_OF_OLD_KEY, {"key": key}).one_or_none()
            if found is not None and (found[0].previous_key_until is None or found[0].previous_key_until <= now):
                raise SiteKeyRevoked(field="site")
    return OpenSite(*found) if found is not None else None


def _open_site(session: Session, site_id: str) -> OpenSite:
    found = session.execute(_SITE, {"site": site_id}).one_or_none()
    if found is None or not found[0].active:
        raise NotFound("there is no such site, or it takes no callbacks now", field="site")
    return OpenSite(*found)


def _find_key(session: Session, site: str, key: str, digest: str) -> CallbackView | None:
    """What the key gave before; None where it is new, and this transaction's alone."""
    if not 0 < len(key) <= 255:
        raise Invalid("an Idempotency-Key has 1 to 255 characters", field="Idempotency-Key")
    if not try_key_lock(session, f"{site}:{key}"):
        raise IdempotencyInProgress
    row = session.connection().execute(_KEY, {"site": site, "name": key}).one_or_none()
    if row is None:
        return None
    if row.body_hash != digest:
        raise IdempotencyMismatch
    if row.answer is None:
        raise IdempotencyInProgress
    # An answer of an earlier version has fewer fields.
    times = {name: row.answer.get(name) for name in _TIMES}
    return CallbackView(
        id=row.answer["id"],
        status=row.answer["status"],
        reason=row.answer["reason"],
        **{name: datetime.fromisoformat(at) if at else None for name, at in times.items()},
    )


def _keep_key(session: Session, row: Callback, key: str, digest: str) -> None:
    session.connection().execute(
        insert(_KEYS),
        {
            "site_id": row.site_id,
            "key": key,
            "body_hash": digest,
            "callback_id": row.id,
            "answer": view_of(row).as_dict(),
            "created_at": row.created_at,
        },
    )


def _new_callback(
    session: Session,
    settings: Settings,
    site: Site,
    region: str,
    wish: Wish,
    key: bytes,
    ip: str,
    now: datetime,
) -> Callback:
    number = parse_number(wish.number, region)
    due, calendar = check_entry(session, settings, site, number, wish.queue, wish.when, wish.timezone, now)
    ip_hash = keyed_hash(key, "ip", limit_key(ip))
    limits = site_limits(site)
    hashes = (ip_hash, keyed_hash(key, "network", wide_network(ip)), keyed_hash(key, "number", number))
    _limit(session, site, limits, hashes, now)
    later = due.at > now
    values: dict[str, Any] = {
        "id": new_id(),
        "created_at": now,
        "client_id": site.client_id,
        "site_id": site.id,
        "number": number,
        "source": "web",
        "joined_at": max(due.at, now),
        "name": wish.name,
        "note": wish.note,
        "page_url": wish.page_url,
        "queue": wish.queue,
        "wall_time": due.wall_time,
        "timezone": due.timezone,
        "tzdata": zone_rules.version() if due.timezone else None,
        "calendar_id": calendar,
        "due_at": due.at,
        "expires_at": max(due.at, now) + timedelta(hours=limits["expire_hours"]),
        **promises.made(session, settings, site, wish.queue, due.at, now),
        "promise_kept": None,
        "rang_at": None,
        "confirmed_at": None,
        "status": str(CallbackStatus.SCHEDULED if later else CallbackStatus.QUEUED),
        "reason": None,
        "tries": 0,
        "held_by": None,
        "queued_at": None if later else now,
        "consent_text": wish.consent,
        "consent_at": now if wish.consent else None,
        "consent_number": None,
        "ip_hash": ip_hash,
    }
    if wish.consent:
        values["consent_number"] = consents.keep(
            session,
            key,
            client=site.client_id,
            site=site.id,
            callback=values["id"],
            at=now,
            text=wish.consent,
            page_url=wish.page_url,
            ip_hash=ip_hash,
            number_hash=hashes[2],
        )
    # Past the ORM's unit of work, which would cost more than everything else here.
    session.connection().execute(insert(table(Callback)), values)
    return Callback(**values)


def _limit(
    session: Session, site: Site, limits: Mapping[str, Any], hashes: tuple[str, str, str], now: datetime
) -> None:
    """Count this request, and raise RateLimited where it is one too many; the raise takes the count back."""
    hour, day = timedelta(hours=1), timedelta(days=1)
    ip, network, number = hashes
    asked = (
        ("callback_ip", f"{site.id}:{ip}", hour, limits["per_ip_hour"], "from this address"),
        ("callback_network", f"{site.id}:{network}", hour, limits["per_network_hour"], "from this network"),
        ("callback_number", f"{site.client_id}:{number}", day, limits["per_number_day"], "for this number"),
        ("callback_site", site.id, hour, limits["per_site_hour"], "on this site"),
    )
    counts = count_each(session, [(scope, subject, span) for scope, subject, span, _, _ in asked], now)
    for (_, _, span, most, who), found in zip(asked, counts, strict=True):
        if found > most:
            raise RateLimited(
                f"too many callbacks were asked for {who}; try again later or call us",
                retry_after=int(span.total_seconds() / 12),
            )


def _cancel_unheld(session: Session, row: Callback, reason: str, now: datetime) -> None:
    waiting = (Callback.held_by.is_(None), Callback.status.not_in([str(s) for s in CALLBACK_ENDED]))
    values = {"reason": reason, "ended_at": now}
    if not callback_states.change(session, row.id, CallbackStatus.CANCELLED, *waiting, **values):
        raise Conflict("this callback is just being called; try again")


def _cancel_held(session: Session, attempt_id: str, reason: str, now: datetime) -> Attempt | None:
    attempt = session.scalar(select(Attempt).where(Attempt.id == attempt_id).with_for_update())
    if attempt is None:
        raise NotFound("there is no such attempt")
    if attempt.state == AttemptState.CONNECTED:
        raise Conflict("you are connected already; hang up the phone to end the call")
    if attempt.state == AttemptState.UNCERTAIN:
        raise Conflict("it is not known whether your phone is being called; try again in a few minutes")
    was = attempt.state
    attempts.move(session, attempt_id, AttemptState.CANCELLED, reason, now=now)
    return attempt if was != AttemptState.CLAIMED else None
