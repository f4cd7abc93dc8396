"""Errors as RFC 9457 problem documents with a stable `code`. Nothing of the input is repeated or logged."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import redis
import structlog
from flask import Flask, Response, current_app, request
from pydantic import BaseModel, Field, ValidationError
from sqlalchemy.exc import IntegrityError
from werkzeug.exceptions import HTTPException

from bridge.api.policy import PROBLEM_TYPE, title
from bridge.domain.errors import RingbridgeError

log = structlog.get_logger(__name__)


_HTTP_CODES = {
    400: "bad_request",
    401: "not_signed_in",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "timeout",
    413: "too_large",
    414: "uri_too_long",
    415: "media_type",
    429: "rate_limited",
    431: "headers_too_large",
}
_HTTP_SENTENCES = {
    404: "there is nothing at this address; /api/docs lists what there is",
    405: "this address does not know that method",
    413: "the body is too large",
    415: "send the body as application/json",
}
# pydantic's words for what a client may want to tell apart; everything else is `invalid`.
_FIELD_CODES = {
    "missing": "missing",
    "extra_forbidden": "unknown_field",
    "string_too_long": "too_long",
    "string_too_short": "too_short",
    "too_long": "too_long",
    "too_short": "too_short",
}
_WORDS = {
    "extra_forbidden": "there is no such field",
    "missing": "is missing",
    "model_type": "must be a JSON object",
    "dict_type": "must be a JSON object",
    "list_type": "must be a list",
    "string_type": "must be a string",
}
_LENGTH = re.compile(r"at (?P<bound>least|most) (?P<count>\d+) (?:items?|characters?)")
_TYPE_WORDS = frozenset({"bool", "str", "int", "float", "constrained-str"})


class Fault(BaseModel):
    """One field that is wrong."""

    field: str
    code: str
    message: str


class OpenTime(BaseModel):
    """A time that can be chosen instead of the one refused."""

    wall_time: str
    at: str


class Problem(BaseModel):
    """RFC 9457, with a stable `code`; `field` names what is wrong, `errors` every one of several.

    Where a time was refused, `slots` are the next open ones, on the clock of `timezone`.
    """

    type: str = "about:blank"
    title: str
    status: int
    code: str = Field(description="stable, for programs")
    detail: str = Field(description="a sentence for people: what happened and what to do next")
    field: str | None = None
    errors: list[Fault] = Field(default_factory=list)
    timezone: str | None = None
    slots: list[OpenTime] | None = None


def problem(
    status: int,
    code: str,
    detail: str,
    *,
    field: str | None = None,
    errors: list[Fault] | None = None,
    headers: Mapping[str, str] | None = None,
    **more: Any,
) -> Response:
    """A problem document as a response; `more` are further fields of Problem."""
    faults = errors or ([Fault(field=field, code=code, message=detail)] if field else [])
    body = Problem(
        title=title(status), status=status, code=code, detail=detail, field=field, errors=faults, **more
    )
    response = Response(
        body.model_dump_json(exclude_none=True), status=status, content_type=PROBLEM_TYPE
    )
    response.headers.extend(dict(headers or {}))
    return response


def faults_of(error: ValidationError) -> list[Fault]:
    """What pydantic found, field by field, without the values."""
    found: list[Fault] = []
    for fault in error.errors(include_input=False, include_url=False, include_context=False):
        path = ".".join(_path(fault["loc"], fault["type"])) or "body"
        message = _words(fault["type"], fault["msg"])
        control = "control characters" in message
        code = "control_character" if control else _FIELD_CODES.get(fault["type"], "invalid")
        found.append(Fault(field=_clean(path), code=code, message=message))
    # Each way to read a field of several types fails on its own; the first says enough, a control character more.
    found.sort(key=lambda fault: fault.code != "control_character")
    return list({fault.field: fault for fault in reversed(found)}.values())[::-1]


def _words(kind: str, said: str) -> str:
    """pydantic's sentence in words for people who know nothing of Python."""
    length = _LENGTH.search(said)
    if length:
        unit = "entries" if said.startswith(("List", "Dict")) else "characters"
        return f"must have at {length['bound']} {length['count']} {unit}"
    return _WORDS.get(kind) or said.removeprefix("Value error, ")


def _path(loc: tuple[int | str, ...], kind: str) -> list[str]:
    """The field's place, without pydantic's own words for the types it tried."""
    if kind == "extra_forbidden":
        return [str(part) for part in loc]
    return [str(part) for part in loc if "[" not in str(part) and part not in _TYPE_WORDS]


def install(app: Flask) -> None:
    """Answer every error of this app with a problem document."""
    app.register_error_handler(RingbridgeError, _ours)
    app.register_error_handler(ValidationError, _validation)
    app.register_error_handler(HTTPException, _http)
    app.register_error_handler(IntegrityError, _integrity)
    app.register_error_handler(redis.RedisError, _redis)
    app.register_error_handler(Exception, _unexpected)


def _ours(error: RingbridgeError) -> Response:
    code = str(error.details.get("code") or error.code)
    headers: dict[str, str] = {}
    retry = error.details.get("retry_after")
    if isinstance(retry, int | float):
        headers["Retry-After"] = str(max(1, int(retry)))
    if error.status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="ringbridge"'
    if error.status >= 500:
        log.warning("request failed", code=code, endpoint=request.endpoint)
    more: dict[str, Any] = {name: error.details[name] for name in ("timezone", "slots") if name in error.details}
    return problem(error.status, code, error.message, field=error.field, headers=headers, **more)


def _validation(error: ValidationError) -> Response:
    faults = faults_of(error)
    if not faults:
        return problem(422, "invalid", "the request is not acceptable")
    first = faults[0]
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return problem(
        422, first.code, f"{first.field}: {first.message}{more}", field=first.field, errors=faults
    )


def _http(error: HTTPException) -> Response:
    status = error.code or 500
    if status < 400:
        return Response(error.get_response())  # type: ignore[arg-type]
    headers = {}
    for name in ("Allow", "Retry-After"):
        value = dict(error.get_headers()).get(name)
        if value:
            headers[name] = value
    detail = _HTTP_SENTENCES.get(status, str(error.name).lower())
    field = "body" if status in (413, 415) else None
    return problem(status, _HTTP_CODES.get(status, "error"), detail, field=field, headers=headers)


def _integrity(error: IntegrityError) -> Response:
    # Foreign keys and unique columns are the last word where two requests meet.
    text = str(error.orig).lower()
    if "foreign key" in text and request.method == "DELETE":
        return problem(409, "in_use", "something still refers to this; remove or change that first")
    if "foreign key" in text:
        return problem(409, "conflict", "what this refers to is not there any more")
    return problem(409, "conflict", "there is one like this already")


def _redis(error: redis.RedisError) -> Response:
    log.warning("redis does not answer", error=type(error).__name__, endpoint=request.endpoint)
    return problem(503, "redis_unavailable", "Redis does not answer; try again in a moment")


def _unexpected(error: Exception) -> Response:
    # The text of an unforeseen error may hold what a caller sent, so the log names its place alone.
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    place = f"{frame.tb_frame.f_code.co_filename}:{frame.tb_lineno}" if frame is not None else ""
    log.error(
        "request failed unexpectedly", error=type(error).__name__, place=place, endpoint=request.endpoint
    )
    if current_app.config.get("RAISE_UNEXPECTED"):
        raise error
    return problem(500, "internal", "something went wrong in Ringbridge; its log names the place")


def _clean(path: str) -> str:
    """A key of the input may be shown as a field's name, cut and without what could disturb a log."""
    return "".join(char if char.isprintable() else "?" for char in path)[:200]


