"""What the lab tells a person who can do something about it."""

from __future__ import annotations


class LabError(Exception):
    """Something the lab needs is missing or did not happen in time; the message says what to do."""
