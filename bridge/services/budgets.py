"""What a day's calls may come to: looked at when a callback is accepted, reserved at its claim, settled at its end.

All of it is in SQL: a flushed Redis gives nobody a new budget. A call that talks longer than its budget reckons with is
settled with what it came to, so a day may end above its budget by that; nothing more is dialled then.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil

from redis import Redis
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from bridge.domain.attempts import AttemptState, CallbackStatus
from bridge.domain.callbacks import zone
from bridge.domain.costs import Amount, Budget, Day, NoPrice, Price, day_of
from bridge.domain.errors import RateLimited
from bridge.domain.retrying import AGENT_NO_ANSWER, AGENT_UNREACHABLE, NO_TRY_USED, OUTCOME_UNKNOWN
from bridge.services import callback_states, news, refusals
from bridge.settings import Settings
from bridge.store.database import Sessions, changed
from bridge.store.models import Attempt, AttemptChange, Callback, Client, Site
from bridge.store.queries import spending
from bridge.store.spending import BudgetDay, Reservation

SPENT = "budget_spent"
"""Why a callback waits, and what a visitor is told."""
NOTICE = "budget.spent"
_LOOK_AGAIN = timedelta(minutes=5)
"""A budget may be raised meanwhile."""
_IN_FLIGHT = timedelta(seconds=30)
"""Calls in progress may leave room when they end."""
_UNANSWERED = NO_TRY_USED - {AGENT_NO_ANSWER, AGENT_UNREACHABLE, "agent_gone"} | {
    "busy", "no_answer", "rejected", "wrong_number", "congestion"
}  # fmt: skip
"""Reasons with which no customer's phone was answered."""
_UNKNOWN = frozenset({OUTCOME_UNKNOWN, "end_not_seen", "merged"})
"""Reasons with which nobody can say how long it was: what was held counts at least."""


class BudgetSpent(RateLimited):
    """No more calls are made today; try again tomorrow or call us."""

    code = SPENT


@dataclass(frozen=True, slots=True)
class _Share:
    """One budget of a site, its day, and what a call to some number would take of it."""

    owner: str
    budget: Budget
    day: Day
    worst: Amount
    timezone: str


def check_price(session: Session, settings: Settings, site: Site, number: str) -> None:
    """Raises NoPrice for a number that the table of prices leaves out, where there is one; and TooDear."""
    _judged(session, settings, site, number)


def check(session: Session, settings: Settings, site: Site, number: str, now: datetime, at: datetime) -> None:
    """Raises BudgetSpent where a callback for `at` is for today, and today's budget has no room for such a call.

    Raises what `check_price` raises, too. Calls in progress do not count yet: they may leave room.
    """
    if site.test_mode:
        return
    for share in _shares(session, settings, site, number, now):
        if at < share.day.ends and not _has_room(session, share, in_flight=False):
            raise _spent(share, now)


def postpone(session: Session, settings: Settings, row: Callback, site: Site, now: datetime) -> bool:
    """Whether a callback that is due has to wait for its budget; it is put back, and the supervisor is told."""
    for share in _shares(session, settings, site, row.number, now):
        spent = not _has_room(session, share, in_flight=False)
        if spent:
            tell(session, site, share.owner, share.day.name, now)
        if spent or not _has_room(session, share, in_flight=True):
            again = now + (_LOOK_AGAIN if spent else _IN_FLIGHT)
            _put_back(session, row, min(again, max(share.day.ends, now)))
            return True
    return False


def reserve(session: Session, settings: Settings, site: Site, number: str, attempt: str, now: datetime) -> bool:
    """Hold what this attempt may come to; False where another claim was faster: then the caller takes all back."""
    price = spending.price_of(session, number)
    for share in _shares(session, settings, site, number, now):
        spending.begin_day(session, share.owner, share.day.name, site.client_id)
        if not spending.hold(session, share.owner, share.day.name, share.budget, share.worst):
            return False
        priced = price if share.budget.money is not None else None
        spending.keep(session, attempt, share.owner, site.client_id, share.day.name, share.worst, priced)
    return True


