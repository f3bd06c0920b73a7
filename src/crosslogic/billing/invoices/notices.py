"""What orgs are to be told of their invoices: an outbox that a notifier reads.

Invariants: a notice commits together with what it tells of; of each kind and step there is one for an invoice, however
often its writer runs. Whoever sends may send twice (a kill between sending and `sent`), so it passes on the notice's
id as the key by which receivers know a repeat.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from crosslogic.kernel.ids import new_id
from crosslogic.store.engine import reading
from crosslogic.store.tables import billing_notices


class Notice(msgspec.Struct, frozen=True):
    """`kind`: invoice.issued, invoice.reminder, invoice.overdue, invoice.paid, invoice.void, credit_note.issued,
    invoice.reopened, org.suspended, org.restored, chargeback.* (for operators). `payload` holds what a message needs:
    number, amounts, dates, currency."""

    id: str
    org_id: str
    kind: str
    entity_id: str
    step: str
    payload: dict[str, Any]
    at: datetime
    sent_at: datetime | None = None


async def tell(
    conn: AsyncConnection,
    kind: str,
    entity_id: str,
    *,
    org_id: str,
    payload: Mapping[str, Any],
    at: datetime,
    step: str = "",
) -> bool:
    """Put it into the outbox in the transaction of the change itself; False where it is there already.

    The caller holds the row of `entity_id`, so nobody else writes the same one meanwhile.
    """
    if await was_told(conn, kind, entity_id, step):
        return False
    row = Notice(new_id("note"), org_id, kind, entity_id, step, dict(payload), at)
    await conn.execute(insert(billing_notices).values(msgspec.structs.asdict(row)))
    return True


async def was_told(conn: AsyncConnection, kind: str, entity_id: str, step: str = "") -> bool:
    t = billing_notices.c
    there = select(t.id).where(t.entity_id == entity_id, t.kind == kind, t.step == step)
    return (await conn.execute(there)).first() is not None


class NoticeOutbox:
    """The notifier's side of it."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def pending(self, limit: int = 100) -> list[Notice]:
        """What was not sent, oldest first."""
        t = billing_notices.c
        query = select(billing_notices).where(t.sent_at.is_(None)).order_by(t.id).limit(limit)
        async with reading(self._engine) as conn:
            return [Notice(**dict(row)) for row in (await conn.execute(query)).mappings()]

    async def sent(self, ids: Sequence[str], at: datetime) -> None:
        """These need not be sent again; harmless to repeat."""
        t = billing_notices.c
        async with self._engine.begin() as conn:
            await conn.execute(update(billing_notices).where(t.id.in_(ids), t.sent_at.is_(None)).values(sent_at=at))
