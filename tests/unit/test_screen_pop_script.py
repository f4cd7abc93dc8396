"""Scripts: merged, typeset, and never a way in for markup."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.services.script_text import merge, render

HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "[press](javascript:alert(1))",
    "![x](https://evil.example/track.png)",
    "**bold** _it_ `code` # head",
    "{{agent.name}} {{client.name}}",
    "</span></p><iframe src=//evil.example>",
    "a\nb\r\n\n# c",
    "&lt;b&gt; &amp; &#60;",
    "\u202egnp.exe",
]
SAFE_TAGS = {
    *("p", "em", "strong", "span", "a", "code", "pre", "ul", "ol", "li", "blockquote", "hr", "br"),
    *("h3", "h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td"),
}


class Reader(HTMLParser):
    """What a browser would make of it: tags with attributes, and the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_stays_text(name: str) -> None:
    read = Reader(render("Hello {{customer.name}}, *welcome*.", {"customer.name": name, "agent.name": "Al"}))
    assert [tag for tag, _ in read.tags] == ["p", "span", "em"]
    assert read.text.strip() == f"Hello {' '.join(name.split())}, welcome."


@given(st.text(max_size=300), st.text(max_size=100))
def test_any_script_and_any_value_make_safe_markup_only(body: str, value: str) -> None:
    for tag, attributes in Reader(render(body + "\n\n{{x}} `{{x}}`", {"x": value})).tags:
        assert tag in SAFE_TAGS
        assert set(attributes) <= {"class", "href", "target", "rel", "title", "start", "style"}
        if "href" in attributes:
            assert (attributes["href"] or "").lower().startswith(("http://", "https://", "mailto:", "tel:"))


@pytest.mark.parametrize(
    "url",
    ["javascript:alert(1)", "JaVaScRiPt:alert(1)", "data:text/html,x", "vbscript:x", "//evil.example", "/x"],
)
def test_only_web_mail_and_telephone_links_are_links(url: str) -> None:
    assert "href" not in render(f"[here]({url})", {})


def test_a_link_opens_beside_the_page_and_tells_nothing() -> None:
    assert 'target="_blank" rel="noopener noreferrer"' in render("[card](https://example.com/)", {})


@pytest.mark.parametrize("fields", [{}, {"customer.name": ""}, {"customer.name": "  "}])
def test_what_is_unknown_is_a_visible_blank(fields: dict[str, str]) -> None:
    assert '<span class="blank">customer name</span>' in render("Hi {{ customer.name }}", fields)


def test_a_field_is_filled_in_wherever_a_script_has_text() -> None:
    html = render("# {{a.b}}\n\n- *{{a.b}}*\n\n`{{a.b}}`\n\n    {{a.b}}\n", {"a.b": "X_1"})
    assert html.count('<span class="merged">X_1</span>') == 4
    assert "<h3>" in html, "the page's own headings come first"


def test_a_long_value_does_not_push_the_script_away() -> None:
    assert len(render("{{note}}", {"note": "word " * 4000})) < 700


def test_plain_text_is_merged_too() -> None:
    assert merge("{{client.name}}, {{agent.name}} here", {"client.name": "A & B"}) == "A & B, _____ here"


@pytest.mark.parametrize(
    ("body", "levels"),
    [
        ("## a\n\n## b", "33"),
        ("# a\n\n### b\n\n# c", "343"),
        ("### a\n\n# b\n\n###### c", "334"),
        ("# a\n\n## b\n\n### c", "345"),
    ],
)
def test_headings_begin_below_the_pages_own_and_skip_no_level(body: str, levels: str) -> None:
    assert "".join(tag[1] for tag, _ in Reader(render(body, {})).tags if tag[0] == "h") == levels
