"""The customer is called first and waits in the PBX's queue: who may, what the PBX is told, and what becomes of it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from doubles import ami_links, esl_links
from doubles.company import NOW, agent_state, ask, attempt, callback, change_site, found_company
from doubles.postgres import postgres, settings  # noqa: F401 - fixtures
from redis import Redis

from bridge.domain.attempts import AttemptState
from bridge.pbx.ami import orders as ami
from bridge.pbx.ami.codec import LocalError as AmiFault
from bridge.pbx.esl import orders as esl
from bridge.pbx.esl.codec import LocalError as EslFault
from bridge.services import dial_outcomes, dialling, line
from bridge.services.orders import Orders
from bridge.settings import Settings
from bridge.store.database import Sessions
from bridge.store.models import AgentState, Attempt, Callback, Site

LATEST = 1795330380
MINUTE = timedelta(minutes=1)
PLACED = {"first": "customer", "queue": "support", "agent_device": "", "until": 120.4, "joined": 20.0}
FAULTY = [
    {"first": "agent", "queue": "support"},
    {"first": "customer", "queue": "support", "confirm": "beep"},
    *({"first": "customer", "queue": evil} for evil in ("", "a b", "a,1", "a&b", "${x}", "a/b", "a@b", "a" * 65)),
]


def test_an_asterisk_is_told_the_queue_and_when_they_joined_it() -> None:
    made = ami.originate(ami_links.order(**PLACED), LATEST)
    assert (made["Context"], made["Exten"]) == ("ringbridge-place", "line")
    assert {"RB_AGENT=Queue/support", f"RB_JOINED={LATEST - 100}"} <= set(made["Variable"])
    plain = ami.originate(ami_links.order(first="customer"), LATEST)
    assert (plain["Context"], plain["Exten"]) == ("ringbridge-go", "second") and "JOINED" not in str(plain)
    for faulty in FAULTY:
        with pytest.raises(AmiFault):
            ami.originate(ami_links.order(**faulty), LATEST)


def test_a_freeswitch_is_told_the_queue_and_when_they_joined_it() -> None:
    made = esl.originate(esl_links.order(**PLACED), LATEST)
    assert made.endswith(" XML ringbridge-place") and f",rb_queue=support,rb_joined={LATEST - 100}," in made
    assert "rb_agent=" not in made
    plain = esl.originate(esl_links.order(first="customer"), LATEST)
    assert plain.endswith(" XML ringbridge-go") and "rb_queue" not in plain
    for faulty in FAULTY:
        with pytest.raises(EslFault):
            esl.originate(esl_links.order(**faulty), LATEST)


@pytest.mark.parametrize("before", [0.0, 10.0**8, 10.0**12])
def test_a_place_is_of_the_form_that_the_dialplans_take(before: float) -> None:
    made = ami.originate(ami_links.order(first="customer", queue="support", until=5.0, joined=5.0 - before), LATEST)
    (said,) = (value.partition("=")[2] for value in made["Variable"] if value.startswith("RB_JOINED="))
    assert len(said) == 10 and int(said) <= LATEST


@pytest.fixture
def shop(sessions: Sessions) -> Sessions:
    found_company(sessions, agents=2)
    change_site(sessions, order="customer_in_queue", offer_queues=["support"])
    return sessions


def claimed(sessions: Sessions, redis: Redis, settings: Settings, queue: str | None = "support") -> Attempt:
    made = ask(sessions, redis, settings, queue=queue)
    found = dialling.claim(sessions, redis, settings, made.id, now=NOW)
    assert found.attempt is not None
    return attempt(sessions, found.attempt)


def kept(sessions: Sessions, attempt_id: str) -> list[str]:
    with sessions.read() as session:
        rows = session.query(AgentState.agent_id).filter(AgentState.reserved_by == attempt_id)
        return [row[0] for row in rows]


def test_no_agent_is_named_but_one_is_kept(shop: Sessions, redis: Redis, settings: Settings) -> None:
    made = claimed(shop, redis, settings)
    assert (made.agent_id, made.agent_device, made.agent_first) == (None, None, False)
    assert kept(shop, made.id) == ["agent-1"]
    assert callback(shop, made.callback_id or "").status == "calling_customer"


@pytest.mark.parametrize("queue", [None, "sales", "vip"])
def test_a_queue_that_the_site_does_not_offer_is_nobodys_choice(
    shop: Sessions, redis: Redis, settings: Settings, queue: str | None
) -> None:
    """The form names it, and whoever fills that in is a stranger."""
    made = claimed(shop, redis, settings, queue)
    assert (made.agent_id, made.agent_first) == ("agent-1", False)


def test_who_is_meant_for_one_agent_waits_in_no_queue(shop: Sessions, redis: Redis, settings: Settings) -> None:
    made = ask(shop, redis, settings, queue="support")
    with shop.begin() as session:
        session.get_one(Callback, made.id).assigned_to = "agent-2"
    found = dialling.claim(shop, redis, settings, made.id, now=NOW)
    assert attempt(shop, found.attempt or "").agent_id == "agent-2"


@pytest.mark.parametrize("changes", [{"order": "customer_first"}, {"offer_queues": []}])
def test_it_is_asked_again_as_it_is_dialled(
    shop: Sessions, redis: Redis, settings: Settings, changes: dict[str, object]
) -> None:
    made = claimed(shop, redis, settings)
    with shop.begin() as session:
        assert Orders._place(session, made)[0] == "support"
    change_site(shop, **changes)
    with shop.begin() as session:
        assert Orders._place(session, made)[0] is None


def test_the_place_is_that_of_the_first_joining(shop: Sessions, redis: Redis, settings: Settings) -> None:
    made = claimed(shop, redis, settings)
    with shop.begin() as session:
        row = session.get_one(Callback, made.callback_id)
        row.joined_at = NOW - MINUTE
        assert line.waited(row, NOW) == 60
        assert line.waited(row, NOW - 2 * MINUTE) == 0
        assert line.queue_for(row, session.get_one(Site, row.site_id)) == "support"


def test_whoever_takes_them_is_the_agent_and_the_one_who_was_kept_is_free(
    shop: Sessions, redis: Redis, settings: Settings
) -> None:
    made = claimed(shop, redis, settings)
    customer = {"device": "PJSIP/trunk", "number": made.number}
    agent = {"device": "PJSIP/102", "agent": "agent-2"}
    with shop.begin() as session:
        dial_outcomes.forward(session, made.id, AttemptState.DIALING, NOW)
        dial_outcomes.offered(session, made.id, customer, NOW)
        dial_outcomes.queued(session, made.id, NOW)
    assert attempt(shop, made.id).state == "answered"
    assert kept(shop, made.id) == ["agent-1"]
    with shop.begin() as session:
        dial_outcomes.connected(session, made.id, [customer, agent], NOW)
    row = attempt(shop, made.id)
    assert (row.state, row.agent_id, row.agent_device) == ("connected", "agent-2", "PJSIP/102")
    assert kept(shop, made.id) == []


def test_a_queue_says_nothing_of_an_attempt_with_an_agent(shop: Sessions, redis: Redis, settings: Settings) -> None:
    """As where an agent transfers the customer into a queue."""
    change_site(shop, order="agent_first")
    made = claimed(shop, redis, settings)
    with shop.begin() as session:
        dial_outcomes.forward(session, made.id, AttemptState.RINGING, NOW)
        dial_outcomes.queued(session, made.id, NOW)
    assert attempt(shop, made.id).state == "ringing"


@pytest.mark.parametrize(("cause", "q850"), [("abandoned", 16), ("no_answer", 19)])
def test_where_nobody_takes_them_nobody_is_paused(
    shop: Sessions, redis: Redis, settings: Settings, cause: str, q850: int
) -> None:
    made = claimed(shop, redis, settings)
    with shop.begin() as session:
        dial_outcomes.forward(session, made.id, AttemptState.RINGING, NOW)
        dial_outcomes.queued(session, made.id, NOW)
        dial_outcomes.ended(session, made.id, "lab-1", cause, q850, NOW)
    assert attempt(shop, made.id).state == "failed"
    assert callback(shop, made.callback_id or "").status == "queued"
    assert kept(shop, made.id) == []
    assert {agent_state(shop, f"agent-{n}").state for n in (1, 2)} == {"ready"}
