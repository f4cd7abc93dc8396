"""Press 1: who may be asked, what the PBX is told, and what becomes of whoever does not press."""

from __future__ import annotations

import pytest
from doubles import ami_links, esl_links
from doubles.company import NOW, NUMBER, ask, attempt, callback, change_site, found_company
from doubles.postgres import postgres, settings  # noqa: F401 - fixtures
from doubles.web import Web, code, web
from redis import Redis

from bridge.domain.attempts import AttemptState
from bridge.domain.calls import CallEventType, Cause, UnofferedReason
from bridge.pbx.ami import orders as ami
from bridge.pbx.ami.codec import LocalError as AmiFault
from bridge.pbx.esl import orders as esl
from bridge.pbx.esl.codec import LocalError as EslFault
from bridge.services import checking, dial_outcomes, dialling
from bridge.settings import Settings
from bridge.store.database import Sessions
from bridge.store.models import Attempt, Call, CallEventRow

__all__ = ["web"]

LATEST = 1795330380
EVIL = ("", "a b", "../x", "a,b", "a&b", "${x}", "a/", "x" * 101, "a.b")


def test_an_asterisk_is_told_to_ask() -> None:
    made = ami.originate(ami_links.order(first="customer", confirm="custom/press-1"), LATEST)
    assert (made["Context"], made["Exten"]) == ("ringbridge-confirm", "ask")
    assert "RB_CONFIRM=custom/press-1" in made["Variable"]
    plain = ami.originate(ami_links.order(first="customer"), LATEST)
    assert (plain["Context"], plain["Exten"]) == ("ringbridge-go", "second") and "RB_CONFIRM" not in str(plain)
    for faulty in ({"first": "agent", "confirm": "x"}, *({"first": "customer", "confirm": evil} for evil in EVIL)):
        with pytest.raises(AmiFault):
            ami.originate(ami_links.order(**faulty), LATEST)


def test_a_freeswitch_is_told_to_ask() -> None:
    made = esl.originate(esl_links.order(first="customer", confirm="custom/press-1"), LATEST)
    assert made.endswith(" XML ringbridge-confirm") and ",rb_confirm=custom/press-1.wav," in made
    plain = esl.originate(esl_links.order(first="customer"), LATEST)
    assert plain.endswith(" XML ringbridge-go") and "confirm" not in plain
    for faulty in ({"first": "agent", "confirm": "x"}, *({"first": "customer", "confirm": evil} for evil in EVIL)):
        with pytest.raises(EslFault):
            esl.originate(esl_links.order(**faulty), LATEST)


def test_only_a_customer_who_is_called_first_can_be_asked(web: Web) -> None:
    boss, client = web.person("boss"), web.company("A")
    given = {"client_id": client, "name": "Main", "protection": {"press_1": "custom/press-1"}}
    refused = web.ask("POST", "/api/v1/sites", boss, json=given)
    assert code(refused) == (422, "invalid", "protection.press_1")
    made = web.ask("POST", "/api/v1/sites", boss, json={**given, "order": "customer_first"}).get_json()
    assert made["protection"] == {"press_1": "custom/press-1"}
    path = f"/api/v1/sites/{made['id']}"
    assert code(web.ask("PATCH", path, boss, json={"order": "agent_first"})) == (422, "invalid", "order")
    for evil in EVIL:
        assert web.ask("PATCH", path, boss, json={"protection": {"press_1": evil}}).status_code == 422
    both = {"order": "agent_first", "protection": {"press_1": None}}
    assert web.ask("PATCH", path, boss, json=both).status_code == 200


@pytest.mark.parametrize(
    ("asked", "agent", "cause", "reason"),
    [
        (True, None, Cause.ABANDONED, "not_confirmed"),
        (False, None, Cause.ABANDONED, "abandoned"),
        (True, None, Cause.NO_ANSWER, "no_answer"),
        (True, UnofferedReason.NO_ANSWER, Cause.ABANDONED, "abandoned"),
    ],
)
def test_whoever_does_not_press_is_not_called_again(
    sessions: Sessions,
    redis: Redis,
    settings: Settings,
    asked: bool,
    agent: UnofferedReason | None,
    cause: Cause,
    reason: str,
) -> None:
    found_company(sessions)
    change_site(sessions, order="customer_first", protection={"press_1": "custom/press-1"} if asked else {})
    wish = ask(sessions, redis, settings)
    found = dialling.claim(sessions, redis, settings, wish.id, now=NOW)
    assert found.attempt is not None
    parties = [({"number": NUMBER, "device": "PJSIP/trunk"}, None)]
    if agent is not None:
        parties.append(({"device": "PJSIP/101", "agent": "agent-1"}, agent))
    with sessions.begin() as db:
        db.add(Call(id="lab-1", pbx="lab", started_at=NOW))
        for seq, (party, gone) in enumerate(parties, 2):
            kind = CallEventType.OFFERED if gone is None else CallEventType.UNOFFERED
            data = {"party": party, **({"reason": str(gone)} if gone else {})}
            db.add(CallEventRow(call_id="lab-1", seq=seq, type=str(kind), at=NOW, data=data))
        dial_outcomes.forward(db, found.attempt, AttemptState.RINGING, NOW)
        dial_outcomes.ended(db, found.attempt, "lab-1", str(cause), None, NOW)
    assert (attempt(sessions, found.attempt).state, attempt(sessions, found.attempt).reason) == ("failed", reason)
    row = callback(sessions, wish.id)
    assert row.status == ("failed" if reason == "not_confirmed" else "queued")
    assert row.reason == reason


def test_who_is_called_after_the_agent_is_never_asked(sessions: Sessions, redis: Redis, settings: Settings) -> None:
    found_company(sessions)
    change_site(sessions, protection={"press_1": "custom/press-1"})
    found = dialling.claim(sessions, redis, settings, ask(sessions, redis, settings).id, now=NOW)
    with sessions.begin() as db:
        row = db.get_one(Attempt, found.attempt)
        assert row.agent_first and checking.prompt_of(db, row) is None
        row.agent_first = False
        assert checking.prompt_of(db, row) == "custom/press-1"
        db.rollback()
