"""A day's budget: looked at by the form, held by a claim, settled by the end; never passed by many claims at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import pytest
from doubles.company import NOW, ask, callback, found_company, step
from doubles.postgres import postgres, settings  # noqa: F401 - fixtures
from redis import Redis
from sqlalchemy import delete, select, update

from bridge.domain.attempts import AttemptState
from bridge.domain.costs import NoPrice, TooDear
from bridge.services import budgets, dialling, sweeping
from bridge.services.budgets import BudgetSpent
from bridge.services.dialling import Claimed
from bridge.settings import Settings
from bridge.store.database import Sessions
from bridge.store.models import Attempt, Audit, Callback, Client, Site
from bridge.store.spending import BudgetDay, BudgetRow, PriceRow, Reservation

EURO = 1_000_000
DAY = "2026-05-04"
CALL = 95
"""Seconds that one call holds here: 25 of ringing, 70 of talk."""


@pytest.fixture
def company(sessions: Sessions) -> Sessions:
    found_company(sessions, agents=8)
    with sessions.begin() as db:
        db.get_one(Site, "shop").limits = {"per_ip_hour": 999, "per_number_day": 999, "per_site_hour": 999}
    return sessions


def budget(sessions: Sessions, owner: str = "shop", *, money: int | None = None, calls: int | None = None) -> None:
    with sessions.begin() as db:
        db.merge(
            BudgetRow(
                owner_id=owner,
                client_id="acme",
                site_id="shop" if owner == "shop" else None,
                money=money,
                currency="EUR" if money is not None else None,
                seconds=calls * CALL if calls is not None else None,
                call_seconds=70,
                changed_at=NOW,
            )
        )


def price(sessions: Sessions, prefix: str, per_minute: int, currency: str = "EUR") -> None:
    with sessions.begin() as db:
        db.merge(PriceRow(prefix=prefix, currency=currency, per_minute=per_minute, setup=0, first_seconds=60,
                          next_seconds=60, changed_at=NOW))  # fmt: skip


def day(sessions: Sessions, owner: str = "shop") -> BudgetDay:
    with sessions.read() as db:
        return db.get_one(BudgetDay, (owner, DAY))


def number(index: int) -> str:
    return f"+1646555{index:04d}"


def claim(
    sessions: Sessions, redis: Redis, settings: Settings, callback_id: str, now: datetime = NOW
) -> dialling.Claim:
    return dialling.claim(sessions, redis, settings, callback_id, now=now)


def talk(sessions: Sessions, attempt: str | None, seconds: int, now: datetime = NOW) -> None:
    assert attempt is not None
    for state in (AttemptState.DIALING, AttemptState.RINGING, AttemptState.CONNECTED):
        step(sessions, attempt, state, now=now)
    step(sessions, attempt, AttemptState.DONE, now=now + timedelta(seconds=seconds), over=True)


def notices(sessions: Sessions) -> list[Audit]:
    with sessions.read() as db:
        return list(db.scalars(select(Audit).where(Audit.action == budgets.NOTICE)))


def test_what_a_call_came_to_takes_the_place_of_what_it_held(
    company: Sessions, redis: Redis, settings: Settings
) -> None:
    price(company, "1646", 120_000)
    budget(company, money=EURO, calls=4)
    budget(company, "acme", calls=100)
    found = claim(company, redis, settings, ask(company, redis, settings).id)
    held = day(company)
    # 95 seconds are billed as two minutes.
    assert (held.money_held, held.seconds_held, held.money_spent, held.seconds_spent) == (240_000, CALL, 0, 0)
    assert day(company, "acme").seconds_held == CALL
    talk(company, found.attempt, 61)
    used = day(company)
    assert (used.money_held, used.seconds_held, used.money_spent, used.seconds_spent) == (0, 0, 240_000, 61)
    with company.read() as db:
        rows = list(db.scalars(select(Reservation)))
    came_to = {(row.owner_id, row.money_spent, row.seconds_spent) for row in rows}
    assert came_to == {("shop", 240_000, 61), ("acme", 0, 61)}


@pytest.mark.parametrize(
    ("states", "reason", "agent_first", "seconds"),
    [
        ((), "never_sent", True, 0),
        (("dialing", "ringing"), "no_answer", True, 0),
        (("dialing", "ringing"), "busy", False, 0),
        (("dialing", "ringing"), "agent_hung_up", True, 0),
        # A customer who was called first had answered, though nobody was there in time.
        (("dialing", "ringing"), "agent_no_answer", False, 10),
        (("dialing", "ringing", "answered"), "agent_no_answer", False, 10),
        (("dialing", "ringing"), "machine", True, 10),
        (("dialing", "uncertain"), "outcome_unknown", True, CALL),
    ],
)
def test_what_a_failed_attempt_costs(
    company: Sessions,
    redis: Redis,
    settings: Settings,
    states: tuple[str, ...],
    reason: str,
    agent_first: bool,
    seconds: int,
) -> None:
    budget(company, calls=9)
    with company.begin() as db:
        db.get_one(Site, "shop").order = "agent_first" if agent_first else "customer_first"
    found = claim(company, redis, settings, ask(company, redis, settings).id)
    assert found.attempt is not None
    for state in states:
        step(company, found.attempt, AttemptState(state))
    step(company, found.attempt, AttemptState.FAILED, reason, now=NOW + timedelta(seconds=10), over=True)
    assert (day(company).seconds_spent, day(company).seconds_held) == (seconds, 0)


def test_a_spent_budget_stops_the_day_and_the_next_one_begins_anew(
    company: Sessions, redis: Redis, settings: Settings
) -> None:
    with company.begin() as db:
        db.get_one(Site, "shop").timezone = "Europe/Berlin"
    budget(company, calls=2)
    first, waiting = ask(company, redis, settings), ask(company, redis, settings, number(2))
    talk(company, claim(company, redis, settings, first.id).attempt, 100)
    # Told as soon as it is so, not when the next visitor comes.
    (told,) = notices(company)
    assert (told.object, told.client_id, told.detail) == ("shop", "acme", {"budget": "site", "day": DAY})
    with pytest.raises(BudgetSpent) as caught:
        ask(company, redis, settings, number(3))
    # 15:00 UTC is 17:00 there: seven hours to midnight.
    assert caught.value.details["retry_after"] == 7 * 3600 + 1 and "2026-05-05 00:00" in caught.value.message
    chosen = ask(company, redis, settings, number(4), when="2026-05-05T10:00", timezone="Europe/Berlin")
    assert chosen.status == "scheduled"

    redis.flushall()
    assert claim(company, redis, settings, waiting.id).result is Claimed.BUDGET_SPENT
    row = callback(company, waiting.id)
    assert (row.status, row.reason, row.promised_at) == ("queued", "budget_spent", None)
    assert row.due_at == NOW + timedelta(minutes=5)
    assert claim(company, redis, settings, waiting.id).result is Claimed.NOT_DUE
    tomorrow = NOW + timedelta(hours=7, seconds=1)
    assert claim(company, redis, settings, waiting.id, tomorrow).result is Claimed.YES
    assert len(notices(company)) == 1


def test_a_callback_that_waited_in_vain_says_why(company: Sessions, redis: Redis, settings: Settings) -> None:
    budget(company, calls=1)
    first, waiting = ask(company, redis, settings), ask(company, redis, settings, number(2))
    talk(company, claim(company, redis, settings, first.id).attempt, 60)
    assert claim(company, redis, settings, waiting.id).result is Claimed.BUDGET_SPENT
    sweeping.sweep(company, redis, settings, now=callback(company, waiting.id).expires_at)
    row = callback(company, waiting.id)
    assert (row.status, row.reason) == ("expired", "budget_spent")


def test_calls_in_flight_leave_room_when_they_end(company: Sessions, redis: Redis, settings: Settings) -> None:
    budget(company, calls=1)
    first, second = ask(company, redis, settings), ask(company, redis, settings, number(2))
    found = claim(company, redis, settings, first.id)
    assert claim(company, redis, settings, second.id).result is Claimed.BUDGET_SPENT
    assert callback(company, second.id).due_at == NOW + timedelta(seconds=30) and not notices(company)
    step(company, str(found.attempt), AttemptState.FAILED, "never_sent")
    later = NOW + timedelta(seconds=30)
    assert claim(company, redis, settings, second.id, later).result is Claimed.YES


def test_the_clients_budget_binds_all_its_sites(company: Sessions, redis: Redis, settings: Settings) -> None:
    with company.begin() as db:
        db.add(Site(id="other", client_id="acme", key="other-key", name="Other", created_at=NOW))
        db.get_one(Client, "acme").timezone = "America/New_York"
    budget(company, "acme", calls=1)
    found = claim(company, redis, settings, ask(company, redis, settings).id)
    talk(company, found.attempt, 60)
    with company.read() as db, pytest.raises(BudgetSpent, match="America/New_York"):
        budgets.check(db, settings, db.get_one(Site, "other"), number(2), NOW, NOW)


def test_numbers_without_a_price(company: Sessions, redis: Redis, settings: Settings) -> None:
    waiting = ask(company, redis, settings)
    price(company, "1212", 10_000)
    with pytest.raises(NoPrice):
        ask(company, redis, settings)
    assert claim(company, redis, settings, waiting.id).result is Claimed.REFUSED
    assert callback(company, waiting.id).reason == "no_price"
    price(company, "1", 10_000, "USD")
    assert ask(company, redis, settings).status == "queued"
    budget(company, money=EURO)
    with pytest.raises(NoPrice):
        ask(company, redis, settings)
    price(company, "1646", 600_000)
    with pytest.raises(TooDear):
        ask(company, redis, settings)
    with company.begin() as db:
        db.execute(delete(PriceRow))
    with pytest.raises(NoPrice):
        ask(company, redis, settings)


def test_a_site_without_budget_and_table_is_as_before(company: Sessions, redis: Redis, settings: Settings) -> None:
    found = claim(company, redis, settings, ask(company, redis, settings).id)
    talk(company, found.attempt, 5000)
    with company.read() as db:
        assert not list(db.scalars(select(Reservation))) and not list(db.scalars(select(BudgetDay)))


def test_many_claims_at_once_never_pass_a_budget(company: Sessions, redis: Redis, settings: Settings) -> None:
    price(company, "1", 120_000)
    budget(company, money=10 * EURO, calls=5)
    budget(company, "acme", money=3 * 240_000 + 100_000)
    wishes = [ask(company, redis, settings, number(index)).id for index in range(24)]

    def go(callback_id: str) -> Claimed:
        return claim(company, redis, settings, callback_id).result

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(go, wishes))
    waits = {Claimed.BUDGET_SPENT, Claimed.NO_AGENT, Claimed.NOT_ITS_TURN}
    assert results.count(Claimed.YES) == 3 and set(results) <= {Claimed.YES, *waits}
    assert (day(company, "acme").money_held, day(company).money_held) == (720_000, 720_000)
    with company.read() as db:
        attempts = set(db.scalars(select(Attempt.id)))
        assert {row.attempt_id for row in db.scalars(select(Reservation))} == attempts and len(attempts) == 3
        assert db.query(Callback).filter(Callback.held_by.is_not(None)).count() == 3


def test_claims_that_all_looked_before_the_first_took(
    company: Sessions, redis: Redis, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where everybody has seen room, the one UPDATE still decides."""
    monkeypatch.setattr(budgets, "postpone", lambda *_: False)
    budget(company, calls=2)
    wishes = [ask(company, redis, settings, number(index)).id for index in range(8)]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda each: claim(company, redis, settings, each).result, wishes))
    assert results.count(Claimed.YES) == 2 and day(company).seconds_held == 2 * CALL
    with company.begin() as db:
        db.execute(update(BudgetRow).values(seconds=3 * CALL))
    assert sum(results.count(why) for why in (Claimed.BUDGET_SPENT, Claimed.NO_AGENT, Claimed.NOT_ITS_TURN)) == 6
