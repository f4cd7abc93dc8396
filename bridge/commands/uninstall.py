"""`ringbridge uninstall`: takes out of the PBX what init put in."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from bridge.commands.init import show
from bridge.domain.errors import Invalid
from bridge.services import freeswitch_setup, pbx_setup, settings_file
from bridge.services.pbx_setup import Flavour
from bridge.services.setups import SETUPS
from bridge.settings import settings_path


def _port(kind: str) -> int:
    """Of the first PBX of this kind in the settings, else the usual one."""
    path = settings_path()
    usual = int(SETUPS[kind].defaults["port"])
    entries = settings_file.existing(path).get("pbx", []) if path is not None else []
    return next((int(entry.get("port", usual)) for entry in entries if entry.get("kind", "asterisk") == kind), usual)


@click.command()
@click.option("--asterisk-dir", type=click.Path(path_type=Path), default=Path("/etc/asterisk"), show_default=True)
@click.option("--freeswitch-dir", type=click.Path(path_type=Path), help="Where freeswitch.xml is (default: found out).")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Show what would go, and change nothing.")
def uninstall(asterisk_dir: Path, freeswitch_dir: Path | None, yes: bool, dry_run: bool) -> int:
    """Take out of the PBX's files what `ringbridge init` put in; everything else there stays as it is.

    A backup of each file is kept beside it. Settings and data are not touched; it says where they lie. What init gave
    you to paste into FusionPBX's web pages, take out there.
    """
    folders = {"asterisk": asterisk_dir, "freeswitch": freeswitch_dir or freeswitch_setup.find()}
    if freeswitch_dir is not None and not freeswitch_dir.is_dir():
        raise Invalid(f"--freeswitch-dir: there is no folder {freeswitch_dir}", field="freeswitch_dir")
    plans = {kind: SETUPS[kind].plan_uninstall(folder.resolve()) for kind, folder in folders.items() if folder}
    changes = [change for plan in plans.values() for change in plan]
    if not changes:
        click.echo(f"There is nothing of Ringbridge in {' nor in '.join(str(f) for f in folders.values() if f)}.")
        if folders["freeswitch"] is None:
            click.echo("No FreeSWITCH's configuration was found; where one is here, name it with --freeswitch-dir.")
    else:
        show(changes)
        if dry_run:
            click.echo("Dry run: nothing was changed.")
            return 0
        if not yes and not click.confirm(f"Change or remove {len(changes)} file(s)?", default=False):
            click.echo("Nothing was changed.")
            return 1
        for backup in pbx_setup.apply(changes, datetime.now(UTC)):
            click.echo(f"Backup: {backup}")
        click.echo("Let the PBX read it (no call is touched by that):")
        for kind, plan in plans.items():
            for command in SETUPS[kind].reload(_port(kind)) if plan else ():
                click.echo(f"    {command}")
        freeswitch = folders["freeswitch"]
        if freeswitch and plans["freeswitch"] and SETUPS["freeswitch"].detect(freeswitch) is Flavour.FUSIONPBX:
            click.echo("In FusionPBX's web pages, Dialplan Manager, delete the entry ringbridge, where you added it.")
    path = settings_path()
    if path is not None:
        click.echo(f"Settings stay in {path.resolve()}, secrets and data where it says; delete them when you like.")
    return 0
