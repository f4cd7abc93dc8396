"""One pop per agent and call, whatever the phones do: the reducer alone."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from bridge.services.pop_building import CallStory, PopBook, Shown

AT = datetime(2026, 3, 2, 10, 0, tzinfo=UTC)


class KnownFacts:
    """Everybody is signed in but `away`; `late` content can be put in afterwards."""

    def __init__(self) -> None:
        self.customer: dict[str, Any] | None = None

    def signed_in(self, agent: str) -> bool:
        return agent != "away"

    def content(self, story: CallStory, agent: str) -> dict[str, Any]:
        return {"customer": self.customer}


def party(agent: str | None = None, number: str | None = None, device: str | None = None) -> dict[str, Any]:
    return {"device": device, "extension": None, "number": number, "name": None, "agent": agent}


class Play:
    """Plays one call's events into a book and keeps what was shown."""

    def __init__(self, **started: Any) -> None:
        self.facts = KnownFacts()
        self.book = PopBook(self.facts)
        self.story = CallStory(call="lab-1")
        data = {
            "direction": "inbound",
            "from": party(number="+16465550100"),
            "to": party(number="+12125550110"),
        }
        self("call.started", **(data | started))

    def __call__(self, type: str, **data: Any) -> list[tuple[str, str, str]]:
        self.last: list[Shown] = self.book.apply(self.story, type, AT, data)
        return [(one.event, one.agent, one.data["state"]) for one in self.last]

    def ring(self, agent: str | None, device: str | None = None) -> list[tuple[str, str, str]]:
        return self("call.offered", party=party(agent, device=device))

    def stop(
        self, agent: str, reason: str = "no_answer", device: str | None = None
    ) -> list[tuple[str, str, str]]:
        return self("call.unoffered", party=party(agent, device=device), reason=reason)

    def connect(self, *agents: str | None) -> list[tuple[str, str, str]]:
        return self("call.connected", parties=[party(agent) for agent in agents])


def test_an_inbound_call_from_ring_to_end() -> None:
    play = Play()
    assert play.ring("ann") == [("pop", "ann", "ringing")]
    pop = play.last[0].data
    assert (pop["id"], pop["number"], pop["did"], pop["direction"]) == (
        *("lab-1:ann", "+16465550100", "+12125550110", "inbound"),
    )
    assert play.connect(None, "ann") == [("call", "ann", "connected")]
    assert play("call.held", by=party("ann")) == [("call", "ann", "held")]
    assert play("call.resumed", by=party("ann")) == [("call", "ann", "connected")]
    assert play("call.ended", cause="completed", talk_ms=5000) == [("call", "ann", "ended")]
    assert play.last[0].data["ended"] == {"cause": "completed", "talk_ms": 5000}
    assert play.last[0].stored is not None, "there is something to write down"


def test_ring_all_pops_once_each_and_clears_those_who_did_not_answer() -> None:
    play = Play()
    assert [play.ring(agent) for agent in ("ann", "bob", "cy")] == [
        [("pop", agent, "ringing")] for agent in ("ann", "bob", "cy")
    ]
    assert play.connect(None, "bob") == [("call", "bob", "connected")]
    assert play.stop("ann", "answered_elsewhere") == [("call", "ann", "ended")]
    assert play.last[0].data["reason"] == "answered_elsewhere"
    assert play.last[0].stored is None, "nothing to write down"
    assert play.stop("cy", "answered_elsewhere") == [("call", "cy", "ended")]
    assert play("call.ended", cause="completed") == [("call", "bob", "ended")]


def test_a_queue_that_rings_again_brings_the_same_pop_back() -> None:
    play = Play()
    play.ring("ann")
    play.stop("ann")
    assert play.ring("ann") == [("call", "ann", "ringing")]
    assert play.last[0].data["shown"]["id"] == "lab-1:ann"
    assert play.last[0].stored is not None


def test_two_phones_of_one_agent_are_one_pop() -> None:
    play = Play()
    assert play.ring("ann", "PJSIP/101") == [("pop", "ann", "ringing")]
    assert play.ring("ann", "PJSIP/201") == []
    assert play.stop("ann", "busy", "PJSIP/201") == []
    assert play.connect(None, "ann") == [("call", "ann", "connected")]
    assert play.stop("ann", "answered_elsewhere", "PJSIP/101") == [], "the agent is talking"


def test_nobody_pops_for_a_phone_without_an_agent_or_a_page() -> None:
    play = Play()
    assert play.ring(None) == []
    assert play.ring("away") == []
    assert play.connect(None, "away") == []


def test_agent_first_shows_the_customer_while_the_agents_phone_rings() -> None:
    play = Play(
        **{
            "direction": "outbound",
            "from": party("ann"),
            "to": party(number="+13125550105"),
            "callback": "cb",
        }
    )
    assert play.ring("ann") == [("pop", "ann", "ringing")]
    assert play.last[0].data["number"] == "+13125550105"
    assert play.story.callback == "cb"


def test_a_withheld_number_is_shown_to_nobody() -> None:
    play = Play(**{"from": {**party(number="+16465550100"), "withheld": True}})
    play.ring("ann")
    assert play.last[0].data["number"] is None
    assert play.last[0].data["withheld"] is True


def test_a_transfer_ends_one_agents_pop_and_begins_anothers() -> None:
    play = Play()
    play.ring("ann")
    play.connect(None, "ann")
    play.ring("bob")
    transferred = {"kind": "blind", "by": party("ann"), "from": party("ann"), "to": party("bob")}
    assert play("call.transferred", **transferred) == [("call", "ann", "ended")]
    assert play.last[0].stored is not None, "who talked writes it down"
    assert play.connect(None, "bob") == [("call", "bob", "connected")]


def test_an_agent_who_joins_without_a_ring_gets_a_pop_too() -> None:
    play = Play()
    play.ring("ann")
    play.connect(None, "ann")
    assert play.connect(None, "bob") == [("pop", "bob", "connected")]


def test_who_placed_an_internal_call_gets_no_pop() -> None:
    play = Play(**{"direction": "internal", "from": party("ann"), "to": party("bob")})
    assert play.ring("bob") == [("pop", "bob", "ringing")]
    assert play.connect("ann", "bob") == [("call", "bob", "connected")]


def test_a_consultation_that_merged_leaves_nothing_behind() -> None:
    play = Play(**{"direction": "internal", "from": party("ann"), "to": party("bob")})
    play.ring("bob")
    play.connect("ann", "bob")
    assert play("call.merged", into="lab-0") == [("call", "bob", "ended")]
    assert play.last[0].stored is None


def test_a_late_customer_fills_the_pop_in_once() -> None:
    play = Play()
    play.ring("ann")
    play.facts.customer = {"id": "c", "name": "Dana"}
    late = play.book.fill_in(play.story, "ann", AT)
    assert late is not None
    assert late.event == "call"
    assert late.data["customer"]["name"] == "Dana"
    assert late.data["state"] == "ringing"
    assert play.book.fill_in(play.story, "ann", AT) is None
