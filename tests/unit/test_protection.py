"""What keeps floods from a site's form: proofs, the trap, networks, keys, and what the supervisor hears."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from doubles.web import Web, code, web
from redis import Redis
from sqlalchemy import func, select

from bridge.domain import proof as domain_proof
from bridge.domain.addresses import limit_key, wide_network
from bridge.domain.errors import Invalid
from bridge.domain.numbers import NumberTypeNotAllowed, dialable
from bridge.domain.proof import (
    LIFE,
    ProofInvalid,
    TooSoon,
    bits_under_load,
    check_proof,
    new_challenge,
    solve,
)
from bridge.live import keys
from bridge.services import checking
from bridge.store.models import Audit, Callback, Counter, Site

__all__ = ["web"]

NUMBER = "+12125550123"
ORIGIN = "https://www.example.com"
NOW = datetime(2026, 5, 4, 15, 0, tzinfo=UTC)
KEY = b"k" * 32
RANDOM = b"r" * 12


@pytest.fixture
def site(web: Web) -> str:
    """A site with a puzzle of few bits; its id."""
    client = web.company("A")
    with web.database.begin() as db:
        row = Site(
            created_at=datetime.now(UTC), client_id=client, key="site-key", name="Main", origins=[ORIGIN],
            regions=["US"], protection={"proof": "work", "bits": 8}, limits={"per_ip_hour": 100},
        )  # fmt: skip
        db.add(row)
    return row.id


def ask(web: Web, **body: Any) -> Any:
    return web.ask("POST", "/api/v1/callbacks", json={"number": NUMBER, "site": "site-key", **body})


def challenge(web: Web, key: str = "site-key", **headers: str) -> Any:
    return web.ask("GET", f"/api/v1/callbacks/challenge?site={key}", headers=headers)


def proof(web: Web) -> str:
    given = challenge(web).get_json()
    return solve(given["challenge"], given["bits"])


def kept(web: Web) -> int:
    with web.database.read() as db:
        return db.scalar(select(func.count()).select_from(Callback)) or 0


def set_site(web: Web, **values: Any) -> None:
    with web.database.begin() as db:
        row = db.query(Site).one()
        for name, value in values.items():
            setattr(row, name, value)


# --- the puzzle ---


def test_a_challenge_is_good_for_its_site_its_time_and_its_key() -> None:
    solved = solve(new_challenge(KEY, "shop", 8, RANDOM, NOW), 8)
    name = check_proof(KEY, "shop", solved, NOW)
    assert name == check_proof(KEY, "shop", solved, NOW + LIFE - timedelta(seconds=1))
    for key, shop, at in ((KEY, "other", NOW), (b"x" * 32, "shop", NOW), (KEY, "shop", NOW + LIFE)):
        with pytest.raises(ProofInvalid):
            check_proof(key, shop, solved, at)


def test_who_changes_a_challenge_has_none() -> None:
    made = new_challenge(KEY, "shop", 16, RANDOM, NOW)
    until, bits, random, mac = made.split(".")
    for forged in (
        f"{until}.0.{random}.{mac}",
        f"{int(until) + 600}.{bits}.{random}.{mac}",
        f"{until}.{bits}.{'A' * 16}.{mac}",
        f"{until}.{bits}.{random}.{'A' * 22}",
    ):
        with pytest.raises(ProofInvalid):
            check_proof(KEY, "shop", f"{forged}:1", NOW)
    unsolved = next(f"{made}:{n}" for n in range(99) if solve(made, 16) != f"{made}:{n}")
    for text in (unsolved, made, "", "x", f"{made}:\u0661", f"{made}:{'1' * 41}"):
        with pytest.raises(ProofInvalid):
            check_proof(KEY, "shop", text, NOW)


def test_the_puzzle_grows_with_what_is_asked_and_stays_bounded() -> None:
    found = [bits_under_load(16, asked, 60) for asked in (0, 15, 16, 31, 61, 10_000, 10**9)]
    assert found == [16, 16, 17, 18, 19, 22, 22]
    assert bits_under_load(24, 10**9, 60) == 24
    assert bits_under_load(16, 5, 0) > 16


def test_a_solved_challenge_lets_one_request_in(web: Web, site: str) -> None:
    assert code(ask(web)) == (422, "proof_needed", "proof")
    assert code(ask(web, proof="1:2")) == (422, "proof_invalid", "proof")
    solved = proof(web)
    assert code(ask(web, proof=solved, number="+19005550123"))[1] == "number_type_not_allowed"
    assert ask(web, proof=solved).status_code == 201  # a wrong number does not cost the visitor another puzzle
    assert code(ask(web, proof=solved)) == (422, "proof_invalid", "proof")
    assert kept(web) == 1


def test_the_same_request_sent_again_needs_no_other_proof(web: Web, site: str) -> None:
    sent = {"number": NUMBER, "site": "site-key"}
    again = {"Idempotency-Key": "k"}
    first = web.ask("POST", "/api/v1/callbacks", json={**sent, "proof": proof(web)}, headers=again)
    second = web.ask("POST", "/api/v1/callbacks", json={**sent, "proof": proof(web)}, headers=again)
    assert (first.status_code, second.get_json()) == (201, first.get_json())


def test_a_site_that_wants_no_proof_gives_no_challenge(web: Web, site: str) -> None:
    set_site(web, protection={})
    assert challenge(web).status_code == 204
    assert ask(web).status_code == 201


def test_a_challenge_may_be_read_by_the_sites_pages_alone(web: Web, site: str) -> None:
    mine = challenge(web, Origin=ORIGIN)
    assert mine.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert mine.headers["Cache-Control"] == "no-store"
    assert code(challenge(web, Origin="https://evil.example")) == (403, "origin_not_allowed", None)
    assert code(challenge(web, "no-such-key"))[:2] == (422, "invalid")


def test_another_check_can_be_put_in(web: Web, site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    set_site(web, protection={"proof": "picture"})
    assert challenge(web).status_code == 204
    assert ask(web, proof="cat").status_code == 503  # none is installed: nobody gets in
    for passes, status in ((lambda given, ip: given == "cat", 201), (lambda given, ip: 1 / 0, 503)):
        monkeypatch.setattr(checking, "_installed", lambda name, passes=passes: passes)
        assert ask(web, proof="cat").status_code == status
    monkeypatch.setattr(checking, "_installed", lambda name: lambda given, ip: False)
    assert code(ask(web, proof="dog")) == (422, "proof_invalid", "proof")


# --- the trap, networks, types ---


def test_who_fills_in_the_hidden_field_is_asked_once_more(web: Web, site: str) -> None:
    """A program goes away; a person whose browser filled it in presses once more, and nothing was lost silently."""
    assert code(ask(web, website="https://spam.example", proof=proof(web))) == (422, "confirm_needed", "website")
    assert kept(web) == 0
    assert ask(web, proof=proof(web)).status_code == 201
    with web.database.read() as db:
        assert db.scalar(select(Counter.count).where(Counter.scope == "refused:honeypot")) == 1


# --- the form without scripts ---


def plain(web: Web, ip: str = "192.0.2.1", **fields: str) -> Any:
    """A form that a page of the site sent; its answer."""
    data = {"number": NUMBER, **fields}
    return web.client.post("/call-me/site-key", data=data, environ_overrides={"REMOTE_ADDR": ip})


def passed(answer: Any) -> str:
    """The pass that a page carries."""
    return re.findall(r'name="proof" value="([^"]+)"', answer.get_data(as_text=True))[0]


@pytest.fixture
def no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(domain_proof, "WAIT", timedelta(0))


def test_a_form_without_scripts_gets_through_by_pressing_once_more(web: Web, site: str, no_wait: None) -> None:
    first = plain(web, name="Ann", note="tea")
    page = first.get_data(as_text=True)
    assert first.status_code == 422 and "Press the button once more" in page and 'value="Ann"' in page
    assert kept(web) == 0
    done = plain(web, proof=passed(first))
    assert done.status_code == 303 and kept(web) == 1
    # Once only.
    again = plain(web, proof=passed(first), name="Bob")
    assert again.status_code == 422 and kept(web) == 1
    assert plain(web, proof=passed(again), name="Bob").status_code == 303


def test_our_own_plain_form_needs_one_press(web: Web, site: str, no_wait: None) -> None:
    assert plain(web, proof=passed(web.client.get("/call-me/site-key"))).status_code == 303


def test_a_pass_is_good_for_its_site_after_a_while_and_not_for_ever() -> None:
    given = domain_proof.new_pass(KEY, "shop", RANDOM, NOW)
    assert domain_proof.check_pass(KEY, "shop", given, NOW + domain_proof.WAIT)
    with pytest.raises(TooSoon):
        domain_proof.check_pass(KEY, "shop", given, NOW + timedelta(seconds=1))
    for site, text, at in (
        ("other", given, NOW + timedelta(minutes=1)),
        ("shop", given[:-1] + "A", NOW + timedelta(minutes=1)),
        ("shop", given.replace("wait.1", "wait.0"), NOW + timedelta(minutes=1)),
        ("shop", "wait.", NOW + timedelta(minutes=1)),
        ("shop", given, NOW + domain_proof.PASS_LIFE),
    ):
        with pytest.raises(ProofInvalid):
            domain_proof.check_pass(KEY, site, text, at)


def test_who_was_too_quick_keeps_the_pass(web: Web, site: str) -> None:
    given = passed(web.client.get("/call-me/site-key"))
    quick = plain(web, proof=given)
    assert quick.status_code == 422 and "Wait a few seconds" in quick.get_data(as_text=True)
    assert passed(quick) == passed(plain(web, proof=given, number="nonsense")) == given


def test_passes_are_few(web: Web, site: str, no_wait: None) -> None:
    set_site(web, protection={"proof": "work"}, limits={"per_ip_hour": 2, "per_site_hour": 16, "per_number_day": 99})

    def send(ip: str, turn: int) -> int:
        page = web.client.get("/call-me/site-key")
        return int(plain(web, ip, proof=passed(page), name=f"Visitor {turn}").status_code)

    assert [send(f"192.0.2.{turn}", turn) for turn in range(3)] == [303, 303, 429]
    assert [send(f"198.51.{turn}.1", turn) for turn in range(3)] == [303, 303, 429]
    # Who solves the puzzle is not held up by those who do not.
    assert ask(web, proof=proof(web)).status_code == 201


def test_the_trap_of_a_plain_form_keeps_what_was_written(web: Web, site: str, no_wait: None) -> None:
    for name in ("website", "rb_blank"):
        first = plain(web, **{name: "https://me.example"}, note="tea")
        assert first.status_code == 422 and "tea" in first.get_data(as_text=True)
        assert plain(web, proof=passed(first), note=f"tea {name}").status_code == 303
    assert kept(web) == 2


@pytest.mark.parametrize(
    ("ip", "one", "wide"),
    [
        ("192.0.2.77", "192.0.2.77", "192.0.2.0/24"),
        ("::ffff:192.0.2.77", "192.0.2.77", "192.0.2.0/24"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64", "2001:db8:1::/48"),
        ("testclient", "testclient", "testclient"),
    ],
)
def test_senders_are_counted_by_address_and_by_network(ip: str, one: str, wide: str) -> None:
    assert (limit_key(ip), wide_network(ip)) == (one, wide)


def test_a_network_of_many_addresses_is_one_sender(web: Web, site: str) -> None:
    set_site(web, protection={}, limits={"per_ip_hour": 3, "per_network_hour": 4, "per_number_day": 99})

    def from_address(ip: str) -> int:
        said = {"REMOTE_ADDR": ip}
        sent = {"number": NUMBER, "site": "site-key"}
        return web.client.post("/api/v1/callbacks", json=sent, environ_overrides=said).status_code

    assert [from_address(f"198.51.100.{n}") for n in range(6)] == [201] * 4 + [429] * 2
    assert from_address("203.0.113.1") == 201


def test_a_site_may_block_more_types_of_numbers() -> None:
    dialable("+447400123456", ["GB"])
    dear = (("+447400123456", "mobile"), ("+442079460123", "fixed_line"), ("+18005550123", "toll_free"))
    for number, blocked in dear:
        with pytest.raises(NumberTypeNotAllowed):
            dialable(number, ["GB", "US"], [blocked])
    with pytest.raises(Invalid):
        dialable("+447400123456", ["US"], ["fixed_line"])


# --- keys ---


def test_a_key_is_replaced_and_revoked(web: Web, site: str) -> None:
    admin = web.person("boss")
    set_site(web, protection={})
    path = f"/api/v1/sites/{site}/key"
    changed = web.ask("POST", path, admin, json={"keep_hours": 2}).get_json()
    assert changed["previous_key"] == "site-key" and changed["key"] != "site-key"
    assert ask(web).status_code == 201  # pages that are open still send the old one
    set_site(web, previous_key_until=datetime.now(UTC))
    assert code(ask(web)) == (403, "site_key_revoked", "site")
    assert ask(web, site=changed["key"]).status_code == 201
    newest = web.ask("POST", path, admin).get_json()["key"]  # no body: at once
    assert code(ask(web, site=changed["key"]))[1] == "site_key_revoked"
    assert ask(web, site=newest).status_code == 201
    assert code(web.ask("POST", path, web.person("agent", "agent")))[0] == 403
    with web.database.read() as db:
        assert len(list(db.scalars(select(Audit).where(Audit.action == "sites.key")))) == 2


def test_protection_is_checked_as_it_is_set(web: Web, site: str) -> None:
    admin = web.person("boss")
    path = f"/api/v1/sites/{site}"
    good = {"proof": "work", "bits": 18, "block": ["mobile"]}
    assert web.ask("PATCH", path, admin, json={"protection": good}).get_json()["protection"] == good
    for wrong in ({"bits": 7}, {"bits": 25}, {"proof": ""}, {"block": ["all"]}, {"other": 1}):
        assert web.ask("PATCH", path, admin, json={"protection": wrong}).status_code == 422


# --- what the supervisor hears ---


def test_a_flood_is_told_once_an_hour(web: Web, site: str, redis: Redis) -> None:
    room = web.app.extensions["ringbridge"]
    for _ in range(450):
        assert code(ask(web, number="+19005550123"))[0] == 422
    later = datetime.now(UTC) + timedelta(seconds=9)
    room.refusals.note(room.database, room.redis, next(iter(room.refusals._waiting)), "x", now=later)
    with web.database.read() as db:
        notices = list(db.scalars(select(Audit).where(Audit.action == "abuse.flood")))
        asked = checking.counters.total(db, "refused", site, timedelta(hours=2), later)
    assert len(notices) == 1 and notices[0].detail["refused"] >= 50
    assert asked == 451
    told = [fields["data"] for _, fields in redis.xrange(keys.SCREENS) if '"notice"' in fields["data"]]
    assert len(told) == 1 and "abuse.flood" in told[0] and "900555" not in told[0]
    assert challenge(web).get_json()["bits"] > 8
