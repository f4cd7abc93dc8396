"""What pages without scripts say to visitors, in the first of the browser's languages that we speak."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from flask import request

import bridge.screen

_WORDS: dict[str, dict[str, Any]] = json.loads(
    (Path(bridge.screen.__file__).parent / "static" / "widget" / "words.json").read_text(encoding="utf-8")
)
"""What the widget says, and what a page without scripts says beside, by language."""


def language() -> str:
    wanted = (name.lower().replace("_", "-").partition("-")[0] for name in request.accept_languages.values())
    return next((name for name in wanted if name in _WORDS), "en")


def words() -> dict[str, Any]:
    return _WORDS[language()]


def told(code: str, message: str) -> str:
    """What was wrong, in the visitor's language: the sentence of the error where it is theirs."""
    known: dict[str, str] = {**words()["codes"], **words()["plain"]["codes"]}
    if code in known:
        return known[code]
    if language() != "en":
        return str(words()["failed"])
    return f"{message[:1].upper()}{message[1:]}.".replace("..", ".")


def shown(at: datetime | None, timezone: str) -> str:
    """A time on the clock of that zone, with its name."""
    if at is None:
        return ""
    local = at.astimezone(ZoneInfo(timezone))
    return f"{local:%Y-%m-%d %H:%M} ({timezone.replace('_', ' ')})"
