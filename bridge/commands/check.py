"""`ringbridge check`: inspects a live PBX and says what to change."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict

import click

from bridge.domain.errors import SettingsError
from bridge.services.pbx_check import Finding, Verdict, check_pbx
from bridge.settings import load

_COLOURS = {Verdict.OK: "green", Verdict.WARN: "yellow", Verdict.FAIL: "red"}


def _print(finding: Finding) -> None:
    mark = click.style(finding.verdict.ljust(4), fg=_COLOURS[finding.verdict])
    click.echo(f"  {mark}  {finding.about}: {finding.meaning}")
    if finding.change:
        click.echo(f"        -> {finding.change}")


@click.command()
@click.option("--pbx", "name", help="One PBX of the settings (default: all).")
@click.option("--watch", type=click.FloatRange(0, 600), default=2.0, show_default=True, help="Seconds to listen.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def check(name: str | None, watch: float, as_json: bool) -> int:
    """Log in to the PBX and look: permissions, contexts, trunk, queues, versions with known holes.

    It only asks; nothing is dialled or changed. Ends with 0 where nothing failed, 1 where something did.
    """
    settings = load()
    pbxs = settings.pbx if name is None else (settings.find_pbx(name),)
    if not pbxs:
        raise SettingsError("the settings name no PBX: run `ringbridge init`")
    found: dict[str, list[Finding]] = {}
    for pbx in pbxs:
        findings = found[pbx.name] = []
        if not as_json:
            click.echo(f"{pbx.name} ({pbx.kind} at {pbx.host}:{pbx.port})")
        for finding in check_pbx(settings, pbx, watch):
            findings.append(finding)
            if not as_json:
                _print(finding)
    counts = Counter(finding.verdict for findings in found.values() for finding in findings)
    failed = counts[Verdict.FAIL] > 0
    if as_json:
        listed = [
            {"name": pbx, "findings": [asdict(finding) for finding in findings]} for pbx, findings in found.items()
        ]
        click.echo(json.dumps({"ok": not failed, "pbx": listed}))
    else:
        click.echo(f"{counts[Verdict.OK]} fine, {counts[Verdict.WARN]} to look at, {counts[Verdict.FAIL]} to mend")
    return 1 if failed else 0
