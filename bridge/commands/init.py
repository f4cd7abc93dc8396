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
from pydantic import ValidationError

from bridge.domain.errors import Invalid, SettingsError, Unavailable
from bridge.services import pbx_setup, settings_file
from bridge.services.pbx_setup import AmiUsers, Change, Flavour
from bridge.settings import Pbx


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


def _permit(address: str) -> str:
    """address/mask for the AMI. Raises Invalid."""
    if "/" in address:
        return address
    try:
        return f"{address}/255.255.255.255" if ip_address(address).version == 4 else f"{address}/128"
    except ValueError:
        raise Invalid(f"--permit: {address!r} is no address", field="permit") from None


def show(changes: list[Change]) -> None:
    """The diffs, coloured where a terminal shows it."""
    for change in changes:
        if change.path.parent.name == "secrets":
            click.echo(f"+++ {change.path} (a new secret, mode 0600, not shown)")
            continue
        for line in change.diff().splitlines():
            colour = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1])
            click.echo(click.style(line, fg=colour) if colour else line)


@click.command()
@click.option("--name", help="What to call the PBX (default: main).")
@click.option("--kind", type=click.Choice(["asterisk", "freeswitch"]), help="What the PBX is.")
@click.option("--host", help="Where the PBX's AMI listens (default: 127.0.0.1).")
@click.option("--port", type=click.IntRange(1, 65535), help="The AMI's port (default: 5038).")
@click.option("--asterisk-dir", type=click.Path(path_type=Path), default=Path("/etc/asterisk"), show_default=True)
@click.option("--flavour", type=click.Choice(list(Flavour)), help="Who owns the PBX's files (default: found out).")
@click.option("--context", help="The context in which agents' phones dial (default: from-internal).")
@click.option("--dial", help='How a number is dialled (default: "PJSIP/{number}@trunk").')
@click.option("--trunk", "trunks", multiple=True, help="A device that leads outside, such as PJSIP/trunk; repeatable.")
@click.option("--caller-id", "caller_ids", multiple=True, help="A number that may be shown to customers; repeatable.")
@click.option("--region", "regions", multiple=True, help="A region that may be dialled (default: US); repeatable.")
@click.option("--mode", type=click.Choice(["observe", "dial"]), help="Only listen and pop, or place calls too.")
@click.option("--permit", help="The address that the AMI lets in (default: this machine's).")
@click.option("--bind", help="Where the web listens (default: 127.0.0.1:8080).")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Where data lives (default: data, beside it).")
@click.option("--yes", is_flag=True, help="Ask nothing: defaults where no option says otherwise, and write.")
@click.option("--dry-run", is_flag=True, help="Show what would be written, and write nothing.")
@click.option("--reload", is_flag=True, help="Reload the manager and the dialplan of a PBX on this machine afterwards.")
def init(asterisk_dir: Path, yes: bool, dry_run: bool, reload: bool, **options: Any) -> int:
    """Write the settings, and what the PBX needs: an AMI user that reads, one that dials, and our dialplan contexts.

    Everything is shown first, and nothing is changed without a yes. The PBX is never restarted, and reloaded only with
    --reload. Run it again to change --mode; what is there already stays.
    """
    asterisk_dir = asterisk_dir.resolve()
    ask = _asker(options, yes or dry_run)
    if ask("kind", "What is the PBX? (asterisk, freeswitch)", "asterisk") == "freeswitch":
        raise SettingsError(
            "FreeSWITCH (and FusionPBX) is not supported by this version yet, Asterisk and FreePBX are; "
            "nothing was changed"
        )
    path = _target()
    known = settings_file.existing(path)
    name = ask("name", "What shall the PBX be called?", next((p["name"] for p in known.get("pbx", [])), "main"))
    entry: dict[str, Any] = next((p for p in known.get("pbx", []) if p["name"] == name), {})
    host = ask("host", "Where does its AMI listen?", entry.get("host", "127.0.0.1"))
    local = host in {"127.0.0.1", "localhost", "::1"}
    flavour = Flavour(options["flavour"]) if options["flavour"] else (
        pbx_setup.detect(asterisk_dir) if local else Flavour.REMOTE
    )
    before = known.get("dialing", {}).get("mode", "dial") if known else "observe"
    mode = ask("mode", "Observe only, or place calls too? (observe, dial; observe is the safe beginning)", before)
    pbx, secrets = _describe(path, ask, options, {**entry, "name": name, "host": host})
    permit = _permit(ask("permit", "From which address will Ringbridge connect?", _own_address(host)))
    users = AmiUsers(
        pbx.username,
        secrets[0].value,
        pbx.command_username,
        secrets[1].value if mode == "dial" else None,
        permit,
    )
    ours = [secret.change() for secret in secrets if secret.made]
    settings = settings_file.plan(
        path,
        pbx,
        mode=mode,
        bind=options["bind"] or "127.0.0.1:8080",
        data_dir=options["data_dir"] or Path("data"),
        regions=options["regions"] or ("US",),
    )
    ours += [settings] if settings is not None else []
    theirs = [] if flavour is Flavour.REMOTE else pbx_setup.plan_install(asterisk_dir, flavour, users)
    written = _write([*ours, *theirs], yes=yes, dry_run=dry_run)
    if written is False:
        return 1
    if flavour is Flavour.REMOTE:
        _paste(users, dry_run=dry_run)
    else:
        _reload(bool(theirs), reload and not dry_run, yes)
        for hint in pbx_setup.manager_hints(asterisk_dir):
            click.echo(f"Look at this: {hint}.")
    if not dry_run:
        click.echo("Next: `ringbridge check`, then `ringbridge user add`, then `ringbridge up`.")
    return 0


