"""A visitor moves or confirms their callback: by the rules of a new one, and never under a dial; on both databases."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from alembic import command
from doubles.company import NOW, ask, callback, change_site, found_company, lock, step
from doubles.postgres import postgres, settings  # noqa: F401 - fixtures
from redis import Redis
from sqlalchemy import text

from bridge.domain import hours
from bridge.domain.attempts import AttemptState as S
from bridge.domain.errors import Conflict, Invalid, NotFound, RateLimited
from bridge.live import keys
from bridge.services import callbacks, dialling, moving, sweeping
from bridge.services.calendars import OutsideHours, SlotFull
from bridge.services.callbacks import CallbackView
from bridge.services.dialling import Claimed
from bridge.settings import Settings
from bridge.store import migrate
from bridge.store.database import WRITES, Sessions
from bridge.store.models import Calendar, Client

BERLIN = "Europe/Berlin"
HOUR = timedelta(hours=1)
LATER = "2026-05-05T10:00"
LATER_AT = datetime(2026, 5, 5, 8, 0, tzinfo=UTC)
Mover = Callable[..., CallbackView]


@pytest.fixture
def company(sessions: Sessions) -> Sessions:
    found_company(sessions)
    change_site(sessions, limits={"per_ip_hour": 999, "per_number_day": 99, "per_site_hour": 999})
    return sessions


@pytest.fixture
def move(company: Sessions, redis: Redis, settings: Settings) -> Mover:
    def moved(made: str, when: str | None = LATER, zone: str | None = BERLIN, now: datetime = NOW) -> CallbackView:
        return moving.move(company, redis, settings, made, when, zone if when else None, now=now)

    return moved


def keep_hours(sessions: Sessions, **more: object) -> None:
    """Open from 9 to 18 in Berlin."""
    weekly = {day: [{"opens": "09:00", "closes": "18:00"}] for day in hours.DAYS}
    with sessions.begin() as session:
        values = {"id": "office", "client_id": "acme", "name": "Office", "created_at": NOW, "timezone": BERLIN}
        session.add(Calendar(weekly=weekly, **values, **more))
    change_site(sessions, calendar_id="office")


def test_another_time_is_another_promise(company: Sessions, redis: Redis, settings: Settings, move: Mover) -> None:
    made = ask(company, redis, settings)
    found = move(made.id)
    assert (found.status, found.promised_at, found.confirmed_at) == ("scheduled", LATER_AT, NOW)
    assert found.expires_at == LATER_AT + 8 * HOUR
    row = callback(company, made.id)
    assert (row.wall_time, row.timezone, row.due_at, row.reason) == (f"{LATER}:00", BERLIN, LATER_AT, None)
    told = [fields["data"] for _, fields in redis.xrange(keys.SCREENS) if fields["to"] == f"callback:{made.id}"]
    assert '"scheduled"' in told[-1] and '"expires_at"' in told[-1]
    # The job of its first time comes and finds nothing due.
    assert dialling.claim(company, redis, settings, made.id, now=NOW).result is Claimed.NOT_DUE
    assert dialling.claim(company, redis, settings, made.id, now=LATER_AT).result is Claimed.YES


def test_moved_to_now_a_job_waits(company: Sessions, redis: Redis, settings: Settings, move: Mover) -> None:
    made = ask(company, redis, settings, when=LATER, timezone=BERLIN)
    found = move(made.id, None)
    assert found.status == "queued" and found.promised_at is not None
    assert redis.llen("rq:queue:dial") == 1
    # It stands in the line now: who asks after it, with one agent at work, is promised a later time.
    behind = ask(company, redis, settings, "+12125550188").promised_at
    assert behind is not None and NOW < found.promised_at < behind
    row = callback(company, made.id)
    assert (row.wall_time, row.timezone, row.tzdata, row.expires_at) == (None, None, None, NOW + 8 * HOUR)
    # In the line from now on, and once in it, in the same place.
    assert row.joined_at == NOW
    move(made.id, None, now=NOW + HOUR)
    assert callback(company, made.id).joined_at == NOW
    move(made.id)
    assert callback(company, made.id).joined_at == LATER_AT


def test_a_skipped_hour_moves_on_here_too(company: Sessions, redis: Redis, settings: Settings, move: Mover) -> None:
    march = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
    made = ask(company, redis, settings, when="2026-03-28T10:00", timezone=BERLIN, now=march)
    found = move(made.id, "2026-03-29T02:30", now=march)
    assert found.promised_at == datetime(2026, 3, 29, 1, 30, tzinfo=UTC)
    assert callback(company, made.id).wall_time == "2026-03-29T02:30:00"


REFUSED = [
    ("2026-05-04T10:00", BERLIN, "time_past"),
    ("2026-05-05T03:00", BERLIN, "outside_hours"),
    ("2026-06-30T10:00", BERLIN, "too_far_ahead"),
    ("2029-05-04T10:00", BERLIN, "too_far_ahead"),
    ("2026-05-05T10:00", None, "invalid"),
    ("2026-05-05T10:00", "Mars/Base", "invalid"),
    ("soon", BERLIN, "invalid"),
]


def test_a_time_that_is_refused_changes_nothing(
    company: Sessions, redis: Redis, settings: Settings, move: Mover
) -> None:
    keep_hours(company)
    made = ask(company, redis, settings, when=LATER, timezone=BERLIN)
    for when, zone, code in REFUSED:
        with pytest.raises(Invalid) as caught:
            move(made.id, when, zone)
        assert caught.value.code == code
    assert callback(company, made.id).due_at == LATER_AT


def test_nobody_is_in_their_own_way(company: Sessions, redis: Redis, settings: Settings, move: Mover) -> None:
    keep_hours(company, agents=1)
    first = ask(company, redis, settings, when=LATER, timezone=BERLIN).id
    second = ask(company, redis, settings, "+16465550102", when="2026-05-05T11:00", timezone=BERLIN).id
    assert move(first, "2026-05-05T10:10").promised_at == LATER_AT + HOUR / 6
    with pytest.raises(SlotFull):
        move(second)
    with pytest.raises(OutsideHours):
        move(second, "2026-05-05T08:59")
    # What is left is free for others.
    move(first, "2026-05-05T12:00")
    assert move(second).promised_at == LATER_AT


def test_two_that_want_the_last_room_at_once(
    company: Sessions, redis: Redis, settings: Settings, move: Mover
) -> None:
    keep_hours(company, agents=1)
    both = [
        ask(company, redis, settings, f"+1646555010{n}", when=f"2026-05-05T1{n}:00", timezone=BERLIN).id
        for n in (1, 2)
    ]

    def wish(made: str) -> bool:
        try:
            move(made, "2026-05-05T15:00")
        except SlotFull:
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(wish, both)) == [False, True]


def test_two_moves_of_one_at_once_leave_one_of_them_whole(
    company: Sessions, redis: Redis, settings: Settings, move: Mover
) -> None:
    made = ask(company, redis, settings, when=LATER, timezone=BERLIN).id
    wishes = {f"2026-05-{day:02}T{day:02}:00:00" for day in range(5, 13)}
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda when: move(made, when), sorted(wishes)))
    assert len({view.promised_at for view in found}) == len(wishes)
    row = callback(company, made)
    assert row.wall_time in wishes
    assert row.due_at == row.promised_at == row.expires_at - 8 * HOUR
    assert row.due_at == datetime.fromisoformat(row.wall_time).replace(tzinfo=UTC) - 2 * HOUR


def test_under_a_dial_nothing_moves(company: Sessions, redis: Redis, settings: Settings, move: Mover) -> None:
    made = ask(company, redis, settings).id
    held = dialling.claim(company, redis, settings, made, now=NOW).attempt or ""
    for state in (S.DIALING, S.RINGING, S.UNCERTAIN):
        with pytest.raises(moving.InFlight) as caught:
            move(made)
        assert (caught.value.status, caught.value.code) == (409, "call_in_flight")
        step(company, held, state)
    assert moving.confirm(company, redis, made, now=NOW).confirmed_at == NOW
    step(company, held, S.FAILED, "busy", over=True)
    assert move(made).status == "scheduled"
    # What was used up stays so.
    assert callback(company, made).tries == 1


def test_a_move_racing_the_claim(company: Sessions, redis: Redis, settings: Settings, move: Mover) -> None:
    """Either it is dialled and stays, or it is moved and nothing rings."""
    for line in range(10):
        number = f"+1646555010{line}"
        made = ask(company, redis, settings, number).id
        with ThreadPoolExecutor(2) as pool:
            claim = pool.submit(dialling.claim, company, redis, settings, made, now=NOW)
            moved = pool.submit(move, made)
        if moved.exception() is None:
            assert claim.result().attempt is None
            assert (callback(company, made).held_by, lock(company, number)) == (None, None)
        else:
            assert isinstance(moved.exception(), moving.InFlight)
            held = claim.result().attempt or ""
            assert callback(company, made).due_at == NOW
            step(company, held, S.CANCELLED, over=True)


def test_what_has_ended_stays_ended(company: Sessions, redis: Redis, settings: Settings, move: Mover) -> None:
    made = ask(company, redis, settings, when=LATER, timezone=BERLIN).id
    callbacks.cancel(company, redis, made, now=NOW)
    for wish in (lambda: move(made), lambda: moving.confirm(company, redis, made, now=NOW)):
        with pytest.raises(moving.Ended) as caught:
            wish()
        assert (caught.value.status, caught.value.code) == (409, "callback_ended")
    assert callback(company, made).status == "cancelled"
    with pytest.raises(NotFound):
        move("nobody")


def test_a_cancel_and_a_move_at_once(company: Sessions, redis: Redis, settings: Settings, move: Mover) -> None:
    for line in range(5):
        made = ask(company, redis, settings, f"+1646555010{line}", when=LATER, timezone=BERLIN).id
        with ThreadPoolExecutor(2) as pool:
            moved = pool.submit(move, made, "2026-05-06T10:00")
            cancelled = pool.submit(callbacks.cancel, company, redis, made, now=NOW)
        assert isinstance(moved.exception(), moving.Ended | None)
        assert cancelled.result().status == callback(company, made).status == "cancelled"


def test_who_may_not_be_called_is_not_moved(
    company: Sessions, redis: Redis, settings: Settings, move: Mover
) -> None:
    made = ask(company, redis, settings, when=LATER, timezone=BERLIN).id
    with company.begin() as session:
        session.get_one(Client, "acme").active = False
    with pytest.raises(moving.SiteClosed):
        move(made)
    with company.begin() as session:
        session.get_one(Client, "acme").active = True
    change_site(company, regions=["DE"])
    with pytest.raises(Invalid) as caught:
        move(made)
    assert caught.value.code == "region_not_allowed"


def test_moves_are_counted(company: Sessions, redis: Redis, settings: Settings, move: Mover) -> None:
    made = ask(company, redis, settings, when=LATER, timezone=BERLIN).id
    for _ in range(20):
        move(made)
    with pytest.raises(RateLimited):
        move(made)
    assert move(made, now=NOW + timedelta(days=1) - HOUR, when="2026-05-06T10:00")


def test_confirmed_is_told(company: Sessions, redis: Redis, settings: Settings) -> None:
    made = ask(company, redis, settings, when=LATER, timezone=BERLIN)
    assert made.confirmed_at is None
    found = moving.confirm(company, redis, made.id, now=NOW)
    assert (found.status, found.confirmed_at) == ("scheduled", NOW)
    told = [fields["data"] for _, fields in redis.xrange(keys.SCREENS) if fields["to"] == "supervisors"]
    assert '"confirmed_at":"2026-05-04T15:00:00.000Z"' in told[-1].replace(" ", "")


def test_expiry_is_told_to_both_with_its_reason(company: Sessions, redis: Redis, settings: Settings) -> None:
    made = ask(company, redis, settings)
    assert made.expires_at == NOW + 8 * HOUR
    assert sweeping.sweep(company, redis, settings, now=NOW + 8 * HOUR).expired == 1
    for to in (f"callback:{made.id}", "supervisors"):
        said = [fields["data"] for _, fields in redis.xrange(keys.SCREENS) if fields["to"] == to][-1]
        assert '"expired"' in said and '"not_reached_in_time"' in said
    with pytest.raises(Conflict):
        callbacks.cancel(company, redis, made.id, now=NOW + 8 * HOUR)


def test_the_migration_goes_both_ways(sessions: Sessions, redis: Redis, settings: Settings) -> None:
    found_company(sessions)
    made = ask(sessions, redis, settings, when=LATER, timezone=BERLIN)
    with sessions.engine.connect().execution_options(**{WRITES: True}) as connection, connection.begin():
        command.downgrade(migrate._config(connection), "0009")
        connection.execute(text("SELECT id FROM callbacks")).one()
        command.upgrade(migrate._config(connection), "head")
        assert migrate.differences(connection) == []
    assert callback(sessions, made.id).confirmed_at is None
