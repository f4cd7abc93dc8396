"""What deploy/test asks about our dependencies.

    dependencies.py requirements [EXTRA]   the requirements of setup.cfg, one a line
    dependencies.py audit                  known vulnerabilities of what is installed here

The audit fails on a vulnerability and on anything it skipped but should have looked up. Where no advisory source
answers it prints `audit: not run`, which is no clean bill, and ends with 0.
"""

from __future__ import annotations

import configparser
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

OURS = "ringbridge"
ROOT = Path(__file__).resolve().parent.parent
PATIENCE_SECONDS = 300


def requirements(extra: str | None) -> str:
    """The lines of install_requires; with an extra, of that extra; without one, of those users may choose too."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    extras = dict(setup["options.extras_require"])
    if extra is not None:
        lines = extras[extra]
    else:
        chosen = [text for name, text in extras.items() if name != "test"]
        lines = "\n".join([setup["options"]["install_requires"], *chosen])
    return "\n".join(line for line in lines.splitlines() if line and not line.startswith("#")) + "\n"


def judge(report: dict[str, Any]) -> tuple[str, bool]:
    """What pip-audit's report means: a text to print, and whether the tests may go on."""
    others = [entry for entry in report["dependencies"] if entry["name"] != OURS]
    skipped = [entry for entry in others if "skip_reason" in entry]
    holes = [entry for entry in others if entry.get("vulns")]
    if len(skipped) == len(others):
        return "audit: not run (no advisory source answered)", True
    lines = [
        f"audit: {entry['name']} {entry['version']}: {hole['id']}, fixed in {', '.join(hole['fix_versions']) or 'none'}"
        for entry in holes
        for hole in entry["vulns"]
    ]
    lines += [f"audit: skipped {entry['name']}: {entry['skip_reason']}" for entry in skipped]
    if lines:
        return "\n".join(lines), False
    return f"audit: {len(others)} packages, no known vulnerability", True


def audit() -> int:
    command = [sys.executable, "-m", "pip_audit", "--format", "json", "--progress-spinner", "off", "--timeout", "20"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
        report = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        print(f"audit: not run (no answer within {PATIENCE_SECONDS} s)")
        return 0
    except ValueError:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        if "onnection" in done.stderr or "ServiceError" in done.stderr:
            print(f"audit: not run ({last})")
            return 0
        print(f"audit: pip-audit broke: {last}")
        return 1
    text, fine = judge(report)
    print(text)
    return 0 if fine else 1


def main(arguments: list[str]) -> int:
    match arguments:
        case ["requirements"]:
            sys.stdout.write(requirements(None))
        case ["requirements", extra]:
            sys.stdout.write(requirements(extra))
        case ["audit"]:
            return audit()
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
