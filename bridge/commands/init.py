"""`ringbridge init`: asks, shows what it will write, and writes it after a yes."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from pydantic import ValidationError

from bridge.domain.errors import Invalid, SettingsError, Unavailable
from bridge.services import freeswitch_setup, pbx_setup, settings_file
from bridge.services.pbx_setup import Change, Flavour, PbxUsers
from bridge.services.settings_file import Secret
from bridge.services.setups import SETUPS, Setup
from bridge.settings import Pbx

_FLAVOURS = [flavour.value for flavour in Flavour]
_HERE = {"127.0.0.1", "localhost", "::1"}
_SECRETS = ("secret", "command_secret")
_ELSEWHERE = "The PBX is on another machine. What is needed there is for you to put in place."


def _named(option: str) -> bool:
    """Whether this option was given."""
    return click.get_current_context().get_parameter_source(option) is ParameterSource.COMMANDLINE


def _not_found(setup: Setup, folder: Path) -> str:
    return (
        f"No {setup.name}'s configuration was found on this machine ({folder}). Where it is here, run this again with "
        f"--{setup.kind}-dir. Where the PBX is on another machine, put there what follows."
    )


def _demand_secrets(setup: Setup, path: Path, entry: dict[str, Any], pbx: Pbx, *, dials: bool) -> None:
    """Settings that somebody wrote are not changed, so they must name the secrets that the PBX will get."""
    lacking = []
    for key, user in (("secret", "username"), ("command_secret", "command_username")):
        needed = (key == "secret" or dials) and (setup.kind == "asterisk" or "@" in getattr(pbx, user))
        if entry and needed and not (key in entry or f"{key}_file" in entry):
            lacking += [] if user in entry else [f'{user} = "{getattr(pbx, user)}"']
            lacking.append(f'{key}_file = "{path.parent / "secrets" / f"{pbx.name}-{key}"}"')
    if lacking:
        raise SettingsError(
            f"{path} names PBX {pbx.name!r} without all that is needed: add {' and '.join(lacking)} to its [[pbx]] "
            "table, then run this again; a file that is not there yet is made"
        )


def _target() -> Path:
    """The file that $RINGBRIDGE_CONFIG or --config names, whether it is there or not; else one right here."""
    return Path(os.environ.get("RINGBRIDGE_CONFIG") or "ringbridge.toml").resolve()


def _own_address(host: str) -> str:
    """The address that this machine reaches the PBX from. Nothing is sent."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(address)
            return str(probe.getsockname()[0])
    except OSError:
        return "127.0.0.1"


def _permit(setup: Setup, address: str) -> str:
    """The address as the PBX writes it down: with a mask for the AMI. Raises Invalid."""
    if "/" in address or setup.kind == "freeswitch":
        return address
    try:
        return f"{address}/255.255.255.255" if ip_address(address).version == 4 else f"{address}/128"
    except ValueError:
        raise Invalid(f"--permit: {address!r} is no address", field="permit") from None


def show(changes: list[Change]) -> None:
    """The diffs, coloured where a terminal shows it."""
    for change in changes:
        if change.secret:
            click.echo(f"+++ {change.path} (a new secret, mode 0600, not shown)")
            continue
        for line in change.diff().splitlines():
            colour = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1])
            click.echo(click.style(line, fg=colour) if colour else line)