def settle(session: Session, attempt: Attempt, now: datetime) -> None:
    """The attempt has ended: what it came to takes the place of what was held for it. Once."""
    rows = session.scalars(
        select(Reservation)
        .where(Reservation.attempt_id == attempt.id, Reservation.settled_at.is_(None))
        .order_by(Reservation.owner_id)
    ).all()
    if not rows:
        return
    seconds = _seconds(session, attempt, now)
    for row in _site_first(rows, attempt):
        spent = _came_to(row, seconds, in_doubt=attempt.reason in _UNKNOWN)
        won = changed(
            session,
            update(Reservation)
            .where(
                Reservation.attempt_id == row.attempt_id,
                Reservation.owner_id == row.owner_id,
                Reservation.settled_at.is_(None),
            )
            .values(settled_at=now, money_spent=spent.money, seconds_spent=spent.seconds),
        )
        if won:
            spending.settle(session, row, spent)
            _tell_if_spent(session, row, attempt, now)


def tell(session: Session, site: Site, owner: str, day: str, now: datetime) -> bool:
    """Tell the supervisor that this budget is spent, once a day and grant; True where that was now."""
    spending.begin_day(session, owner, day, site.client_id)
    won = changed(
        session,
        update(BudgetDay)
        .where(BudgetDay.owner_id == owner, BudgetDay.day == day, BudgetDay.told_at.is_(None))
        .values(told_at=now),
    )
    if won:
        door = refusals.Door(site=site.id, client=site.client_id)
        kind = "site" if owner == site.id else "client"
        refusals.tell(session, now, NOTICE, door, {"budget": kind, "day": day})
    return bool(won)


def note_refused(sessions: Sessions, redis: Redis, site: Site, error: BudgetSpent, *, now: datetime) -> None:
    """A visitor was turned away; that the budget is spent may be news. Reads alone where it is none."""
    owner, day = str(error.details["owner"]), str(error.details["day"])
    with sessions.read() as session:
        row = spending.day_row(session, owner, day)
        if row is not None and row.told_at is not None:
            return
    with sessions.begin() as session:
        tell(session, site, owner, day, now)
    news.publish(redis, session)


def was_spent(session: Session, site: Site, now: datetime) -> bool:
    """Whether a budget of the site was found spent today, and not lifted since."""
    for owner, _ in spending.budgets_of(session, site.id, site.client_id):
        timezone = site.timezone if owner == site.id else session.get_one(Client, site.client_id).timezone
        row = spending.day_row(session, owner, day_of(now, timezone).name)
        if row is not None and row.told_at is not None:
            return True
    return False


def release(session: Session, sites: Iterable[str], now: datetime) -> None:
    """Callbacks of these sites that wait for their budget are due again."""
    session.execute(
        update(Callback)
        .where(
            Callback.site_id.in_(list(sites)),
            Callback.reason == SPENT,
            Callback.status == str(CallbackStatus.QUEUED),
            Callback.held_by.is_(None),
            Callback.due_at > now,
        )
        .values(due_at=now, queued_at=None)
        .execution_options(synchronize_session=False)
    )


def _judged(session: Session, settings: Settings, site: Site, number: str) -> list[tuple[str, Budget, Amount]]:
    price = _price(session, number)
    ring = settings.dialing.customer_ring_seconds
    found = spending.budgets_of(session, site.id, site.client_id)
    return [(owner, budget, budget.worst(price, ring)) for owner, budget in found]


def _price(session: Session, number: str) -> Price | None:
    if not spending.any_price(session):
        return None
    price = spending.price_of(session, number)
    if price is None:
        raise NoPrice(field="number")
    return price


def _shares(session: Session, settings: Settings, site: Site, number: str, now: datetime) -> list[_Share]:
    found: list[_Share] = []
    for owner, budget, worst in _judged(session, settings, site, number):
        timezone = site.timezone if owner == site.id else session.get_one(Client, site.client_id).timezone
        found.append(_Share(owner, budget, day_of(now, timezone), worst, timezone))
    return found


