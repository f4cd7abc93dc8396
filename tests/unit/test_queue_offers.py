"""Waiting callers who ask to be called back: what is kept, what is refused, and what a forged event comes to."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from doubles.company import NOW, NUMBER, ask, callback, change_site, found_company
from doubles.postgres import postgres, settings  # noqa: F401 - fixtures
from redis import Redis
from sqlalchemy import select

from bridge.domain.errors import Unavailable
from bridge.pbx.ami.codec import Message
from bridge.pbx.ami.offers import answering, wishes
from bridge.pbx.ami.tracker import Tracker
from bridge.pbx.esl import offers as esl_offers
from bridge.pbx.esl.tracker import Tracker as EslTracker
from bridge.pbx.port import Answer, Outcome, QueueWish, Reason
from bridge.services import dialling, dnc, queue_offers
from bridge.services.dialling import Claimed
from bridge.services.queue_offers import NotYet, Offers
from bridge.settings import Settings
from bridge.store.database import Sessions
from bridge.store.models import Call, Callback, CallEventRow, Client, Dnc, Site

MINUTE = timedelta(minutes=1)
WISH = QueueWish("c1", "support", NUMBER, "PJSIP/trunk-00000001 1")


@pytest.fixture
def company(sessions: Sessions) -> Sessions:
    """A caller has waited in the queue for two minutes."""
    found_company(sessions)
    change_site(sessions, offer_queues=["support"])
    waits(sessions, "c1")
    return sessions


def waits(sessions: Sessions, call: str, **columns: Any) -> None:
    given = {"pbx": "lab", "queue": "support", "direction": "inbound", "client_id": "acme", "state": "queued"}
    with sessions.begin() as session:
        session.add(Call(id=call, started_at=NOW - 3 * MINUTE, last_seq=3, **{**given, **columns}))
        for seq, minutes in ((1, 2), (3, 1)):
            at = NOW - minutes * MINUTE
            data = {"queue": "support"}
            session.add(CallEventRow(call_id=call, seq=seq, type="call.queued", at=at, data=data))


def rows(sessions: Sessions) -> list[Callback]:
    with sessions.read() as session:
        return list(session.scalars(select(Callback)))


class Wishing:
    def __init__(self, sessions: Sessions, redis: Redis, settings: Settings) -> None:
        self._parts = sessions, redis, settings

    def __call__(self, wish: QueueWish = WISH, number: str | None = None, now: Any = NOW, pbx: str = "lab") -> Answer:
        if number is not None:
            wish = QueueWish(wish.call, wish.queue, number, wish.ticket)
        return queue_offers.accept(*self._parts, pbx, wish, now=now)


@pytest.fixture
def wishing(company: Sessions, redis: Redis, settings: Settings) -> Wishing:
    return Wishing(company, redis, settings)


def test_a_wish_becomes_a_callback_at_the_callers_place(company: Sessions, wishing: Wishing, redis: Redis) -> None:
    assert wishing() is Answer.YES
    (row,) = rows(company)
    assert (row.source, row.queue, row.number, row.site_id) == ("queue", "support", NUMBER, "shop")
    assert row.joined_at == NOW - 2 * MINUTE
    assert row.status == "queued" and redis.llen("rq:queue:dial") == 1


def test_a_number_as_people_type_it_is_read_in_the_clients_region(company: Sessions, wishing: Wishing) -> None:
    assert wishing(number="6465550101") is Answer.YES
    assert rows(company)[0].number == NUMBER


def test_the_same_event_twice_is_one_wish(company: Sessions, wishing: Wishing) -> None:
    assert [wishing(), wishing(), wishing(now=NOW + MINUTE)] == [Answer.YES] * 3
    assert len(rows(company)) == 1


def test_a_call_asks_for_one_number_only(company: Sessions, wishing: Wishing) -> None:
    assert wishing() is Answer.YES
    assert wishing(number="+16465550102") is Answer.BACK
    assert len(rows(company)) == 1


def test_who_has_a_callback_already_gets_no_second(
    company: Sessions, wishing: Wishing, redis: Redis, settings: Settings
) -> None:
    ask(company, redis, settings)
    assert wishing() is Answer.YES
    assert [row.source for row in rows(company)] == ["web"]


@pytest.mark.parametrize("number", ["+19005550199", "911", "+447700900123", "123456789012345", "000"])
def test_a_number_that_is_not_called_is_refused_and_another_may_follow(
    company: Sessions, wishing: Wishing, number: str
) -> None:
    assert wishing(number=number) is Answer.NO
    assert not rows(company)
    assert wishing() is Answer.YES


def test_the_do_not_call_list_holds(company: Sessions, wishing: Wishing, settings: Settings) -> None:
    with company.begin() as session:
        hashed = dnc._hash(settings, NUMBER)
        session.add(Dnc(client_id="acme", number_hash=hashed, ending="01", created_at=NOW))
    assert wishing() is Answer.NO


def test_limits_hold_and_a_refusal_uses_none_up(company: Sessions, wishing: Wishing) -> None:
    change_site(company, limits={"per_site_hour": 1})
    for _ in range(5):
        assert wishing(number="+19005550199") is Answer.NO
    assert wishing() is Answer.YES
    waits(company, "c2")
    other = QueueWish("c2", "support", "+16465550102", WISH.ticket)
    assert wishing(other) is Answer.BACK
    assert len(rows(company)) == 1


@pytest.mark.parametrize(
    "wish",
    [
        QueueWish("c1", "sales", NUMBER, WISH.ticket),
        QueueWish("nobody", "support", NUMBER, WISH.ticket),
    ],
    ids=["another queue", "no such call"],
)
def test_what_the_call_events_do_not_say_is_not_believed(wishing: Wishing, wish: QueueWish) -> None:
    with pytest.raises(NotYet):
        wishing(wish)


def test_a_call_of_another_pbx_is_not_believed(wishing: Wishing) -> None:
    with pytest.raises(NotYet):
        wishing(pbx="other")


@pytest.mark.parametrize(
    "columns",
    [
        {"client_id": None},
        {"client_id": "other"},
        {"direction": "outbound"},
        {"direction": None},
        {"connected_at": NOW},
        {"attempt_id": "x"},
    ],
)
def test_who_is_no_waiting_caller_of_this_client_waits_on(
    company: Sessions, wishing: Wishing, columns: dict[str, Any]
) -> None:
    """So an event that names another client's queue comes to nothing: the call's own client must offer it."""
    with company.begin() as session:
        session.add(Client(id="other", name="Other", created_at=NOW))
        session.flush()
        session.add(Site(id="b", client_id="other", key="b", name="B", offer_queues=["sales"], created_at=NOW))
    waits(company, "c2", **columns)
    assert wishing(QueueWish("c2", "support", NUMBER, WISH.ticket)) is Answer.BACK
    assert not rows(company)


def test_off_where_no_site_offers_the_queue(company: Sessions, wishing: Wishing) -> None:
    change_site(company, offer_queues=[])
    assert wishing() is Answer.BACK
    change_site(company, offer_queues=["support"], active=False)
    assert wishing() is Answer.BACK


def test_a_database_that_is_away_says_yes_to_nobody(
    wishing: Wishing, company: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away() -> Iterator[None]:
        raise Unavailable

    monkeypatch.setattr(company, "begin", away)
    with pytest.raises(Unavailable):
        wishing()


@pytest.mark.parametrize("fault", [Unavailable, ValueError])
def test_whatever_goes_wrong_the_caller_is_told_to_wait_on(
    company: Sessions, redis: Redis, settings: Settings, monkeypatch: pytest.MonkeyPatch, fault: type[Exception]
) -> None:
    told: list[Answer] = []
    over = threading.Event()

    def tell(wish: QueueWish, answer: Answer) -> Outcome:
        told.append(answer)
        over.set()
        return Outcome(True, Reason.SENT)

    def fails(*_: object, **__: object) -> Answer:
        raise fault

    monkeypatch.setattr(queue_offers, "accept", fails)
    offers = Offers(settings, "lab", company, redis, lambda: True, tell)
    offers.add(WISH)
    running = threading.Thread(target=offers.run, args=(over,))
    running.start()
    running.join(30)
    assert told == [Answer.BACK] and not running.is_alive()


def test_who_is_still_on_the_line_is_not_called_yet_and_who_got_through_never(
    company: Sessions, wishing: Wishing, redis: Redis, settings: Settings
) -> None:
    """The caller who asked and waits on all the same, as where the answer came too late."""
    assert wishing() is Answer.YES
    made = rows(company)[0].id
    with company.begin() as session:
        session.get_one(Call, "c1").customer_number = NUMBER
    assert dialling.claim(company, redis, settings, made, now=NOW).result is Claimed.NUMBER_LOCKED
    with company.begin() as session:
        call = session.get_one(Call, "c1")
        call.connected_at, call.ended_at = NOW + MINUTE, NOW + 2 * MINUTE
    assert dialling.claim(company, redis, settings, made, now=NOW + 3 * MINUTE).result is Claimed.REFUSED
    assert callback(company, made).reason == "got_through"


# --- what the PBX says ---


def heard(**changes: str) -> list[QueueWish]:
    """A tracker hears of a caller, and then of the wish."""
    tracker = Tracker("lab", ("PJSIP/trunk",))
    channel = {"Channel": "PJSIP/trunk-00000001", "Uniqueid": "1795374259.1", "Linkedid": "1795374259.1"}
    born = {"Event": "Newchannel", "ChannelState": "4", "Exten": "+12125550110", "CallerIDNum": NUMBER, **channel}
    tracker.hear_all([Message(born.items())], 1795374259.0)
    said = {"UserEvent": "RingbridgeCallback", "Queue": "support", "Number": NUMBER, "Question": "1", **channel}
    return list(wishes([Message({"Event": "UserEvent", **said, **changes}.items())], tracker.book))


def test_the_dialplans_event_is_a_wish_and_its_answer_goes_to_that_channel() -> None:
    (wish,) = heard()
    assert (wish.queue, wish.number) == ("support", NUMBER)
    assert wish.call.endswith("1795374259.1")
    assert answering(wish, Answer.YES) == {
        "Channel": "PJSIP/trunk-00000001",
        "Variable": "RB_ANSWER",
        "Value": "yes-1",
    }


@pytest.mark.parametrize(
    "changes",
    [
        {"UserEvent": "Ringbridge"},
        {"Uniqueid": "1795374259.2"},
        {"Uniqueid": ""},
        {"Queue": ""},
        {"Queue": "support,1"},
        {"Queue": "a" * 81},
        {"Number": ""},
        {"Number": "1-800-FLOWERS"},
        {"Number": "+1646555010a"},
        {"Number": "+16465550101\r\nAction: Originate"},
        {"Number": "+1646555010112345"},
        {"Number": "\u0661\u0662\u0663\u0664"},
        {"Question": "0"},
        {"Question": "1\r\nX: y"},
        {"Question": "1000"},
    ],
)
def test_what_is_not_of_the_form_is_no_wish(changes: dict[str, str]) -> None:
    assert heard(**changes) == []


@pytest.mark.parametrize("ticket", ["", "PJSIP/trunk-1", "PJSIP/trunk-1 0", "PJSIP/x\r\nVariable: y 1", "a b 1"])
def test_a_ticket_of_another_form_answers_nobody(ticket: str) -> None:
    assert answering(QueueWish("c", "q", NUMBER, ticket), Answer.YES) is None


# --- what a FreeSWITCH says ---

CALLER = "f44868bd-339b-40cb-a91b-6931e2120fb5"


def heard_there(**changes: str) -> list[QueueWish]:
    """A tracker hears of a caller, and then of the wish."""
    tracker = EslTracker("lab", ("sofia/gateway/trunk",))
    channel = {"Unique-ID": CALLER, "Channel-Name": "sofia/external/x", "Call-Direction": "inbound"}
    born = {"Event-Name": "CHANNEL_CREATE", "Caller-Caller-ID-Number": NUMBER, "variable_sip_gateway": "trunk"}
    tracker.hear_all([{**channel, **born, "Caller-Destination-Number": "+12125550110"}], 1795374259.0)
    said = {"Event-Name": "CUSTOM", "Event-Subclass": "ringbridge::dial", "Ringbridge-Result": "callback"}
    said |= {"Ringbridge-Queue": "support@example.com", "Ringbridge-Number": NUMBER, "Ringbridge-Question": "1"}
    headers = {f"Ringbridge-{name}": text for name, text in changes.items() if name != "uid"}
    event = {**channel, **said, **headers, "Unique-ID": changes.get("uid", CALLER)}
    return list(esl_offers.wishes([event], tracker.book))


def test_a_freeswitchs_event_is_a_wish_and_its_answer_goes_to_that_channel() -> None:
    (wish,) = heard_there()
    # Calls name a queue without its domain.
    assert (wish.queue, wish.number) == ("support", NUMBER)
    assert wish.call.endswith(CALLER)
    assert esl_offers.answering(wish, Answer.NO) == f"uuid_setvar_multi {CALLER} rb_answer=no-1"


@pytest.mark.parametrize(
    "changes",
    [
        {"Result": "over"},
        {"uid": CALLER.replace("f", "a")},
        {"Queue": ""},
        {"Queue": "a b"},
        {"Queue": "support@"},
        {"Number": ""},
        {"Number": "1-800-FLOWERS"},
        {"Number": "+16465550101\n"},
        {"Number": "\u0661\u0662\u0663\u0664"},
        {"Question": "0"},
        {"Question": "1;x=y"},
    ],
)
def test_what_is_not_of_the_form_is_no_wish_there_either(changes: dict[str, str]) -> None:
    assert heard_there(**changes) == []


@pytest.mark.parametrize("ticket", ["", CALLER, f"{CALLER} 0", f"{CALLER} 1;x=y", "a b 1", f"{CALLER}\n 1"])
def test_a_ticket_of_another_form_answers_nobody_there_either(ticket: str) -> None:
    assert esl_offers.answering(QueueWish("c", "q", NUMBER, ticket), Answer.YES) is None
