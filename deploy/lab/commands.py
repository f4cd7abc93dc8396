"""`ringbridge lab`: bring the lab up, play its people, take it down."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import click

from ringbridge_lab.errors import LabError
from ringbridge_lab.lab import Behaviour, Caller, Lab
from ringbridge_lab.state import KINDS

P = ParamSpec("P")
R = TypeVar("R")

_dir_option = click.option(
    "--dir", "directory", type=click.Path(path_type=Path, file_okay=False), help="The lab's folder."
)
_json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


def _plain_errors(function: Callable[P, R]) -> Callable[P, R]:
    """A LabError is one sentence and exit code 1."""

    @wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except LabError as error:
            raise click.ClickException(str(error)) from None

    return wrapped


@click.group()
def lab() -> None:
    """A real PBX to try Ringbridge on: a company and the world around it, on loopback."""


@lab.command()
@_dir_option
@click.option(
    "--asterisk",
    type=click.Path(path_type=Path, exists=True),
    help="An asterisk binary, or a root folder that holds one.",
)
@click.option(
    "--pbx",
    type=click.Choice(sorted(KINDS)),
    help="What the company's PBX is (default: what it is where the lab is up, else asterisk).",
)
@click.option(
    "--freeswitch",
    type=click.Path(path_type=Path, exists=True),
    help="A FreeSWITCH's prefix, such as /usr/local/freeswitch, or its binary.",
)
@_json_option
@_plain_errors
def up(directory: Path | None, asterisk: Path | None, pbx: str | None, freeswitch: Path | None, as_json: bool) -> None:
    """Start both PBXs, the company and the world, and wait until calls can be made."""
    if pbx == "asterisk" and freeswitch is not None:
        raise click.UsageError("--freeswitch goes with --pbx freeswitch")
    place = Lab(directory, pbx or ("freeswitch" if freeswitch else None))
    started = place.up(
        asterisk=asterisk, freeswitch=freeswitch, progress=lambda text: click.echo(text, err=True)
    )
    if as_json:
        click.echo(json.dumps(place.info, indent=2))
        return
    if not started:
        click.echo("The lab is already up.")
    _describe(place)


@lab.command()
@_dir_option
@_plain_errors
def down(directory: Path | None) -> None:
    """End both processes; the witness's file and the recordings stay."""
    place = Lab(directory)
    was_up = bool(place.running())
    place.down()
    click.echo("The lab is down." if was_up else f"No lab was up in {place.dir}.")


@lab.command()
@_dir_option
@_json_option
@_plain_errors
def status(directory: Path | None, as_json: bool) -> None:
    """Say what runs and where; exit code 3 where the lab is not up."""
    place = Lab(directory)
    running = place.running()
    whole = bool(running) and all(running.values())
    if as_json:
        facts: dict[str, Any] = place.info if running else {"dir": str(place.dir)}
        click.echo(json.dumps({"up": whole, "running": running, **facts}, indent=2))
    elif running:
        for role, runs in running.items():
            click.echo(f"{role}: {'runs' if runs else 'has ended'}")
        _describe(place)
    else:
        click.echo(f"No lab is up in {place.dir}; bring one up with `ringbridge lab up`.")
    if not whole:
        click.get_current_context().exit(3)


@lab.command()
@_dir_option
@click.option("--did", "to", help="The company's number to call, such as +12125550101.")
@click.option("--phone", help="Call from this agent's phone (101 to 105) instead of from outside.")
@click.option("--dial", help="With --phone: the number or extension to dial.")
@click.option("--from", "caller", default="+16465550111", show_default=True, help="The caller's number.")
@click.option("--name", default="", help="The caller's display name; any characters.")
@click.option("--withheld", is_flag=True, help="Hide the caller's number.")
@click.option(
    "--hangup-after", type=click.FloatRange(0.1, 3600), help="Hang up after so many seconds of talk."
)
@click.option(
    "--ring",
    type=click.FloatRange(0.5, 3600),
    default=120.0,
    show_default=True,
    help="Give up after so many seconds without an answer.",
)
@click.option("--wait", is_flag=True, help="Wait until the call is over.")
@_json_option
@_plain_errors
def call(
    directory: Path | None,
    to: str | None,
    phone: str | None,
    dial: str | None,
    caller: str,
    name: str,
    withheld: bool,
    hangup_after: float | None,
    ring: float,
    wait: bool,
    as_json: bool,
) -> None:
    """Play a caller who rings the company, or an agent who dials."""
    target = dial if phone else to
    if not target:
        raise click.UsageError("name the number to call with --did, or with --phone and --dial")
    placed = Lab(directory).call(
        target, caller=caller, name=name, withheld=withheld, hangup_after=hangup_after, ring=ring, phone=phone
    )
    placed.wait_for("dialing")
    if wait:
        placed.wait_for("ended", seconds=3600)
    _report(placed, as_json)


