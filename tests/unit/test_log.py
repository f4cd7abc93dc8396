"""No phone number and no secret reaches a log line, in whatever dress."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from bridge.log import configure, mask_text
from bridge.settings import Log, Settings

NUMBER = "16465550123"


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield io.StringIO()
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.mark.parametrize(
    "text",
    [
        "dialled +16465550123",
        "sip:+16465550123@example.net",
        "PJSIP/16465550123@trunk",
        "Local/16465550123@ringbridge-leg-00000001;1",
        "tel%2B16465550123",
        "(646) 555-0123",
        "646 555 0123",
        "646.555.0123",
        '{"number": "+16465550123"}',
        "workers.dial('16465550123')",
        "number=16465550123&x=1",
        "from 16465550123,",
    ],
)
def test_numbers_are_masked(text: str) -> None:
    masked = mask_text(text)
    assert "5550" not in masked
    assert "555" not in masked
    assert "***" in masked


@pytest.mark.parametrize(
    "text",
    [
        "attempt 0b8f4a2e-1111-4222-8333-123456789012",
        "call company-1763812345.17 connected",
        "stream id 1763812345123-0",
        "at 2026-11-22T12:20:28.123456+00:00",
        "at 2026-11-22 12:20:28",
        "listening on 127.0.0.1:5038",
        "192.168.100.200",
        "took 12.5 ms, pid 12345, code 200",
        "extension 101",
    ],
)
def test_ids_times_and_addresses_are_left_alone(text: str) -> None:
    assert mask_text(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "redis://user:hunter2@host/0",
        "Authorization: Bearer hunter2hunter2",
        "password=hunter2",
        "token: hunter2",
        '"secret": "hunter2"',
        "GET /events?token=hunter2&x=1",
    ],
)
def test_secrets_are_masked(text: str) -> None:
    assert "hunter2" not in mask_text(text)


@pytest.mark.parametrize("form", ["json", "console"])
def test_our_lines_and_the_libraries_are_masked_and_tracebacks_hold_no_values(
    stream: io.StringIO, form: str
) -> None:
    configure(Settings(log=Log.model_validate({"format": form})), stream=stream)
    log = structlog.get_logger("test")
    log.info("dialled", number=NUMBER, secret="hunter2", nested={"caller": NUMBER, "list": [NUMBER]})
    logging.getLogger("rq.worker").warning("job %s", NUMBER)
    local = f"hunter2{NUMBER}"
    try:
        raise ValueError(f"cannot dial {NUMBER}")
    except ValueError:
        log.exception("failed")
    assert local
    text = stream.getvalue()
    assert NUMBER not in text
    assert "hunter2" not in text
    assert "ValueError: cannot dial ***23" in text
    if form == "json":
        lines = [json.loads(line) for line in text.splitlines()]
        assert [line["event"] for line in lines] == ["dialled", "job ***23", "failed"]
        assert lines[0]["nested"] == {"caller": "***23", "list": ["***23"]}
