"""The table of `tests/README.md`: each scenario on each PBX, played live and replayed from its recording.

    cd tests && python -m scenarios.matrix

writes it anew. A recording is counted where it is in the corpus (`tests/unit/test_corpus.py` replays them all, and
fails where one comes out wrong); a live result is that of the last run (`results.json`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scenarios import Scenario, every
from scenarios.results import read

README = Path(__file__).parents[1] / "README.md"
TRACES = Path(__file__).parents[1] / "traces"
BEGIN, END = "<!-- scenarios: made by scenarios.matrix -->", "<!-- scenarios: end -->"
PBXS = {
    "asterisk-22-lab": "Asterisk 22",
    "asterisk-16-lab": "Asterisk 16",
    "freeswitch-1.11-lab": "FreeSWITCH 1.11",
}
LIVE = {"passed": "live", "failed": "**live fails**"}


def table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The whole section between the marks."""
    lines = [f"| family | scenario | {' | '.join(PBXS.values())} |", "|---|---|" + "---|" * len(PBXS)]
    reasons: dict[str, int] = {}
    for scenario in every().values():
        cells = [_cell(scenario, pbx, results, reasons) for pbx in PBXS]
        lines.append(f"| {scenario.family} | `{scenario.name}`: {scenario.what} | {' | '.join(cells)} |")
    notes = [f"{number}. {why}" for why, number in reasons.items()]
    return "\n".join([_summary(results), "", *lines, *(["", *notes] if notes else [])])


def _cell(
    scenario: Scenario, pbx: str, results: Mapping[str, Mapping[str, Any]], reasons: dict[str, int]
) -> str:
    if why := scenario.why_not(pbx):
        return f"no ({reasons.setdefault(why, len(reasons) + 1)})"
    live = results.get(scenario.name, {}).get(pbx, {}).get("live")
    recorded = (TRACES / pbx / scenario.name / "expected.json").exists()
    said = [LIVE[live["result"]] if live else "", "trace" if recorded else ""]
    return ", ".join(word for word in said if word) or "not yet"


def _summary(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Which versions, and when."""
    told = []
    for pbx, name in PBXS.items():
        rows = [ways[pbx]["live"] for ways in results.values() if "live" in ways.get(pbx, {})]
        passed = sum(row["result"] == "passed" for row in rows)
        versions = " and ".join(sorted({row["version"] for row in rows})) or "not played yet"
        last = max((row["date"] for row in rows), default="")
        told.append(f"{name} ({versions}): {passed} of {len(rows)} live{f', last on {last}' if last else ''}")
    return "; ".join(told) + "."


def written(text: str, results: Mapping[str, Mapping[str, Any]]) -> str:
    """The README with the table of these results."""
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n\n{table(results)}\n\n{END}{tail}"


def main() -> None:
    """Write the table."""
    README.write_text(written(README.read_text(encoding="utf-8"), read()), encoding="utf-8")


if __name__ == "__main__":
    main()
