"""Logs: structlog for our own lines and for every library's, on stderr, with numbers and secrets masked."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, TextIO

import structlog

from bridge.settings import Settings

_SECRET_KEY = re.compile(
    r"secret|passw|token|authori[sz]ation|cookie|credential|api_?key|private_?key", re.IGNORECASE
)
_NUMBER_KEY = re.compile(r"^(number|phone|caller(_?id)?|msisdn|customer_number|dial_string)$", re.IGNORECASE)
_ID = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
    r"|\d{4}-\d\d-\d\d(?:[ T]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?)?"
    r"|\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}"
    r"|\b[a-z][a-z0-9_-]*-\d{9,11}\.\d{1,9}\b"
    r"|\b\d{13}-\d{1,9}\b",
    re.IGNORECASE,
)
"""Left as they are: UUIDs, dates, addresses, a PBX's channel ids behind a PBX's name, Redis stream ids."""
_NUMBER = re.compile(r"(?<![\w.])\+?\(?\d(?:[ ()./-]{0,2}\d){6,17}(?![\w])|%2[Bb]\d{7,17}")
_URL_PASSWORD = re.compile(r"(://[^/\s:@]*):[^/\s@]+@")
_PAIR = re.compile(
    r"""(?i)\b((?:secret|password|passwd|token|key|authorization)["']?\s*[=:]\s*["']?)(?!\*)[^\s"'&,;]+"""
)
_BEARER = re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{8,}")


def mask_text(text: str) -> str:
    """The text with anything that looks like a phone number or a secret masked; a number keeps its last two digits."""
    text = _URL_PASSWORD.sub(r"\1:***@", text)
    text = _BEARER.sub(r"\1 ***", text)
    text = _PAIR.sub(r"\1***", text)
    out: list[str] = []
    start = 0
    for kept in _ID.finditer(text):
        out += [_NUMBER.sub(_masked, text[start : kept.start()]), kept.group()]
        start = kept.end()
    out.append(_NUMBER.sub(_masked, text[start:]))
    return "".join(out)


def _masked(match: re.Match[str]) -> str:
    return f"***{match.group()[-2:]}"


def mask_value(key: str, value: Any) -> Any:
    """A value of a log line as it may be shown: containers are walked, secrets replaced by their key's name."""
    if value is None or isinstance(value, bool):
        return value
    if _SECRET_KEY.search(key):
        return "***"
    if _NUMBER_KEY.match(key):
        return f"***{str(value)[-2:]}"
    if isinstance(value, Mapping):
        return {name: mask_value(str(name), item) for name, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [mask_value("", item) for item in value]
    if isinstance(value, (int, float)):
        return value
    return mask_text(value if isinstance(value, str) else str(value))


_OURS = frozenset({"timestamp", "level", "logger", "_record", "_from_structlog"})


def mask(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor."""
    for key, value in event.items():
        if key not in _OURS:
            event[key] = mask_value(key, value)
    return event


def configure(settings: Settings, *, stream: TextIO | None = None) -> None:
    """Send every log line of this process, ours and the libraries', to stderr in the form the settings ask for.

    Tracebacks are plain: no values of local variables, where numbers and secrets live.
    """
    stream = stream or sys.stderr
    as_json = settings.log.format == "json"
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso" if as_json else "%H:%M:%S", utc=True),
        # Makes text of the exception first, so that the mask sees it too.
        structlog.processors.format_exc_info,
        mask,
    ]
    renderer: Any = (
        structlog.processors.JSONRenderer(default=str)
        if as_json
        else structlog.dev.ConsoleRenderer(
            colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback, pad_event_to=0
        )
    )
    handler = logging.StreamHandler(stream)
    handler.addFilter(_worth_saying)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    level = getattr(logging, settings.log.level.upper())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name, lowest in _LIBRARIES.items():
        library = logging.getLogger(name)
        library.handlers[:] = []
        library.propagate = True
        library.setLevel(max(level, lowest))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def _worth_saying(record: logging.LogRecord) -> bool:
    """Whatever level a library gives its loggers later: RQ sets its own as a worker starts."""
    return record.levelno >= _LIBRARIES.get(record.name.partition(".")[0], 0)


_LIBRARIES = {
    # They say at INFO what nobody needs, and at DEBUG what nobody may see.
    "alembic": logging.WARNING,
    "asyncio": logging.WARNING,
    "panoramisk": logging.WARNING,
    "rq": logging.WARNING,
    "sqlalchemy": logging.WARNING,
    "urllib3": logging.WARNING,
    "werkzeug": logging.WARNING,
}
