"""Reading the ledger as what it is: for each org a log, in order. For whoever works it off, such as rating.

Invariant: rows become visible in the order of their positions, without a hole. So who has worked off all up to a
position has missed nothing before it, ever. A log begins where its oldest months were dropped (`retention.py`).
"""

import msgspec
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from crosslogic.metering.ledger_row import LedgerHead, LedgerRow, LogStart, LogVerdict, ended, follow
from crosslogic.metering.ledger_sql import log_starts, row_of
from crosslogic.store.engine import reading
from crosslogic.store.tables import usage_heads, usage_records

PAGE_ROWS = 1_000


class LedgerReader:
    """Raises `store.engine.DATABASE_ERRORS`. Each reading may take part in a transaction of the caller's."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def heads(
        self, *, after_org: str = "", limit: int = PAGE_ROWS, conn: AsyncConnection | None = None
    ) -> list[LedgerHead]:
        """The ends of the logs, by org."""
        query = select(usage_heads).where(usage_heads.c.org_id > after_org).order_by(usage_heads.c.org_id).limit(limit)
        if conn is None:
            async with reading(self._engine) as conn:
                return await self.heads(after_org=after_org, limit=limit, conn=conn)
        return [LedgerHead(row.org_id, row.seq, bytes(row.hash)) for row in await conn.execute(query)]

    async def head(self, org_id: str, *, conn: AsyncConnection | None = None) -> LedgerHead:
        """The end of one org's log; of one without rows, position 0."""
        if conn is None:
            async with reading(self._engine) as conn:
                return await self.head(org_id, conn=conn)
        row = (await conn.execute(select(usage_heads).where(usage_heads.c.org_id == org_id))).first()
        return LedgerHead(org_id) if row is None else LedgerHead(org_id, row.seq, bytes(row.hash))

    async def start(self, org_id: str, *, conn: AsyncConnection | None = None) -> LogStart:
        """Where one org's log begins; of one that nothing was dropped from, behind position 0."""
        if conn is None:
            async with reading(self._engine) as conn:
                return await self.start(org_id, conn=conn)
        return (await log_starts(conn, [org_id])).get(org_id, LogStart(org_id))

    async def rows_after(
        self, org_id: str, seq: int, *, limit: int = PAGE_ROWS, conn: AsyncConnection | None = None
    ) -> list[LedgerRow]:
        """The rows of an org behind position `seq`, in order."""
        if conn is None:
            async with reading(self._engine) as conn:
                return await self.rows_after(org_id, seq, limit=limit, conn=conn)
        t = usage_records.c
        query = select(usage_records).where(t.org_id == org_id, t.seq > seq).order_by(t.seq).limit(limit)
        return [row_of(row) for row in (await conn.execute(query)).mappings()]

    async def rows_of_request(
        self, org_id: str, request_id: str, *, conn: AsyncConnection | None = None
    ) -> list[LedgerRow]:
        """The original and its corrections; empty where the org has no such request."""
        if conn is None:
            async with reading(self._engine) as conn:
                return await self.rows_of_request(org_id, request_id, conn=conn)
        t = usage_records.c
        query = select(usage_records).where(t.request_id == request_id, t.org_id == org_id).order_by(t.n)
        return [row_of(row) for row in (await conn.execute(query)).mappings()]

    async def verify(self, org_id: str) -> LogVerdict:
        """Follow an org's whole log. Takes about 20 µs a row, and holds nobody up."""
        last = select(func.coalesce(func.max(usage_records.c.seq), 0)).where(usage_records.c.org_id == org_id)
        async with reading(self._engine) as conn:
            # One statement, so that rows that are being added are in both or in neither.
            query = select(usage_heads.c.seq, usage_heads.c.hash, last.scalar_subquery().label("last"))
            row = (await conn.execute(query.where(usage_heads.c.org_id == org_id))).first()
            last_seq = int(await conn.scalar(last) or 0) if row is None else row.last
            start = await self.start(org_id, conn=conn)
        if row is None:
            if max(last_seq, start.seq) == 0:
                return LogVerdict(org_id, 0, "")
            return LogVerdict(org_id, 0, "", 1, "the record of where the log ends is gone")
        recorded = LedgerHead(org_id, row.seq, bytes(row.hash))
        reached = LedgerHead(org_id, start.seq, start.hash)
        while reached.seq < recorded.seq:
            page = [one for one in await self.rows_after(org_id, reached.seq) if one.seq <= recorded.seq]
            reached, wrong = follow(reached, page)
            if wrong is not None:
                return msgspec.structs.replace(wrong, dropped=start.seq)
            if not page:
                break
        return msgspec.structs.replace(ended(reached, recorded, last_seq), dropped=start.seq)
