"""The lab for every test against a real PBX: one of each kind for the whole session, quiet again after each test.

The same tests run on each PBX: `-k asterisk`, `-k freeswitch` choose one.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from labs import KINDS, raised
from stack import QUICK, Site, Stack
from web import Web

from ringbridge_lab.lab import Lab

SEATS = ("101", "102", "109", "199")
"""109 is a phone that never registered, 199 is none at all."""


@pytest.fixture(scope="session", params=KINDS)
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A real PBX and the world around it on loopback, started on demand and taken down at the end."""
    with raised(request.param, tmp_path_factory.mktemp("lab")) as made:
        yield made


@pytest.fixture(autouse=True)
def quiet(lab: Lab) -> Iterator[None]:
    """Before each test: no call, every phone answers after a second, the company's PBX runs."""
    lab.start_company()
    lab.reset_phones()
    lab.hang_up_all()
    yield
    lab.hang_up_all()


@pytest.fixture(scope="module")
def stack(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """All of Ringbridge beside the lab."""
    stack = Stack(lab, tmp_path_factory.mktemp("stack"))
    stack.up()
    stack.sign_in_admin()
    yield stack
    assert stack.down() == 0


@pytest.fixture(scope="module")
def site(stack: Stack) -> Site:
    return stack.make_site(limits=QUICK)


@pytest.fixture(scope="module")
def agents(stack: Stack) -> dict[str, Web]:
    """An agent for each seat, signed in and offline."""
    for extension in SEATS:
        stack.make_agent(extension)
    return {extension: stack.sign_in(extension, "offline") for extension in SEATS}


@pytest.fixture
def rested(lab: Lab, stack: Stack, agents: dict[str, Web]) -> Iterator[None]:
    """Nobody is at work before a test nor after it, and no callback is left to the next one."""
    lab.wait_idle()
    stack.wait_ready()
    for web in agents.values():
        web.ok("PUT", "/api/v1/me/state", {"state": "offline"})
    yield
    stack.forget()
    for web in agents.values():
        web.ok("PUT", "/api/v1/me/state", {"state": "offline"})
    lab.reset_phones()


@pytest.fixture
def agent(rested: None, agents: dict[str, Web]) -> Web:
    """Agent 101 ready at a phone that answers after a second, nobody else."""
    agents["101"].ok("PUT", "/api/v1/me/state", {"state": "ready"})
    return agents["101"]
