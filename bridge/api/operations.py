"""Is it up, is it ready, what does it count."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator

from flask import Blueprint, Flask, Response, current_app, g, jsonify, request
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from bridge.api import auth
from bridge.api.parts import Parts, now, parts
from bridge.api.policy import LOCAL_HEADER
from bridge.domain.errors import Unavailable
from bridge.log import mask_text
from bridge.services import health
from bridge.services.access import ADMINISTRATORS

_FRESH_SECONDS = 1.0
_LATEST = "ringbridge.latest"
_REGISTRY = "ringbridge.registry"

blueprint = Blueprint("operations", __name__)


class _Latest:
    """The last answer, so that a crowd of probes costs one look."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.at = 0.0
        self.found: list[health.Part] = []


@blueprint.get("/healthz")
def healthz() -> Response:
    """This process answers. Nothing else is asked."""
    return jsonify(status="ok")


@blueprint.get("/readyz")
def readyz() -> tuple[Response, int]:
    """200 where calls can be made and shown; else 503, with the reason for each part that is missing."""
    room = parts()
    latest: _Latest = current_app.extensions[_LATEST]
    with latest.lock:
        if time.monotonic() - latest.at > _FRESH_SECONDS:
            latest.found = health.check(room.settings, room.database, room.redis, now())
            latest.at = time.monotonic()
        found = latest.found
    reasons = {part.name: mask_text(part.reason) for part in found if part.reason}
    body = {
        "status": "not ready" if reasons else "ready",
        "reasons": reasons,
        "parts": {part.name: not part.reason for part in found},
    }
    return jsonify(body), 503 if reasons else 200


@blueprint.get("/metrics")
def metrics() -> Response:
    """Prometheus, for this machine, or elsewhere with an administrator's token."""
    if not _is_local():
        auth.current_access().require(ADMINISTRATORS)
    return Response(generate_latest(current_app.extensions[_REGISTRY]), content_type=CONTENT_TYPE_PLAIN_0_0_4)


def _is_local() -> bool:
    if request.environ.get("REMOTE_ADDR"):
        # Not behind the edge: the connection's own address, and no proxy in between.
        return auth.remote_address() in {"127.0.0.1", "::1"} and "X-Forwarded-For" not in request.headers
    return request.headers.get(LOCAL_HEADER) == "1"


def install(app: Flask, room: Parts) -> None:
    """Count and time every request of the app."""
    registry = CollectorRegistry()
    requests = Counter(
        "ringbridge_requests", "Requests by view and status", ["method", "view", "status"], registry=registry
    )
    seconds = Histogram(
        "ringbridge_request_seconds",
        "Time to answer, by view",
        ["view"],
        buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
        registry=registry,
    )
    registry.register(_Rows(room))
    app.extensions[_REGISTRY] = registry
    app.extensions[_LATEST] = _Latest()

    def begin() -> None:
        g.began = time.perf_counter()

    def end(response: Response) -> Response:
        view = request.endpoint or "none"
        method = request.method if request.method in _METHODS else "OTHER"
        requests.labels(method, view, str(response.status_code)).inc()
        seconds.labels(view).observe(time.perf_counter() - g.get("began", time.perf_counter()))
        return response

    app.before_request(begin)
    app.after_request(end)


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class _Rows:
    """What the database and the listeners count, read when somebody asks."""

    def __init__(self, room: Parts) -> None:
        self._room = room

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        try:
            rows = health.counts(self._room.database)
            promises = health.promises_kept(self._room.database, now())
        except Unavailable:
            rows, promises = {}, []
        for name, label in (("callbacks", "status"), ("attempts", "state"), ("agents", "state")):
            family = GaugeMetricFamily(f"ringbridge_{name}", f"Rows by {label}", labels=[label])
            for value, count in rows.get(name, {}).items():
                family.add_metric([value], count)
            yield family
        yield from _promises(promises)
        family = GaugeMetricFamily(
            "ringbridge_listener", "What each listener counts", labels=["pbx", "counter"]
        )
        for pbx, counters in health.listener_counters(self._room.settings, self._room.redis).items():
            for counter, amount in counters.items():
                family.add_metric([pbx, counter], amount)
        yield family


def _promises(sites: list[tuple[str, int, int, bool]]) -> Iterator[Metric]:
    judged = GaugeMetricFamily(
        "ringbridge_promises", "Times promised to visitors that were due in the last day", labels=["site", "kept"]
    )
    promising = GaugeMetricFamily(
        "ringbridge_promising", "1 where the site promises a time, 0 where it did not keep its word", labels=["site"]
    )
    for site, kept, broken, believed in sites:
        judged.add_metric([site, "yes"], kept)
        judged.add_metric([site, "no"], broken)
        promising.add_metric([site], believed)
    yield from (judged, promising)