def _asker(options: dict[str, Any], silent: bool) -> Callable[[str, str, str], str]:
    def ask(name: str, question: str, default: str) -> str:
        given = options.get(name)
        if given is not None and given != ():
            return str(given)
        return default if silent else str(click.prompt(question, default=default))

    return ask


def _describe(
    path: Path, ask: Callable[[str, str, str], str], options: dict[str, Any], entry: dict[str, Any]
) -> tuple[Pbx, list[settings_file.Secret]]:
    """The PBX as the settings will name it, and its two secrets; `entry` is what they say now. Raises Invalid."""
    folder = path.parent / "secrets"
    secrets = [
        settings_file.secret_in(Path(entry.get(f"{key}_file", folder / f"{entry['name']}-{key}")))
        for key in ("secret", "command_secret")
    ]
    dial = ask("dial", "How is a customer's number dialled?", entry.get("dial", "PJSIP/{number}@trunk"))
    technology, _, rest = dial.partition("/")
    trunk = f"{technology}/{rest.rpartition('@')[2]}"
    try:
        pbx = Pbx.model_validate(
            entry
            | {
                "port": int(ask("port", "On which port?", str(entry.get("port", 5038)))),
                "secret_file": secrets[0].path,
                "command_secret_file": secrets[1].path,
                "context": ask(
                    "context", "In which context do agents' phones dial?", entry.get("context", "from-internal")
                ),
                "dial": dial,
                "trunks": options["trunks"]
                or entry.get("trunks")
                or (ask("trunk", "Which device leads outside?", trunk),),
                "caller_ids": options["caller_ids"] or entry.get("caller_ids", ()),
            }
        )
    except ValueError as error:
        faults = error.errors(include_url=False) if isinstance(error, ValidationError) else []
        told = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in faults)
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
        if change.path.parent.name == "secrets":
            change.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    for backup in pbx_setup.apply(changes, datetime.now(UTC)):
        click.echo(f"Backup: {backup}")
    return True


def _paste(users: AmiUsers, *, dry_run: bool) -> None:
    click.echo("\nThe PBX is on another machine. Put these files into its /etc/asterisk yourself:")
    for name, text in pbx_setup.snippets(users).items():
        # The secrets are needed there; a dry run has none that will last.
        click.echo(f"\n----- {name} -----")
        click.echo(pbx_setup.hide_secrets(text) if dry_run else text, nl=False)
        click.echo(f"----- end of {name} -----")
    click.echo(
        "\nAt the top of manager.conf there (FreePBX: manager_custom.conf):\n    #tryinclude ringbridge-manager.conf"
    )
    if users.command_secret is not None:
        click.echo(
            "At the top of extensions.conf there (FreePBX: extensions_custom.conf):\n    #tryinclude ringbridge.conf"
        )
    click.echo("Then there:")
    for command in pbx_setup.RELOAD:
        click.echo(f"    {command}")


def _reload(changed: bool, wanted: bool, yes: bool) -> None:
    if not changed and not wanted:
        return
    if not wanted or not (yes or click.confirm("Reload the manager and the dialplan of the PBX now?", default=False)):
        click.echo("Let the PBX read it (no call is touched by that):")
        for command in pbx_setup.RELOAD:
            click.echo(f"    {command}")
        return
    for command in pbx_setup.RELOAD:
        try:
            done = subprocess.run(shlex.split(command), capture_output=True, text=True, timeout=30, check=False)
        except (OSError, subprocess.TimeoutExpired):
            raise Unavailable(f"`{command}` could not be run; run it yourself on the PBX") from None
        if done.returncode != 0:
            raise Unavailable(f"`{command}` said: {(done.stderr or done.stdout).strip() or done.returncode}")
        click.echo(f"Done: {command}")
