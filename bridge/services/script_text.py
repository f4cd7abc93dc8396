"""Script texts: Markdown with merge fields, made into HTML that a page may insert as it is.

A script is parsed before anything is merged into it, and merged values go into text alone and are
escaped there. So neither a caller's name nor a visitor's note can become markup, whatever it holds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, MutableMapping, Sequence
from functools import lru_cache
from html import escape
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import OptionsDict

_FIELD = re.compile(r"\{\{\s*([A-Za-z][A-Za-z0-9_]*(?:\.[A-Za-z][A-Za-z0-9_]*)*)\s*\}\}")
_SAFE_LINK = re.compile(r"^(?:https?://|mailto:|tel:)", re.IGNORECASE)
_LONGEST_VALUE = 500
"""Characters of one merged value: a visitor's note must not push the script off the screen."""


def render(body: str, fields: Mapping[str, str]) -> str:
    """Safe HTML of a script. `fields` maps names such as `customer.name` to plain text.

    A field that is unknown or empty becomes a visible blank, so that the agent asks instead of
    reading a gap aloud. Raw HTML, images and links other than http, mailto and tel stay text.
    """
    markdown = _markdown()
    return str(markdown.renderer.render(_parsed(body), markdown.options, {"fields": fields}))


def merge(text: str, fields: Mapping[str, str]) -> str:
    """Plain text with its fields filled in; blanks are drawn as a line."""
    return _FIELD.sub(lambda found: _value(fields, found[1]) or "_____", text)


def _value(fields: Mapping[str, str], name: str) -> str:
    value = " ".join(fields.get(name, "").split())
    return value if len(value) <= _LONGEST_VALUE else value[: _LONGEST_VALUE - 1] + "…"


def _merged_html(text: str, fields: Mapping[str, str]) -> str:
    parts: list[str] = []
    end = 0
    for found in _FIELD.finditer(text):
        parts.append(escape(text[end : found.start()]))
        value = _value(fields, found[1])
        if value:
            parts.append(f'<span class="merged">{escape(value)}</span>')
        else:
            label = found[1].replace(".", " ").replace("_", " ")
            parts.append(f'<span class="blank">{escape(label)}</span>')
        end = found.end()
    parts.append(escape(text[end:]))
    return "".join(parts)


class _Renderer(RendererHTML):
    """Fills in fields wherever the parsed script has text."""

    def text(
        self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: MutableMapping[str, Any]
    ) -> str:
        return _merged_html(tokens[idx].content, env["fields"])

    def code_inline(
        self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: MutableMapping[str, Any]
    ) -> str:
        return f"<code>{_merged_html(tokens[idx].content, env['fields'])}</code>"

    def code_block(
        self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: MutableMapping[str, Any]
    ) -> str:
        return f"<pre><code>{_merged_html(tokens[idx].content, env['fields'])}</code></pre>\n"

    fence = code_block


@lru_cache(maxsize=1)
def _markdown() -> MarkdownIt:
    markdown = MarkdownIt("commonmark", {"html": False}, renderer_cls=_Renderer)
    markdown.enable("table").disable(["image", "html_block", "html_inline"])
    markdown.validateLink = lambda url: bool(_SAFE_LINK.match(url))  # type: ignore[method-assign]
    return markdown


@lru_cache(maxsize=512)
def _parsed(body: str) -> list[Token]:
    tokens = _markdown().parse(body)
    _lower_headings(tokens)
    for token in tokens:
        for child in token.children or ():
            if child.type == "link_open":
                child.attrSet("target", "_blank")
                child.attrSet("rel", "noopener noreferrer")
    return tokens


def _lower_headings(tokens: Sequence[Token]) -> None:
    """A script begins at h3, below the page's own headings, and skips no level, however it was written."""
    headings = [token for token in tokens if token.type in ("heading_open", "heading_close")]
    ranks = sorted({token.tag for token in headings})
    level = 2
    for token in headings:
        if token.type == "heading_open":
            level = min(3 + ranks.index(token.tag), level + 1, 6)
        token.tag = f"h{level}"
