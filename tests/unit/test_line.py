"""The line in SQL: callbacks wait for callers and for one another, and for nobody who does not wait."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from doubles.company import NOW, ask, callback, change_site, found_company
from doubles.postgres import postgres, settings  # noqa: F401 - fixtures
from redis import Redis

from bridge.services import dialling, sweeping
from bridge.services.dialling import Claimed
from bridge.settings import Settings
from bridge.store.database import Sessions
from bridge.store.models import Call, Callback, CallEventRow, NumberLock, Site

SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)


@pytest.fixture
def company(sessions: Sessions) -> Sessions:
    found_company(sessions, agents=2)
    change_site(sessions, limits={"per_ip_hour": 99})
    return sessions


def waits(sessions: Sessions, call: str, queue: str, *kinds: str, **columns: Any) -> None:
    """A caller in the queue since a minute before NOW."""
    with sessions.begin() as session:
        values: dict[str, Any] = {"pbx": "lab", "queue": queue, "state": "queued", "started_at": NOW - MINUTE}
        session.add(Call(id=call, last_seq=1, **{**values, **columns}))
        for seq, kind in enumerate(kinds or ("queued",), 1):
            at = NOW - MINUTE + seq * SECOND
            session.add(CallEventRow(call_id=call, seq=seq, type=f"call.{kind}", at=at, data={"queue": queue}))


def of_queue(sessions: Sessions, redis: Redis, settings: Settings, queue: str | None = "support", last: int = 1) -> str:
    return ask(sessions, redis, settings, f"+1646555010{last}", queue=queue).id


def claim(sessions: Sessions, redis: Redis, settings: Settings, made: str) -> Claimed:
    return dialling.claim(sessions, redis, settings, made, now=NOW).result


def test_a_callback_waits_while_earlier_callers_need_the_agents(
    company: Sessions, redis: Redis, settings: Settings
) -> None:
    made = of_queue(company, redis, settings)
    waits(company, "c1", "support")
    waits(company, "c2", "support")
    assert claim(company, redis, settings, made) is Claimed.NOT_ITS_TURN
    with company.begin() as session:
        session.get_one(Call, "c2").connected_at = NOW
    assert claim(company, redis, settings, made) is Claimed.YES


@pytest.mark.parametrize(
    ("kinds", "columns"),
    [
        (("queued", "unqueued"), {}),
        (("queued",), {"ended_at": NOW}),
        (("queued",), {"connected_at": NOW}),
        (("queued",), {"pbx": "other"}),
        (("queued",), {"attempt_id": "a"}),
        (("queued",), {"started_at": NOW - timedelta(hours=5)}),
    ],
    ids=["left", "ended", "talks", "elsewhere", "ours", "lost track of"],
)
def test_who_does_not_wait_holds_up_nobody(
    company: Sessions, redis: Redis, settings: Settings, kinds: tuple[str, ...], columns: dict[str, Any]
) -> None:
    made = of_queue(company, redis, settings)
    for call in ("c1", "c2"):
        waits(company, call, "support", *kinds, **columns)
    assert claim(company, redis, settings, made) is Claimed.YES


def test_callers_of_another_queue_and_later_callers_hold_up_nobody(
    company: Sessions, redis: Redis, settings: Settings
) -> None:
    made = of_queue(company, redis, settings)
    with company.begin() as session:
        session.get_one(Callback, made).joined_at = NOW - MINUTE
    for call in ("c1", "c2"):
        waits(company, call, "support")
        waits(company, f"other-{call}", "sales", started_at=NOW - 9 * MINUTE)
    assert claim(company, redis, settings, made) is Claimed.YES


def test_a_callback_of_no_queue_waits_for_no_caller(company: Sessions, redis: Redis, settings: Settings) -> None:
    made = of_queue(company, redis, settings, None)
    waits(company, "c1", "support")
    waits(company, "c2", "support")
    assert claim(company, redis, settings, made) is Claimed.YES


def test_who_came_back_into_the_queue_keeps_the_place(company: Sessions, redis: Redis, settings: Settings) -> None:
    made = of_queue(company, redis, settings)
    with company.begin() as session:
        session.get_one(Callback, made).joined_at = NOW - MINUTE + 2 * SECOND
    for call in ("c1", "c2"):
        waits(company, call, "support", "queued", "unqueued", "queued")
    assert claim(company, redis, settings, made) is Claimed.NOT_ITS_TURN


def test_callbacks_go_in_the_order_in_which_their_customers_joined(
    company: Sessions, redis: Redis, settings: Settings
) -> None:
    first, second, third = (of_queue(company, redis, settings, last=n) for n in (1, 2, 3))
    with company.begin() as session:
        session.get_one(Callback, third).joined_at = NOW - MINUTE
        session.get_one(Callback, second).joined_at = NOW - 2 * MINUTE
    assert claim(company, redis, settings, first) is Claimed.NOT_ITS_TURN
    assert claim(company, redis, settings, third) is Claimed.YES
    assert claim(company, redis, settings, first) is Claimed.NOT_ITS_TURN
    assert claim(company, redis, settings, second) is Claimed.YES
    assert claim(company, redis, settings, first) is Claimed.NO_AGENT


def test_the_sweep_gives_jobs_in_the_order_of_the_line(company: Sessions, redis: Redis, settings: Settings) -> None:
    made = [of_queue(company, redis, settings, last=n) for n in range(1, 7)]
    with company.begin() as session:
        session.get_one(Callback, made[5]).joined_at = NOW - MINUTE
    redis.flushall()
    assert sweeping.sweep(company, redis, settings, now=NOW + MINUTE).enqueued == 4
    assert callback(company, made[5]).queued_at == NOW + MINUTE


@pytest.mark.parametrize("why", ["locked", "closed site", "not due", "held", "expired", "other pbx"])
def test_a_callback_that_cannot_be_begun_holds_up_nobody(
    company: Sessions, redis: Redis, settings: Settings, why: str
) -> None:
    ahead = [of_queue(company, redis, settings, last=n) for n in (1, 2)]
    mine = of_queue(company, redis, settings, last=3)
    with company.begin() as session:
        session.add(Site(id="two", client_id="acme", key="two", name="Two", created_at=NOW))
        session.flush()
        for made in ahead:
            row = session.get_one(Callback, made)
            row.joined_at = NOW - MINUTE
            if why == "locked":
                session.add(NumberLock(number=row.number, attempt_id="x", since=NOW))
            elif why == "not due":
                row.due_at = NOW + MINUTE
            elif why == "held":
                row.held_by = "x"
            elif why == "expired":
                row.expires_at = NOW
            else:
                row.site_id = "two"
        site = session.get_one(Site, "two")
        site.active, site.pbx = why != "closed site", "elsewhere" if why == "other pbx" else None
    assert claim(company, redis, settings, mine) is Claimed.YES


def test_a_callback_of_before_stands_where_it_came_due(company: Sessions, redis: Redis, settings: Settings) -> None:
    """Rows of an older version have no time of joining."""
    old, new, newer = (of_queue(company, redis, settings, last=n) for n in (1, 2, 3))
    with company.begin() as session:
        row = session.get_one(Callback, old)
        row.joined_at, row.due_at = None, NOW - MINUTE
        session.get_one(Callback, new).joined_at = NOW - 30 * SECOND
    assert claim(company, redis, settings, newer) is Claimed.NOT_ITS_TURN
    assert claim(company, redis, settings, old) is Claimed.YES
    assert claim(company, redis, settings, new) is Claimed.YES
