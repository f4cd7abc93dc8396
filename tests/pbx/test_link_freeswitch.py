"""The link against a real FreeSWITCH, where that is its own: sign-in, permissions, receipts, jobs, bursts."""

from __future__ import annotations

import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from labs import freeswitch_only
from links import Sink
from rig import until
from stack import pbx_table

from bridge.domain.calls import Directory, Expected
from bridge.pbx.connecting import LoginRefused, NoReply, NotAllowed, Timings
from bridge.pbx.esl.codec import Event, encode
from bridge.pbx.esl.hub import HubThread
from bridge.pbx.esl.link import EslLink
from bridge.pbx.esl.session import Session
from bridge.pbx.port import DialOrder, Receipts
from bridge.settings import Pbx
from bridge.uptime import uptime
from ringbridge_lab.lab import Lab

pytestmark = [pytest.mark.pbx, freeswitch_only]

BURST = 10_000
FORBIDDEN = ("shutdown", "system id", "bg_system id", "fsctl shutdown", "reloadxml", "global_setvar x=y", "load x")


def settings(lab: Lab, **more: object) -> Pbx:
    return Pbx.model_validate(pbx_table(lab, **more))


@contextmanager
def linked(lab: Lab) -> Iterator[tuple[EslLink, Sink]]:
    sink = Sink()
    link = EslLink(settings(lab), sink)
    link.set_directory(Directory(agents={lab.device("101"): "anna"}))
    link.start()
    try:
        until(lambda: sink.facts, what="the resync")
        yield link, sink
    finally:
        link.stop()


def in_hub(pbx: Pbx, username: str, secret: str, *, names: tuple[str, ...], then: str = "") -> object:
    """What one session comes to: its error, or the answer to an API command."""

    def work() -> object:
        try:
            session = Session.open(
                pbx, username, secret, on_events=_ignore, on_lost=_ignore, names=names, timings=Timings()
            )
        except Exception as error:  # noqa: BLE001 - the test looks at it
            return error
        try:
            return session.api(then) if then else None
        except Exception as error:  # noqa: BLE001 - the test looks at it
            return error
        finally:
            session.close()

    hub = HubThread("test", lambda ending: [lambda: ending.wait() and None])
    hub.start()
    try:
        return hub.ask(work, 30, None)
    finally:
        hub.stop()


def _ignore(_: object) -> None:
    """Nothing to do."""


def test_a_wrong_secret_and_an_unknown_user(lab: Lab) -> None:
    pbx = settings(lab)
    for username in (pbx.username, "nobody@nowhere", "", "ringbridge"):
        refused = in_hub(pbx, username, "wrong", names=("BACKGROUND_JOB",))
        assert isinstance(refused, LoginRefused)
        assert "login refused" in refused.message and "wrong" not in refused.message


def test_what_each_user_may_not(lab: Lab) -> None:
    """Neither may stop the PBX, run a program on it or read what it has no need of."""
    pbx = settings(lab)
    users = {pbx.username: pbx.read_secret(), pbx.command_username: pbx.read_command_secret()}
    for username, secret in users.items():
        for command in FORBIDDEN:
            denied = in_hub(pbx, username, secret, names=("BACKGROUND_JOB",), then=command)
            assert isinstance(denied, NotAllowed), (username, command, denied)
    denied = in_hub(pbx, pbx.username, pbx.read_secret(), names=("BACKGROUND_JOB",), then="originate user/101 &park")
    assert isinstance(denied, NotAllowed)
    unheard = in_hub(pbx, pbx.command_username, pbx.read_command_secret(), names=("CHANNEL_CREATE", "BACKGROUND_JOB"))
    assert isinstance(unheard, NotAllowed)
    assert "CHANNEL_CREATE" in unheard.message and "BACKGROUND_JOB" not in unheard.message


def test_receipts_that_were_forgotten_prove_nothing(lab: Lab) -> None:
    attempt = str(uuid.uuid4())
    with linked(lab) as (link, sink):
        assert link.receipts(attempt) == Receipts(False, False)
        started = sink.facts[-1].started_at
        assert started is not None
        session = link._commander._session
        assert session is not None
        # What a reload of mod_hash does to them.
        link._hub.ask(lambda: session.run("hash delete/ringbridge/since"), 20, "")
        assert link.receipts(attempt) == Receipts(None, None)
    with linked(lab) as (link, sink):
        assert link.receipts(attempt) == Receipts(False, False)
        again = sink.facts[-1].started_at
        assert again is not None and again > started


def test_an_equal_dial_rings_nobody_twice(lab: Lab) -> None:
    number = "+16465550101"
    attempt = str(uuid.uuid4())
    with linked(lab) as (link, sink):
        order = DialOrder(
            attempt,
            "agent",
            lab.device("101"),
            "101",
            number,
            settings(lab).dial.replace("{number}", number),
            None,
            15,
            25,
            Expected(attempt, agent="anna", agent_device=lab.device("101"), number=number),
            uptime() + 5,
        )
        assert link.dial(order).ok
        until(lambda: "connected" in sink.kinds())
        assert link.dial(order).ok
        assert link.receipts(attempt) == Receipts(True, True, answered=True)
        [call] = link.live_calls()
        assert link.hangup(call, "anna").ok
        until(lambda: "ended" in sink.kinds())
        assert sink.kinds() == ["started", "offered", "offered", "connected", "ended"]


def test_a_burst_of_ten_thousand_events_is_heard_to_the_last(lab: Lab) -> None:
    """Fired by a second connection into the PBX's own queue, faster than it delivers."""
    pbx = settings(lab)
    with linked(lab) as (link, sink):
        heard: list[str] = []
        feed = link.tracker.hear_all

        def hear(events: list[Event], now: float) -> object:
            heard.extend(event["Burst"] for event in events if "Burst" in event)
            return feed(events, now)

        link.tracker.hear_all = hear  # type: ignore[assignment,method-assign]
        with socket.create_connection((pbx.host, pbx.port), timeout=60) as fire:
            fire.sendall(encode(f"userauth {pbx.command_username}:{pbx.read_command_secret()}"))
            draining = threading.Thread(target=_drain, args=(fire,), daemon=True)
            draining.start()
            for number in range(BURST):
                fire.sendall(encode("sendevent CUSTOM", {"Event-Subclass": "ringbridge::dial", "Burst": str(number)}))
            until(lambda: len(heard) == BURST, seconds=60)
        assert heard == [str(number) for number in range(BURST)]
        counts = link.counts()
        assert (counts["refused"], counts["gaps"], counts["faults"]) == (0, 0, 0)
        assert sink.downs == []


def _drain(sock: socket.socket) -> None:
    try:
        while sock.recv(1 << 16):
            pass
    except OSError:
        return


def test_a_job_that_takes_longer_than_anybody_waits(lab: Lab) -> None:
    """The connection is not held up by it, and its report, which comes when nobody waits any more, harms nothing."""
    lab.phone("101", answer_after=3)
    with linked(lab) as (link, sink):
        session = link._commander._session
        assert session is not None

        def slow() -> str:
            try:
                return session.run(f"originate {lab.device('101')} &park", 0.3)
            except NoReply as error:
                return error.message

        assert "did not report" in link._hub.ask(slow, 20, "")
        assert session._jobs == {}
        assert link.receipts(str(uuid.uuid4())) == Receipts(False, False)
        lab.hang_up_all()
        assert sink.downs == []
