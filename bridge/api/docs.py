"""The OpenAPI document, and a page that shows it without loading anything from elsewhere."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, jsonify, render_template

from bridge.api.contract import openapi

blueprint = Blueprint("docs", __name__, url_prefix="/api")


@blueprint.get("/v1/openapi.json")
def document() -> Response:
    """OpenAPI 3.1."""
    return jsonify(openapi())


@blueprint.get("/docs")
def docs() -> str:
    """The same for people."""
    found = openapi()
    groups: dict[str, list[dict[str, Any]]] = {}
    for path, methods in sorted(found["paths"].items()):
        for method, operation in methods.items():
            tag = (operation.get("tags") or ["other"])[0]
            groups.setdefault(tag, []).append(_shown(path, method, operation))
    return render_template(
        "docs.html", info=found["info"], groups=groups, schemas=found["components"]["schemas"]
    )


def _shown(path: str, method: str, operation: dict[str, Any]) -> dict[str, Any]:
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    good = next((code for code in sorted(operation["responses"]) if code < "400"), "200")
    content: dict[str, Any] = operation["responses"].get(good, {}).get("content", {})
    shape: dict[str, Any] = next(iter(content.values()), {})
    return {
        "path": path,
        "method": method.upper(),
        "summary": operation.get("summary", ""),
        "description": operation.get("description", ""),
        "parameters": operation.get("parameters", []),
        "body": _schema(body.get("schema")),
        "status": good,
        "answer": _schema(shape.get("schema")),
        "open": {} in operation.get("security", []),
    }


def _schema(schema: dict[str, Any] | None) -> str:
    return str((schema or {}).get("$ref", "")).rpartition("/")[2]
