"""What an inspection of a PBX found, in words that fit any PBX."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    OK = "ok"
    WARN = "warn"
    """Works, and could bite."""
    FAIL = "fail"
    """Ringbridge cannot do its work like this."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. `change` is the exact line or command to put there, empty where nothing is to be changed."""

    about: str
    verdict: Verdict
    meaning: str
    change: str = ""
