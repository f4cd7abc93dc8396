"""Play scenarios before the lab's PBX and record them for the corpus.

    cd tests && python -m scenarios.record [--pbx freeswitch] [--family NAME] [SCENARIO ...]

Each becomes `traces/<pbx>-<version>-lab/<scenario>/`: `wire.jsonl.gz`, `story.md`, `expected.json`, and
`snapshots.jsonl.gz`: what the PBX said meanwhile to all that a resync asks. One that our
tracker gets wrong is recorded all the same, and said: the expectation comes from the witness.
"""

from __future__ import annotations

import gzip
import json
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import click
from corpus import differences

from bridge.pbx.recording import Recorder
from bridge.pbx.trace import Row, line
from bridge.settings import Pbx
from ringbridge_lab.errors import LabError
from ringbridge_lab.lab import Lab
from scenarios import Scenario, every
from scenarios.looking import Looker
from scenarios.replay import said
from scenarios.results import Results
from scenarios.stage import Stage

TRACES = Path(__file__).parents[1] / "traces"
_ECHO_SECONDS = 1.0
"""Events of a call that is over still come, FreeSWITCH's half a second late."""


class Recording:
    """The bytes of the event user's own connection, from its greeting to the goodbye."""

    def __init__(self, lab: Lab) -> None:
        self.rows: list[Row] = []
        self.pbx = Pbx.model_validate({"name": "lab", **lab.pbx_settings()})
        self._recorder = Recorder(self.pbx, self.rows.append)
        ready = threading.Event()
        self._thread = threading.Thread(target=self._recorder.run, args=(None, ready.set))
        self._thread.start()
        if not ready.wait(20):
            raise SystemExit("the recording did not begin")
        self.began = self._recorder.began

    def finish(self) -> None:
        """Say goodbye."""
        time.sleep(_ECHO_SECONDS)
        self._recorder.stop()
        self._thread.join(20)

    def write(self, path: Path) -> None:
        """One and the same bytes give one and the same file."""
        with path.open("wb") as raw, gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as file:
            file.writelines(map(line, self.rows))


def record(lab: Lab, scenario: Scenario) -> tuple[Path, list[str]]:
    """Play and record one; where it stands, and what our tracker gets wrong of it."""
    recording = Recording(lab)
    stage = Stage(lab, scenario, zero=recording.began)
    try:
        with Looker(recording.pbx, recording.began) as looker:
            expected = stage.play()
            recording.finish()
        folder = TRACES / stage.folder / scenario.name
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.iterdir():
            old.unlink()
        recording.write(folder / "wire.jsonl.gz")
        looker.write(folder / "snapshots.jsonl.gz")
        (folder / "story.md").write_text(stage.story(), encoding="utf-8")
        (folder / "expected.json").write_text(dumped(expected), encoding="utf-8")
    finally:
        stage.close()
        recording.finish() if not recording.rows else None
    return folder, differences(expected, said(folder / "wire.jsonl.gz", expected))


def dumped(expected: dict[str, Any]) -> str:
    """As JSON that a person can read."""
    return json.dumps(expected, ensure_ascii=False, indent=2) + "\n"


@click.command()
@click.option("--pbx", type=click.Choice(["asterisk", "freeswitch"]), default="asterisk")
@click.option("--family", help="Only those of that family.")
@click.argument("names", nargs=-1)
def main(pbx: str, family: str | None, names: tuple[str, ...]) -> None:
    """Record scenarios; all of them, where none is named."""
    failed = 0
    with tempfile.TemporaryDirectory(prefix="rb-scenarios-") as place:
        lab = Lab(Path(place) / "lab", pbx=pbx)
        lab.up(progress=print)
        results = Results.of(lab)
        try:
            for scenario in every().values():
                if (names and scenario.name not in names) or family not in (None, scenario.family):
                    continue
                if why := scenario.why_not(results.pbx):
                    print(f"{scenario.name}: not on this PBX, {why}")
                    continue
                try:
                    folder, wrong = record(lab, scenario)
                except (AssertionError, LabError) as fault:
                    print(f"{scenario.name}: NOT PLAYED, {fault}", flush=True)
                    lab.hang_up_all()
                    failed += 1
                    continue
                results.write(scenario.name, "trace", not wrong)
                failed += bool(wrong)
                print(f"{scenario.name}: {folder.name}", *(f"\n    {fault}" for fault in wrong), flush=True)
        finally:
            lab.down()
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
