"""What follows an attempt by how it ended, and how often a number may be dialled; on both databases."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from doubles.company import NOW, NUMBER, ask, callback, change_site, found_company, step
from doubles.postgres import postgres, settings  # noqa: F401 - fixtures
from doubles.web import Web, code, web
from redis import Redis

from bridge.domain.attempts import AttemptState as S
from bridge.domain.errors import RateLimited
from bridge.domain.retrying import NO_TRY_USED, RULES, SETTABLE, Next, Then, after_attempt, rules_of
from bridge.services import dialling
from bridge.services.dialling import Claimed
from bridge.settings import Settings
from bridge.store.database import Sessions
from bridge.store.models import Attempt, Site

__all__ = ["web"]

OTHER = "+16465550102"


def walk(outcomes: list[str], own: object = None, **limits: Any) -> list[float | str]:
    """Minutes until each next attempt, or how it ends."""
    found: list[float | str] = []
    tries = 0
    for number, outcome in enumerate(outcomes):
        step = after_attempt(
            S.FAILED, outcome, None, tries, rules=rules_of(own), before=outcomes[:number], **limits
        )
        tries = step.tries
        found.append(step.delay.total_seconds() / 60 if step.then is Then.AGAIN else str(step.then))
    return found


@pytest.mark.parametrize(
    ("outcomes", "own", "expected"),
    [
        # Nothing set: as ever.
        (["busy", "no_answer", "busy"], None, [5, 15, "failed"]),
        (["agent_no_answer", "busy"], None, [0, 5]),
        (["not_dialed", "never_sent", "stale"], None, [0.25, 0, 0.25]),
        (["wrong_number"], None, ["failed"]),
        (["outcome_unknown"], None, ["failed"]),
        (["something new"], None, [5]),
        # An agent's phone rings for it each time: there is an end, and no try of the customer's is used up.
        (["trunk_unreachable"] * 4, None, [5, 15, 60, "failed"]),
        (["trunk_unreachable", "busy", "trunk_unreachable", "no_answer"], None, [5, 5, 15, 15]),
        # Busy soon, no answer later, a machine once.
        (["busy", "busy", "busy"], {"busy": {"minutes": [1, 2]}}, [1, 2, "failed"]),
        (["busy", "no_answer"], {"busy": {"minutes": [1]}, "no_answer": {"minutes": [90]}}, [1, 90]),
        (["machine", "machine"], {"machine": {"again": 1}}, [5, "failed"]),
        (["rejected"], {"rejected": {"again": 0}}, ["failed"]),
        (["wrong_number", "wrong_number"], {"wrong_number": {"again": 1, "minutes": [7]}}, [7, "failed"]),
        (["trunk_unreachable"], {"trunk_unreachable": {"again": 0}}, ["failed"]),
        # More than `tries` there are not, and what may have been a talk is never tried again.
        (["busy"] * 3, {"busy": {"again": 9}}, [5, 15, "failed"]),
        (["outcome_unknown"], {"outcome_unknown": {"again": 5}}, ["failed"]),
        # What no shape would let in counts as absent.
        (["busy"], {"busy": {"minutes": [], "again": True}}, [5]),
        (["busy"], {"busy": {"minutes": ["1"], "again": -1}}, [5]),
        (["busy"], {"busy": 3, 7: {}}, [5]),
        (["busy"], ["busy"], [5]),
    ],
)
def test_the_table(outcomes: list[str], own: object, expected: list[float | str]) -> None:
    assert walk(outcomes, own) == expected


def test_every_line_that_rings_somebody_has_an_end() -> None:
    for outcome, rule in RULES.items():
        if rule.uses_try or outcome == "trunk_unreachable":
            assert "failed" in walk([outcome] * 10), outcome
    assert set(SETTABLE) <= set(RULES)
    assert "trunk_unreachable" in NO_TRY_USED
    assert after_attempt(S.DONE, "completed", 16, 1) == Next(Then.END_DONE, 2)


def dial(sessions: Sessions, redis: Redis, settings: Settings, made: str, reason: str, now: Any) -> str | None:
    """One attempt that ends so; None where it was not dialled."""
    found = dialling.claim(sessions, redis, settings, made, now=now)
    if found.attempt is not None:
        step(sessions, found.attempt, S.DIALING, now=now)
        step(sessions, found.attempt, S.FAILED, reason, now=now, over=True)
    return found.attempt


def test_a_trunk_that_is_away_rings_no_agent_for_ever(sessions: Sessions, redis: Redis, settings: Settings) -> None:
    found_company(sessions)
    made = ask(sessions, redis, settings).id
    rung, now = 0, NOW
    while dial(sessions, redis, settings, made, "trunk_unreachable", now) is not None:
        rung += 1
        now = callback(sessions, made).due_at
    row = callback(sessions, made)
    assert (rung, row.status, row.reason, row.tries) == (4, "failed", "trunk_unreachable", 0)


def test_a_site_s_own_waits_are_kept(sessions: Sessions, redis: Redis, settings: Settings) -> None:
    found_company(sessions)
    change_site(sessions, limits={"retry": {"busy": {"minutes": [1]}, "machine": {"again": 1}}})
    made = ask(sessions, redis, settings).id
    waits, now = [], NOW
    for reason in ("busy", "machine", "machine"):
        assert dial(sessions, redis, settings, made, reason, now)
        waits.append(callback(sessions, made).due_at - now)
        now = callback(sessions, made).due_at
    row = callback(sessions, made)
    assert waits[:2] == [timedelta(minutes=1), timedelta(minutes=15)]
    assert (row.status, row.reason, row.tries) == ("failed", "machine", 3)


def test_dials_are_counted_over_all_sites_of_a_client(
    sessions: Sessions, redis: Redis, settings: Settings
) -> None:
    found_company(sessions)
    change_site(sessions, limits={"per_number_dials_day": 2})
    with sessions.begin() as session:
        session.add(Site(id="second", client_id="acme", key="k2", name="Second", created_at=NOW))
    first = ask(sessions, redis, settings).id
    assert dial(sessions, redis, settings, first, "busy", NOW)
    with sessions.begin() as session:
        # As if the other site had dialled it.
        old = session.query(Attempt).one()
        values = {column.name: getattr(old, column.name) for column in Attempt.__table__.columns}
        session.add(Attempt(**{**values, "id": "other-site", "callback_id": None}))
    later = NOW + timedelta(minutes=5)
    # Asked for now it is refused, for in two days it is not; another number is.
    with pytest.raises(RateLimited) as caught:
        ask(sessions, redis, settings, now=later)
    assert (caught.value.field, caught.value.details["retry_after"]) == ("number", 7200)
    assert ask(sessions, redis, settings, when="2026-05-06T15:00Z", now=later).status == "scheduled"
    assert ask(sessions, redis, settings, OTHER, now=later).status == "queued"
    # And what waited is not dialled, whatever was judged when it was taken.
    assert dialling.claim(sessions, redis, settings, first, now=later).result is Claimed.REFUSED
    assert (callback(sessions, first).status, callback(sessions, first).reason) == ("failed", "number_limit")


def test_a_try_that_would_be_over_the_limit_is_not_promised(
    sessions: Sessions, redis: Redis, settings: Settings
) -> None:
    found_company(sessions, agents=2)
    change_site(sessions, limits={"per_number_dials": 1})
    made = ask(sessions, redis, settings).id
    # The customer's phone never rang: it does not count.
    assert dial(sessions, redis, settings, made, "agent_no_answer", NOW)
    assert callback(sessions, made).status == "queued"
    assert dial(sessions, redis, settings, made, "busy", NOW)
    assert (callback(sessions, made).status, callback(sessions, made).reason) == ("failed", "busy")
    with pytest.raises(RateLimited):
        ask(sessions, redis, settings, NUMBER, when="2026-07-06T15:00Z")


def test_the_setting_is_checked_as_it_is_set(web: Web) -> None:
    token = web.person("root", "administrator")
    site = {"client_id": web.company("A"), "name": "Main"}

    def put(limits: object) -> Any:
        return web.ask("POST", "/api/v1/sites", token, json={**site, "limits": limits})

    retry = {"busy": {"minutes": [1, 2]}, "machine": {"again": 1, "minutes": None}}
    made = put({"retry": retry, "per_number_dials_day": 4})
    assert made.get_json()["limits"] == {
        "retry": {"busy": {"minutes": [1, 2]}, "machine": {"again": 1}},
        "per_number_dials_day": 4,
    }
    for wrong, field in (
        ({"retry": {"bussy": {"again": 1}}}, "limits.retry.bussy"),
        ({"retry": {"outcome_unknown": {"again": 1}}}, "limits.retry.outcome_unknown"),
        ({"retry": {"busy": {"minutes": []}}}, "limits.retry.busy.minutes"),
        ({"retry": {"busy": {"minutes": [0]}}}, "limits.retry.busy.minutes.0"),
        ({"retry": {"busy": {"again": 11}}}, "limits.retry.busy.again"),
        ({"retry": {"busy": {"again": 1, "after": 2}}}, "limits.retry.busy.after"),
        ({"retry": [1]}, "limits.retry"),
        ({"per_number_dials": 0}, "limits.per_number_dials"),
    ):
        assert code(put(wrong))[::2] == (422, field)
