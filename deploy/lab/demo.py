"""The demo: the lab, Ringbridge, sample data, and callbacks that ring. `deploy/demo` starts it."""

from __future__ import annotations

import os
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import tomli_w

from bridge.commands.rest import Rest
from bridge.domain.errors import RingbridgeError, Unavailable
from bridge.services.supervisor import Child, Supervisor
from ringbridge_lab import freeswitch_installation, sample
from ringbridge_lab.errors import LabError
from ringbridge_lab.lab import Lab
from ringbridge_lab.state import KINDS
from ringbridge_lab.storefront import Storefront

FIRST_PORT = 8080
START_SECONDS = 120.0
CALLBACK_SECONDS = 60.0
PERSON_ANSWERS_AFTER = 8.0
"""Seconds that the demo's phone rings, so that a person sees the pop before it is answered."""
BEFORE_FIRST_RING = 3.0
_ENDED = frozenset({"done", "failed", "cancelled", "expired"})


@dataclass
class Demo:
    """What was made, as far as it was made."""

    folder: Path
    lab: Lab
    supervisor: Supervisor
    began: float
    last_lines: list[str]
    url: str = ""
    shop: Storefront | None = None
    ended: str | None = None
    """Why Ringbridge ended by itself."""

    def step(self, text: str) -> None:
        click.echo(f"[{time.monotonic() - self.began:5.1f} s] {text}")

    def wait(self, look: Callable[[], bool], seconds: float | None = None, what: str = "") -> None:
        """Supervise until it holds. Raises Unavailable, and Stopped where somebody pressed Ctrl-C."""

        def over() -> bool:
            if self.ended is not None:
                last = "\n".join(self.last_lines[-15:])
                raise Unavailable(f"Ringbridge {self.ended}; its last lines:\n{last}")
            return look()

        if not self.supervisor.run(over, seconds):
            if self.supervisor.asked_to_stop:
                raise Stopped
            raise Unavailable(f"{what} did not happen within {seconds:g} s; see {self.folder / 'ringbridge.log'}")


class Stopped(Exception):
    """Somebody asked for the end."""


@click.command()
@click.option("--once", is_flag=True, help="Place one callback, wait until it is done, end.")
@click.option("--dir", "folder", type=click.Path(path_type=Path), default=Path(".demo"), show_default=True)
@click.option("--port", type=click.IntRange(1, 65535), help="Where the web listens (default: 8080 or the next free).")
@click.option("--pbx", type=click.Choice(sorted(KINDS)), default="asterisk", show_default=True)
@click.option(
    "--freeswitch",
    type=click.Path(path_type=Path, exists=True),
    help="With --pbx freeswitch: its prefix, such as /usr/local/freeswitch, or its binary.",
)
@click.option("--look", is_flag=True, hidden=True, help="Only see whether it can be done.")
def demo(once: bool, folder: Path, port: int | None, pbx: str, freeswitch: Path | None, look: bool) -> int:
    """Bring up the lab and Ringbridge with sample data, and place a callback. Ctrl-C ends everything."""
    if freeswitch is not None and pbx != "freeswitch":
        raise click.UsageError("--freeswitch goes with --pbx freeswitch")
    if pbx == "freeswitch":
        freeswitch_installation.find(freeswitch)
    if look:
        return 0
    folder = folder.resolve()
    began = time.monotonic()
    # A demo that was killed may have left its lab running, of whatever kind.
    Lab(folder / "lab").down()
    lab = Lab(folder / "lab", pbx)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    shutil.rmtree(folder / "data", ignore_errors=True)
    log = (folder / "ringbridge.log").open("w", encoding="utf-8")
    state = Demo(folder, lab, Supervisor(lambda name, line: None), began, [])

    def say(name: str, line: str) -> None:
        print(line, file=log, flush=True)
        state.last_lines[:] = [*state.last_lines[-40:], line]
        # The supervisor would start it again; a demo rather says what is wrong.
        if name == "up" and "starting it again" in line:
            state.ended = line.partition(";")[0].removeprefix("ringbridge ")

    state.supervisor = Supervisor(say)
    state.supervisor.catch_signals()
    try:
        _bring_up(state, port, freeswitch)
        told = _sample(state)
        _first_callback(state, told)
        if once:
            state.step("The callback connected both phones and is done.")
        else:
            _keep_ringing(state, told)
    except Stopped:
        click.echo()
    finally:
        click.echo("Stopping ...")
        state.supervisor.stop()
        lab.down()
        if state.shop is not None:
            state.shop.close()
        log.close()
    click.echo("Everything is stopped.")
    return 0