@click.command()
@click.option("--name", help="What to call the PBX (default: main).")
@click.option("--kind", type=click.Choice(["asterisk", "freeswitch"]), help="What the PBX is.")
@click.option("--host", help="Where the PBX's AMI or event socket listens (default: 127.0.0.1).")
@click.option("--port", type=click.IntRange(1, 65535), help="Its port (default: 5038, FreeSWITCH 8021).")
@click.option("--asterisk-dir", type=click.Path(path_type=Path), default=Path("/etc/asterisk"), show_default=True)
@click.option("--freeswitch-dir", type=click.Path(path_type=Path), help="Where freeswitch.xml is (default: found out).")
@click.option("--flavour", type=click.Choice(_FLAVOURS), help="Who owns the PBX's files (default: found out).")
@click.option("--context", help="The context in which agents' phones dial (default: from-internal, default).")
@click.option("--dial", help="How a number is dialled (default: PJSIP/{number}@trunk, sofia/gateway/trunk/{number}).")
@click.option(
    "--trunk", "trunks", multiple=True, help="What leads outside, such as PJSIP/trunk or sofia/external; repeatable."
)
@click.option("--caller-id", "caller_ids", multiple=True, help="A number that may be shown to customers; repeatable.")
@click.option("--region", "regions", multiple=True, help="A region that may be dialled (default: US); repeatable.")
@click.option("--mode", type=click.Choice(["observe", "dial"]), help="Only listen and pop, or place calls too.")
@click.option("--permit", help="The address that the PBX lets in (default: this machine's).")
@click.option("--bind", help="Where the web listens (default: 127.0.0.1:8080).")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Where data lives (default: data, beside it).")
@click.option("--yes", is_flag=True, help="Ask nothing: defaults where no option says otherwise, and write.")
@click.option("--dry-run", is_flag=True, help="Show what would be written, and write nothing.")
@click.option("--reload", is_flag=True, help="Have a PBX on this machine read its configuration again afterwards.")
def init(
    asterisk_dir: Path, freeswitch_dir: Path | None, yes: bool, dry_run: bool, reload: bool, **options: Any
) -> int:
    """Write the settings, and what the PBX needs: a user that reads, one that dials, and our dialplan contexts.

    Everything is shown first, and nothing is changed without a yes. The PBX is never restarted, and reloaded only with
    --reload. Run it again to change --mode; what is there already stays.
    """
    ask = _asker(options, yes or dry_run)
    path = _target()
    known = settings_file.existing(path)
    entries = known.get("pbx", [])
    folders = {"asterisk": asterisk_dir, "freeswitch": freeswitch_dir or freeswitch_setup.find()}
    there = "asterisk" if freeswitch_dir is None and asterisk_dir.exists() else "freeswitch"
    guess = str(entries[0].get("kind", "asterisk")) if entries else there if folders[there] else "asterisk"
    kind = ask("kind", "What is the PBX? (asterisk, freeswitch)", guess)
    setup = SETUPS.get(kind)
    if setup is None:
        raise Invalid(f"kind is asterisk or freeswitch, not {kind!r}", field="kind")
    folder = (folders[kind] or freeswitch_setup.FOLDERS[0]).resolve()
    name = ask("name", "What shall the PBX be called?", next((p["name"] for p in entries), "main"))
    entry: dict[str, Any] = next((p for p in entries if p["name"] == name), {})
    if entry.get("kind", "asterisk") != kind and entry:
        raise Invalid(f"the settings have a PBX {name!r} of another kind; give this one a --name of its own")
    host = ask("host", f"Where does its {setup.interface} listen?", entry.get("host", "127.0.0.1"))
    flavour = _flavour(setup, options["flavour"], host, folder)
    unseen = flavour is Flavour.REMOTE and options["flavour"] is None and host in _HERE
    if unseen and _named(f"{kind}_dir"):
        raise Invalid(f"--{kind}-dir: there is no {setup.marks} in {folder}", field=f"{kind}_dir")
    before = known.get("dialing", {}).get("mode", "dial") if known else "observe"
    mode = ask("mode", "Observe only, or place calls too? (observe, dial; observe is the safe beginning)", before)
    pbx, secrets = _describe(setup, path, ask, options, {**entry, "name": name, "kind": kind, "host": host})
    _demand_secrets(setup, path, entry, pbx, dials=mode == "dial")
    permit = _own_address(host)
    if kind == "asterisk" or flavour is Flavour.REMOTE:
        permit = ask("permit", "From which address will Ringbridge connect?", permit)
    users = PbxUsers(
        pbx.username,
        secrets[0].value,
        pbx.command_username,
        secrets[1].value if mode == "dial" else None,
        _permit(setup, permit),
    )
    named = [key for key in _SECRETS if not entry or f"{key}_file" in entry]
    ours = [made.change() for key, made in zip(_SECRETS, secrets, strict=True) if made.made and key in named]
    settings = settings_file.plan(
        path,
        pbx,
        mode=mode,
        bind=options["bind"] or "127.0.0.1:8080",
        data_dir=options["data_dir"] or Path("data"),
        regions=options["regions"] or ("US",),
    )
    ours += [settings] if settings is not None else []
    by_hand = setup.by_hand(flavour, users)
    theirs = [] if flavour is Flavour.REMOTE else setup.plan_install(folder, flavour, users)
    written = _write([*ours, *theirs], yes=yes, dry_run=dry_run)
    if written is False:
        return 1
    reloads = setup.reload(pbx.port)
    _tell(by_hand, reloads, flavour, _not_found(setup, folder) if unseen else _ELSEWHERE, dry_run=dry_run)
    if flavour is not Flavour.REMOTE:
        for hint in setup.hints(folder):
            click.echo(f"Look at this: {hint}.")
        _reload(reloads, setup.reloaded, bool(theirs), reload and not dry_run, yes)
    if not dry_run:
        click.echo("Next: `ringbridge check`, then `ringbridge user add`, then `ringbridge up`.")
    return 0


