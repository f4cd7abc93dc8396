"""What each call event means for agents' screens: a pure reducer over one call's story.

`PopBook` holds, per call, what pops need to know, and the pops themselves. It does no I/O: facts
(client, script, customer) come in through `Facts`, what browsers should see comes out as `Shown`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from bridge.domain.calls import CallEventType


class PopState(StrEnum):
    RINGING = "ringing"
    CONNECTED = "connected"
    HELD = "held"
    ENDED = "ended"


@dataclass(slots=True)
class CallStory:
    """What is known of one call; small, since it is written to Redis with every event."""

    call: str
    direction: str | None = None
    number: str | None = None
    """The customer's number: the caller's, or for an outbound call the number called."""
    name: str | None = None
    withheld: bool = False
    did: str | None = None
    queue: str | None = None
    client: str | None = None
    callback: str | None = None
    starter: str | None = None
    """The agent who placed the call, if one did."""
    agents: dict[str, str] = field(default_factory=dict)
    """Agent to the state of their pop; one who was given a pop stays here to the end."""
    ringing: dict[str, list[str]] = field(default_factory=dict)
    """Agent to their devices that ring now: one of two giving up is not the end of the ringing."""
    ended: bool = False

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Shown:
    """One entry for a browser, and what the page must find if it is loaded again."""

    agent: str
    event: str
    pop: str
    data: Mapping[str, Any]
    stored: Mapping[str, Any] | None
    """The pop as it now stands; None where a page loaded again need not show it."""
    is_new: bool = False


class Facts(Protocol):
    """Where a pop's content comes from; every method answers from memory or within its budget."""

    def signed_in(self, agent: str) -> bool: ...

    def content(self, story: CallStory, agent: str) -> dict[str, Any]:
        """`customer`, `client`, `script`, `callback` and perhaps a better `name`."""


def pop_id(call: str, agent: str) -> str:
    return f"{call}:{agent}"


