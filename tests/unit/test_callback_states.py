"""A callback's status changes by its table, in one place, and whatever else is asked is refused and counted."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from doubles.company import NOW, ask, attempt, callback, found_company, step
from doubles.postgres import postgres, settings  # noqa: F401 - fixtures
from redis import Redis
from sqlalchemy import update

from bridge.domain.attempts import CALLBACK_ENDED, AttemptState, CallbackStatus
from bridge.domain.callback_states import CALLBACK_TRANSITIONS, may_become
from bridge.domain.errors import StateError
from bridge.services import attempts, callback_states, dialling
from bridge.settings import Settings
from bridge.store.database import Sessions
from bridge.store.models import Callback

ROOT = Path(__file__).parents[2]
S = CallbackStatus


def test_every_pair_is_done_or_refused_and_counted(sessions: Sessions, redis: Redis, settings: Settings) -> None:
    found_company(sessions)
    made = ask(sessions, redis, settings).id
    for old in S:
        for new in S:
            with sessions.begin() as session:
                session.execute(update(Callback).where(Callback.id == made).values(status=str(old)))
                if may_become(old, new):
                    assert callback_states.change(session, made, new, reason="x"), (old, new)
                    continue
                count = callback_states.ILLEGAL.labels(str(old), str(new))._value
                before = count.get()
                with pytest.raises(StateError):
                    callback_states.change(session, made, new)
                assert count.get() == before + 1
            assert callback(sessions, made).status == old


def test_who_was_faster_wins_and_the_other_is_told_so(sessions: Sessions, redis: Redis, settings: Settings) -> None:
    found_company(sessions)
    made = ask(sessions, redis, settings).id
    with sessions.begin() as session:
        assert not callback_states.change(session, made, S.EXPIRED, Callback.held_by.is_not(None))
        assert not callback_states.change(session, "nobody", S.EXPIRED)
        # The conditions come first: an arrow that is not there matters only to who has the callback.
        session.execute(update(Callback).where(Callback.id == made).values(status="done"))
        assert not callback_states.change(session, made, S.QUEUED, Callback.held_by.is_not(None))


def test_an_end_is_an_end_and_who_was_connected_waits_no_more() -> None:
    for status in CALLBACK_ENDED:
        assert not CALLBACK_TRANSITIONS[status]
        assert not may_become(status, status)
    assert CALLBACK_TRANSITIONS[S.CONNECTED] <= CALLBACK_ENDED
    for status in set(S) - CALLBACK_ENDED:
        assert {S.DONE, S.FAILED} <= CALLBACK_TRANSITIONS[status], "whatever is under way can end"


def test_who_was_connected_is_not_called_again_whatever_the_attempt_says(
    sessions: Sessions, redis: Redis, settings: Settings
) -> None:
    found_company(sessions)
    made = ask(sessions, redis, settings).id
    found = dialling.claim(sessions, redis, settings, made, now=NOW).attempt
    assert found is not None
    for state in (AttemptState.DIALING, AttemptState.CONNECTED):
        step(sessions, found, state)
    step(sessions, found, AttemptState.FAILED, "busy")
    row = callback(sessions, made)
    assert (row.status, row.reason, row.held_by) == ("failed", "busy", None)


def test_what_an_uncertain_attempt_shows_goes_forwards_only(
    sessions: Sessions, redis: Redis, settings: Settings
) -> None:
    found_company(sessions)
    made = ask(sessions, redis, settings).id
    found = dialling.claim(sessions, redis, settings, made, now=NOW).attempt
    assert found is not None
    step(sessions, found, AttemptState.DIALING)
    step(sessions, found, AttemptState.UNCERTAIN)
    seen = []
    for state in (AttemptState.RINGING, AttemptState.CONNECTED, AttemptState.RINGING):
        with sessions.begin() as session:
            attempts.show(session, attempt(sessions, found), state, now=NOW)
        seen.append(callback(sessions, made).status)
    assert seen == ["calling_customer", "connected", "connected"]


def test_nothing_else_sets_a_callbacks_status() -> None:
    places = {f"{path.relative_to(ROOT)}:{line}" for path in sources() for line in sets_status(path.read_text("utf-8"))}
    assert not places, "go through services.callback_states.change"


def test_what_goes_another_way_is_found() -> None:
    for text in (
        "session.execute(update(Callback).where(x).values(status='done'))",
        "session.execute(update(Callback).where(x).values(**values))",
        "def f(row: Callback):\n    row.status = 'done'",
    ):
        assert list(sets_status(text)), text
    assert not list(sets_status("session.execute(update(Callback).where(x).values(queued_at=now))"))


def sources() -> Iterator[Path]:
    for folder in ("bridge", "workers"):
        for path in (ROOT / folder).rglob("*.py"):
            if path != ROOT / "bridge" / "services" / "callback_states.py" and "migrations" not in path.parts:
                yield path


def sets_status(text: str) -> Iterator[int]:
    """Lines that may give a callback a status: by an UPDATE, or on the row."""
    if "Callback" not in text:
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "values":
            asked = ast.unparse(node.func)
            if "update(Callback)" in asked and any(word.arg in (None, "status") for word in node.keywords):
                yield node.lineno
        if isinstance(node, ast.Assign) and any(
            isinstance(target, ast.Attribute) and target.attr == "status" and ast.unparse(target.value) in ROWS
            for target in node.targets
        ):
            yield node.lineno


ROWS = ("row", "callback")
"""What a callback's row is called in our code."""
