"""The labs that tests run in, one for each kind of PBX; a test is written once and meets them all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ringbridge_lab import freeswitch_installation
from ringbridge_lab.errors import LabError
from ringbridge_lab.lab import Lab

KINDS = ("asterisk", pytest.param("freeswitch", marks=pytest.mark.freeswitch))
"""Parameters of a fixture that brings a lab up."""

asterisk_only = pytest.mark.parametrize("lab", ["asterisk"], indirect=True, scope="session")
"""For what is Asterisk's own."""

freeswitch_only = pytest.mark.parametrize("lab", KINDS[1:], indirect=True, scope="session")
"""For what is FreeSWITCH's own."""


@contextmanager
def raised(kind: str, folder: Path) -> Iterator[Lab]:
    """A lab whose company has that kind of PBX; the test is skipped where the machine has none."""
    if kind == "freeswitch":
        try:
            freeswitch_installation.find()
        except LabError as reason:
            if os.environ.get("RINGBRIDGE_LAB_FREESWITCH"):
                raise
            pytest.skip(str(reason))
    lab = Lab(folder, pbx=kind)
    lab.up(progress=print)
    try:
        yield lab
    finally:
        lab.down()
