"""What is done to a call that is under way: every answer is 202, and the outcome comes as an event `command`."""

from __future__ import annotations

from contextlib import AbstractContextManager

from flask import Blueprint, Response
from sqlalchemy.orm import Session

from bridge.api.action_shapes import (
    Accepted,
    Conference,
    Digits,
    Nothing,
    Play,
    Record,
    Redirect,
    Transfer,
)
from bridge.api.contract import answer, view
from bridge.api.parts import now, parts
from bridge.domain.actions import Action, Side
from bridge.services import actions
from bridge.services.access import LEADERS, STAFF, Access
from bridge.services.actions import Wish

blueprint = Blueprint("actions", __name__, url_prefix="/api/v1/calls/<call_id>")

_RECORDING = {"on": Action.RECORD, "paused": Action.PAUSE, "off": Action.UNRECORD}


@blueprint.post("/hangup")
@view("calls", roles=STAFF, body=Nothing, answers=Accepted, status=202)
def hang_up(access: Access, call_id: str, body: Nothing) -> Response:
    """Hang up: your own leg as an agent, the whole call as a supervisor.

    The outcome of this and of all other actions comes as an event `command` on `/api/v1/me/events`: `command` (the
    id of this answer), `action`, `ok`, `reason`, `detail` (a sentence) and `data`. `done`: the PBX says that it
    happened; `sent`: the PBX took it; `failed`: tried, and nothing came of it; `timeout` and `unknown`: it may have
    happened, look at the call; every other reason: nothing was done.
    """
    with _looking(access) as db:
        letter = actions.hang_up(db, parts().settings, access, now(), call_id)
    return _accepted(access, letter)


@blueprint.post("/hold")
@view("calls", roles=STAFF, body=Nothing, answers=Accepted, status=202)
def hold(access: Access, call_id: str, body: Nothing) -> Response:
    """Put the other side on hold."""
    return _act(access, call_id, Wish(Action.HOLD))


@blueprint.post("/resume")
@view("calls", roles=STAFF, body=Nothing, answers=Accepted, status=202)
def resume(access: Access, call_id: str, body: Nothing) -> Response:
    """Take the other side off hold."""
    return _act(access, call_id, Wish(Action.RESUME))


@blueprint.post("/transfer")
@view("calls", roles=STAFF, body=Transfer, answers=Accepted, status=202)
def transfer(access: Access, call_id: str, body: Transfer) -> Response:
    """Send the other side on (`blind`), or ask somebody first (`attended`).

    Attended, the other side waits while you are connected with `to`; then `transfer/complete`, also while it still
    rings, or `transfer/cancel`.
    """
    action = Action.CONSULT if body.kind == "attended" else Action.TRANSFER
    return _act(access, call_id, Wish(action, to=body.to))


@blueprint.post("/transfer/complete")
@view("calls", roles=STAFF, body=Nothing, answers=Accepted, status=202)
def complete_transfer(access: Access, call_id: str, body: Nothing) -> Response:
    """Complete an attended transfer: you leave, the others go on."""
    return _act(access, call_id, Wish(Action.COMPLETE))


@blueprint.post("/transfer/cancel")
@view("calls", roles=STAFF, body=Nothing, answers=Accepted, status=202)
def cancel_transfer(access: Access, call_id: str, body: Nothing) -> Response:
    """End the consultation of an attended transfer: back to who waits."""
    return _act(access, call_id, Wish(Action.RETURN))


@blueprint.post("/conference")
@view("calls", roles=STAFF, body=Conference, answers=Accepted, status=202)
def confer(access: Access, call_id: str, body: Conference) -> Response:
    """Call a third person into the call; all hear each other."""
    return _act(access, call_id, Wish(Action.CONFERENCE, to=body.to))


@blueprint.post("/park")
@view("calls", roles=STAFF, body=Nothing, answers=Accepted, status=202)
def park(access: Access, call_id: str, body: Nothing) -> Response:
    """Park the other side; the outcome's `data` has the `slot`, which any phone may dial to fetch it."""
    return _act(access, call_id, Wish(Action.PARK))


