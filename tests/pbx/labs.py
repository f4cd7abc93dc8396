"""The labs that tests run in, one for each kind of PBX; a test is written once and meets them all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ringbridge_lab.lab import Lab

KINDS = ("asterisk",)
"""Parameters of a fixture that brings a lab up."""

asterisk_only = pytest.mark.parametrize("lab", ["asterisk"], indirect=True, scope="session")
"""For what is Asterisk's own, or not the PBX's at all."""


@contextmanager
def raised(kind: str, folder: Path) -> Iterator[Lab]:
    """A lab whose company has that kind of PBX, taken down at the end."""
    lab = Lab(folder)
    lab.up(progress=print)
    try:
        yield lab
    finally:
        lab.down()
