"""Which release of the time zone database this process reckons by."""

from __future__ import annotations

import threading
import zoneinfo
from importlib import metadata
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)
_lock = threading.Lock()
_known: list[str] = []


def version() -> str:
    """The release that was there when this process first asked: the rules it keeps in memory are no newer."""
    with _lock:
        if not _known:
            _known.append(installed())
        return _known[0]


def refresh() -> str:
    """Look again, and forget the rules in memory where another release has been installed."""
    before, now = version(), installed()
    if now != before:
        with _lock:
            zoneinfo.ZoneInfo.clear_cache()
            _known[:] = [now]
        log.info("time zone rules changed", before=before, now=now)
    return now


def installed() -> str:
    """The release on disk, such as 2026a: the system's, else the package's, as zones are looked up."""
    for folder in map(Path, zoneinfo.TZPATH):
        try:
            with (folder / "tzdata.zi").open(encoding="ascii", errors="replace") as file:
                return file.readline().removeprefix("# version").strip()[:20]
        except OSError:
            pass
        try:
            # A system that names no release: its files' age says when there is another.
            return f"of {int((folder / 'Europe/London').stat().st_mtime)}"
        except OSError:
            continue
    return metadata.version("tzdata")[:20]
