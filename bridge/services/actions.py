"""What may be done to a call that is under way, by whom; and how that is written into the mailbox and read there.

An agent acts on calls in which their own phone is: whether it is, the tracker knows, and the outcome says. A parked
or a ringing call of the clients they see may be fetched by any agent. A supervisor acts in every call of their
clients, for the agent who is in it; listening is theirs alone. Observe mode allows nothing.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from redis import Redis
from sqlalchemy import select
from sqlalchemy.orm import Session

from bridge.domain.actions import TO_OWN_PHONE, WATCHING, Action, Side, check, outcome_seconds
from bridge.domain.errors import Conflict, Forbidden, Invalid, NotFound, SettingsError, Unavailable
from bridge.domain.numbers import check_target, is_number
from bridge.live import mailbox, screens
from bridge.live.mailbox import Command, Kind
from bridge.pbx.port import ActionOrder
from bridge.services import audit, history, presence
from bridge.services.access import LEADERS, STAFF, Access, Role
from bridge.settings import Pbx, Settings
from bridge.store.models import Agent, AgentState, Call, CallAgent
from bridge.store.queries.leases import link_is_up

Lane = tuple[str, str, bool]
_ANY_IN_REACH = frozenset({Action.RETRIEVE, Action.PICKUP})
_ENDS_ANOTHER = frozenset({Action.COMPLETE, Action.RETURN})
"""What must not wait for the consultation that it ends."""


class ObserveMode(Conflict):
    """The settings allow listening only; use the phone itself."""

    code = "observe"


class PbxDown(Unavailable):
    """The PBX of this call is not connected; use the phone itself."""

    code = "pbx_down"


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody wants done to a call."""

    action: Action
    to: str | None = None
    digits: str | None = None
    sound: str | None = None
    side: Side | None = None


@dataclass(frozen=True, slots=True)
class Letter:
    """A command as it goes into the mailbox of its PBX."""

    command: str
    pbx: str
    kind: Kind
    data: Mapping[str, Any]


# --- asking ---


def hang_up(db: Session, settings: Settings, access: Access, now: datetime, call_id: str) -> Letter:
    """End an agent's own leg, or the whole call for a supervisor. Raises as `act`."""
    access.require(STAFF)
    call = _call(db, settings, now, _own_call(db, access, call_id))
    leg = access.agent if access.role is Role.AGENT else None
    return _letter(db, access, now, call, Kind.HANGUP, "hangup", {"call": call.id, "agent": leg}, {})


def act(
    db: Session, settings: Settings, access: Access, now: datetime, call_id: str, wish: Wish
) -> Letter:
    """What to send so that it is done; a supervisor's wish leaves a row in the audit log.

    Raises NotFound, Forbidden, Conflict (the call is over, no phone to ring, observe mode), Invalid (`to` must not be
    dialled) or Unavailable (the PBX is not connected). Whether the call is in a state for it, the outcome says.
    """
    access.require(LEADERS if wish.action in WATCHING else STAFF)
    find = _in_reach if wish.action in _ANY_IN_REACH else _own_call
    call = _call(db, settings, now, find(db, access, call_id))
    if wish.to is not None:
        _check_target(db, settings, wish.to)
    device, extension = None, None
    if wish.action in TO_OWN_PHONE:
        device, extension = _own_phone(db, settings, access, call)
    values = {"to": wish.to, "digits": wish.digits, "sound": wish.sound, "side": wish.side, "device": device}
    check(wish.action, values)
    body = {
        "action": wish.action,
        "call": call.id,
        "agent": access.agent if access.role is Role.AGENT else None,
        "asker": access.agent,
        "extension": extension,
        **values,
    }
    # A number belongs to a person, and digits may be a secret of theirs.
    target = "a number" if wish.to is not None and is_number(wish.to) else wish.to
    told = {"to": target, "sound": wish.sound, "device": device}
    return _letter(db, access, now, call, Kind.ACTION, wish.action, body, told)


def send(redis: Redis, settings: Settings, access: Access, letter: Letter) -> str:
    """Put it into the mailbox; the command's id. Raises redis' errors."""
    return mailbox.send(
        redis,
        letter.pbx,
        letter.kind,
        letter.data,
        settings.dialing.command_deadline_seconds,
        to=screens.agent_topic(access.agent),
        command_id=letter.command,
    )


def _letter(
    db: Session,
    access: Access,
    now: datetime,
    call: Call,
    kind: Kind,
    name: str,
    data: Mapping[str, Any],
    told: Mapping[str, Any],
) -> Letter:
    command = str(uuid.uuid4())
    if access.role in LEADERS:
        # Before it is sent: nobody listens unseen, even where what follows fails.
        detail = {"command": command, **{key: value for key, value in told.items() if value is not None}}
        audit.record(db, now, access.username, f"calls.{name}", call.id, call.client_id, detail)
    kept = {key: value for key, value in data.items() if value is not None or key == "agent"}
    return Letter(command, call.pbx, kind, kept)


