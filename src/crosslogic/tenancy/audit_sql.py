"""The audit log in the database.

Invariant: an entry commits together with what it tells of, or not at all. Whoever appends holds the head until the
end of the transaction; in every transaction the head is locked after the rows that change and before the change
feed, so that no two wait for each other.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import RowMapping, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from crosslogic.kernel.clock import Clock, SystemClock
from crosslogic.store.engine import reading
from crosslogic.store.tables import audit_head, audit_log
from crosslogic.tenancy.audit import (
    SYSTEM,
    Actor,
    AuditEntry,
    Digest,
    Head,
    Verdict,
    chained_hash,
    document,
    ended,
    follow,
)
from crosslogic.tenancy.keys import key_hasher

_PAGE = 1_000


class AuditTrail:
    """What one actor leaves behind."""

    def __init__(self, actor: Actor = SYSTEM, digest: Digest | None = None, clock: Clock | None = None) -> None:
        self.actor = actor
        self._digest = digest or key_hasher()
        self._clock = clock or SystemClock()

    def of(self, actor: Actor) -> "AuditTrail":
        return AuditTrail(actor, self._digest, self._clock)

    async def append(
        self,
        conn: AsyncConnection,
        action: str,
        entity_id: str,
        *,
        org_id: str | None,
        before: Mapping[str, Any] | None,
        after: Mapping[str, Any] | None,
    ) -> None:
        """Add an entry in the transaction of the change itself, before it is announced."""
        found = await conn.execute(select(audit_head.c.seq, audit_head.c.hash).with_for_update())
        row = found.one()
        entry = AuditEntry(
            seq=row.seq + 1,
            at=self._clock.now(),
            org_id=org_id,
            actor_kind=self.actor.kind.value,
            actor_id=self.actor.id,
            action=action,
            entity_id=entity_id,
            before=document(before),
            after=document(after),
            request_id=self.actor.request_id,
        )
        digest = chained_hash(self._digest, bytes(row.hash), entry)
        values = {name: getattr(entry, name) for name in AuditEntry.__struct_fields__}
        await conn.execute(insert(audit_log).values(**{**values, "hash": digest}))
        await conn.execute(update(audit_head).values(seq=entry.seq, hash=digest))

    async def verify(self, engine: AsyncEngine) -> Verdict:
        """Follow the whole chain. Takes about 10 µs an entry, and holds nobody up."""
        last = select(func.coalesce(func.max(audit_log.c.seq), 0)).scalar_subquery()
        async with reading(engine) as conn:
            # One statement, so that an entry that is being added is in both or in neither.
            row = (await conn.execute(select(audit_head.c.seq, audit_head.c.hash, last.label("last")))).first()
        if row is None:
            return Verdict(0, "", 1, "the record of where the log ends is gone")
        recorded, reached = Head(row.seq, bytes(row.hash)), Head(0, b"")
        while reached.seq < recorded.seq:
            page = await _page(engine, reached.seq, recorded.seq)
            reached, wrong = follow(self._digest, reached, page)
            if wrong is not None:
                return wrong
            if not page:
                break
        return ended(reached, recorded, row.last)


async def entries(
    engine: AsyncEngine,
    *,
    org_id: str | None = None,
    actor_id: str | None = None,
    action: str | None = None,
    entity_id: str | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
    before_seq: int | None = None,
    limit: int = 100,
) -> list[AuditEntry]:
    """Newest first. `action` may be the beginning of one up to its dot: "key" finds "key.create"."""
    query = select(audit_log).order_by(audit_log.c.seq.desc()).limit(limit)
    if org_id is not None:
        query = query.where(audit_log.c.org_id == org_id)
    if actor_id is not None:
        query = query.where(audit_log.c.actor_id == actor_id)
    if entity_id is not None:
        query = query.where(audit_log.c.entity_id == entity_id)
    if action is not None:
        exact = audit_log.c.action == action
        query = query.where(exact | audit_log.c.action.startswith(f"{action}.", autoescape=True))
    if start is not None:
        query = query.where(audit_log.c.at >= start)
    if end is not None:
        query = query.where(audit_log.c.at < end)
    if before_seq is not None:
        query = query.where(audit_log.c.seq < before_seq)
    async with reading(engine) as conn:
        return [_entry(row) for row in (await conn.execute(query)).mappings()]


async def _page(engine: AsyncEngine, after: int, until: int) -> list[AuditEntry]:
    query = (
        select(audit_log)
        .where(audit_log.c.seq > after, audit_log.c.seq <= until)
        .order_by(audit_log.c.seq)
        .limit(_PAGE)
    )
    async with reading(engine) as conn:
        return [_entry(row) for row in (await conn.execute(query)).mappings()]


def _entry(row: RowMapping) -> AuditEntry:
    return AuditEntry(**{**row, "hash": bytes(row["hash"])})
