"""The settings on their way from the edge to its child, through a pipe that nobody else can read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from bridge.settings import Settings


def dump_settings(settings: Settings) -> str:
    """The settings in one line of JSON, secrets readable."""
    return json.dumps(settings.model_dump(mode="python"), default=_plain)


def read_settings(line: str) -> Settings:
    """The settings from that line."""
    return Settings.model_validate_json(line)


def _plain(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(type(value).__name__)
