"""Opening hours where they meet callbacks: asked for, offered, dialled; on both databases."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from alembic import command
from doubles.company import NOW, agent_state, ask, callback, change_site, found_company, step
from doubles.postgres import postgres, settings  # noqa: F401 - fixtures
from redis import Redis
from sqlalchemy import func, select, text

from bridge.domain import hours
from bridge.domain.attempts import AttemptState
from bridge.domain.callbacks import TimePast, TooFarAhead
from bridge.domain.errors import Invalid
from bridge.live import keys
from bridge.services import calendars, callbacks, dialling, sweeping, zone_rules
from bridge.services.calendars import OutsideHours, SlotFull
from bridge.services.dialling import Claimed
from bridge.services.sweeping import Swept
from bridge.settings import Settings
from bridge.store import migrate
from bridge.store.database import WRITES, Sessions
from bridge.store.models import Attempt, Calendar, Callback, Site

# NOW is Monday 2026-05-04, 15:00 UTC: 17:00 in Berlin.
BEFORE_CALENDARS = "0004"
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
OPEN, EVENING = NOW, NOW + 2 * HOUR
NIGHT = datetime(2026, 5, 4, 23, 0, tzinfo=UTC)
MORNING = datetime(2026, 5, 5, 7, 0, tzinfo=UTC)
BERLIN = "Europe/Berlin"


def keep_hours(
    sessions: Sessions, name: str = "office", opens: str = "09:00", closes: str = "18:00", **more: Any
) -> None:
    """A calendar of that id; each day alike, in Berlin."""
    span = [{"opens": opens, "closes": closes}]
    values = {"timezone": BERLIN, "weekly": {day: span for day in hours.DAYS}, **more}  # noqa: C420 - by day
    with sessions.begin() as session:
        session.add(Calendar(id=name, client_id="acme", name=name, created_at=NOW, **values))


@pytest.fixture
def shop(sessions: Sessions) -> Sessions:
    """A site that is open from 9 to 18 in Berlin, and lets everybody ask."""
    found_company(sessions)
    keep_hours(sessions)
    change_site(sessions, calendar_id="office", limits={"per_ip_hour": 999, "per_number_day": 99, "per_site_hour": 999})
    return sessions


def refused(kind: type[Invalid], *args: Any, **more: Any) -> Invalid:
    with pytest.raises(kind) as caught:
        ask(*args, **more)
    assert (caught.value.status, caught.value.field) == (422, "when")
    return caught.value


def times(error: Invalid) -> list[str]:
    return [slot["wall_time"] for slot in error.details["slots"]]  # type: ignore[attr-defined]


# --- asked for ---


def test_now_in_open_hours_is_now(shop: Sessions, redis: Redis, settings: Settings) -> None:
    made = ask(shop, redis, settings, now=OPEN)
    assert (made.status, made.promised_at) == ("queued", OPEN + timedelta(seconds=25))
    row = callback(shop, made.id)
    assert (row.wall_time, row.due_at, row.calendar_id) == (None, OPEN, "office")


def test_now_in_closed_hours_is_the_next_open_time(shop: Sessions, redis: Redis, settings: Settings) -> None:
    made = ask(shop, redis, settings, now=EVENING)
    assert (made.status, made.promised_at) == ("scheduled", MORNING)
    row = callback(shop, made.id)
    assert (row.wall_time, row.timezone, row.tzdata) == ("2026-05-05T09:00", BERLIN, zone_rules.version())
    assert row.expires_at == MORNING + 8 * HOUR
    assert redis.llen("rq:queue:dial") == 0
    assert dialling.claim(shop, redis, settings, made.id, now=MORNING - MINUTE).result is Claimed.NOT_DUE
    assert dialling.claim(shop, redis, settings, made.id, now=MORNING).result is Claimed.YES


def test_now_in_closed_hours_may_be_refused(shop: Sessions, redis: Redis, settings: Settings) -> None:
    change_site(shop, when_closed="refuse")
    error = refused(OutsideHours, shop, redis, settings, now=EVENING)
    assert error.code == "outside_hours"
    assert times(error) == ["2026-05-05T09:00", "2026-05-05T09:30", "2026-05-05T10:00"]
    assert error.message == (
        "nobody is there now; the next open times are 2026-05-05 09:00, 2026-05-05 09:30, 2026-05-05 10:00 "
        "(Europe/Berlin)"
    )
    assert error.details["slots"][0]["at"] == "2026-05-05T07:00:00.000Z"  # type: ignore[index]
    assert ask(shop, redis, settings, now=OPEN).status == "queued"


@pytest.mark.parametrize(
    ("when", "kind", "code"),
    [
        ("2026-05-04T16:58", TimePast, "time_past"),
        ("2026-05-04T18:00", OutsideHours, "outside_hours"),
        ("2026-05-05T08:59", OutsideHours, "outside_hours"),
        ("2026-05-18T17:01", TooFarAhead, "too_far_ahead"),
        ("2029-05-04T17:00", TooFarAhead, "too_far_ahead"),
    ],
)
def test_a_time_that_is_refused_names_others(
    shop: Sessions, redis: Redis, settings: Settings, when: str, kind: type[Invalid], code: str
) -> None:
    error = refused(kind, shop, redis, settings, when=when, timezone=BERLIN, now=OPEN)
    assert error.code == code
    assert times(error) == ["2026-05-04T17:30", "2026-05-05T09:00", "2026-05-05T09:30"]
    assert error.details["timezone"] == BERLIN
    with shop.read() as session:
        assert session.scalar(select(func.count()).select_from(Callback)) == 0


def test_a_chosen_time_is_any_minute_of_open_hours(shop: Sessions, redis: Redis, settings: Settings) -> None:
    made = ask(shop, redis, settings, when="2026-05-05T03:17", timezone="America/New_York", now=OPEN)
    assert made.promised_at == MORNING + 17 * MINUTE
    made = ask(shop, redis, settings, when="2026-05-05T09:17:00+02:00", now=OPEN)
    assert made.promised_at == MORNING + 17 * MINUTE
    assert callback(shop, made.id).tzdata is None


def test_a_time_in_a_skipped_hour_is_moved_and_told(shop: Sessions, redis: Redis, settings: Settings) -> None:
    keep_hours(shop, "night", "00:00", "24:00")
    change_site(shop, calendar_id="night")
    march = datetime(2026, 3, 28, 12, 0, tzinfo=UTC)
    made = ask(shop, redis, settings, when="2026-03-29T02:30", timezone=BERLIN, now=march)
    assert made.promised_at == datetime(2026, 3, 29, 1, 30, tzinfo=UTC)
    assert callback(shop, made.id).wall_time == "2026-03-29T02:30:00"


def test_without_a_calendar_any_hour_is_open(sessions: Sessions, redis: Redis, settings: Settings) -> None:
    found_company(sessions)
    made = ask(sessions, redis, settings, now=NIGHT)
    assert (made.status, callback(sessions, made.id).calendar_id) == ("queued", None)
    assert dialling.claim(sessions, redis, settings, made.id, now=NIGHT).result is Claimed.YES
    with pytest.raises(TooFarAhead) as caught:
        ask(sessions, redis, settings, when="2029-01-01T09:00", timezone=BERLIN)
    assert caught.value.details == {}


def test_a_queue_has_its_own_hours(shop: Sessions, redis: Redis, settings: Settings) -> None:
    keep_hours(shop, "late", "18:00", "22:00")
    change_site(shop, queue_calendars={"support": "late"})
    assert ask(shop, redis, settings, queue="support", now=EVENING).status == "queued"
    assert ask(shop, redis, settings, queue="sales", now=EVENING).status == "scheduled"
    assert ask(shop, redis, settings, queue="support", now=OPEN).promised_at == NOW + HOUR


def test_a_calendar_that_is_gone_leaves_the_site_s(shop: Sessions, redis: Redis, settings: Settings) -> None:
    change_site(shop, queue_calendars={"support": "gone"})
    assert ask(shop, redis, settings, queue="support", now=EVENING).promised_at == MORNING


# --- how many a slot takes ---


def test_a_slot_takes_as_many_as_agents_are_there(shop: Sessions, redis: Redis, settings: Settings) -> None:
    with shop.begin() as session:
        session.get_one(Calendar, "office").agents = 2
    wish = {"when": "2026-05-05T09:10", "timezone": BERLIN, "now": OPEN}
    first = ask(shop, redis, settings, **wish)
    ask(shop, redis, settings, **{**wish, "when": "2026-05-05T09:29"})
    error = refused(SlotFull, shop, redis, settings, **wish)
    assert error.code == "slot_full"
    assert "2026-05-05T09:00" not in times(error)
    with shop.read() as session:
        offered = calendars.offer(session, session.get_one(Site, "shop"), None, date(2026, 5, 5), OPEN)
    assert offered.slots[0].wall_time == "2026-05-05T09:30"
    ask(shop, redis, settings, **{**wish, "when": "2026-05-05T09:30"})
    callbacks.cancel(shop, redis, first.id, now=OPEN)
    assert ask(shop, redis, settings, **wish).status == "scheduled"


def test_who_asks_by_night_is_spread_over_the_morning(shop: Sessions, redis: Redis, settings: Settings) -> None:
    with shop.begin() as session:
        session.get_one(Calendar, "office").agents = 1
    made = [ask(shop, redis, settings, now=NIGHT).promised_at for _ in range(3)]
    assert made == [MORNING, MORNING + 30 * MINUTE, MORNING + HOUR]


def test_a_stretch_may_have_agents_of_its_own(shop: Sessions, redis: Redis, settings: Settings) -> None:
    spans = [{"opens": "09:00", "closes": "10:00", "agents": 0}, {"opens": "10:00", "closes": "18:00", "agents": 5}]
    with shop.begin() as session:
        row = session.get_one(Calendar, "office")
        row.weekly, row.agents = {"tuesday": spans}, 1
    assert ask(shop, redis, settings, now=NIGHT).promised_at == MORNING + HOUR


def test_the_last_room_of_a_slot_goes_to_one(shop: Sessions, redis: Redis, settings: Settings) -> None:
    with shop.begin() as session:
        session.get_one(Calendar, "office").agents = 3

    def once(number: int) -> bool:
        try:
            ask(shop, redis, settings, f"+164655501{number:02}", when="2026-05-05T09:00", timezone=BERLIN, now=OPEN)
        except SlotFull:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(once, range(16))) == 3


# --- offered ---


def test_what_is_offered(shop: Sessions) -> None:
    with shop.read() as session:
        site = session.get_one(Site, "shop")
        week = calendars.offer(session, site, None, None, OPEN)
        day = calendars.offer(session, site, None, date(2026, 5, 6), OPEN)
        past = calendars.offer(session, site, None, date(2026, 5, 3), OPEN)
        evening = calendars.offer(session, site, None, None, EVENING)
    assert (week.timezone, week.now, week.any_time, evening.now) == (BERLIN, True, False, False)
    assert week.slots[0].wall_time == "2026-05-04T17:30"
    assert week.slots[-1].wall_time == "2026-05-18T17:00"
    assert [slot.wall_time for slot in day.slots][::17] == ["2026-05-06T09:00", "2026-05-06T17:30"]
    assert past.slots == []


def test_every_offered_slot_is_accepted(shop: Sessions, redis: Redis, settings: Settings) -> None:
    with shop.begin() as session:
        row = session.get_one(Calendar, "office")
        row.weekly = {day: [{"opens": "01:00", "closes": "04:00"}] for day in hours.DAYS}
    october = datetime(2026, 10, 24, 12, 0, tzinfo=UTC)
    with shop.read() as session:
        found = calendars.offer(session, session.get_one(Site, "shop"), None, date(2026, 10, 25), october)
    assert len(found.slots) == 6
    for slot in found.slots:
        made = ask(shop, redis, settings, when=slot.wall_time, timezone=found.timezone, now=october)
        assert made.promised_at == slot.at


# --- dialled ---


def test_what_comes_due_in_closed_hours_is_never_dialled(shop: Sessions, redis: Redis, settings: Settings) -> None:
    """Nobody was free before closing: the callback waits for the morning, and the night does not make it expire."""
    made = ask(shop, redis, settings, now=OPEN)
    assert dialling.dial(shop, redis, settings, made.id, now=EVENING).result is Claimed.CLOSED
    row = callback(shop, made.id)
    assert (row.status, row.reason, row.due_at, row.promised_at) == ("scheduled", "outside_hours", MORNING, MORNING)
    assert (row.wall_time, row.timezone, row.held_by) == ("2026-05-05T09:00", BERLIN, None)
    assert row.expires_at - MORNING == OPEN + 8 * HOUR - EVENING
    assert agent_state(shop).reserved_by is None
    assert not redis.exists(keys.commands("lab"))
    with shop.read() as session:
        assert session.scalar(select(func.count()).select_from(Attempt)) == 0
    assert dialling.dial(shop, redis, settings, made.id, now=NIGHT).result is Claimed.NOT_DUE
    assert sweeping.sweep(shop, redis, settings, now=MORNING) == Swept(came_due=1, enqueued=1)
    assert callback(shop, made.id).reason is None
    assert dialling.dial(shop, redis, settings, made.id, now=MORNING).result is Claimed.YES


def test_the_sweep_postpones_before_it_expires(shop: Sessions, redis: Redis, settings: Settings) -> None:
    made = ask(shop, redis, settings, now=OPEN)
    other = ask(shop, redis, settings, "+16465550102", now=OPEN)
    redis.delete("rb:screens")
    assert sweeping.sweep(shop, redis, settings, now=EVENING) == Swept(broken=2, postponed=2)
    told = [fields["to"] for _, fields in redis.xrange(keys.SCREENS) if fields["event"] == "status"]
    assert sorted(told) == sorted([f"callback:{made.id}", f"callback:{other.id}"])
    assert sweeping.sweep(shop, redis, settings, now=OPEN + 9 * HOUR) == Swept()
    assert callback(shop, made.id).status == "scheduled"


def test_hours_that_changed_after_somebody_asked_hold(shop: Sessions, redis: Redis, settings: Settings) -> None:
    made = ask(shop, redis, settings, when="2026-05-05T09:00", timezone=BERLIN, now=OPEN)
    with shop.begin() as session:
        session.get_one(Calendar, "office").special_days = [{"date": "2026-05-05", "name": "", "hours": []}]
    assert dialling.claim(shop, redis, settings, made.id, now=MORNING).result is Claimed.CLOSED
    assert callback(shop, made.id).due_at == MORNING + timedelta(days=1)


def test_a_second_try_keeps_the_hours_too(shop: Sessions, redis: Redis, settings: Settings) -> None:
    late = NOW + timedelta(minutes=58)
    made = ask(shop, redis, settings, now=late)
    held = dialling.claim(shop, redis, settings, made.id, now=late).attempt or ""
    step(shop, held, AttemptState.DIALING, now=late)
    step(shop, held, AttemptState.FAILED, "customer_no_answer", 19, now=late, over=True)
    assert sweeping.sweep(shop, redis, settings, now=late + 6 * MINUTE).postponed == 1
    row = callback(shop, made.id)
    assert (row.due_at, row.tries) == (MORNING, 1)


def test_closed_for_good_is_never_dialled_and_expires(shop: Sessions, redis: Redis, settings: Settings) -> None:
    made = ask(shop, redis, settings, now=OPEN)
    with shop.begin() as session:
        session.get_one(Calendar, "office").weekly = {}
    assert dialling.dial(shop, redis, settings, made.id, now=OPEN).result is Claimed.CLOSED
    assert callback(shop, made.id).status == "queued"
    assert sweeping.sweep(shop, redis, settings, now=OPEN + 9 * HOUR).expired == 1
    refused(OutsideHours, shop, redis, settings, now=OPEN)


def test_a_queue_that_is_open_is_dialled_while_the_site_is_closed(
    shop: Sessions, redis: Redis, settings: Settings
) -> None:
    keep_hours(shop, "late", "09:00", "22:00")
    change_site(shop, queue_calendars={"support": "late"})
    late = ask(shop, redis, settings, queue="support", now=OPEN)
    other = ask(shop, redis, settings, "+16465550102", now=OPEN)
    assert sweeping.sweep(shop, redis, settings, now=EVENING).postponed == 1
    assert callback(shop, other.id).status == "scheduled"
    assert dialling.claim(shop, redis, settings, late.id, now=EVENING).result is Claimed.YES


# --- what was there before ---


def test_the_migration_goes_both_ways_and_old_rows_keep_their_meaning(
    sessions: Sessions, redis: Redis, settings: Settings
) -> None:
    found_company(sessions)
    made = ask(sessions, redis, settings, when="2026-05-05T03:00", timezone=BERLIN, now=OPEN)
    with sessions.engine.connect().execution_options(**{WRITES: True}) as connection, connection.begin():
        command.downgrade(migrate._config(connection), BEFORE_CALENDARS)
        connection.execute(text("SELECT id FROM sites")).one()
        command.upgrade(migrate._config(connection), "head")
        assert migrate.differences(connection) == []
    with sessions.read() as session:
        site = session.get_one(Site, "shop")
        assert (site.calendar_id, site.queue_calendars, site.when_closed) == (None, {}, "next_open")
    assert callback(sessions, made.id).tzdata is None
    assert sweeping.sweep(sessions, redis, settings, now=OPEN) == Swept()
    assert callback(sessions, made.id).tzdata == zone_rules.version()
    assert ask(sessions, redis, settings, now=NIGHT).status == "queued"