def _own_call(db: Session, access: Access, call_id: str) -> Call:
    """A call in which they are now, or that they are shown. Raises NotFound."""
    if db.get(CallAgent, (call_id, access.agent)) is not None:
        call = db.get_one(Call, call_id)
        # One of no client belongs to nobody else, such as a talk between colleagues.
        if call.client_id is None or access.may_see(call.client_id):
            return call
    return history.get(db, access, call_id)


def _in_reach(db: Session, access: Access, call_id: str) -> Call:
    """A call of the clients that they see, whoever's phone rang. Raises NotFound."""
    call: Call | None = db.scalar(access.scope(select(Call), Call.client_id).where(Call.id == call_id))
    if call is None:
        raise NotFound("there is no such call")
    return call


def _call(db: Session, settings: Settings, now: datetime, call: Call) -> Call:
    """The call, where something can be done to it at all."""
    if call.ended_at is not None:
        if call.merged_into is not None:
            raise Conflict("this call goes on as another; look up merged_into")
        raise Conflict("this call has ended already")
    if settings.dialing.mode == "observe":
        raise ObserveMode
    if not link_is_up(db, call.pbx, now):
        raise PbxDown
    return call


def _check_target(db: Session, settings: Settings, to: str) -> None:
    """A colleague is reached at any extension; whatever else is dialled passes the policy of our own dials."""
    colleague = db.scalar(select(Agent.id).where(Agent.extension == to, Agent.active.is_(True)).limit(1))
    if colleague is None:
        check_target(to, settings.dialing.regions)


def _own_phone(db: Session, settings: Settings, access: Access, call: Call) -> tuple[str, str]:
    """The phone that is to ring for who asks, and its extension. Raises Conflict (field "device")."""
    agent, state = db.get(Agent, access.agent), db.get(AgentState, access.agent)
    if agent is None:
        raise Forbidden
    seated = state.device if state is not None and state.state != presence.State.OFFLINE else None
    device = seated or access.device or (agent.devices[0] if len(agent.devices) == 1 else None)
    if device is None or device not in agent.devices:
        raise Conflict("choose your phone first: sign in with a device, or set it with your state", field="device")
    if presence.holders(db, [device]).get(device, agent.id) != agent.id:
        raise Conflict("another agent is signed in at your phone; choose another one", field="device")
    on_freeswitch = _pbx(settings, call.pbx).kind == "freeswitch"
    if device.startswith("user/") is not on_freeswitch:
        raise Conflict("your phone is not on the PBX of this call", field="device")
    return device, agent.extension or device.partition("/")[2].partition("@")[0]


def _pbx(settings: Settings, name: str) -> Pbx:
    try:
        return settings.find_pbx(name)
    except SettingsError:
        raise PbxDown from None


# --- carrying out ---


def order(command: Command, pbx: Pbx, ring_seconds: int, now: float) -> ActionOrder:
    """What a command of the mailbox asks the link to do. Raises Invalid for anything but what `act` writes.

    `now` is this machine's uptime.
    """
    data = command.data
    names = ("call", "agent", "asker", "device", "extension", "to", "digits", "sound", "side")
    if any(not isinstance(data.get(name), str | None) for name in names) or not data.get("call"):
        raise Invalid("a value is no text")
    try:
        action = Action(str(data.get("action")))
        side = None if data.get("side") is None else Side(data["side"])
        uuid.UUID(command.id)
    except ValueError:
        raise Invalid("there is no such action") from None
    made = ActionOrder(
        action=action,
        call=data["call"],
        command=command.id,
        context=pbx.context,
        ring_seconds=ring_seconds,
        until=now + outcome_seconds(action, ring_seconds),
        agent=data.get("agent"),
        asker=data.get("asker"),
        device=data.get("device"),
        extension=data.get("extension"),
        to=data.get("to"),
        digits=data.get("digits"),
        sound=data.get("sound"),
        side=side,
    )
    made.check()
    return made


def name_of(command: Command) -> str:
    """What a command does, for counters, logs and screens."""
    if command.kind != Kind.ACTION:
        return command.kind or "unknown"
    wanted = str(command.data.get("action"))
    return wanted if wanted in list(Action) else "unknown"


def lane(data: Mapping[str, Any]) -> Lane:
    """What must stay in order: the wishes of one person, or for one phone, in one call."""
    who = data.get("device") or data.get("agent") or data.get("asker")
    return str(data.get("call")), str(who), str(data.get("action")) in _ENDS_ANOTHER
