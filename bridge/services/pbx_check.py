"""Inspects the PBXs of the settings."""

from __future__ import annotations

from collections.abc import Iterator

from bridge.domain.errors import SettingsError
from bridge.pbx.ami.inspection import inspect
from bridge.pbx.findings import Finding, Verdict
from bridge.settings import Pbx, Settings

__all__ = ["Finding", "Verdict", "check_pbx"]


def check_pbx(settings: Settings, pbx: Pbx, watch_seconds: float) -> Iterator[Finding]:
    """Finding by finding, as they are made. Raises SettingsError for what the settings themselves lack."""
    if pbx.kind == "freeswitch":
        raise SettingsError(f"PBX {pbx.name!r} is a FreeSWITCH, which `ringbridge check` does not know yet")
    return inspect(pbx, observe=settings.dialing.mode == "observe", watch_seconds=watch_seconds)