@lab.command()
@_dir_option
@click.argument("extension")
@click.option("--answer-after", type=click.FloatRange(0, 3600), help="Answer after so many seconds.")
@click.option("--no-answer", "behaviour", flag_value=Behaviour.NO_ANSWER.value, help="Ring and never answer.")
@click.option("--busy", "behaviour", flag_value=Behaviour.BUSY.value, help="Be busy (486).")
@click.option("--reject", "behaviour", flag_value=Behaviour.REJECT.value, help="Decline (603).")
@click.option(
    "--hangup-after", type=click.FloatRange(0.1, 3600), help="Hang up after so many seconds of talk."
)
@click.option("--hangup", is_flag=True, help="Hang up now.")
@click.option("--press", help="Press these keys now, such as ##102.")
@_plain_errors
def phone(
    directory: Path | None,
    extension: str,
    answer_after: float | None,
    behaviour: str | None,
    hangup_after: float | None,
    hangup: bool,
    press: str | None,
) -> None:
    """Say what an agent's phone does when it is called, or do something with it now."""
    if behaviour is not None and answer_after is not None:
        raise click.UsageError("--answer-after goes with a phone that answers")
    place = Lab(directory)
    if press:
        place.press_phone(extension, press)
    if hangup:
        ended = place.hang_up_phone(extension)
        click.echo(f"{extension} hung up {ended} call(s).")
    if press or hangup:
        return
    place.phone(
        extension,
        Behaviour(behaviour or "answer"),
        answer_after=1.0 if answer_after is None else answer_after,
        hangup_after=hangup_after,
    )
    click.echo(f"{extension} will {_says(behaviour, answer_after)}.")


@lab.command("restart-company")
@_dir_option
@click.option("--kill", is_flag=True, help="kill -9 instead of an orderly end.")
@_plain_errors
def restart_company(directory: Path | None, kill: bool) -> None:
    """Stop the company's PBX and start it again; the world goes on."""
    Lab(directory).restart_company(kill=kill)
    click.echo("The company's PBX is up again.")


@lab.command()
@_dir_option
@click.option("--attempt", help="Only the INVITEs of this attempt.")
@_json_option
@_plain_errors
def witness(directory: Path | None, attempt: str | None, as_json: bool) -> None:
    """Print every INVITE that reached the world."""
    rows = Lab(directory).witness(attempt=attempt)
    if as_json:
        click.echo(
            json.dumps(
                [
                    {"at": row.at.isoformat(), "call_id": row.call_id, "number": row.number}
                    | {"attempt": row.attempt, "from": row.caller, "leg": row.leg}
                    for row in rows
                ],
                indent=2,
            )
        )
        return
    for row in rows:
        click.echo(
            f"{row.at:%H:%M:%S.%f}  {row.number:<14} from {row.caller or '-':<14} {row.attempt or '-'}"
        )


def _describe(place: Lab) -> None:
    company = place.info["company"]
    name, version = place.company.name, place.info["version"]
    click.echo(f"{name} {version} in {place.dir}; everything is in {place.dir / 'lab.json'}.")
    users = " and ".join(filter(None, (company[of]["username"] for of in ("reader", "command"))))
    protocol = {"asterisk": "AMI", "freeswitch": "ESL"}[company["kind"]]
    click.echo(f"{protocol}: {company['host']}:{company['port']}, " + (f"users {users}." if users else "one password."))
    click.echo("Try: ringbridge lab call --did +12125550101 --hangup-after 5")


def _report(placed: Caller, as_json: bool) -> None:
    steps = placed.steps()
    if as_json:
        click.echo(
            json.dumps(
                {
                    "id": placed.id,
                    "steps": [
                        {"at": row.at.isoformat(), "step": row.step, "detail": row.detail} for row in steps
                    ],
                }
            )
        )
        return
    click.echo(f"Call {placed.id}: " + ", ".join(f"{row.step} ({row.detail})" for row in steps))


def _says(behaviour: str | None, answer_after: float | None) -> str:
    if behaviour is None:
        return f"answer after {1.0 if answer_after is None else answer_after:g} s"
    return {"no-answer": "ring and never answer", "busy": "be busy", "reject": "decline"}[behaviour]
