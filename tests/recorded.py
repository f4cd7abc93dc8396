"""Where the recorded conversations stand, and what each is called.

The published corpus has a folder for each, `traces/<pbx>/<scenario>/wire.jsonl[.gz]` with `story.md` beside it; our own
recordings, `traces/ours/<pbx>/`, are `<scenario>.jsonl` with `<scenario>.md`.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

TRACES = Path(__file__).parent / "traces"


def wire(pbx: str, scenario: str) -> Path:
    """The bytes of a conversation of the corpus."""
    plain = TRACES / pbx / scenario / "wire.jsonl"
    return plain if plain.exists() else plain.with_name("wire.jsonl.gz")


def pbx_of(path: Path) -> str:
    """The PBX and its version, as the folder is called."""
    return path.parent.parent.name if _in_corpus(path) else path.parent.name


def scenario_of(path: Path) -> str:
    """What the conversation is called."""
    return path.parent.name if _in_corpus(path) else path.name.partition(".")[0]


def name_of(path: Path) -> str:
    """For a test's id."""
    return f"{pbx_of(path)}-{scenario_of(path)}"


def story_of(path: Path) -> str:
    """What the witness says of it."""
    beside = path.with_name("story.md" if _in_corpus(path) else f"{scenario_of(path)}.md")
    return beside.read_text(encoding="utf-8")


def zero_of(path: Path) -> datetime:
    """When the recording began."""
    found = re.search(r"t = 0 is (\S+?)Z", story_of(path))
    assert found is not None
    return datetime.fromisoformat(found[1]).replace(tzinfo=UTC)


def _in_corpus(path: Path) -> bool:
    return path.name.startswith("wire.jsonl")
