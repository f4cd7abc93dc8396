"""The lease of a listener: one row per PBX, taken by conditional UPDATE.

Expiry is compared with one clock only: the database server's on PostgreSQL; on SQLite, whose file lives on one
machine, that machine's.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import cast

from sqlalchemy import ColumnElement, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from bridge.store.database import changed
from bridge.store.models import PbxLease


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease as its holder knows it; a later holder has a higher epoch."""

    pbx: str
    holder: str
    epoch: int


def clock(session: Session) -> datetime:
    """Now, by the clock that leases are read from."""
    if session.get_bind().dialect.name == "postgresql":
        return cast(datetime, session.execute(select(func.clock_timestamp())).scalar_one())
    return datetime.now(UTC)


def is_free(session: Session, pbx: str) -> bool:
    """Whether a claim could succeed now; asked before `claim`, so that a standby does not write all the time."""
    expires_at = session.execute(select(PbxLease.expires_at).where(PbxLease.pbx == pbx)).scalar_one_or_none()
    return expires_at is None or expires_at <= clock(session)


def link_is_up(session: Session, pbx: str, now: datetime) -> bool:
    """False where a listener says that its link is down, or has stopped; True too where none ever ran."""
    lease = session.get(PbxLease, pbx, populate_existing=True)
    return lease is None or (lease.connected and lease.expires_at > now)


def claim(session: Session, pbx: str, holder: str, keep: timedelta) -> Lease | None:
    """Take the lease where nobody holds it; None where somebody does. The caller commits."""
    now = clock(session)
    taken = changed(
        session,
        update(PbxLease)
        .where(PbxLease.pbx == pbx, PbxLease.expires_at <= now)
        .values(
            holder=holder,
            epoch=PbxLease.epoch + 1,
            expires_at=now + keep,
            connected=False,
            detail="starting",
            wanted_at=None,
        ),
    )
    if not taken:
        try:
            with session.begin_nested():
                session.execute(
                    insert(PbxLease).values(
                        pbx=pbx,
                        holder=holder,
                        epoch=1,
                        expires_at=now + keep,
                        connected=False,
                        detail="starting",
                    )
                )
        except IntegrityError:
            return None
    epoch = session.execute(
        select(PbxLease.epoch).where(PbxLease.pbx == pbx, PbxLease.holder == holder)
    ).scalar_one()
    return Lease(pbx, holder, epoch)


def renew(session: Session, lease: Lease, keep: timedelta, connected: bool, detail: str) -> bool:
    """Keep the lease, and say how the link does. False where a later holder has it."""
    return bool(
        changed(
            session,
            update(PbxLease)
            .where(*_ours(lease))
            .values(expires_at=clock(session) + keep, connected=connected, detail=detail[:300]),
        )
    )


def ailing(session: Session, pbx: str) -> int | None:
    """The epoch of a holder that is not connected; None where there is none, or it is well."""
    return session.execute(
        select(PbxLease.epoch).where(
            PbxLease.pbx == pbx, PbxLease.connected.is_(False), PbxLease.expires_at > clock(session)
        )
    ).scalar_one_or_none()


def ask(session: Session, pbx: str, epoch: int) -> None:
    """Tell that holder, if it is still not connected, that somebody else could work."""
    session.execute(
        update(PbxLease)
        .where(PbxLease.pbx == pbx, PbxLease.epoch == epoch, PbxLease.connected.is_(False))
        .values(wanted_at=clock(session))
    )


def is_wanted(session: Session, lease: Lease, lately: timedelta) -> bool:
    """Whether a standby asked for our lease so lately that it surely waits for it still."""
    asked = session.execute(select(PbxLease.wanted_at).where(*_ours(lease))).scalar_one_or_none()
    return asked is not None and asked > clock(session) - lately


def outgrow(session: Session, lease: Lease, epoch: int) -> Lease | None:
    """Go on with an epoch above `epoch`, which Redis has seen though the database forgot it (a restored backup)."""
    higher = Lease(lease.pbx, lease.holder, epoch + 1)
    grown = changed(session, update(PbxLease).where(*_ours(lease)).values(epoch=higher.epoch))
    return higher if grown else None


def is_held(session: Session, lease: Lease) -> bool:
    """Whether it is still ours; in a writing transaction it stays so until its end."""
    return (
        session.execute(select(PbxLease.epoch).where(*_ours(lease)).with_for_update()).scalar_one_or_none()
        is not None
    )


def release(session: Session, lease: Lease, detail: str) -> None:
    """Let a standby take over at once."""
    session.execute(
        update(PbxLease)
        .where(*_ours(lease))
        .values(expires_at=clock(session), connected=False, detail=detail[:300])
    )


def _ours(lease: Lease) -> tuple[ColumnElement[bool], ...]:
    return (PbxLease.pbx == lease.pbx, PbxLease.holder == lease.holder, PbxLease.epoch == lease.epoch)
