"""An agent's state is in two places, on the page and in the PBX's queues; this says which of them follows the other.

Both are compared with what they last agreed on, so whoever differs from it has changed, and a change of ours that comes
back as news is none: there is no echo. Where both have changed, as after a gap, the page wins.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

WRAP_UP = "Wrap-up"
SIGNED_OUT = "Signed out"
LEFT = "Left the queues"
OUT_AT_PHONE = "Signed out at the phone"
PAUSED_AT_PHONE = "Paused at the phone"


class Standing(StrEnum):
    """How a phone stands in the PBX's queues."""

    AVAILABLE = "available"
    PAUSED = "paused"
    OUT = "out"
    """Signed out there; where a queue knows no such thing, paused."""


@dataclass(frozen=True, slots=True)
class Member:
    """A phone in the PBX's queues: available where it is in one of them."""

    standing: Standing
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """An agent's state as the page shows it; the reason is a pause's."""

    state: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Agreed:
    """What both were when they last agreed; `member` None where the phone was in no queue."""

    page: Page
    member: Member | None


@dataclass(frozen=True, slots=True)
class Step:
    """What to do: tell the PBX, or change the page, or neither; and what is agreed once that is done."""

    agreed: Agreed | None
    push: Member | None = None
    page: Page | None = None


def wanted(page: Page) -> Member:
    """How the phone should stand, by the page."""
    match page.state:
        case "ready":
            return Member(Standing.AVAILABLE)
        case "paused":
            return Member(Standing.PAUSED, page.reason)
        case "wrapup":
            return Member(Standing.PAUSED, WRAP_UP)
    return Member(Standing.OUT, SIGNED_OUT)


def is_out(member: Member) -> bool:
    """Nobody sits at that phone, by the PBX; a queue that knows only pauses says it by the reason."""
    return member.standing is Standing.OUT or member == Member(Standing.PAUSED, SIGNED_OUT)


def follow(page: Page, member: Member) -> Page:
    """What the page becomes after a change at the PBX."""
    if member.standing is Standing.AVAILABLE:
        return Page("ready")
    if member.standing is Standing.OUT:
        return Page("paused", OUT_AT_PHONE)
    if page.state == "wrapup" and member.reason == WRAP_UP:
        return page
    return Page("paused", member.reason or PAUSED_AT_PHONE)


def merge(agreed: Agreed | None, page: Page, member: Member | None) -> Step:
    """The next step for one agent at one phone."""
    if page.state == "offline":
        # Whoever never signed in here is left alone: the PBX's queues are older than we are.
        if agreed is None or member is None or is_out(member):
            return Step(None)
        return Step(None, push=wanted(page))
    if member is None:
        if agreed is not None and agreed.member is not None and page == agreed.page and page.state != "paused":
            return _followed(Page("paused", LEFT), None, page)
        return Step(Agreed(page, None))
    if agreed is None or page != agreed.page:
        return _pushed(page, member)
    if agreed.member is None:
        if page == Page("paused", LEFT) and member.standing is Standing.AVAILABLE:
            return _followed(Page("ready"), member, page)
        return _pushed(page, member)
    if _differ(member, agreed.member):
        return _followed(follow(page, member), member, page)
    return Step(agreed)


def _differ(one: Member, other: Member) -> bool:
    # Not every PBX keeps a reason.
    return one.standing is not other.standing or (one.reason != other.reason and "" not in (one.reason, other.reason))


def _pushed(page: Page, member: Member) -> Step:
    want = wanted(page)
    done = want.standing is member.standing and member.reason in ("", want.reason)
    return Step(Agreed(page, member if done else want), push=None if done else want)


def _followed(now: Page, member: Member | None, page: Page) -> Step:
    return Step(Agreed(now, member), page=now if now != page else None)