@blueprint.post("/retrieve")
@view("calls", roles=STAFF, body=Nothing, answers=Accepted, status=202)
def retrieve(access: Access, call_id: str, body: Nothing) -> Response:
    """Fetch a parked call of your clients: your own phone rings, then you are connected."""
    return _act(access, call_id, Wish(Action.RETRIEVE))


@blueprint.post("/pickup")
@view("calls", roles=STAFF, body=Nothing, answers=Accepted, status=202)
def pick_up(access: Access, call_id: str, body: Nothing) -> Response:
    """Take a call of your clients that rings elsewhere: your own phone rings, then you are connected."""
    return _act(access, call_id, Wish(Action.PICKUP))


@blueprint.post("/redirect")
@view("calls", roles=STAFF, body=Redirect, answers=Accepted, status=202)
def redirect(access: Access, call_id: str, body: Redirect) -> Response:
    """Send a caller who has nobody yet (it rings, they wait in a queue) elsewhere."""
    return _act(access, call_id, Wish(Action.REDIRECT, to=body.to))


@blueprint.post("/play")
@view("calls", roles=STAFF, body=Play, answers=Accepted, status=202)
def play(access: Access, call_id: str, body: Play) -> Response:
    """Play one of the PBX's sound files into the call, once."""
    return _act(access, call_id, Wish(Action.PLAY, sound=body.sound, side=Side(body.to)))


@blueprint.post("/stop")
@view("calls", roles=STAFF, body=Nothing, answers=Accepted, status=202)
def stop(access: Access, call_id: str, body: Nothing) -> Response:
    """Stop what `play` plays."""
    return _act(access, call_id, Wish(Action.STOP))


@blueprint.post("/dtmf")
@view("calls", roles=STAFF, body=Digits, answers=Accepted, status=202)
def send_digits(access: Access, call_id: str, body: Digits) -> Response:
    """Send digits as tones to the other side, such as to a voice menu."""
    return _act(access, call_id, Wish(Action.DTMF, digits=body.digits))


@blueprint.post("/record")
@view("calls", roles=STAFF, body=Record, answers=Accepted, status=202)
def record(access: Access, call_id: str, body: Record) -> Response:
    """Record the call (`on`), leave out what is said now (`paused`, then `on` again), or end the recording (`off`).

    The outcome's `data` has the `file`, below the PBX's own folder of recordings.
    """
    return _act(access, call_id, Wish(_RECORDING[body.state]))


@blueprint.post("/listen")
@view("calls", roles=LEADERS, body=Nothing, answers=Accepted, status=202)
def listen(access: Access, call_id: str, body: Nothing) -> Response:
    """Listen to a call: your own phone rings, then you hear both sides and nobody hears you.

    `whisper` and `barge` then change who hears you; hang up at the phone to leave. Each leaves a row in the audit log.
    """
    return _act(access, call_id, Wish(Action.LISTEN))


@blueprint.post("/whisper")
@view("calls", roles=LEADERS, body=Nothing, answers=Accepted, status=202)
def whisper(access: Access, call_id: str, body: Nothing) -> Response:
    """Speak to the agent alone; the customer does not hear you."""
    return _act(access, call_id, Wish(Action.WHISPER))


@blueprint.post("/barge")
@view("calls", roles=LEADERS, body=Nothing, answers=Accepted, status=202)
def barge(access: Access, call_id: str, body: Nothing) -> Response:
    """Join the call; all hear you."""
    return _act(access, call_id, Wish(Action.BARGE))


def _act(access: Access, call_id: str, wish: Wish) -> Response:
    with _looking(access) as db:
        letter = actions.act(db, parts().settings, access, now(), call_id, wish)
    return _accepted(access, letter)


def _looking(access: Access) -> AbstractContextManager[Session]:
    """A transaction; what an agent does writes nothing, so that it waits for nobody who writes."""
    room = parts()
    return room.writing() if access.role in LEADERS else room.database.read()


def _accepted(access: Access, letter: actions.Letter) -> Response:
    room = parts()
    return answer(Accepted(command=actions.send(room.redis, room.settings, access, letter)), 202)
