"""The line as it stands: who waits in a queue of the PBX, whose callback is due, and how many agents are free.

`domain.fairness` says whose turn it is.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from bridge.domain.attempts import CallbackStatus
from bridge.domain.calls import CallEventType
from bridge.domain.fairness import Place, ahead, may_go
from bridge.settings import Settings
from bridge.store.models import Call, Callback, CallEventRow, NumberLock, Site
from bridge.store.queries.agents import may_be_tried, ready_agents

JOINED = func.coalesce(Callback.joined_at, Callback.due_at)
"""When a callback's customer joined the line."""
CUSTOMER_IN_QUEUE = "customer_in_queue"
"""A site's order: the customer is called first, and waits in the PBX's queue at their place in the line."""
_LONGEST_WAIT = timedelta(hours=4)
_QUEUED, _UNQUEUED = str(CallEventType.QUEUED), str(CallEventType.UNQUEUED)


def queue_for(row: Callback, site: Site) -> str | None:
    """The PBX's queue in which this callback's customer waits once they have answered; None where one agent is called.

    A visitor may name any queue, so it must be one that the site offers; whoever is meant for one agent waits for them.
    """
    if site.order != CUSTOMER_IN_QUEUE or row.assigned_to is not None or row.queue not in site.offer_queues:
        return None
    return row.queue


def waited(row: Callback, now: datetime) -> float:
    """For how many seconds this callback's customer has stood in the line."""
    return max(0.0, (now - (row.joined_at or row.due_at)).total_seconds())


def may_be_called(
    session: Session, settings: Settings, row: Callback, site: Site, pbx: str, now: datetime
) -> bool:
    """Whether it is this callback's turn: an agent is free for it when all who wait before it are served.

    Before it stand the callers of its queue, and its client's callbacks that could be begun now at the same PBX.
    """
    mine = Place(row.joined_at or row.due_at, True, row.id)
    before = [*_callers(session, pbx, row.queue, now), *_callbacks(session, row, site, now)]
    agents = ready_agents(session, pbx, settings, site.client_id, ahead(mine, before) + 1)
    return may_go(mine, before, len(agents))


def _callers(session: Session, pbx: str, queue: str | None, now: datetime) -> list[Place]:
    """Who waits in that queue. A caller who left it for a moment, as to be asked something, keeps the place."""
    if queue is None:
        return []
    calls = session.scalars(
        select(Call.id).where(
            Call.ended_at.is_(None),
            Call.connected_at.is_(None),
            Call.attempt_id.is_(None),
            Call.pbx == pbx,
            Call.queue == queue,
            # What has no end after this was lost track of, and must not keep everybody from being called.
            Call.started_at > now - _LONGEST_WAIT,
        )
    )
    found: dict[str, list[CallEventRow]] = {call: [] for call in calls}
    events = select(CallEventRow).where(
        CallEventRow.call_id.in_(found), CallEventRow.type.in_((_QUEUED, _UNQUEUED))
    )
    for event in session.scalars(events.order_by(CallEventRow.seq)):
        if event.data.get("queue") == queue:
            found[event.call_id].append(event)
    return [
        Place(min(event.at for event in heard), False, call)
        for call, heard in found.items()
        if heard and heard[-1].type == _QUEUED
    ]


def _callbacks(session: Session, row: Callback, site: Site, now: datetime) -> list[Place]:
    """Other callbacks that want the same agents, could be begun now, and joined no later."""
    joined = row.joined_at or row.due_at
    locked = select(NumberLock.number).where(
        NumberLock.number == Callback.number,
        or_(NumberLock.expires_at.is_(None), NumberLock.expires_at > now),
    )
    statement = (
        select(JOINED, Callback.id)
        .join(Site, Site.id == Callback.site_id)
        .where(
            Callback.status.in_([str(CallbackStatus.SCHEDULED), str(CallbackStatus.QUEUED)]),
            Callback.due_at <= now,
            Callback.expires_at > now,
            Callback.held_by.is_(None),
            Callback.client_id == row.client_id,
            Callback.id != row.id,
            joined >= JOINED,
            Site.active,
            Site.test_mode.is_(False),
            Site.pbx == site.pbx if site.pbx is not None else Site.pbx.is_(None),
            # One whose number is in a call waits for that, and keeps nobody else waiting.
            ~locked.exists(),
            may_be_tried(),
        )
    )
    return [Place(at, True, callback) for at, callback in session.execute(statement)]
