"""Copies the ledger to another store of usage, log by log.

Invariant: how far a log is copied is written down after the store has taken the rows, and the store replaces rows that
come again. So a kill in between, a second process or a second run copies some rows twice and changes nothing.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from sqlalchemy import func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.metering.ledger_reader import LedgerReader
from crosslogic.metering.ledger_row import LedgerRow
from crosslogic.store.engine import reading
from crosslogic.store.tables import usage_copies, usage_heads

PAGE_ROWS = 5_000
_ORGS = 500


class CopyStore(Protocol):
    """Raises Unavailable while it is away."""

    async def create(self) -> None:
        """Get ready; again is harmless."""
        ...

    async def copy(self, rows: Sequence[LedgerRow]) -> None:
        """Keep these; again is harmless."""
        ...


class UsageCopies:
    """Raises Unavailable or `store.engine.DATABASE_ERRORS`; what was copied until then stays copied."""

    def __init__(self, engine: AsyncEngine, store: CopyStore, page_rows: int = PAGE_ROWS) -> None:
        self._engine = engine
        self._store = store
        self._page_rows = page_rows
        self._reader = LedgerReader(engine)
        self._created = False

    async def advance(self) -> int:
        """Copy what came into the ledger; returns how many rows."""
        if not self._created:
            await self._store.create()
            self._created = True
        copied = 0
        while behind := await self._behind():
            for org_id, seq, last in behind:
                while rows := await self._reader.rows_after(org_id, seq, limit=self._page_rows):
                    await self._store.copy(rows)
                    seq = rows[-1].seq
                    await self._reached(org_id, seq)
                    copied += len(rows)
                if seq < last:  # what was to come next was dropped for its age before anybody asked for a copy
                    await self._reached(org_id, last)
        return copied

    async def _behind(self) -> list[tuple[str, int, int]]:
        """Orgs whose copies do not reach the end of their logs: how far they do, and where the end is."""
        heads, done = usage_heads.c, usage_copies.c
        reached = func.coalesce(done.seq, 0)
        query = (
            select(heads.org_id, reached, heads.seq)
            .outerjoin(usage_copies, heads.org_id == done.org_id)
            .where(heads.seq > reached)
            .order_by(heads.org_id)
            .limit(_ORGS)
        )
        async with reading(self._engine) as conn:
            return [(row[0], int(row[1]), int(row[2])) for row in await conn.execute(query)]

    async def _reached(self, org_id: str, seq: int) -> None:
        dialect: Any = postgresql if self._engine.dialect.name == "postgresql" else sqlite
        put = dialect.insert(usage_copies).values(org_id=org_id, seq=seq)
        # Never back: another process may have come further.
        further = put.on_conflict_do_update(
            index_elements=["org_id"], set_={"seq": put.excluded.seq}, where=usage_copies.c.seq < put.excluded.seq
        )
        async with self._engine.begin() as conn:
            await conn.execute(further)
