"""The lab for every test against a real PBX: one for the whole session, quiet again after each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ringbridge_lab.lab import Lab


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Two real Asterisks on loopback, started on demand and taken down at the end."""
    made = Lab(tmp_path_factory.mktemp("lab"))
    made.up(progress=print)
    yield made
    made.down()


@pytest.fixture(autouse=True)
def quiet(lab: Lab) -> Iterator[None]:
    """Before each test: no call, every phone answers after a second, the company's PBX runs."""
    lab.start_company()
    lab.reset_phones()
    lab.hang_up_all()
    yield
    lab.hang_up_all()
