"""The verdict: what the world saw, compared with what was promised and what is said of it. No I/O."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from bridge.domain.attempts import CALLBACK_ENDED, ENDED, AttemptState, CallbackStatus
from bridge.domain.retrying import NO_TRY_USED, OUTCOME_UNKNOWN
from ringbridge_lab.witness import Invite

from .people import Accepted

Row = Mapping[str, Any]
_SLACK = timedelta(seconds=0.05)
"""A leg may be looked at just as it ends."""
_WAITING = (CallbackStatus.SCHEDULED, CallbackStatus.QUEUED)
_NOT_RUNG = frozenset({None, OUTCOME_UNKNOWN})
"""Reasons of a failed attempt that do not claim that the customer was rung."""


@dataclass(frozen=True, slots=True)
class Story:
    """Everything that there is to compare."""

    accepted: Sequence[Accepted]
    invites: Sequence[Invite]
    """The world's own record."""
    last_seen: Mapping[str, datetime]
    """When the world last saw a leg alive."""
    callbacks: Mapping[str, Row]
    attempts: Mapping[str, Row]
    changes: Sequence[Row]
    phones: Mapping[str, str]
    """Devices, as the PBX names them, to the extensions that the world knows."""
    now: datetime


@dataclass(slots=True)
class Verdict:
    """What was found; each entry says what and of whom."""

    doubled: list[dict[str, Any]] = field(default_factory=list)
    lost: list[dict[str, Any]] = field(default_factory=list)
    uncertain: list[dict[str, Any]] = field(default_factory=list)
    due: list[str] = field(default_factory=list)
    """Accepted callbacks that still wait for their next try, as promised."""


def judge(story: Story) -> Verdict:
    """Compare."""
    return Verdict(
        doubled=[*_legs_twice(story), *_two_at_once(story), *_rung_again(story), *_forms_twice(story)],
        lost=list(_lost(story)),
        uncertain=list(_uncertain(story)),
        due=[ask.id for ask in _each(story) if _is_due(story, story.callbacks.get(ask.id))],
    )


def _each(story: Story) -> Iterable[Accepted]:
    """Each accepted callback once, however often its form was answered."""
    return {ask.id: ask for ask in story.accepted}.values()


def _legs_twice(story: Story) -> Iterable[dict[str, Any]]:
    """At most one INVITE for each leg of each attempt, and none that no attempt asked for."""
    legs = defaultdict(list)
    for row in story.invites:
        attempt = story.attempts.get(row.attempt or "")
        if attempt is None:
            yield _found("nobody asked for this call", row)
        elif row.number not in (attempt["number"], story.phones.get(attempt["agent_device"])):
            yield _found("the attempt is for somebody else", row)
        legs[(row.attempt, row.number)].append(row)
    for rows in legs.values():
        if len(rows) > 1:
            yield _found("one attempt rang twice", *rows)


def _two_at_once(story: Story) -> Iterable[dict[str, Any]]:
    """A number, or an agent's phone, is in one attempt's call at a time."""
    by_number = defaultdict(list)
    for row in sorted(story.invites, key=lambda row: row.at):
        by_number[row.number].append(row)
    for rows in by_number.values():
        for earlier, later in itertools.pairwise(rows):
            alive = story.last_seen.get(earlier.leg, earlier.at)
            if earlier.attempt != later.attempt and alive > later.at + _SLACK:
                yield _found("two attempts at once", earlier, later, alive=alive.isoformat())


def _rung_again(story: Story) -> Iterable[dict[str, Any]]:
    """A customer is rung as often as the site allows, and again only once the last try is known to have failed."""
    connected = {row["attempt_id"] for row in story.changes if row["new"] == AttemptState.CONNECTED}
    rung: dict[str, list[Invite]] = defaultdict(list)
    for row in sorted(story.invites, key=lambda row: row.at):
        attempt = story.attempts.get(row.attempt or "")
        if attempt is not None and row.number == attempt["number"]:
            rung[attempt["callback_id"]].append(row)
    tries = {ask.id: ask.tries for ask in story.accepted}
    for callback, rows in rung.items():
        if callback in tries and len(rows) > tries[callback]:
            yield _found(f"rung {len(rows)} times, {tries[callback]} allowed", *rows)
        for earlier, later in itertools.pairwise(rows):
            first, second = story.attempts[earlier.attempt or ""], story.attempts[later.attempt or ""]
            failed = first["state"] == AttemptState.FAILED and first["ended_at"] <= second["claimed_at"]
            if not failed or first["reason"] == OUTCOME_UNKNOWN or first["id"] in connected:
                yield _found(f"rung again after {first['state']} ({first['reason']})", earlier, later)
            elif first["reason"] in NO_TRY_USED:
                yield _found(f"rung again after {first['reason']}, as if it had not been rung", earlier, later)


