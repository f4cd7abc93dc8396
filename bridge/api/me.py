"""The signed-in agent's own: state, devices, stream, pops."""

from __future__ import annotations

import json
from typing import Any

import structlog
from flask import Blueprint, Response
from redis import RedisError

from bridge.api.contract import answer, view
from bridge.api.grants import grant_view
from bridge.api.parts import now, parts
from bridge.api.session import shown
from bridge.api.shapes import (
    DeviceNow,
    Devices,
    Grant,
    GrantEvent,
    Me,
    Painted,
    PopAcked,
    StateNow,
    StateWanted,
)
from bridge.live import keys, screens
from bridge.services import history, news, presence
from bridge.services.access import EVERYONE, STAFF, Access
from bridge.store.models import Agent

blueprint = Blueprint("me", __name__, url_prefix="/api/v1")
log = structlog.get_logger(__name__)


@blueprint.get("/me")
@view("me", roles=EVERYONE, answers=Me)
def me(access: Access) -> Response:
    """Who is signed in."""
    with parts().database.read() as db:
        agent = db.get_one(Agent, access.agent)
        state = presence.current(db, access.agent, now())
    return answer(shown(agent, state.device or access.device))


@blueprint.get("/me/state")
@view("me", roles=STAFF, answers=StateNow)
def state_now(access: Access) -> Response:
    """Where you stand: ready, paused, wrapup or offline."""
    with parts().database.read() as db:
        return answer(StateNow.model_validate(presence.current(db, access.agent, now())))


@blueprint.put("/me/state")
@view("me", roles=STAFF, body=StateWanted, answers=StateNow)
def set_state(access: Access, body: StateWanted) -> Response:
    """Change where you stand. `device` moves you to another phone of yours; `reason` is kept for a pause."""
    room = parts()
    # A device says whose call it is, so the listener must know of it.
    with room.writing("agents") as db:
        state = presence.set_state(
            db, room.settings, access, now(), presence.State(body.state), body.reason, body.device
        )
        shape = StateNow.model_validate(state)
    return answer(shape)


@blueprint.get("/me/devices")
@view("me", roles=STAFF, answers=Devices)
def devices(access: Access) -> Response:
    """Phones you may sit at, and which of them somebody else sits at now."""
    with parts().database.read() as db:
        agent = db.get_one(Agent, access.agent)
        holders = presence.holders(db, agent.devices)
    return answer(
        Devices(
            items=[
                DeviceNow(
                    device=device,
                    mine=holders.get(device) == access.agent,
                    taken=holders.get(device, access.agent) != access.agent,
                )
                for device in agent.devices
            ]
        )
    )


@blueprint.get("/me/events")
@grant_view("me", roles=STAFF)
def events(access: Access) -> Grant:
    """Your event stream: `state`, `pop`, `call`, `command`; begins with your state and the pops that stand."""
    with parts().database.read() as db:
        body = news.state_body(presence.current(db, access.agent, now()))
        pops = _pops(access.agent)
        done = history.written_down(db, access, [str(pop.data.get("call")) for pop in pops])
    # A call that is over and written down needs no screen any more.
    pops = [pop for pop in pops if pop.data.get("state") != "ended" or pop.data.get("call") not in done]
    hello = [GrantEvent(event="state", id="", data=body), *pops]
    return Grant(topics=[screens.agent_topic(access.agent)], hello=hello, check=access.session)


@blueprint.post("/pops/<pop_id>/ack")
@view("me", roles=STAFF, body=Painted, answers=PopAcked)
def acknowledge(access: Access, pop_id: str, body: Painted) -> Response:
    """Say that a pop is on the screen. `painted_ms` is the time from its arrival to the frame that showed it."""
    # Before the wait for the database: the page had shown it by now.
    arrived = now()
    with parts().writing() as db:
        pop = history.acknowledge(db, access, arrived, pop_id, body.painted_ms)
        return answer(PopAcked.model_validate(pop))


def _pops(agent: str) -> list[GrantEvent]:
    try:
        kept: Any = parts().redis.hgetall(keys.pops(agent))
    except RedisError as error:
        log.warning("pops not read", agent=agent, error=type(error).__name__)
        return []
    found = []
    for pop_id, text in kept.items():
        try:
            found.append(GrantEvent(event="pop", id=pop_id, data=json.loads(text)))
        except ValueError:
            log.warning("a pop is not readable", agent=agent)
    return sorted(found, key=lambda event: str(event.data.get("at", "")))
