"""Asking for a callback, looking at it, cancelling it; on both databases."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from doubles.company import (
    NOW,
    NUMBER,
    agent_state,
    ask,
    attempt,
    callback,
    change_site,
    found_company,
    lock,
    step,
)
from doubles.postgres import postgres, settings  # noqa: F401 - fixtures
from redis import Redis
from sqlalchemy import func, select

from bridge.domain.attempts import AttemptState
from bridge.domain.callbacks import due_from
from bridge.domain.errors import Conflict, Forbidden, Invalid, NotFound, RateLimited
from bridge.live import keys
from bridge.services import callbacks, dialling
from bridge.services.dialling import Claimed
from bridge.settings import Settings
from bridge.store.database import Sessions
from bridge.store.models import AgentState, Callback, Client, Counter, PbxLease, Site
from bridge.store.queries.switches import set_dialing


@pytest.fixture
def company(sessions: Sessions) -> Sessions:
    found_company(sessions)
    return sessions


def _screens(redis: Redis, to: str) -> list[str]:
    return [fields["data"] for _, fields in redis.xrange(keys.SCREENS) if fields["to"] == to]


# --- when ---


@pytest.mark.parametrize(
    ("when", "zone", "utc"),
    [
        ("2026-05-04T18:30", "Europe/Berlin", "2026-05-04T16:30"),
        ("2026-05-04T18:30:15+02:00", None, "2026-05-04T16:30:15"),
        ("2026-05-04T18:30Z", None, "2026-05-04T18:30"),
        ("2026-05-04T12:30-04:00", "America/New_York", "2026-05-04T16:30"),
    ],
)
def test_when(when: str, zone: str | None, utc: str) -> None:
    assert due_from(when, zone, NOW).at == datetime.fromisoformat(utc).replace(tzinfo=UTC)


def test_a_skipped_hour_moves_on_and_a_repeated_hour_is_its_first() -> None:
    march = datetime(2026, 3, 1, tzinfo=UTC)
    gap = due_from("2026-03-29T02:30", "Europe/Berlin", march)
    assert gap.at == datetime(2026, 3, 29, 1, 30, tzinfo=UTC)  # 03:30 on the new clock
    october = datetime(2026, 10, 1, tzinfo=UTC)
    twice = due_from("2026-10-25T02:30", "Europe/Berlin", october)
    assert twice.at == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)  # the first, in summer time


@pytest.mark.parametrize(
    ("when", "zone", "field"),
    [
        ("2026-05-05T10:00", None, "timezone"),
        ("2026-05-04T10:00", "Europe/Berlin", "when"),
        ("2026-12-24T10:00", "Europe/Berlin", "when"),
        ("2026-02-30T10:00", "Europe/Berlin", "when"),
        ("tomorrow", "Europe/Berlin", "when"),
        ("2026-05-05", "Europe/Berlin", "when"),
        ("2026-05-05T10:00", "Mars/Olympus", "timezone"),
        ("2026-05-05T10:00", "localtime", "timezone"),
        ("2026-05-05T10:00", "right/Europe/Berlin", "timezone"),
        ("2026-05-05T10:00", "../../etc/passwd", "timezone"),
        ("2026-05-05T10:00", "", "timezone"),
        ("2026-05-05T10:00+01:00", "Europe/Berlin", "timezone"),
        (None, "Nowhere", "timezone"),
        ("0001-01-01T00:00+14:00", None, "when"),
    ],
)
def test_when_not(when: str | None, zone: str | None, field: str) -> None:
    with pytest.raises(Invalid) as caught:
        due_from(when, zone, NOW)
    assert caught.value.field == field


# --- create ---


def test_now_is_queued_and_a_job_waits(company: Sessions, redis: Redis, settings: Settings) -> None:
    made = ask(company, redis, settings, name="Smith & Sons, {Ltd} | $5", consent="I agree.")
    assert (made.status, made.promised_at) == ("queued", NOW + timedelta(seconds=25))
    row = callback(company, made.id)
    assert (row.number, row.consent_text, row.consent_at) == (NUMBER, "I agree.", NOW)
    assert "192.0.2.1" not in row.ip_hash
    assert redis.llen("rq:queue:dial") == 1
    assert NUMBER[2:] not in str(redis.xrange(keys.SCREENS))
    assert _screens(redis, f"callback:{made.id}")


def test_without_an_agent_nothing_is_promised(company: Sessions, redis: Redis, settings: Settings) -> None:
    with company.begin() as session:
        session.get_one(AgentState, "agent-1").state = "paused"
    assert ask(company, redis, settings).promised_at is None


def test_a_chosen_time(company: Sessions, redis: Redis, settings: Settings) -> None:
    made = ask(company, redis, settings, when="2026-05-05T09:00", timezone="America/New_York")
    due = datetime(2026, 5, 5, 13, 0, tzinfo=UTC)
    assert (made.status, made.promised_at) == ("scheduled", due)
    row = callback(company, made.id)
    assert (row.wall_time, row.timezone) == ("2026-05-05T09:00:00", "America/New_York")
    assert redis.llen("rq:queue:dial") == 0
    assert dialling.claim(company, redis, settings, made.id, now=NOW).result is Claimed.NOT_DUE
    assert dialling.claim(company, redis, settings, made.id, now=due).result is Claimed.YES


def test_a_zone_whose_rules_changed(company: Sessions, redis: Redis, settings: Settings) -> None:
    """What counts is the wall time: a stored UTC time that no longer fits is moved."""
    made = ask(company, redis, settings, when="2026-05-05T09:00", timezone="America/New_York")
    due = callback(company, made.id).due_at
    with company.begin() as session:
        session.get_one(Callback, made.id).due_at = due - timedelta(hours=1)
    early = dialling.claim(company, redis, settings, made.id, now=due - timedelta(minutes=30))
    assert early.result is Claimed.NOT_DUE
    assert callback(company, made.id).due_at == due


@pytest.mark.parametrize(
    ("number", "code"),
    [
        ("+18765550123", "region_not_allowed"),
        ("+19005550123", "number_type_not_allowed"),
        ("911", "number_type_not_allowed"),
        ("hello", "number_invalid"),
    ],
)
def test_numbers_that_are_refused_leave_nothing(
    company: Sessions,
    redis: Redis,
    settings: Settings,
    number: str,
    code: str,
) -> None:
    with pytest.raises(Invalid) as caught:
        ask(company, redis, settings, number, key="k")
    assert caught.value.code == code
    with company.read() as session:
        assert session.scalar(select(func.count()).select_from(Callback)) == 0
        assert session.scalar(select(func.count()).select_from(Counter)) == 0
    assert redis.dbsize() == 0
    assert ask(company, redis, settings, key="k").status == "queued"


def test_the_same_key_is_one_callback(company: Sessions, redis: Redis, settings: Settings) -> None:
    first = ask(company, redis, settings, key="k", note="hi")
    step(
        company,
        dialling.claim(company, redis, settings, first.id, now=NOW).attempt or "",
        AttemptState.DIALING,
    )
    assert ask(company, redis, settings, key="k", note="hi", now=NOW + timedelta(hours=1)) == first
    with pytest.raises(callbacks.IdempotencyMismatch):
        ask(company, redis, settings, key="k", note="ho")
    assert ask(company, redis, settings, key="other").id != first.id


def test_the_same_key_at_the_same_moment(company: Sessions, redis: Redis, settings: Settings) -> None:
    def once(_: int) -> str:
        try:
            return ask(company, redis, settings, key="k").id
        except callbacks.IdempotencyInProgress:
            return "in progress"

    with ThreadPoolExecutor(8) as pool:
        answers = set(pool.map(once, range(16)))
    assert len(answers - {"in progress"}) == 1
    with company.read() as session:
        assert session.scalar(select(func.count()).select_from(Callback)) == 1


def test_limits_hold_and_slide(company: Sessions, redis: Redis, settings: Settings) -> None:
    for line in range(3):
        ask(company, redis, settings, f"+1646555010{line}")
    with pytest.raises(RateLimited):
        ask(company, redis, settings, "+16465550109")
    redis.flushall()
    with pytest.raises(RateLimited):
        ask(company, redis, settings, "+16465550109", now=NOW + timedelta(minutes=50))
    ask(company, redis, settings, "+16465550109", now=NOW + timedelta(minutes=66))


def test_one_number_from_many_addresses(company: Sessions, redis: Redis, settings: Settings) -> None:
    for host in range(3):
        ask(company, redis, settings, ip=f"192.0.2.{host}")
    with pytest.raises(RateLimited):
        ask(company, redis, settings, ip="198.51.100.9")


def test_an_ipv6_visitor_is_a_network(company: Sessions, redis: Redis, settings: Settings) -> None:
    for host in range(3):
        ask(company, redis, settings, f"+1646555010{host}", ip=f"2001:db8::{host}")
    with pytest.raises(RateLimited):
        ask(company, redis, settings, "+16465550109", ip="2001:db8::ffff")


def test_limits_hold_under_a_race(company: Sessions, redis: Redis, settings: Settings) -> None:
    change_site(company, limits={"per_ip_hour": 5, "per_number_day": 100})

    def once(_: int) -> bool:
        try:
            ask(company, redis, settings)
        except RateLimited:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(once, range(24))) == 5


def test_a_closed_site(company: Sessions, redis: Redis, settings: Settings) -> None:
    change_site(company, active=False)
    with pytest.raises(NotFound):
        ask(company, redis, settings)


def test_redis_down_is_no_reason_to_refuse(company: Sessions, settings: Settings) -> None:
    nowhere = Redis(unix_socket_path="/nonexistent/redis.sock", decode_responses=True)
    made = ask(company, nowhere, settings)
    assert callback(company, made.id).status == "queued"


def test_a_token_opens_its_callback_only(settings: Settings) -> None:
    token = callbacks.token(settings, "a")
    callbacks.check_token(settings, "a", token)
    for callback_id, given in (("b", token), ("a", token[:-1]), ("a", ""), ("a", None), ("a", "é")):
        with pytest.raises(Forbidden):
            callbacks.check_token(settings, callback_id, given)


# --- claim: policy at the time of the job ---


@pytest.mark.parametrize(("kind", "name"), [(Site, "shop"), (Client, "acme")])
def test_nobody_is_called_for_whoever_was_closed_since(
    company: Sessions, redis: Redis, settings: Settings, kind: type[Site] | type[Client], name: str
) -> None:
    made = ask(company, redis, settings)
    with company.begin() as session:
        session.get_one(kind, name).active = False
    assert dialling.claim(company, redis, settings, made.id, now=NOW).result is Claimed.REFUSED
    row = callback(company, made.id)
    assert (row.status, row.reason) == ("failed", "site_closed")


def test_what_keeps_a_callback_waiting(company: Sessions, redis: Redis, settings: Settings) -> None:
    made = ask(company, redis, settings)

    def claim() -> Claimed:
        return dialling.claim(company, redis, settings, made.id, now=NOW).result

    with company.begin() as session:
        set_dialing(session, stopped=True, by="test", now=NOW)
    assert claim() is Claimed.STOPPED
    with company.begin() as session:
        set_dialing(session, stopped=False, by="test", now=NOW)
        session.add(PbxLease(pbx="lab", holder="x", epoch=1, expires_at=NOW + timedelta(1), connected=False))
    assert claim() is Claimed.PBX_DOWN
    with company.begin() as session:
        session.get_one(PbxLease, "lab").connected = True
        session.get_one(AgentState, "agent-1").live_calls = 1
    assert claim() is Claimed.NO_AGENT
    with company.begin() as session:
        session.get_one(AgentState, "agent-1").live_calls = 0
    observing = settings.model_copy(
        update={"dialing": settings.dialing.model_copy(update={"mode": "observe"})}
    )
    assert dialling.claim(company, redis, observing, made.id, now=NOW).result is Claimed.STOPPED
    assert callback(company, made.id).status == "queued"
    assert claim() is Claimed.YES
    assert claim() is Claimed.GONE


def test_a_region_that_is_no_longer_allowed(company: Sessions, redis: Redis, settings: Settings) -> None:
    made = ask(company, redis, settings)
    change_site(company, regions=["DE"])
    assert dialling.claim(company, redis, settings, made.id, now=NOW).result is Claimed.REFUSED
    row = callback(company, made.id)
    assert (row.status, row.reason) == ("failed", "region_not_allowed")


def test_test_mode_ends_without_a_dial(company: Sessions, redis: Redis, settings: Settings) -> None:
    change_site(company, test_mode=True)
    made = ask(company, redis, settings)
    assert dialling.dial(company, redis, settings, made.id, now=NOW).result is Claimed.TEST_MODE
    row = callback(company, made.id)
    assert (row.status, row.reason) == ("done", "test_mode")
    assert not redis.exists(keys.commands("lab"))


def test_two_callbacks_of_one_number_never_overlap(
    sessions: Sessions,
    redis: Redis,
    settings: Settings,
) -> None:
    found_company(sessions, agents=2)
    first, second = ask(sessions, redis, settings), ask(sessions, redis, settings)
    held = dialling.claim(sessions, redis, settings, first.id, now=NOW)
    assert dialling.claim(sessions, redis, settings, second.id, now=NOW).result is Claimed.NUMBER_LOCKED
    assert agent_state(sessions, "agent-2").reserved_by is None
    assert callback(sessions, second.id).held_by is None
    step(sessions, held.attempt or "", AttemptState.DIALING)
    step(sessions, held.attempt or "", AttemptState.DONE, over=True)
    assert dialling.claim(sessions, redis, settings, second.id, now=NOW).result is Claimed.YES


def test_many_claims_of_one_callback_make_one_attempt(
    sessions: Sessions,
    redis: Redis,
    settings: Settings,
) -> None:
    found_company(sessions, agents=4)
    made = ask(sessions, redis, settings)
    with ThreadPoolExecutor(8) as pool:
        results = list(
            pool.map(lambda _: dialling.dial(sessions, redis, settings, made.id, now=NOW).result, range(16))
        )
    assert results.count(Claimed.YES) == 1
    assert redis.xlen(keys.commands("lab")) == 1
    reserved = [agent_state(sessions, f"agent-{n}").reserved_by for n in range(1, 5)]
    assert len([by for by in reserved if by]) == 1


def test_one_agent_gets_one_of_many_callbacks(sessions: Sessions, redis: Redis, settings: Settings) -> None:
    found_company(sessions)
    change_site(sessions, limits={"per_ip_hour": 99})
    made = [ask(sessions, redis, settings, f"+1646555010{n}").id for n in range(8)]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda c: dialling.claim(sessions, redis, settings, c, now=NOW).result, made))
    assert results.count(Claimed.YES) == 1
    assert set(results) <= {Claimed.YES, Claimed.NO_AGENT, Claimed.NOT_ITS_TURN}


# --- cancel ---


def test_cancel_before_the_claim(company: Sessions, redis: Redis, settings: Settings) -> None:
    made = ask(company, redis, settings)
    assert callbacks.cancel(company, redis, made.id, now=NOW).status == "cancelled"
    assert callbacks.cancel(company, redis, made.id, now=NOW).status == "cancelled"
    assert dialling.claim(company, redis, settings, made.id, now=NOW).result is Claimed.GONE


def test_cancel_between_claim_and_dial(company: Sessions, redis: Redis, settings: Settings) -> None:
    made = ask(company, redis, settings)
    held = dialling.claim(company, redis, settings, made.id, now=NOW).attempt or ""
    assert callbacks.cancel(company, redis, made.id, now=NOW).status == "cancelled"
    assert attempt(company, held).state == "cancelled"
    assert lock(company) is None
    assert not redis.exists(keys.commands("lab"))


def test_cancel_while_phones_ring_hangs_up(company: Sessions, redis: Redis, settings: Settings) -> None:
    made = ask(company, redis, settings)
    held = dialling.claim(company, redis, settings, made.id, now=NOW).attempt or ""
    step(company, held, AttemptState.RINGING)
    with company.begin() as session:
        session.get_one(type(attempt(company, held)), held).call_id = "lab-1"
    assert callbacks.cancel(company, redis, made.id, now=NOW).status == "cancelled"
    (entry,) = redis.xrange(keys.commands("lab"))
    assert (entry[1]["kind"], '"call":"lab-1"' in entry[1]["data"]) == ("hangup", True)


def test_no_cancel_once_connected_or_over(company: Sessions, redis: Redis, settings: Settings) -> None:
    made = ask(company, redis, settings)
    held = dialling.claim(company, redis, settings, made.id, now=NOW).attempt or ""
    step(company, held, AttemptState.CONNECTED)
    with pytest.raises(Conflict):
        callbacks.cancel(company, redis, made.id, now=NOW)
    step(company, held, AttemptState.DONE, over=True)
    with pytest.raises(Conflict):
        callbacks.cancel(company, redis, made.id, now=NOW)
    with pytest.raises(NotFound):
        callbacks.cancel(company, redis, "nobody", now=NOW)


def test_cancel_racing_the_claim(company: Sessions, redis: Redis, settings: Settings) -> None:
    """Whoever wins, the callback ends as cancelled and holds nothing."""
    change_site(company, limits={"per_ip_hour": 99})
    for line in range(10):
        number = f"+1646555010{line}"
        made = ask(company, redis, settings, number)
        with ThreadPoolExecutor(2) as pool:
            claim = pool.submit(dialling.claim, company, redis, settings, made.id, now=NOW)
            cancel = pool.submit(callbacks.cancel, company, redis, made.id, now=NOW)
        assert cancel.result().status == "cancelled"
        held = claim.result().attempt
        assert held is None or attempt(company, held).state == "cancelled"
        assert lock(company, number) is None
        assert agent_state(company).reserved_by is None
