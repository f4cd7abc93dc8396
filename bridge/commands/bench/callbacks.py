"""`ringbridge bench callbacks`: from a visitor's form to two phones, with the lab as the PBX."""

from __future__ import annotations

import secrets
import statistics
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from sqlalchemy import func, select

from bridge.commands.bench.common import as_json, by_administrator, make_site, numbers, show, spread
from bridge.commands.rest import Rest
from bridge.domain.calls import CallEventType
from bridge.domain.errors import Conflict, Forbidden, RingbridgeError, Unavailable
from bridge.settings import load
from bridge.store.database import open_database
from bridge.store.models import Attempt, CallEventRow, Pop

_ENDED = frozenset({"done", "failed", "cancelled", "expired"})
_POLL_SECONDS = 0.1


@dataclass
class Sample:
    """One callback; times in milliseconds."""

    id: str = ""
    posted_at: datetime | None = None
    post_ms: float = 0.0
    status: str = ""
    reason: str = ""


@dataclass
class Seat:
    """An agent of ours at a phone of the lab."""

    device: str
    rest: Rest
    rang: dict[str, float] = field(default_factory=dict)
    """Pop id -> milliseconds from the phone's ringing to the pop's arrival here."""


@click.command()
@click.option(
    "--count", type=click.IntRange(1, 2000), default=50, show_default=True, help="How many callbacks."
)
@click.option(
    "--parallel", type=click.IntRange(1, 4), default=1, show_default=True, help="Callbacks at a time."
)
@by_administrator
@click.option("--pbx", help="The PBX to dial with (default: the first of the settings).")
@click.option(
    "--device", "devices", multiple=True, help="An agent's phone; repeatable (default: PJSIP/101 to 105)."
)
@click.option(
    "--timeout", type=click.FloatRange(1), default=60.0, show_default=True, help="Seconds for one callback."
)
@as_json
def callbacks(
    admin: Rest,
    count: int,
    parallel: int,
    pbx: str | None,
    devices: tuple[str, ...],
    timeout: float,
    as_json: bool,
) -> int:
    """Ask for callbacks as a web form would, and measure POST, POST to Originate and to the first phone's ring, and
    ringing to pop.

    It makes a client, a site and agents of its own through REST. Ends with 1 where a callback did not end as done.
    """
    # One agent more than callbacks at a time: whoever has just hung up is still being written down.
    phones = devices or tuple(f"PJSIP/{phone}" for phone in range(101, 106))
    site, seats = _prepare(admin, pbx, phones, parallel + 1)
    stop = threading.Event()
    watchers = [threading.Thread(target=_watch, args=(seat, stop), daemon=True) for seat in seats]
    for watcher in watchers:
        watcher.start()
    began = time.monotonic()
    try:
        samples = _run(admin.url, site, seats, count, min(parallel, len(seats)), timeout, quiet=as_json)
    finally:
        stop.set()
        _leave(seats)
    result = _result(samples, seats, time.monotonic() - began)
    show(result, as_json)
    return 1 if result["failed"] else 0


def _prepare(admin: Rest, pbx: str | None, devices: Sequence[str], wanted: int) -> tuple[str, list[Seat]]:
    """Client, site and agents; returns the site's key and the seats. Raises Conflict where no phone is free."""
    mark = secrets.token_hex(4)
    client, site = make_site(admin, pbx=pbx)
    seats: list[Seat] = []
    for device in devices:
        if len(seats) == wanted:
            break
        username, password = f"bench-{mark}-{device.rpartition('/')[2]}", secrets.token_urlsafe(18)
        admin.post(
            "/api/v1/agents",
            {
                "username": username,
                "password": password,
                "name": "Bench",
                "role": "agent",
                # They serve this client only, and nobody else's callback is answered by them.
                "client_id": client,
                "devices": [device],
                "extension": device.rpartition("/")[2],
            },
        )
        rest = admin.signed_in(username, password, device)
        try:
            rest.put("/api/v1/me/state", {"state": "ready", "device": device})
        except Conflict:
            continue
        seats.append(Seat(device, rest))
    if not seats:
        raise Conflict("somebody sits at each of these phones; sign out there, or name others with --device")
    return site, seats


def _leave(seats: Sequence[Seat]) -> None:
    for seat in seats:
        try:
            seat.rest.put("/api/v1/me/state", {"state": "offline"})
        except RingbridgeError:
            # The measuring is over; whoever stopped the server knows why.
            return


def _watch(seat: Seat, stop: threading.Event) -> None:
    """Read the seat's stream as a page does: acknowledge each pop, and be ready again after each call."""
    while not stop.is_set():
        try:
            for event, data in seat.rest.events("/api/v1/me/events", stop):
                if event == "state" and data["state"] in {"wrapup", "paused"}:
                    seat.rest.put("/api/v1/me/state", {"state": "ready"})
                if event == "pop" and data["id"] not in seat.rang:
                    rang = datetime.fromisoformat(data["at"])
                    seat.rang[data["id"]] = (datetime.now(UTC) - rang).total_seconds() * 1000
                    seat.rest.post(f"/api/v1/pops/{data['id']}/ack", {})
        except (RingbridgeError, ValueError, KeyError):
            stop.wait(0.5)


