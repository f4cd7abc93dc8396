"""What the widget must know of a site before it draws the form."""

from __future__ import annotations

from flask import Blueprint, Response, g, request
from pydantic import Field

from bridge.api.callbacks import site_of
from bridge.api.contract import answer, view
from bridge.api.strict import Answer, Line, Query

blueprint = Blueprint("form", __name__, url_prefix="/api/v1")


class SiteQuery(Query):
    site: Line | None = Field(None, max_length=40, description="the site's key, where X-Site-Key is not sent")


class SiteForm(Answer):
    """What a visitor is shown."""

    consent_text: str = Field(description='what the visitor must agree to; "" where nothing is asked')
    test_mode: bool = Field(description="nobody is called")


@blueprint.get("/callbacks/form")
@view("callbacks", roles=None, query=SiteQuery, answers=SiteForm)
def form(query: SiteQuery) -> Response:
    """What a form for this site shows. Only the site's own pages may ask, as for a callback."""
    site = site_of(query.site).site
    g.cors = request.headers.get("Origin")
    return answer(SiteForm.model_validate(site))
