"""Real calls over a line to the PBX that delays, stalls, is cut in a message, reset or dropped; a PBX that restarts.

What is random is repeated by `RINGBRIDGE_SEED`; `RINGBRIDGE_LONG=1` plays ten rounds instead of one. How long it took
until the picture was the PBX's again is printed (`-s`), `gap {…}` with JSON.
"""

from __future__ import annotations

import json
import os
import random
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from invariants import Broken, Watch, left
from links import Link, Sink, link_to
from proxy import Proxy
from real_gaps import unlike_the_pbx
from rig import until
from scenarios.looking import Looker
from stack import pbx_table

from bridge.domain.calls import CallEvent, CallEventType, Expected
from bridge.pbx.port import DialOrder
from bridge.settings import Pbx
from bridge.uptime import uptime
from ringbridge_lab.lab import Behaviour, Lab

LONG = bool(os.environ.get("RINGBRIDGE_LONG"))
SEED = os.environ.get("RINGBRIDGE_SEED") or (str(random.randrange(10**6)) if LONG else "1")
CALLER, DID, QUEUE, CUSTOMER = "+16465550111", "+12125550101", "+12125550110", "+16465550101"


@pytest.fixture
def sink() -> Sink:
    return Sink()


@pytest.fixture
def line(lab: Lab) -> Iterator[Proxy]:
    proxy = Proxy(lab.info["company"]["port"])
    yield proxy
    proxy.close()


@pytest.fixture
def link(lab: Lab, line: Proxy, sink: Sink) -> Iterator[Link]:
    made = link_to(lab, sink, port=line.port, silent_seconds=2)
    made.start()
    until(lambda: sink.facts)
    yield made
    made.stop()


def looking(lab: Lab) -> Looker:
    """Asks the PBX directly, by a line that nobody disturbs."""
    return Looker(Pbx.model_validate(pbx_table(lab)), datetime.now(UTC))


# --- what people do ---


def comes_in(lab: Lab, link: Link) -> None:
    lab.call(DID, caller=CALLER)


def waits_in_a_queue(lab: Lab, link: Link) -> None:
    for phone in ("101", "102", "104", "105"):
        lab.phone(phone, Behaviour.NO_ANSWER)
    lab.call(QUEUE, caller=CALLER)


def is_transferred(lab: Lab, link: Link) -> None:
    _talks(lab)
    _presses(lab, "##102")


def is_parked(lab: Lab, link: Link) -> None:
    _talks(lab)
    _presses(lab, "##700")


def is_consulted_about(lab: Lab, link: Link) -> None:
    _talks(lab)
    _presses(lab, "*2102")


def is_dialled_by_us(lab: Lab, link: Link) -> None:
    attempt, device = str(uuid.uuid4()), lab.device("101")
    link.dial(
        DialOrder(
            attempt=attempt,
            first="agent",
            agent_device=device,
            agent_extension="101",
            number=CUSTOMER,
            dial_string=lab.pbx_settings()["dial"].format(number=CUSTOMER),
            caller_id="+12125550100",
            agent_ring_seconds=20,
            customer_ring_seconds=20,
            expected=Expected(attempt, "anna", device, CUSTOMER, callback="cb-1", agent_first=True),
            until=uptime() + 20,
        )
    )


def _talks(lab: Lab) -> Any:
    lab.phone("101", answer_after=0.2)
    caller = lab.call(DID, caller=CALLER)
    caller.wait_for("answered")
    return caller


def _presses(lab: Lab, digits: str) -> None:
    lab.press_phone("101", digits)


STORIES: tuple[Callable[[Lab, Link], None], ...] = (
    comes_in,
    waits_in_a_queue,
    is_transferred,
    is_parked,
    is_consulted_about,
    is_dialled_by_us,
)


# --- what the line does ---


def delays(line: Proxy, dice: random.Random) -> None:
    line.delay = dice.uniform(0.05, 0.5)


def stalls(line: Proxy, dice: random.Random) -> None:
    line.flows.clear()


def is_cut_in_a_message(line: Proxy, dice: random.Random) -> None:
    line.most = dice.randint(1, 400)


def is_reset(line: Proxy, dice: random.Random) -> None:
    line.open = dice.random() < 0.5
    line.reset()


def is_dropped(line: Proxy, dice: random.Random) -> None:
    line.open = dice.random() < 0.5
    line.cut()


