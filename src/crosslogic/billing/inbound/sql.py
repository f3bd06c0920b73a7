"""Inbound events in the database: each once, however often it is told."""

from datetime import datetime
from typing import Any

from sqlalchemy import RowMapping, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.billing.inbound.model import InboundEvent, StoredEvent
from crosslogic.store.engine import reading
from crosslogic.store.tables import inbound_events as table


async def store(engine: AsyncEngine, event: InboundEvent, now: datetime) -> bool:
    """Keep it; False when it was known already, which is counted."""
    dialect = postgresql if engine.dialect.name == "postgresql" else sqlite
    values = {
        "provider": event.provider,
        "event_id": event.event_id,
        "type": event.type,
        "payload": event.payload,
        "received_at": now,
        "copies": 1,
        "attempts": 0,
        "next_attempt_at": now,
    }
    statement = dialect.insert(table).values(**values)
    statement = statement.on_conflict_do_update(
        index_elements=["provider", "event_id"], set_={"copies": table.c.copies + 1}
    )
    async with engine.begin() as conn:
        copies = (await conn.execute(statement.returning(table.c.copies))).scalar_one()
    return bool(copies == 1)


async def waiting(engine: AsyncEngine, now: datetime, limit: int) -> list[StoredEvent]:
    query = select(table).where(table.c.next_attempt_at <= now)
    query = query.order_by(table.c.next_attempt_at, table.c.received_at, table.c.event_id).limit(limit)
    async with reading(engine) as conn:
        return [_event(row) for row in (await conn.execute(query)).mappings()]


async def change(engine: AsyncEngine, event: StoredEvent, **values: Any) -> None:
    here = (table.c.provider == event.provider) & (table.c.event_id == event.event_id)
    async with engine.begin() as conn:
        await conn.execute(update(table).where(here).values(**values))


async def events(
    engine: AsyncEngine,
    *,
    provider: str | None = None,
    kind: str | None = None,
    failing: bool = False,
    after: tuple[datetime, str] | None = None,
    limit: int = 100,
) -> list[StoredEvent]:
    """Newest first."""
    query = select(table)
    if provider is not None:
        query = query.where(table.c.provider == provider)
    if kind is not None:
        query = query.where(table.c.type == kind)
    if failing:
        query = query.where(table.c.error.is_not(None), table.c.processed_at.is_(None))
    if after is not None:
        at, event_id = after
        query = query.where((table.c.received_at < at) | ((table.c.received_at == at) & (table.c.event_id < event_id)))
    query = query.order_by(table.c.received_at.desc(), table.c.event_id.desc()).limit(limit)
    async with reading(engine) as conn:
        return [_event(row) for row in (await conn.execute(query)).mappings()]


def _event(row: RowMapping) -> StoredEvent:
    return StoredEvent(**row)
