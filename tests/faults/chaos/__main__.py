"""Rounds of chaos against the lab's real PBX; exit code 1 where anybody was called twice or lost."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[2]
# As pytest's `pythonpath` says, for a run without pytest.
sys.path[:0] = [str(TESTS), str(TESTS / "pbx")]


def main() -> int:
    """Read the arguments, run, print one JSON object at the end."""
    arguments = _arguments()
    from ringbridge_lab.errors import LabError

    from .rounds import Options, Run, clean

    seed = arguments.seed
    folder, kept = _folder(arguments)
    if arguments.resume and seed is None and (folder / "state.json").exists():
        seed = json.loads((folder / "state.json").read_text(encoding="utf-8"))["seed"]
    if seed is None:
        seed = time.time_ns() % 1_000_000
    _say(f"seed {seed}, folder {folder}")
    options = Options(
        arguments.rounds, seed, arguments.seconds, arguments.settle, arguments.settle,
        arguments.pbx, arguments.database, arguments.redis,
    )  # fmt: skip
    # A SIGTERM ends the run as Ctrl-C does: everything is taken down, and --resume goes on.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        told = Run(folder, options, _say).run()
    except KeyboardInterrupt:
        _say(f"interrupted; go on with --resume --state {folder}")
        return 130
    except (LabError, ValueError) as error:
        _say(str(error))
        return 2
    good = clean(told)
    if good and not kept:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        (folder / "report.json").write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
        _say(f"logs, world and report: {folder}")
    print(json.dumps(told) if arguments.json else _words(told), flush=True)
    return 0 if good else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.chaos", description=__doc__)
    parser.add_argument("--rounds", type=int, default=10, help="rounds in all, those of a resumed run included")
    parser.add_argument("--seed", type=int, help="decides everything that is drawn; else one is drawn and printed")
    parser.add_argument("--json", action="store_true", help="end with one JSON object on the standard output")
    parser.add_argument("--state", type=Path, help="a folder that is kept; without one a temporary folder is used")
    parser.add_argument("--resume", action="store_true", help="go on with the run of --state")
    parser.add_argument("--seconds", type=float, default=20.0, help="the most that one round takes (20)")
    parser.add_argument("--settle", type=float, default=240.0, help="what callbacks may take to end at last (240)")
    parser.add_argument("--pbx", choices=("asterisk", "freeswitch"), default="asterisk")
    parser.add_argument("--database", help="URL of an empty PostgreSQL database, in place of SQLite")
    parser.add_argument("--redis", help="URL of a Redis of your own: flushed and cut, never killed")
    arguments = parser.parse_args()
    if arguments.rounds < 1 or not 2 <= arguments.seconds <= 60:
        parser.error("at least one round, of 2 to 60 seconds")
    if arguments.resume and arguments.state is None:
        parser.error("--resume needs --state")
    return arguments


def _folder(arguments: argparse.Namespace) -> tuple[Path, bool]:
    if arguments.state is None:
        return Path(tempfile.mkdtemp(prefix="ringbridge-chaos-")), False
    folder = arguments.state.resolve()
    if (folder / "state.json").exists() and not arguments.resume:
        sys.exit(f"there is a run in {folder}: go on with --resume, or name another folder")
    return folder, True


def _say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S', time.gmtime())} {line}", file=sys.stderr, flush=True)


def _words(told: dict[str, Any]) -> str:
    lines = [f"{name}: {value}" for name, value in told.items() if not isinstance(value, (list, dict))]
    for name, value in told.items():
        if isinstance(value, dict):
            lines.append(f"{name}: " + ", ".join(f"{what} {count}" for what, count in value.items()))
        elif isinstance(value, list):
            lines += [f"{name}: {entry}" for entry in value]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