def _party(data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = data.get(key)
    return value if isinstance(value, Mapping) else {}


class PopBook:
    """The pops of the calls it was told of. `pops` is what was last sent, by pop id."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self.pops: dict[str, dict[str, Any]] = {}

    def apply(self, story: CallStory, type: str, at: datetime, data: Mapping[str, Any]) -> list[Shown]:
        """Move the story on by one event; what should be shown, in order."""
        stamp = at.isoformat()
        match type:
            case CallEventType.STARTED:
                self._start(story, data)
            case CallEventType.QUEUED:
                story.queue = data.get("queue") or story.queue
            case CallEventType.OFFERED:
                return self._offer(story, stamp, _party(data, "party"))
            case CallEventType.UNOFFERED:
                return self._unoffer(story, stamp, data)
            case CallEventType.CONNECTED:
                return self._connect(story, stamp, data)
            case CallEventType.HELD | CallEventType.RESUMED:
                held = type == CallEventType.HELD
                return self._move_all(
                    story, type, stamp,
                    old=PopState.CONNECTED if held else PopState.HELD,
                    new=PopState.HELD if held else PopState.CONNECTED,
                )  # fmt: skip
            case CallEventType.TRANSFERRED:
                agent = _party(data, "from").get("agent")
                return self._end_one(story, type, stamp, agent, {"cause": "transferred"})
            case CallEventType.MERGED:
                story.ended = True
                return self._end_all(story, type, stamp, {"cause": "merged", "into": data.get("into")})
            case CallEventType.ENDED:
                story.ended = True
                self._complete(story, data)
                ended = {"cause": data.get("cause"), "talk_ms": data.get("talk_ms")}
                return self._end_all(story, type, stamp, ended)
        return []

    def fill_in(self, story: CallStory, agent: str, at: datetime) -> Shown | None:
        """The late content of a pop that went out without it; None where nothing was added."""
        pop = self.pops.get(pop_id(story.call, agent))
        if pop is None or pop["state"] == PopState.ENDED:
            return None
        content = self._facts.content(story, agent)
        late = {key: value for key, value in content.items() if value and value != pop.get(key)}
        if not late:
            return None
        pop.update(late)
        data = {
            "pop": pop["id"], "call": story.call, "state": pop["state"], "at": at.isoformat(),
            "type": "pop.filled", **late,
        }  # fmt: skip
        return Shown(agent, "call", pop["id"], data, dict(pop))

    def forget(self, story: CallStory) -> None:
        """Drop the pops of a call that is over."""
        for agent in story.agents:
            self.pops.pop(pop_id(story.call, agent), None)

    def _start(self, story: CallStory, data: Mapping[str, Any]) -> None:
        story.direction = data.get("direction")
        story.callback = data.get("callback")
        story.client = data.get("client")
        story.starter = _party(data, "from").get("agent")
        self._complete(story, data)

    def _complete(self, story: CallStory, data: Mapping[str, Any]) -> None:
        """Learn the customer from an event that names both ends; what is known stays."""
        story.direction = story.direction or data.get("direction")
        outbound = story.direction == "outbound"
        customer = _party(data, "to" if outbound else "from")
        ours = _party(data, "from" if outbound else "to")
        story.withheld = story.withheld or bool(customer.get("withheld"))
        if not story.withheld:
            story.number = story.number or customer.get("number") or customer.get("extension") or None
        story.name = story.name or customer.get("name") or None
        if not outbound and not story.did:
            story.did = ours.get("number") or None

    def _offer(self, story: CallStory, stamp: str, party: Mapping[str, Any]) -> list[Shown]:
        agent = party.get("agent")
        if agent is None:
            return []
        story.ringing.setdefault(agent, []).append(str(party.get("device")))
        known = story.agents.get(agent)
        if known is None:
            return self._pop(story, stamp, agent, PopState.RINGING)
        if known != PopState.ENDED:
            return []  # a second device of the same agent
        # Their phone rings for this call again: the same pop comes back, it is not a second one.
        return self._change(
            story, CallEventType.OFFERED, stamp, agent, PopState.RINGING, whole=True, ended=None
        )

    def _unoffer(self, story: CallStory, stamp: str, data: Mapping[str, Any]) -> list[Shown]:
        party = _party(data, "party")
        agent = party.get("agent")
        devices = story.ringing.get(agent, []) if agent else []
        if str(party.get("device")) in devices:
            devices.remove(str(party.get("device")))
        if devices:
            return []
        cause = str(data.get("reason") or "cancelled")
        return self._end_one(story, CallEventType.UNOFFERED, stamp, agent, {"cause": cause})

    def _connect(self, story: CallStory, stamp: str, data: Mapping[str, Any]) -> list[Shown]:
        shown: list[Shown] = []
        for party in data.get("parties") or ():
            agent = party.get("agent") if isinstance(party, Mapping) else None
            if agent is None:
                continue
            if agent in story.agents:
                again = story.agents[agent] == PopState.ENDED
                shown += self._change(
                    story, CallEventType.CONNECTED, stamp, agent, PopState.CONNECTED,
                    whole=again, ended=None, connected_at=stamp,
                )  # fmt: skip
            elif agent != story.starter:
                # Someone joined without a ring, by a transfer that was consulted first.
                shown += self._pop(story, stamp, agent, PopState.CONNECTED)
        return shown

    def _pop(self, story: CallStory, stamp: str, agent: str, state: PopState) -> list[Shown]:
        if not self._facts.signed_in(agent):
            return []
        story.agents[agent] = state
        pop: dict[str, Any] = {
            "id": pop_id(story.call, agent),
            "call": story.call,
            "agent": agent,
            "at": stamp,
            "direction": story.direction,
            "state": state,
            "number": story.number,
            "name": story.name,
            "withheld": story.withheld,
            "did": story.did,
            "queue": story.queue,
            "customer": None,
            "client": None,
            "script": None,
            "callback": None,
            "connected_at": stamp if state == PopState.CONNECTED else None,
            "ended": None,
        }
        pop.update(self._facts.content(story, agent))
        self.pops[pop["id"]] = pop
        return [Shown(agent, "pop", pop["id"], dict(pop), dict(pop), is_new=True)]

    def _move_all(
        self, story: CallStory, type: str, stamp: str, *, old: PopState, new: PopState
    ) -> list[Shown]:
        shown: list[Shown] = []
        for agent, state in list(story.agents.items()):
            if state == old:
                shown += self._change(story, type, stamp, agent, new)
        return shown

    def _end_all(self, story: CallStory, type: str, stamp: str, ended: Mapping[str, Any]) -> list[Shown]:
        shown: list[Shown] = []
        for agent in list(story.agents):
            shown += self._end_one(story, type, stamp, agent, ended)
        return shown

    def _end_one(
        self, story: CallStory, type: str, stamp: str, agent: str | None, ended: Mapping[str, Any]
    ) -> list[Shown]:
        if agent is None or story.agents.get(agent, PopState.ENDED) == PopState.ENDED:
            return []
        pop = self.pops.get(pop_id(story.call, agent))
        talked = pop is not None and pop.get("connected_at") is not None
        if type == CallEventType.UNOFFERED and talked:
            return []  # another device of an agent who is already talking
        merged = type == CallEventType.MERGED
        # Who never talked has nothing to write down, and a merged call's work goes on elsewhere.
        return self._change(
            story, type, stamp, agent, PopState.ENDED,
            keep=talked and not merged, ended=dict(ended),
        )  # fmt: skip

    def _change(
        self,
        story: CallStory,
        type: str,
        stamp: str,
        agent: str,
        state: PopState,
        *,
        keep: bool = True,
        whole: bool = False,
        ended: dict[str, Any] | None = None,
        connected_at: str | None = None,
    ) -> list[Shown]:
        """`whole` adds the pop itself as `shown`, for a page that may have cleared it."""
        story.agents[agent] = state
        pop = self.pops.get(pop_id(story.call, agent))
        if pop is None:
            return []
        pop.update(state=state, ended=ended)
        pop["connected_at"] = pop["connected_at"] or connected_at
        data: dict[str, Any] = {
            "pop": pop["id"], "call": story.call, "state": state, "at": stamp, "type": type,
        }  # fmt: skip
        if ended is not None:
            data |= {"ended": ended, "reason": ended["cause"], "keep": keep}
        if whole:
            data["shown"] = dict(pop)
        return [Shown(agent, "call", pop["id"], data, dict(pop) if keep else None)]
