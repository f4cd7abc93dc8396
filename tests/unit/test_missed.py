"""Callers whom nobody answered: who is called back, who is not, and that it happens once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from doubles.company import NUMBER, callback, change_site, found_company
from doubles.postgres import postgres, settings  # noqa: F401 - fixtures
from redis import Redis
from sqlalchemy import select

from bridge.live.calls import Entry
from bridge.services import dialling, dnc, missed, sweeping
from bridge.services.dialling import Claimed
from bridge.services.recording import Recording, record
from bridge.settings import Settings
from bridge.store.database import Sessions
from bridge.store.models import Calendar, Call, Callback, Client, Did, Dnc, Site

NOW = datetime(2026, 5, 4, 15, 0, tzinfo=UTC)
SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
OURS = "+12125550110"
CALLER = {"device": "PJSIP/trunk", "extension": None, "number": NUMBER, "name": "Bo", "agent": None}
DIALLED = {"device": None, "extension": OURS, "number": OURS, "name": None, "agent": None}
PHONE = {"device": "PJSIP/101", "extension": "101", "number": None, "name": "A", "agent": "agent-1"}


@pytest.fixture
def company(sessions: Sessions) -> Sessions:
    found_company(sessions)
    with sessions.begin() as session:
        session.add(Did(client_id="acme", number=OURS, created_at=NOW))
    change_site(sessions, missed={"dids": [OURS]})
    return sessions


class Story:
    """Calls as the recorder hears them, each event in a transaction as it makes one."""

    def __init__(self, sessions: Sessions, settings: Settings) -> None:
        self._sessions = sessions
        self._settings = settings

    def tell(
        self, call: str, *events: tuple[str, dict[str, Any]], at: datetime = NOW, now: datetime | None = None
    ) -> list[str]:
        """The ids of the callbacks that come of it."""
        made: list[str] = []
        for seq, (kind, data) in enumerate(events, 1):
            entry = Entry(f"{seq}-0", f"call.{kind}", "lab", at + (seq - 1) * 10 * SECOND, call, seq, data)
            with self._sessions.begin() as session:
                work = Recording(session, "US")
                record(work, [entry])
                rows = missed.call_back(session, self._settings, work.over, now or entry.at)
                made += [row.id for row in rows]
        return made

    def abandoned(self, call: str = "c1", *, caller: dict[str, Any] | None = None, **when: datetime) -> list[str]:
        """A caller who waited in a queue and hung up after 20 seconds."""
        waits = ("queued", {"queue": "support", "position": 1})
        return self.tell(call, started(caller), waits, ended("abandoned"), **when)


def started(caller: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
    return "started", {"direction": "inbound", "from": caller or CALLER, "to": DIALLED, "client": "acme"}


def ended(cause: str) -> tuple[str, dict[str, Any]]:
    return "ended", {"cause": cause, "q850": 16, "direction": "inbound", "answered_by": None}


@pytest.fixture
def story(company: Sessions, settings: Settings) -> Story:
    return Story(company, settings)


def missed_rows(sessions: Sessions) -> list[Callback]:
    with sessions.read() as session:
        return list(session.scalars(select(Callback)))


def test_an_abandoned_caller_is_called_back_a_minute_later(company: Sessions, story: Story) -> None:
    (made,) = story.abandoned()
    row = callback(company, made)
    assert (row.source, row.number, row.queue, row.site_id) == ("missed", NUMBER, "support", "shop")
    assert row.joined_at == NOW + 10 * SECOND
    assert (row.status, row.due_at) == ("scheduled", NOW + 20 * SECOND + MINUTE)


def test_the_same_end_read_again_makes_no_second(company: Sessions, settings: Settings, story: Story) -> None:
    assert len(story.abandoned()) == 1
    assert story.abandoned() == []
    with company.begin() as session:
        # Even where the same call were handed in once more.
        assert missed.call_back(session, settings, [session.get_one(Call, "c1")], NOW + MINUTE) == []
    assert len(missed_rows(company)) == 1


def test_once_per_number_and_day(company: Sessions, story: Story) -> None:
    (made,) = story.abandoned()
    with company.begin() as session:
        session.get_one(Callback, made).status = "failed"
    assert story.abandoned("c2", at=NOW + 5 * HOUR) == []
    other = {**CALLER, "number": "+16465550102"}
    assert len(story.abandoned("c3", caller=other, at=NOW + 5 * HOUR)) == 1
    assert len(story.abandoned("c4", at=NOW + 25 * HOUR)) == 1


def test_a_ring_group_that_nobody_answers(story: Story) -> None:
    unoffered = ("unoffered", {"party": PHONE, "reason": "cancelled"})
    assert len(story.tell("c1", started(), ("offered", {"party": PHONE}), unoffered, ended("cancelled"))) == 1


@pytest.mark.parametrize(
    "events",
    [
        (started({**CALLER, "number": None, "withheld": True}), ("queued", {"queue": "support"}), ended("abandoned")),
        (started({**CALLER, "number": "201"}), ("queued", {"queue": "support"}), ended("abandoned")),
        (started({**CALLER, "number": "+19005550101"}), ("queued", {"queue": "support"}), ended("abandoned")),
        (started({**CALLER, "number": "+447700900123"}), ("queued", {"queue": "support"}), ended("abandoned")),
        (started(), ("queued", {"queue": "support"}), ended("completed")),
        (started(), ("connected", {"parties": [CALLER, PHONE]}), ended("abandoned")),
        # Nothing rang: an announcement, or a menu that was left.
        (started(), ("queued", {"queue": "support"}), ended("cancelled")),
        # Nobody knows how it ended.
        (started(), ("queued", {"queue": "support"}), ended("uncertain")),
    ],
    ids=["withheld", "extension", "premium", "foreign", "completed", "talked", "menu", "uncertain"],
)
def test_who_is_not_called_back(story: Story, events: tuple[tuple[str, dict[str, Any]], ...]) -> None:
    assert story.tell("c1", *events) == []


def test_who_hangs_up_at_once_is_not_called_back(company: Sessions, story: Story) -> None:
    change_site(company, missed={"dids": [OURS], "min_wait_seconds": 30})
    assert story.abandoned() == []


def test_off_where_the_site_does_not_want_it(company: Sessions, story: Story) -> None:
    change_site(company, missed={})
    assert story.abandoned() == []
    change_site(company, missed={"dids": ["+12125550111"]})
    assert story.abandoned("c2") == []


def test_a_did_that_has_gone_to_another_client_is_not_called_for(company: Sessions, story: Story) -> None:
    with company.begin() as session:
        session.add(Client(id="other", name="Other", created_at=NOW))
        session.flush()
        session.scalars(select(Did)).one().client_id = "other"
    # The listener's directory may still say the former client.
    assert story.abandoned() == []


def test_the_do_not_call_list_holds(company: Sessions, settings: Settings, story: Story) -> None:
    with company.begin() as session:
        hashed = dnc._hash(settings, NUMBER)
        session.add(Dnc(client_id="acme", number_hash=hashed, ending="01", created_at=NOW))
    assert story.abandoned() == []


def test_the_limits_of_the_site_hold_and_a_refusal_uses_none_up(company: Sessions, story: Story) -> None:
    change_site(company, limits={"per_site_hour": 0})
    assert story.abandoned() == []
    change_site(company, limits={})
    assert len(story.abandoned("c2", at=NOW + MINUTE)) == 1


def test_an_end_that_is_read_a_day_late_calls_nobody(story: Story) -> None:
    assert story.abandoned(now=NOW + 24 * HOUR) == []


@pytest.mark.parametrize(("when_closed", "count"), [("refuse", 0), ("next_open", 1)])
def test_closed_hours(
    company: Sessions, redis: Redis, settings: Settings, story: Story, when_closed: str, count: int
) -> None:
    with company.begin() as session:
        week = {"tuesday": [{"opens": "09:00", "closes": "17:00"}]}
        session.add(Calendar(id="hours", client_id="acme", name="h", timezone="UTC", weekly=week, created_at=NOW))
    change_site(company, calendar_id="hours", when_closed=when_closed)
    made = story.abandoned()
    assert len(made) == count
    for one in made:
        found = dialling.claim(company, redis, settings, one, now=NOW + 5 * MINUTE)
        assert found.result is Claimed.CLOSED
        assert callback(company, one).due_at == datetime(2026, 5, 5, 9, 0, tzinfo=UTC)


def test_who_got_through_since_is_not_called(company: Sessions, redis: Redis, settings: Settings, story: Story) -> None:
    (made,) = story.abandoned()
    again = ("connected", {"parties": [CALLER, PHONE]})
    story.tell("c2", started(), again, at=NOW + MINUTE)
    with company.begin() as session:
        session.get_one(Call, "c2").ended_at = NOW + 2 * MINUTE
    sweeping.sweep(company, redis, settings, now=NOW + 3 * MINUTE)
    assert dialling.claim(company, redis, settings, made, now=NOW + 3 * MINUTE).result is Claimed.REFUSED
    row = callback(company, made)
    assert (row.status, row.reason) == ("cancelled", "got_through")


def test_who_got_through_before_the_end_was_read_makes_none(story: Story) -> None:
    story.tell("c2", started(), ("connected", {"parties": [CALLER, PHONE]}), at=NOW + 5 * SECOND)
    assert story.abandoned() == []


def test_who_is_calling_again_is_left_in_peace_until_that_is_over(
    company: Sessions, redis: Redis, settings: Settings, story: Story
) -> None:
    (made,) = story.abandoned()
    at = NOW + 3 * MINUTE
    story.tell("c2", started(), at=at)
    assert dialling.claim(company, redis, settings, made, now=at).result is Claimed.NUMBER_LOCKED
    with company.begin() as session:
        session.get_one(Call, "c2").ended_at = at
    assert dialling.claim(company, redis, settings, made, now=at).result is Claimed.YES


def test_a_missed_callback_is_judged_by_the_rules_of_its_dialling(
    company: Sessions, redis: Redis, settings: Settings, story: Story
) -> None:
    (made,) = story.abandoned()
    with company.begin() as session:
        hashed = dnc._hash(settings, NUMBER)
        session.add(Dnc(client_id="acme", number_hash=hashed, ending="01", created_at=NOW))
    assert dialling.claim(company, redis, settings, made, now=NOW + 3 * MINUTE).result is Claimed.REFUSED
    assert callback(company, made).reason == "do_not_call"


def test_the_oldest_site_calls(company: Sessions, story: Story) -> None:
    with company.begin() as session:
        session.add(Site(id="b", client_id="acme", key="b", name="B", missed={"dids": [OURS]}, created_at=NOW + HOUR))
    (made,) = story.abandoned()
    assert callback(company, made).site_id == "shop"