def _run(
    url: str, site: str, seats: Sequence[Seat], count: int, parallel: int, timeout: float, *, quiet: bool
) -> list[Sample]:
    visitor = Rest(url)
    columns = (TextColumn("callbacks"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with (
        Progress(*columns, console=Console(stderr=True), disable=quiet) as progress,
        ThreadPoolExecutor(parallel) as pool,
    ):
        bar = progress.add_task("callbacks", total=count)

        def one(number: str) -> Sample:
            try:
                for seat in seats:
                    seat.rest.put("/api/v1/me/state", {"state": "ready"})
                return _callback(visitor, site, number, timeout)
            except Unavailable as error:
                return Sample(status="failed", reason=error.message)
            finally:
                progress.advance(bar)

        chosen = [number for number, _ in zip(numbers(), range(count), strict=False)]
        return list(pool.map(one, chosen))


def _callback(visitor: Rest, site: str, number: str, timeout: float) -> Sample:
    sample = Sample(posted_at=datetime.now(UTC))
    began = time.perf_counter()
    try:
        answer = visitor.post(
            "/api/v1/callbacks",
            {"number": number, "site": site, "name": "Bench"},
            {"Idempotency-Key": secrets.token_hex(16)},
        )
    except Forbidden:
        raise
    except RingbridgeError as error:
        sample.status, sample.reason = "failed", error.message
        return sample
    sample.post_ms = (time.perf_counter() - began) * 1000
    sample.id = answer["id"]
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        body = visitor.get(f"/api/v1/callbacks/{sample.id}", answer["token"])
        if body["status"] in _ENDED:
            sample.status, sample.reason = body["status"], body["reason"] or ""
            return sample
        time.sleep(_POLL_SECONDS)
    sample.status, sample.reason = "failed", f"it did not end within {timeout:g} s"
    return sample


def _result(samples: Sequence[Sample], seats: Sequence[Seat], seconds: float) -> dict[str, object]:
    sent, rang, painted = _from_sql([sample.id for sample in samples if sample.id], seats)
    posts = [sample.post_ms for sample in samples if sample.id]
    pops = [value for seat in seats for value in seat.rang.values()]
    failed = [sample for sample in samples if sample.status != "done"]
    result: dict[str, object] = {
        "count": len(samples),
        "failed": len(failed),
        "seconds": round(seconds, 1),
        "dialed": len(sent),
    }
    for name, values in (
        ("post", posts),
        ("post_to_originate", _since_posted(samples, sent)),
        ("post_to_ring", _since_posted(samples, rang)),
        ("ring_to_pop", pops),
        ("ring_to_paint", painted),
    ):
        if values or name.startswith("post"):
            result |= spread(name, values)
    if posts:
        result["post_mean_ms"] = round(statistics.fmean(posts), 1)
    if failed:
        result["reasons"] = sorted({sample.reason or sample.status for sample in failed})
    return result


def _since_posted(samples: Sequence[Sample], when: Mapping[str, datetime]) -> list[float]:
    """Milliseconds from each form to what came of it."""
    return [
        (when[sample.id] - sample.posted_at).total_seconds() * 1000
        for sample in samples
        if sample.posted_at is not None and sample.id in when
    ]


def _from_sql(
    ids: Sequence[str], seats: Sequence[Seat]
) -> tuple[dict[str, datetime], dict[str, datetime], list[float]]:
    """When each callback's first Originate left and its first phone rang, by the PBX's clock; and what pages that
    painted our pops measured, in ms.
    """
    sent: dict[str, datetime] = {}
    rang: dict[str, datetime] = {}
    painted: list[float] = []
    with open_database(load()).read() as session:
        for start in range(0, len(ids), 500):
            rows = session.execute(
                select(Attempt.callback_id, Attempt.sent_at).where(
                    Attempt.callback_id.in_(ids[start : start + 500])
                )
            )
            for callback, at in rows:
                if callback is not None and at is not None:
                    sent[callback] = min(at, sent.get(callback, at))
            offers = session.execute(
                select(Attempt.callback_id, func.min(CallEventRow.at))
                .join(CallEventRow, CallEventRow.call_id == Attempt.call_id)
                .where(
                    Attempt.callback_id.in_(ids[start : start + 500]),
                    CallEventRow.type == str(CallEventType.OFFERED),
                )
                .group_by(Attempt.callback_id)
            )
            rang |= {callback: at for callback, at in offers if callback is not None}
        for pop_id in (pop_id for seat in seats for pop_id in seat.rang):
            pop = session.get(Pop, pop_id)
            if pop is not None and pop.painted_ms is not None and pop.acked_at is not None:
                painted.append((pop.sent_at - pop.offered_at).total_seconds() * 1000 + pop.painted_ms)
    return sent, rang, painted
