"""How a view is declared: who may call it, what comes in, what goes out; OpenAPI is read from the same words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, TypeVar

from flask import Response, request
from pydantic import BaseModel
from spectree import Response as Responses
from spectree import SecurityScheme, SpecTree
from spectree.models import InType, SecureType, SecuritySchemeData
from spectree.plugins.flask_plugin import FlaskPlugin
from werkzeug.datastructures import MultiDict
from werkzeug.exceptions import UnsupportedMediaType

from bridge import __version__
from bridge.api import auth
from bridge.api.policy import PROBLEM_TYPE
from bridge.api.problems import Fault, Problem, problem
from bridge.api.strict import Body, read_json
from bridge.domain.errors import Invalid, RingbridgeError
from bridge.services.access import Role

View = TypeVar("View", bound=Callable[..., Any])

SIGNED_IN: list[dict[str, list[str]]] = [{"token": []}, {"cookie": [], "csrf": []}]
ANYBODY: list[dict[str, list[str]]] = [{}]
STREAM_TYPE = "text/event-stream"
CSV_TYPE = "text/csv"
"""What is sent to an address that ends in `/import`."""
_ERRORS = (400, 401, 403, 404, 409, 413, 415, 422, 429, 503)


class NotCsv(RingbridgeError):
    """Send the table as text/csv."""

    code = "media_type"
    status = 415


class StrictPlugin(FlaskPlugin):
    """spectree's way into Flask, with our own reading of requests: nothing is guessed, nothing passes silently."""

    def validate(
        self, func: Any, query: Any, json: Any, *rest: Any, **kwargs: Any
    ) -> Any:
        if query is not None:
            kwargs["query"] = query.model_validate(_once(request.args))
        elif request.args:
            _once(request.args)
        if json is not None:
            kwargs["body"] = json.model_validate(_read_body(json))
        return func(**kwargs)


api = SpecTree(
    backend=StrictPlugin,
    annotations=False,
    mode="strict",
    title="Ringbridge",
    version=__version__,
    description=(
        "JSON in and out. Errors are problem documents (RFC 9457) with a stable `code`. "
        "Times are RFC 3339 with offset. Numbers come back as E.164. "
        "No string may hold line breaks or other control characters, but a script's `body`."
    ),
    naming_strategy=lambda model: model.__name__,
    nested_naming_strategy=lambda _parent, child: child,
    validation_error_model=Problem,
    security_schemes=[
        SecurityScheme(
            name="token",
            data=SecuritySchemeData(
                type=SecureType.HTTP,
                scheme="bearer",
                description="from POST /api/v1/session, or from `ringbridge user token`",
            ),
        ),
        SecurityScheme(
            name="cookie",
            data=SecuritySchemeData(
                type=SecureType.API_KEY, name=auth.COOKIE, field_in=InType.COOKIE
            ),
        ),
        SecurityScheme(
            name="csrf",
            data=SecuritySchemeData(
                type=SecureType.API_KEY, name=auth.CSRF_HEADER, field_in=InType.HEADER
            ),
        ),
    ],
)


def view(
    tag: str,
    *,
    roles: frozenset[Role] | None,
    query: type[BaseModel] | None = None,
    headers: type[BaseModel] | None = None,
    body: type[BaseModel] | None = None,
    answers: type[BaseModel] | None = None,
    status: int = 200,
    security: Sequence[dict[str, list[str]]] | None = None,
) -> Callable[[View], Callable[..., Response]]:
    """Declare a view. With `roles`, it gets `access` of someone who holds one of them; who is not let in is told so
    before anything else is read. `query` and `body` arrive checked under these names; `headers` only document."""
    problems: dict[str, Any] = {f"HTTP_{code}": Problem for code in _ERRORS}
    listed = Responses(**{**problems, f"HTTP_{status}": answers})

    def declare(func: View) -> Callable[..., Response]:
        checked = api.validate(
            query=query,
            headers=headers,
            json=body,
            resp=listed,
            tags=(tag,),
            security=security or (SIGNED_IN if roles is not None else ANYBODY),
        )(func)

        @wraps(checked)
        def guarded(**kwargs: Any) -> Response:
            if roles is not None:
                access = auth.current_access()
                access.require(roles)
                kwargs["access"] = access
            result: Response = checked(**kwargs)
            return result

        return guarded

    return declare


def answer(body: BaseModel, status: int = 200) -> Response:
    """A JSON response."""
    return Response(body.model_dump_json(), status=status, content_type="application/json")


def csv_lines() -> list[str]:
    """The lines of a table that was sent. Raises NotCsv."""
    if request.mimetype != CSV_TYPE:
        raise NotCsv(field="body")
    return request.get_data(cache=False).decode("utf-8-sig", errors="replace").splitlines()


def no_content() -> Response:
    return Response(status=204)


def openapi() -> dict[str, Any]:
    """The OpenAPI document; problem documents carry their own media type."""
    document: dict[str, Any] = api.spec
    for name, schema in document["components"]["schemas"].items():
        if name.endswith("Patch"):
            # What a change leaves out stays as it is; the model's own defaults are never used.
            for field in schema["properties"].values():
                field.pop("default", None)
    for address, path in document["paths"].items():
        for operation in path.values():
            if address.endswith("/import"):
                operation["requestBody"] = {"content": {CSV_TYPE: {"schema": {"type": "string"}}}, "required": True}
            for code, response in operation["responses"].items():
                content = response.get("content", {})
                if int(code) >= 400 and "application/json" in content:
                    content[PROBLEM_TYPE] = content.pop("application/json")
            if any(parameter["name"] == "last_event_id" for parameter in operation.get("parameters", ())):
                operation["responses"]["200"]["content"] = {STREAM_TYPE: {"schema": {"type": "string"}}}
    return document


def faulty(faults: list[Fault]) -> Response:
    """A 422 for faults found after the schema was passed."""
    return problem(422, faults[0].code, faults[0].message, field=faults[0].field, errors=faults)


def _once(values: MultiDict[str, str]) -> dict[str, str]:
    for name, found in values.lists():
        if len(found) > 1:
            raise Invalid("this is given twice in the query", field=str(name)[:100])
    return values.to_dict()


def _read_body(shape: type[Body]) -> Any:
    if shape.may_be_absent and not request.get_data():
        return {}
    if request.mimetype != "application/json":
        raise UnsupportedMediaType
    return read_json(request.get_data(cache=False))
