"""Inspects the PBXs of the settings."""

from __future__ import annotations

from collections.abc import Iterator

from bridge.pbx.ami import inspection as asterisk
from bridge.pbx.esl import inspection as freeswitch
from bridge.pbx.findings import Finding, Verdict
from bridge.settings import Pbx, Settings

__all__ = ["Finding", "Verdict", "check_pbx"]


def check_pbx(settings: Settings, pbx: Pbx, watch_seconds: float) -> Iterator[Finding]:
    """Finding by finding, as they are made. Raises SettingsError for what the settings themselves lack."""
    inspect = freeswitch.inspect if pbx.kind == "freeswitch" else asterisk.inspect
    return inspect(pbx, observe=settings.dialing.mode == "observe", watch_seconds=watch_seconds)
