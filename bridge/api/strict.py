"""Strict reading of what comes in: JSON that means one thing, text without control characters."""

from __future__ import annotations

import json
import unicodedata
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints

from bridge.domain.errors import RingbridgeError

DEEPEST = 20
"""Levels of nesting that a body may have."""
_BROKEN = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Unicode categories no line of text holds: controls, halves of a pair, line and paragraph separators."""


class BadJson(RingbridgeError):
    """The body is not valid JSON."""

    code = "json_invalid"
    status = 400

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message, field="body")


class ControlCharacter(ValueError):
    """A string that holds a control character; pydantic makes an error of its field from it."""


def read_json(raw: bytes) -> Any:
    """Parse a body. Raises BadJson for what is no JSON, is too deep, names a key twice or holds NaN."""
    try:
        value = json.loads(raw.decode("utf-8"), parse_constant=_refuse_constant, object_pairs_hook=_once)
    except UnicodeDecodeError:
        raise BadJson("the body is not UTF-8 text") from None
    except RecursionError:
        raise BadJson("the body is nested too deeply") from None
    except ValueError as error:
        if isinstance(error, json.JSONDecodeError):
            raise BadJson(f"the body is not valid JSON (line {error.lineno}, column {error.colno})") from None
        raise BadJson(str(error) if isinstance(error, _Refused) else None) from None
    _check_depth(value)
    return value


class _Refused(ValueError):
    pass


def _refuse_constant(_name: str) -> Any:
    raise _Refused("NaN and Infinity are not JSON")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _Refused("an object of the body names a key twice")
    return found


def _check_depth(value: Any) -> None:
    level: list[Any] = [value]
    for _ in range(DEEPEST):
        level = [
            child
            for item in level
            if isinstance(item, dict | list)
            for child in (item.values() if isinstance(item, dict) else item)
        ]
        if not level:
            return
    raise BadJson("the body is nested too deeply")


def has_control(text: str, allowed: str = "") -> bool:
    """Whether the text holds a control character other than those in `allowed`."""
    if text.isascii() and text.isprintable():
        return False
    return any(unicodedata.category(char) in _BROKEN and char not in allowed for char in text)


def find_control(value: Any) -> bool:
    """The same for every string, keys too, inside a JSON value."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            if has_control(item):
                return True
        elif isinstance(item, dict):
            waiting += [*item.keys(), *item.values()]
        elif isinstance(item, list):
            waiting += item
    return False


def _one_line(text: str) -> str:
    if has_control(text):
        raise ControlCharacter("must not hold line breaks or other control characters")
    return text


def _many_lines(text: str) -> str:
    text = text.replace("\r\n", "\n")
    if has_control(text, "\n\t"):
        raise ControlCharacter("must not hold control characters other than line breaks and tabs")
    return text


def _free(value: dict[str, Any]) -> dict[str, Any]:
    if find_control(value):
        raise ControlCharacter("must not hold line breaks or other control characters in any string")
    return value


Line = Annotated[str, AfterValidator(_one_line)]
"""Text of one line; a line break in it is refused."""
Paragraphs = Annotated[str, AfterValidator(_many_lines)]
"""Text of many lines: the body of a script, and nothing else."""
FreeObject = Annotated[dict[str, Any], AfterValidator(_free)]
"""Any JSON object whose strings are lines."""

Name = Annotated[Line, StringConstraints(min_length=1, max_length=200, strip_whitespace=True)]
Short = Annotated[Line, StringConstraints(max_length=200)]
Note = Annotated[Line, StringConstraints(max_length=4000)]


class Body(BaseModel):
    """A request's body: types as written, nothing unknown."""

    may_be_absent: ClassVar[bool] = False
    """Whether a request without a body says the same as one with an empty object."""
    model_config = ConfigDict(extra="forbid", strict=True, str_max_length=20_000)


class Query(BaseModel):
    """A request's query string: nothing unknown, nothing twice."""

    model_config = ConfigDict(extra="forbid", str_max_length=2_000)


class Answer(BaseModel):
    """A response, read from a row's attributes."""

    model_config = ConfigDict(from_attributes=True)
