"""The record of consent: what was shown, when and where; whoever changes it later is found out."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from click.testing import CliRunner
from doubles.company import NOW, NUMBER, ask, callback, change_site, found_company
from doubles.postgres import postgres, settings  # noqa: F401 - fixtures
from redis import Redis
from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from bridge.commands import db as db_command
from bridge.services import consents
from bridge.settings import Settings
from bridge.store.database import Sessions
from bridge.store.models import Callback, ConsentRecord

TEXT = "You may call me."


@pytest.fixture
def company(sessions: Sessions) -> Sessions:
    found_company(sessions)
    change_site(sessions, limits={"per_ip_hour": 99, "per_number_day": 99})
    return sessions


def agree(company: Sessions, redis: Redis, settings: Settings, text: str = TEXT) -> str:
    return ask(company, redis, settings, consent=text, page_url="https://shop.example/tea").id


def fault(company: Sessions, settings: Settings) -> str | None:
    return consents.verify(company, settings.secret_key())[0].fault


def test_what_was_shown_is_kept_without_address_or_number(company: Sessions, redis: Redis, settings: Settings) -> None:
    first, second = agree(company, redis, settings), agree(company, redis, settings, "Call me, please. \u0142")
    ask(company, redis, settings)  # nothing was shown: no entry
    with company.read() as db:
        rows = list(db.scalars(select(ConsentRecord).order_by(ConsentRecord.number)))
    assert [(row.number, row.callback_id, row.at) for row in rows] == [(1, first, NOW), (2, second, NOW)]
    assert (rows[0].text, rows[0].page_url) == (TEXT, "https://shop.example/tea")
    assert callback(company, second).consent_number == 2
    everything = " ".join(str(value) for row in rows for value in vars(row).values())
    assert NUMBER[1:] not in everything and "192.0.2.1" not in everything
    (verified,) = consents.verify(company, settings.secret_key())
    assert (verified.entries, verified.last, verified.fault) == (2, rows[1].seal, None)
    assert "changed" in str(consents.verify(company, b"x" * 32)[0].fault)


def _change(**values: object) -> Callable[[Session], object]:
    return lambda db: db.execute(update(ConsentRecord).where(ConsentRecord.number == 2).values(**values))


@pytest.mark.parametrize(
    ("tamper", "words"),
    [
        (_change(text="Call me day and night."), "entry 2 was changed"),
        (_change(at=NOW.replace(hour=1)), "entry 2 was changed"),
        (_change(page_url="https://other.example"), "entry 2 was changed"),
        (_change(ip_hash="0" * 64), "entry 2 was changed"),
        (_change(number_hash="0" * 64), "entry 2 was changed"),
        (_change(callback_id="another"), "entry 2 was changed"),
        (_change(seal="0" * 64), "entry 2 was changed"),
        (lambda db: db.execute(delete(ConsentRecord).where(ConsentRecord.number == 2)), "entry 2 is missing"),
        (lambda db: db.execute(delete(ConsentRecord).where(ConsentRecord.number == 3)), "names entry 3"),
        (lambda db: db.execute(delete(ConsentRecord)), "names entry 1"),
        (lambda db: db.execute(update(Callback).values(consent_text="Anything.")), "names entry 1"),
    ],
)
def test_a_change_shows(
    company: Sessions, redis: Redis, settings: Settings, tamper: Callable[[Session], object], words: str
) -> None:
    for _ in range(3):
        agree(company, redis, settings)
    assert fault(company, settings) is None
    with company.begin() as db:
        tamper(db)
    assert words in str(fault(company, settings))


def test_many_at_once_make_one_chain(company: Sessions, settings: Settings) -> None:
    def keep(number: int) -> None:
        # Not by the form, whose limits are counted in rows that would make them wait for each other.
        with company.begin() as db:
            consents.keep(
                db, settings.secret_key(), client="acme", site="shop", callback=str(number), at=NOW, text=TEXT,
                page_url="", ip_hash="", number_hash="",
            )  # fmt: skip

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(keep, range(24)))
    (verified,) = consents.verify(company, settings.secret_key())
    assert (verified.entries, verified.fault) == (24, None)


@pytest.mark.parametrize(
    ("tamper", "status", "words"),
    [
        (None, 0, "3 entries, last seal"),
        (_change(text="Call me day and night."), 1, "entry 2 was changed"),
        (lambda db: db.execute(delete(ConsentRecord).where(ConsentRecord.number == 2)), 1, "entry 2 is missing"),
    ],
)
def test_the_command_that_verifies(
    company: Sessions,
    redis: Redis,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    tamper: Callable[[Session], object] | None,
    status: int,
    words: str,
) -> None:
    monkeypatch.setattr("bridge.settings.load", lambda: settings)
    run = CliRunner()
    assert "Nobody has agreed" in run.invoke(db_command.db, ["verify-consent"]).output
    for _ in range(3):
        agree(company, redis, settings)
    if tamper is not None:
        with company.begin() as db:
            tamper(db)
    done = run.invoke(db_command.db, ["verify-consent"])
    assert done.exit_code == status and "site shop: " in done.output and words in done.output
    assert ("as written" in done.output) is (status == 0)
