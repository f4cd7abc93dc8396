"""A site's own page at `/call-me/<key>`: the widget, and the same form as plain HTML for browsers without scripts.

Pages of other sites may send their own plain form to it. Its answer is always a page for people.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from typing import Any

from flask import Blueprint, Response, abort, redirect, render_template, request, url_for
from pydantic import ValidationError
from werkzeug.wrappers import Response as AnyResponse

from bridge.api import auth
from bridge.api.callbacks import CallbackNew, accept
from bridge.api.parts import now, parts
from bridge.api.problems import faults_of
from bridge.api.strict import has_control
from bridge.api.visitor_words import language, told, words
from bridge.domain.errors import RingbridgeError
from bridge.services import callbacks, checking
from bridge.store.models import Client

blueprint = Blueprint("call_me", __name__)

_SENT = ("number", "name", "note", "when", "page_url", "queue", "website", "proof")
"""Fields of the plain form that go on as they are; what else a page sends with them is its own matter."""
_TRAP = "rb_blank"
"""A field that people do not see, of a name that no browser fills in; `website` of older pages is another."""
_SHOWN = ("number", "name", "note", "when")
_PLAIN = {"proof_needed": "confirm_needed", "proof_invalid": "confirm_needed"}
"""The answer to a form without a good pass carries a new one: to press once more is all that it takes."""


@blueprint.get("/call-me/<site_key>")
def page(site_key: str) -> str:
    """The form, for those who have no page of their own to put one on."""
    return _form(_find(site_key), {}, {})


@blueprint.post("/call-me/<site_key>")
def ask(site_key: str) -> AnyResponse:
    """A form that was sent without a script, from here or from a page of the site."""
    shop = _find(site_key)
    if request.mimetype != "application/x-www-form-urlencoded":
        abort(415)
    sent = {name: _line(request.form.get(name, "")) for name in (*_SENT, "key")}
    try:
        body, key = _body(shop, sent)
        made = accept(body, key)
    except ValidationError as error:
        faults = {fault.field: told(fault.code, fault.message) for fault in faults_of(error)}
        return Response(_form(shop, sent, faults), 422)
    except RingbridgeError as error:
        field = "when" if error.field == "timezone" else error.field
        if error.code in _PLAIN:
            sent["proof"] = ""
        fault = told(_PLAIN.get(error.code, str(error.details.get("code") or error.code)), error.message)
        return Response(_form(shop, sent, {field or "": fault}), error.status)
    # By a GET, so that a reload asks for nothing anew.
    return redirect(url_for("callback_page.page", callback_id=made.id, token=made.token), 303)


@blueprint.route("/call-me/<site_key>/<callback_id>", methods=["GET", "POST"])
def moved_away(site_key: str, callback_id: str) -> AnyResponse:
    """Where the page of a callback was before it had an address of its own; open tabs may still send its form."""
    del site_key
    token = request.args.get("token")
    return redirect(url_for("callback_page.page", callback_id=callback_id, token=token), 308)


def _find(site_key: str) -> callbacks.OpenSite:
    asked = len(site_key) <= 40 and not has_control(site_key)
    shop = callbacks.find_site(parts().database, site_key, now=now()) if asked else None
    if shop is None:
        abort(404)
    return shop


def _line(text: str) -> str:
    """A text area's lines as one, since no field holds line breaks."""
    return " ".join(text.split())


def _body(shop: callbacks.OpenSite, sent: Mapping[str, str]) -> tuple[CallbackNew, str]:
    """The wish as JSON would say it, and the key under which sending it twice is one callback."""
    given: dict[str, Any] = {name: sent[name] for name in _SENT if sent[name]}
    if blank := _line(request.form.get(_TRAP, "")):
        given["website"] = blank
    given |= {"site": shop.site.key, "number": sent["number"]}
    if "when" in given:
        # A form's field knows no zone: it asks in the site's own.
        given["timezone"] = shop.site.timezone
    if "page_url" not in given and request.referrer and "/call-me/" not in request.referrer:
        given["page_url"] = request.referrer[:2000]
    if shop.site.consent_text:
        given["consent"] = request.form.get("consent", "") != ""
    body = CallbackNew.model_validate(given)
    if sent["key"]:
        return body, f"form:{sent['key'][:200]}"
    # A page's own form has no key: within a minute, the same from the same address is one press too many.
    minute = int(now().timestamp() // 60)
    same = f"{minute}:{auth.remote_address()}:{body.model_dump_json()}"
    return body, f"form:{hashlib.sha256(same.encode()).hexdigest()}"


def _form(shop: callbacks.OpenSite, sent: Mapping[str, str], faults: Mapping[str, str]) -> str:
    # What is said at no field of the page is said above its button.
    known = {*_SHOWN, "consent"}
    other = " ".join(text for field, text in faults.items() if field not in known)
    return render_template(
        "call_me.html",
        site=shop.site,
        client=_client(shop),
        language=language(),
        words=words(),
        sent={name: sent.get(name, "") for name in _SHOWN},
        faults={field: text for field, text in faults.items() if field in known},
        fault=other,
        # Who ticked the box has not to tick it anew to press once more.
        agreed=request.form.get("consent", "") != "",
        key=secrets.token_hex(16),
        **{"pass": sent.get("proof") or checking.waiting_pass(parts().settings, shop.site, now=now())},
    )


def _client(shop: callbacks.OpenSite) -> Client:
    with parts().database.read() as db:
        return db.get_one(Client, shop.site.client_id)