def _bring_up(state: Demo, port: int | None, freeswitch: Path | None) -> None:
    state.step("The lab: two PBXs on loopback, a company and the world around it")
    state.lab.up(freeswitch=freeswitch, progress=lambda text: state.step(f"  {text}"))
    port = port or _free_port()
    state.url = f"http://127.0.0.1:{port}"
    settings = state.folder / "ringbridge.toml"
    handle = os.open(settings, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    table = {"name": "company", **state.lab.pbx_settings()}
    with os.fdopen(handle, "wb") as file:
        tomli_w.dump({"data_dir": "data", "http": {"bind": f"127.0.0.1:{port}"}, "pbx": [table]}, file)
    os.environ["RINGBRIDGE_CONFIG"] = str(settings)
    state.step(f"Ringbridge, on {state.url}")
    command = (sys.executable, "-P", "-m", "bridge.cli", "up")
    state.supervisor.start(Child("ringbridge", command, 10, 75, {"PYTHONUNBUFFERED": "1"}))
    rest = Rest(state.url, seconds=3)
    state.wait(lambda: _answers(rest, "/healthz"), START_SECONDS, "the start of Ringbridge")
    state.wait(lambda: _answers(rest, "/readyz"), START_SECONDS, "the link to the PBX")


def _sample(state: Demo) -> sample.Told:
    state.step("Sample data, through the REST API")
    password = secrets.token_urlsafe(12)
    user = ("--role", "administrator", "--name", "Administrator", "--password-file", "-")
    subprocess.run(
        [sys.executable, "-P", "-m", "bridge.cli", "user", "add", "admin", *user],
        input=password + "\n",
        text=True,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    # Another port is another origin, as a client's shop is.
    state.shop = Storefront(_free_port())
    admin = Rest(state.url).signed_in("admin", password)
    told = sample.create(admin, password, state.lab.device, [state.shop.origin])
    state.shop.open(state.url, told.site, sample.CONSENT)
    return told


def _first_callback(state: Demo, told: sample.Told) -> None:
    """As if somebody else were the agent: signs in over the API, and gets out of the way afterwards."""
    state.step("A callback, all by itself: agent 101 is signed in over the API, and a visitor asks to be called")
    state.lab.phone("101", answer_after=1.0)
    agent = Rest(state.url).signed_in("agent101", told.passwords["agent101"], state.lab.device("101"))
    agent.put("/api/v1/me/state", {"state": "ready", "device": state.lab.device("101")})
    status = _ask(state, told, sample.BRIEF_NUMBER, "Grace Hopper", "Please call about the spring sale.")
    seen: list[str] = []

    def done() -> bool:
        body = status()
        if body["status"] not in seen:
            seen.append(body["status"])
            state.step(f"  {body['status'].replace('_', ' ')}")
        return body["status"] in _ENDED

    state.wait(done, CALLBACK_SECONDS, "the end of the callback")
    body = status()
    invites = [row for row in state.lab.witness() if row.number == sample.BRIEF_NUMBER]
    if body["status"] != "done" or len(invites) != 1:
        raise Unavailable(
            f"the callback ended as {body['status']} ({body['reason'] or 'no reason'}), and the world saw "
            f"{len(invites)} calls to that number; see {state.folder / 'ringbridge.log'}"
        )
    # The person who signs in next finds an empty desk, and this call among the earlier ones.
    for call in agent.get("/api/v1/calls")["items"]:
        agent.post(f"/api/v1/calls/{call['id']}/disposition", {"disposition": "other", "note": "The demo's own call."})
    agent.put("/api/v1/me/state", {"state": "offline"})
    agent.delete("/api/v1/session")
    state.lab.phone("101", answer_after=PERSON_ANSWERS_AFTER)


def _keep_ringing(state: Demo, told: sample.Told) -> None:
    _tell(state, told)
    ready_since: float | None = None
    rung = False
    next_look = 0.0
    numbers = iter(sample.talking_numbers())
    keyboard = sys.stdin.isatty()

    def turn() -> bool:
        nonlocal ready_since, rung, next_look, keyboard
        now = time.monotonic()
        if now >= next_look:
            next_look = now + 1.0
            states = _where(told)
            ready_since = (ready_since or now) if "ready" in states else None
            if states == {"offline"}:
                # Whoever signs in next is rung without being asked, too.
                rung = False
        if ready_since is not None and not rung and now - ready_since >= BEFORE_FIRST_RING:
            rung = True
            _ring(state, told, next(numbers))
        if keyboard and select.select([sys.stdin], [], [], 0)[0]:
            line = sys.stdin.readline()
            keyboard = bool(line)
            if line.strip().lower() == "i":
                _call_in(state)
            elif line:
                _ring(state, told, next(numbers))
        return False

    state.wait(turn)


def _ring(state: Demo, told: sample.Told, number: str) -> None:
    person = sample.PEOPLE.get(number, ("A visitor", ""))
    try:
        _ask(state, told, number, person[0], "I am looking at the product page.")
        state.step(f"{person[0]} asked for a callback; the pop comes before the phone is answered.")
    except RingbridgeError as error:
        state.step(f"The callback was refused: {error.message}")


def _call_in(state: Demo) -> None:
    try:
        state.lab.call(sample.DIDS[0], caller=sample.CALLER, name="Ada Lovelace", hangup_after=60)
        state.step("Ada Lovelace calls the company's number.")
    except LabError as error:
        state.step(f"The lab could not call: {error}")


def _ask(state: Demo, told: sample.Told, number: str, name: str, note: str) -> Callable[[], dict[str, Any]]:
    """Ask for a callback as the form does; returns what tells its status."""
    visitor = Rest(state.url)
    made = visitor.post(
        "/api/v1/callbacks",
        {
            "site": told.site,
            "number": number,
            "name": name,
            "note": note,
            "page_url": "https://www.example.com/products/blue-door",
            "consent": sample.CONSENT,
        },
        {"Idempotency-Key": secrets.token_hex(16)},
    )

    def status() -> dict[str, Any]:
        body: dict[str, Any] = visitor.get(f"/api/v1/callbacks/{made['id']}", made["token"])
        return body

    return status


def _where(told: sample.Told) -> set[str]:
    """The states that the demo's own agents are in; empty where that is not known now."""
    try:
        board = told.admin.get("/api/v1/board")
    except RingbridgeError:
        return set()
    return {agent["state"] for agent in board["agents"] if agent["name"] in sample.AGENTS.values()}


def _answers(rest: Rest, path: str) -> bool:
    try:
        rest.get(path)
    except RingbridgeError:
        return False
    return True


def _free_port() -> int:
    for port in range(FIRST_PORT, FIRST_PORT + 200):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise Unavailable(f"no port from {FIRST_PORT} on is free; name one with --port")


def _tell(state: Demo, told: sample.Told) -> None:
    rows = [
        ("agent", "agent101", f"phone {state.lab.device('101')}"),
        ("supervisor", "supervisor", ""),
        ("administrator", "admin", ""),
    ]
    click.echo()
    click.secho(f"  Open {state.url}", bold=True)
    click.echo()
    for role, name, note in rows:
        click.echo(f"    {role:<14} {name:<12} {told.passwords[name]}   {note}")
    click.echo()
    click.echo("  Sign in as agent101, choose the phone and go to ready: a callback rings three seconds later.")
    if state.shop is not None:
        click.echo(f"  A client's web shop, with the callback button in its corner: {state.shop.origin}")
    click.echo(f"  The same form on a page of its own: {state.url}/call-me/{told.site}")
    click.echo("  Enter: another callback.   i and Enter: somebody calls in.   Ctrl-C: end everything.")
    click.echo(f"  Its lines are in {state.folder / 'ringbridge.log'}.")
    click.echo()


def main() -> None:
    """Run with the sentences and exit codes of `ringbridge`."""
    from bridge.cli import sentence

    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        sys.exit(demo.main(standalone_mode=False) or 0)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except LabError as error:
        click.echo(f"demo: {error}", err=True)
        sys.exit(1)
    except (RingbridgeError, OSError) as error:
        told = sentence(error)
        click.echo(f"demo: {told[0] if told else error}", err=True)
        sys.exit(told[1] if told else 1)


if __name__ == "__main__":
    main()