def _forms_twice(story: Story) -> Iterable[dict[str, Any]]:
    """One form, sent twice at once or sent again, is one callback."""
    made = defaultdict(set)
    for ask in story.accepted:
        made[ask.key].add(ask.id)
    for key, ids in made.items():
        if len(ids) > 1:
            yield {"what": "one form became several callbacks", "key": key, "callbacks": sorted(ids)}


def _lost(story: Story) -> Iterable[dict[str, Any]]:
    rung = {row.attempt for row in story.invites if not row.to_phone}
    by_callback = defaultdict(list)
    for attempt in story.attempts.values():
        by_callback[attempt["callback_id"]].append(attempt)
    for ask in _each(story):
        row = story.callbacks.get(ask.id)
        said = {"callback": ask.id, "key": ask.key}
        if row is None:
            yield {"what": "answered with 201 and not there", **said}
            continue
        said |= {"status": row["status"], "reason": row["reason"]}
        if row["status"] not in CALLBACK_ENDED:
            if not _is_due(story, row):
                held = story.attempts.get(row["held_by"] or "", {})
                yield {"what": "neither ended nor due", **said, "attempt": held.get("id"), "state": held.get("state")}
            continue
        if row["status"] != CallbackStatus.DONE and row["status"] != CallbackStatus.CANCELLED and not row["reason"]:
            yield {"what": "ended without a reason", **said}
        for attempt in by_callback[ask.id]:
            if attempt["id"] not in rung and _claims_to_have_rung(attempt):
                yield {"what": f"attempt {attempt['state']} ({attempt['reason']}), never rung", **said}


def _claims_to_have_rung(attempt: Row) -> bool:
    if attempt["state"] == AttemptState.FAILED:
        return attempt["reason"] not in NO_TRY_USED | _NOT_RUNG
    return bool(attempt["state"] == AttemptState.DONE)


def _is_due(story: Story, row: Row | None) -> bool:
    """It waits for its next try, or for an attempt of unknown outcome whose time has not run out."""
    if row is None or row["status"] in CALLBACK_ENDED:
        return False
    if row["held_by"] is None:
        return row["status"] in _WAITING and row["expires_at"] > story.now
    held = story.attempts.get(row["held_by"])
    return held is not None and held["state"] == AttemptState.UNCERTAIN and held["locked_until"] is not None


def _uncertain(story: Story) -> Iterable[dict[str, Any]]:
    """Each attempt that was ever in doubt, how that was resolved, and what the world knows of it."""
    by_attempt = defaultdict(list)
    for row in story.changes:
        by_attempt[row["attempt_id"]].append(row)
    rung = {(row.attempt, row.to_phone) for row in story.invites}
    for name, rows in by_attempt.items():
        doubts = [row for row in rows if row["new"] == AttemptState.UNCERTAIN]
        if not doubts:
            continue
        attempt = story.attempts[name]
        seconds = None
        if attempt["state"] in ENDED:
            seconds = round((attempt["ended_at"] - doubts[0]["at"]).total_seconds(), 1)
        yield {
            "attempt": name,
            "callback": attempt["callback_id"],
            "doubted": doubts[0]["reason"],
            "was": doubts[0]["old"],
            "now": attempt["state"],
            "reason": attempt["reason"],
            "after_seconds": seconds,
            "world": {"agent_rung": (name, True) in rung, "customer_rung": (name, False) in rung},
        }


def _found(what: str, *rows: Invite, **more: Any) -> dict[str, Any]:
    calls = [{"at": row.at.isoformat(), "attempt": row.attempt, "leg": row.leg} for row in rows]
    return {"what": what, "calls": calls, **more}
