"""How each scenario came out, on which PBX and version and when: `results.json`, written by runs, never by hand."""

from __future__ import annotations

import fcntl
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from ringbridge_lab.lab import Lab

FILE = Path(__file__).with_name("results.json")


@dataclass(frozen=True)
class Results:
    """Of one PBX."""

    pbx: str
    """As its recordings are called: `asterisk-22-lab`."""
    version: str
    file: Path = FILE

    @classmethod
    def of(cls, lab: Lab, file: Path = FILE) -> Results:
        version = lab.state.installation.version
        parts = version.split(".")
        name = f"asterisk-{parts[0]}" if lab.pbx == "asterisk" else f"freeswitch-{'.'.join(parts[:2])}"
        return cls(f"{name}-lab", version, file)

    def write(self, scenario: str, way: Literal["live", "trace"], passed: bool) -> None:
        """Put one result beside the others."""
        with self.file.with_suffix(".lock").open("w") as turn:
            # Two PBXs may be played at once.
            fcntl.flock(turn, fcntl.LOCK_EX)
            self._write(scenario, way, passed)

    def _write(self, scenario: str, way: str, passed: bool) -> None:
        rows = read(self.file)
        row = {"result": "passed" if passed else "failed", "version": self.version, "date": _today()}
        rows.setdefault(scenario, {}).setdefault(self.pbx, {})[way] = row
        ordered = {name: {pbx: rows[name][pbx] for pbx in sorted(rows[name])} for name in sorted(rows)}
        self.file.write_text(json.dumps(ordered, indent=1) + "\n", encoding="utf-8")


def read(file: Path = FILE) -> dict[str, dict[str, Any]]:
    """By scenario, by PBX, by way."""
    if not file.exists():
        return {}
    rows: dict[str, dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
    return rows


def _today() -> str:
    return datetime.now(UTC).date().isoformat()
