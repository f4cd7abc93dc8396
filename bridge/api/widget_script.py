"""`/widget.js`: the parts in `screen/static/widget/` as one script, made anew when one of them changes."""

from __future__ import annotations

import gzip
import hashlib
import json
from typing import Any

from bridge.api.static_files import File, StaticFiles

LOOK = "widget/look.css"
WORDS = "widget/words.json"
PARTS = ("widget/words.js", "widget/riddle.js", "widget/moving.js", "widget/view.js", "widget/element.js")
_TYPE = "text/javascript; charset=utf-8"


class WidgetScript:
    """The parts share one scope, so a page gets no global name; the style sheet and the words are constants in it."""

    def __init__(self, files: StaticFiles) -> None:
        self._files = files
        self._made: dict[bool, File] = {}
        self._from: list[str] = []

    def find(self, *, packed: bool) -> File:
        """The script as it is, or gzipped."""
        look, words, *parts = (self._part(name) for name in (LOOK, WORDS, *PARTS))
        digests = [file.digest for file in (look, words, *parts)]
        if digests != self._from:
            head = f"const CSS = {_literal(look.body.decode())};\nconst WORDS = {_literal(_widgets(words.body))};\n"
            scripts = "\n".join(_lean(part.body.decode()) for part in parts)
            body = f'(() => {{\n"use strict";\n{head}{scripts}}})();\n'.encode()
            self._made = {False: _file(body), True: _file(gzip.compress(body, 9, mtime=0))}
            self._from = digests
        return self._made[packed]

    def _part(self, name: str) -> File:
        found = self._files.find(name)
        if found is None:
            raise FileNotFoundError(name)
        return found


def _widgets(words: bytes) -> dict[str, Any]:
    """The words without those that only pages without scripts say."""
    found: dict[str, dict[str, Any]] = json.loads(words)
    for said in found.values():
        del said["plain"]
    return found


def _lean(script: str) -> str:
    """Without indentation and lines of comment. No text of these scripts goes over a line's end (a test looks)."""
    lines = (line.strip() for line in script.splitlines())
    return "\n".join(line for line in lines if line and not line.startswith(("//", "/**")))


def _literal(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _file(body: bytes) -> File:
    return File(body, _TYPE, hashlib.sha256(body).hexdigest()[:16], (0, 0))
