"""The widget's one script, as it is put together from its parts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import bridge.screen
from bridge.api.static_files import StaticFiles
from bridge.api.widget_script import PARTS, WORDS, WidgetScript

STATIC = Path(bridge.screen.__file__).parent / "static"


def test_it_is_small_and_holds_all_but_indentation_and_comments() -> None:
    script = WidgetScript(StaticFiles(STATIC))
    assert len(script.find(packed=True).body) < 15 * 1024
    text = script.find(packed=False).body.decode()
    assert "function solve(" in text and "class Mover" in text and "https://" not in text
    assert not [line for line in text.splitlines() if line.startswith((" ", "//", "/**"))]


def test_no_text_of_its_parts_goes_over_a_lines_end() -> None:
    # Else what begins a line of a text could be taken for a comment.
    for name in PARTS:
        lines = (STATIC / name).read_text(encoding="utf-8").splitlines()
        assert [line for line in lines if line.count("`") % 2] == []
        assert [line for line in lines if line.strip().startswith("/**") and not line.endswith("*/")] == []


def test_every_language_says_the_same_things() -> None:
    words: dict[str, Any] = json.loads((STATIC / WORDS).read_text(encoding="utf-8"))

    def shape(said: Any) -> Any:
        if isinstance(said, dict):
            return {name: shape(value) for name, value in said.items()}
        return [shape(value) for value in said] if isinstance(said, list) else said.count("{0}")

    assert len(words) == 3
    assert all(shape(said) == shape(words["en"]) for said in words.values())