def _has_room(session: Session, share: _Share, *, in_flight: bool) -> bool:
    row = spending.day_row(session, share.owner, share.day.name)
    if row is None:
        return share.budget.has_room(Amount(), share.worst)
    used = Amount(row.money_spent, row.seconds_spent)
    if in_flight:
        used += Amount(row.money_held, row.seconds_held)
    return share.budget.has_room(used, share.worst, row.grants)


def _spent(share: _Share, now: datetime) -> BudgetSpent:
    ends = share.day.ends.astimezone(zone(share.timezone))
    wait = max(1, int((share.day.ends - now).total_seconds()) + 1)
    return BudgetSpent(
        f"no more calls are made today; try again after {ends:%Y-%m-%d %H:%M} ({share.timezone}), or call us",
        retry_after=wait,
        owner=share.owner,
        day=share.day.name,
    )


def _put_back(session: Session, row: Callback, at: datetime) -> None:
    waits = [str(CallbackStatus.SCHEDULED), str(CallbackStatus.QUEUED)]
    waiting = (Callback.held_by.is_(None), Callback.status.in_(waits))
    values = {"reason": SPENT, "due_at": at, "promised_at": None, "queued_at": None}
    callback_states.change(session, row.id, CallbackStatus.QUEUED, *waiting, **values)


def _site_first(rows: Iterable[Reservation], attempt: Attempt) -> list[Reservation]:
    """In the order in which they are taken, so that nobody waits in a circle."""
    return sorted(rows, key=lambda row: row.owner_id == attempt.client_id)


def _came_to(row: Reservation, seconds: int, *, in_doubt: bool) -> Amount:
    money = 0
    if row.per_minute is not None and row.currency is not None:
        steps = (row.first_seconds or 60, row.next_seconds or 60)
        money = Price("", row.currency, row.per_minute, row.setup or 0, *steps).cost(seconds)
    return Amount(max(money, row.money), max(seconds, row.seconds)) if in_doubt else Amount(money, seconds)


def _tell_if_spent(session: Session, row: Reservation, attempt: Attempt, now: datetime) -> None:
    callback = session.get(Callback, attempt.callback_id) if attempt.callback_id else None
    site = session.get(Site, callback.site_id) if callback is not None else None
    day = spending.day_row(session, row.owner_id, row.day)
    if site is None or day is None:
        return
    of_owner = dict(spending.budgets_of(session, site.id, site.client_id))
    budget = of_owner.get(row.owner_id)
    used = Amount(day.money_spent, day.seconds_spent)
    if budget is not None and not budget.has_room(used, Amount(row.money, row.seconds), day.grants):
        tell(session, site, row.owner_id, row.day, now)


def _seconds(session: Session, attempt: Attempt, now: datetime) -> int:
    """From the customer's answer to the end, as the changes of state have it; in doubt from an earlier one."""
    reason, state = str(attempt.reason), AttemptState(attempt.state)
    changes = session.execute(
        select(AttemptChange.new, AttemptChange.at)
        .where(AttemptChange.attempt_id == attempt.id)
        .order_by(AttemptChange.id)
    )
    at: dict[str, datetime] = {}
    for new, when in changes:
        at.setdefault(new, when)
    answered = at.get(AttemptState.ANSWERED) or at.get(AttemptState.CONNECTED)
    if answered is None and state is not AttemptState.DONE:
        quiet = reason in _UNANSWERED or (attempt.agent_first and reason != "machine")
        answered = None if quiet else at.get(AttemptState.RINGING)
        if answered is None:
            return 0
    # Changes may have been skipped: then it is reckoned from the earliest that is known.
    began = answered or at.get(AttemptState.RINGING) or at.get(AttemptState.DIALING) or attempt.created_at
    return max(1, ceil((now - began).total_seconds()))