FAULTS: tuple[Callable[[Proxy, random.Random], None], ...] = (
    delays,
    stalls,
    is_cut_in_a_message,
    is_reset,
    is_dropped,
)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
def test_the_picture_is_the_pbxs_again(
    lab: Lab,
    link: Link,
    line: Proxy,
    sink: Sink,
    story: Callable[[Lab, Link], None],
    fault: Callable[[Proxy, random.Random], None],
) -> None:
    dice = random.Random(f"{SEED} {lab.pbx} {story.__name__} {fault.__name__}")
    for turn in range(10 if LONG else 1):
        begins, lasts = dice.uniform(0, 2.5), dice.uniform(0.1, 1.5)
        mischief = threading.Timer(begins, fault, (line, dice))
        mischief.start()
        story(lab, link)
        mischief.join()
        if fault is stalls:
            # As long as it takes to be noticed: a silent peer is given up.
            _wait_until_noticed(sink, len(sink.downs))
        elif fault is is_cut_in_a_message:
            # Where the PBX says nothing more, the answer to a ping is what is cut.
            until(lambda: line.most is None, 30, "the line to be cut")
        else:
            threading.Event().wait(lasts)
        line.open, line.delay, line.most = True, 0.0, None
        with looking(lab) as looker:
            line.flows.set()
            back = looker.now
            until(lambda: link._synced)
            up = looker.now
            _wait_until_same(link, looker, up)
            same = looker.now
        told = {"pbx": lab.pbx, "story": story.__name__, "fault": fault.__name__, "turn": turn, "seed": SEED}
        print(f"\ngap {json.dumps({**told, 'up_s': round(up - back, 2), 'same_s': round(same - up, 2)})}", end="")
        lab.hang_up_all()
        lab.reset_phones()
        until(lambda: _nothing_left(lab, link), 60, "nothing to be left")
    # The tracker's own thread says a little later what it knows.
    until(lambda: _begun(sink) == _over(sink), what="every call's end to be told")
    _sound(link, sink.heard)


def _begun(sink: Sink) -> set[str | None]:
    return {event.call for event in list(sink.heard)}


def _over(sink: Sink) -> set[str | None]:
    ends = (CallEventType.ENDED, CallEventType.MERGED)
    return {event.call for event in list(sink.heard) if event.type in ends}


def _nothing_left(lab: Lab, link: Link) -> bool:
    """Asterisk 22 now and then crashes where everybody hangs up in an attended transfer: it asks a channel that is gone
    for its bridge. Its keeper starts it again, as here; then too nothing may be left.
    """
    if not lab.running()["company"]:
        print("\nthe PBX crashed by itself and is started again", end="")
        lab.start_company()
    return not left(link.tracker.book)


def _wait_until_noticed(sink: Sink, before: int) -> None:
    until(lambda: len(sink.downs) > before)


def _wait_until_same(link: Link, looker: Looker, since: float) -> None:
    until(lambda: _same(link, looker, since), 30, "the picture to be the PBX's")


def _same(link: Link, looker: Looker, since: float) -> bool:
    shots = looker.shots[-1:]
    try:
        return bool(shots) and shots[0].asked > since and not list(unlike_the_pbx(link.tracker, shots[0]))
    except (RuntimeError, KeyError):
        # The link's own thread went on meanwhile.
        return False


def _sound(link: Link, heard: list[CallEvent]) -> None:
    """Each call numbered without holes, begun once and ended once; nobody offered one ring twice."""
    watch = Watch(link.tracker)
    try:
        watch.saw(list(heard))
        watch.over()
    except Broken:
        for event in heard:
            print(event.at, event.call, event.seq, event.type, json.dumps(event.data, default=str))
        raise
    offers = Counter(
        (event.call, str(event.data["party"]["device"])) for event in heard if event.type is CallEventType.OFFERED
    )
    ended = Counter(
        (event.call, str(event.data["party"]["device"])) for event in heard if event.type is CallEventType.UNOFFERED
    )
    assert all(count <= 1 + ended[key] for key, count in offers.items()), offers
    for event in heard:
        if event.type is CallEventType.UNCERTAIN:
            assert event.data["since"] <= event.data["until"]


# --- the PBX restarts ---


@pytest.mark.parametrize("kill", [True, False], ids=["killed", "stopped"])
def test_all_calls_of_a_pbx_that_restarts_end(lab: Lab, sink: Sink, kill: bool) -> None:
    link = link_to(lab, sink)
    link.start()
    try:
        until(lambda: sink.facts)
        _talks(lab)
        lab.phone("102", Behaviour.NO_ANSWER)
        lab.call("+12125550102", caller="+16465550112")
        until(lambda: sink.of(CallEventType.CONNECTED) and len(sink.of(CallEventType.OFFERED)) == 2)
        began = time.monotonic()
        lab.restart_company(kill=kill)
        until(lambda: len(sink.facts) > 1 and len(sink.of(CallEventType.ENDED)) == 2, 90)
        causes = sorted(event.data["cause"] for event in sink.of(CallEventType.ENDED))
        told = {"pbx": lab.pbx, "restart": "kill" if kill else "orderly", "causes": causes}
        print(f"\ngap {json.dumps({**told, 'seconds': round(time.monotonic() - began, 1)})}", end="")
        if kill:
            # Nobody could have seen how.
            assert causes == ["uncertain", "uncertain"]
            assert len({event.call for event in sink.of(CallEventType.UNCERTAIN)}) == 2
        assert sink.live == {} and not left(link.tracker.book)
        _sound(link, sink.heard)
    finally:
        link.stop()
