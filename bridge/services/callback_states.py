"""The one way in which a callback's status changes: by the table, by conditional UPDATE, and told to who watches it."""

from __future__ import annotations

from typing import Any

import structlog
from prometheus_client import Counter
from sqlalchemy import ColumnElement, select, update
from sqlalchemy.orm import Session

from bridge.domain.attempts import CallbackStatus
from bridge.domain.callback_states import check_callback
from bridge.domain.errors import StateError
from bridge.services import news
from bridge.store.database import changed
from bridge.store.models import Callback

log = structlog.get_logger(__name__)

ILLEGAL = Counter(
    "ringbridge_illegal_callback_transitions_total",
    "Changes of a callback's status that the table refuses",
    ["old", "new"],
)


def change(
    session: Session, callback_id: str, new: CallbackStatus, *conditions: ColumnElement[bool], **values: Any
) -> bool:
    """Give a callback that status and these values, where all conditions hold; True when this call made the change.

    False where it is not there, or the conditions do not hold (any more): somebody else was faster. The same status
    again is a change of the values. The caller commits, and calls `news.publish` afterwards. Raises StateError (also
    counted) for an arrow that the table has not.
    """
    where = (Callback.id == callback_id, *conditions)
    found = select(Callback).where(*where).with_for_update().execution_options(populate_existing=True)
    row = session.scalar(found)
    if row is None:
        return False
    old = CallbackStatus(row.status)
    try:
        check_callback(old, new)
    except StateError:
        ILLEGAL.labels(str(old), str(new)).inc()
        log.warning("illegal transition of a callback", callback=callback_id, old=str(old), new=str(new))
        raise
    if not changed(
        session,
        update(Callback).where(*where, Callback.status == str(old)).values(status=str(new), **values),
    ):
        return False
    session.refresh(row)
    news.note_callback(session, row)
    return True