def _flavour(setup: Setup, told: str | None, host: str, folder: Path) -> Flavour:
    if told is None:
        return setup.detect(folder) if host in _HERE else Flavour.REMOTE
    flavour = Flavour(told)
    if flavour not in setup.flavours:
        raise Invalid(f"--flavour {told} is not of a {setup.name}", field="flavour")
    return flavour


def _asker(options: dict[str, Any], silent: bool) -> Callable[[str, str, str], str]:
    def ask(name: str, question: str, default: str) -> str:
        given = options.get(name)
        if given is not None and given != ():
            return str(given)
        return default if silent else str(click.prompt(question, default=default))

    return ask


def _describe(
    setup: Setup, path: Path, ask: Callable[[str, str, str], str], options: dict[str, Any], entry: dict[str, Any]
) -> tuple[Pbx, list[settings_file.Secret]]:
    """The PBX as the settings will name it, and its two secrets; `entry` is what they say now. Raises Invalid."""
    folder = path.parent / "secrets"
    secrets = []
    for key in _SECRETS:
        file = path.parent / entry.get(f"{key}_file", folder / f"{entry['name']}-{key}")
        told = entry.get(key)
        secrets.append(settings_file.secret_in(file) if told is None else Secret(file, str(told), made=False))
    usual = {**setup.defaults, **entry}
    if setup.kind == "freeswitch" and "port" in entry and "username" not in entry:
        # Settings of before, with the event socket's own password: they stay so.
        usual |= {"username": "", "command_username": entry.get("command_username", "")}
    dial = ask("dial", "How is a customer's number dialled?", usual["dial"])
    question, trunk, others = setup.trunks(dial)
    try:
        pbx = Pbx.model_validate(
            entry
            | {
                "port": int(ask("port", "On which port?", str(usual["port"]))),
                "username": usual["username"],
                "secret_file": secrets[0].path,
                "command_username": usual["command_username"],
                "command_secret_file": secrets[1].path,
                "context": ask("context", "In which context do agents' phones dial?", usual["context"]),
                "dial": dial,
                "trunks": options["trunks"] or entry.get("trunks") or (*others, ask("trunk", question, trunk)),
                "caller_ids": options["caller_ids"] or entry.get("caller_ids", ()),
                "mirror_queues": entry.get("mirror_queues", True),
            }
        )
    except ValueError as error:
        faults = error.errors(include_url=False) if isinstance(error, ValidationError) else []
        told = "; ".join(
            f"{'.'.join(map(str, fault['loc']))}: {fault['msg'].removeprefix('Value error, ')}" for fault in faults
        )
        raise Invalid(told or "the port must be a number") from None
    return pbx, secrets


def _write(changes: list[Change], *, yes: bool, dry_run: bool) -> bool | None:
    """Show and write. None where nothing had to be, False where the answer was no."""
    if not changes:
        click.echo("Everything is there already; nothing to write.")
        return None
    show(changes)
    if dry_run:
        click.echo("Dry run: nothing was written.")
        return True
    if not yes and not click.confirm(f"Write {len(changes)} file(s)?", default=False):
        click.echo("Nothing was changed.")
        return False
    for change in changes:
        if change.secret:
            change.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    for backup in pbx_setup.apply(changes, datetime.now(UTC)):
        click.echo(f"Backup: {backup}")
    return True


def _tell(
    steps: list[tuple[str, str]], reloads: tuple[str, ...], flavour: Flavour, why: str, *, dry_run: bool
) -> None:
    """What is left to be done by hand, and why, where the PBX's files are not here."""
    if flavour is Flavour.REMOTE:
        click.echo(f"\n{why}")
    for sentence, text in steps:
        # The secrets are needed there; a dry run has none that will last.
        click.echo(f"\n{sentence}\n----- from here -----")
        click.echo(pbx_setup.hide_secrets(text) if dry_run else text, nl=False)
        click.echo("----- to here -----")
    if flavour is Flavour.REMOTE:
        click.echo("\nThen there:")
        for command in reloads:
            click.echo(f"    {command}")


def _reload(reloads: tuple[str, ...], what: str, changed: bool, wanted: bool, yes: bool) -> None:
    if not changed and not wanted:
        return
    if not wanted or not (yes or click.confirm(f"Reload {what} of the PBX now?", default=False)):
        click.echo("Let the PBX read it (no call is touched by that):")
        for command in reloads:
            click.echo(f"    {command}")
        return
    for command in reloads:
        try:
            done = subprocess.run(shlex.split(command), capture_output=True, text=True, timeout=30, check=False)
        except (OSError, subprocess.TimeoutExpired):
            raise Unavailable(
                f"everything is written, but `{command}` could not be run; run it yourself on the PBX"
            ) from None
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip() or done.returncode
            raise Unavailable(f"everything is written, but `{command}` said: {said}; run it yourself on the PBX")
        click.echo(f"Done: {command}")
