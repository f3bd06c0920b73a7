"""Finding single requests in the ledger, the newest first, each with its corrections."""

from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.metering.ledger_row import LedgerRow
from crosslogic.metering.ledger_sql import row_of, rows_of_requests
from crosslogic.store.engine import reading
from crosslogic.store.tables import usage_records

_FILTERS = {
    "env": "env_id", "key": "key_id", "model": "model", "endpoint": "endpoint", "region": "region",
    "outcome": "outcome", "client_request_id": "client_request_id",
}  # fmt: skip


class RequestUsage(msgspec.Struct, frozen=True):
    """What the ledger knows of one request: as it was recorded, and what was corrected afterwards."""

    original: LedgerRow
    corrections: tuple[LedgerRow, ...] = ()

    def total(self, name: str) -> int:
        """A number of the request as it stands now."""
        rows = (self.original, *self.corrections)
        return sum(getattr(row, name) for row in rows)


class RequestFinder:
    """Raises `store.engine.DATABASE_ERRORS`."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def find(
        self,
        org_id: str,
        *,
        start: datetime | None = None,
        end: datetime | None = None,
        only: Mapping[str, str] | None = None,
        before: str | None = None,
        limit: int = 100,
    ) -> list[RequestUsage]:
        """An org's requests that began within the period and have the values of `only`, with ids below `before`.

        Ids begin with the time of arrival, so their order is that of time.
        """
        t = usage_records.c
        query = select(usage_records).where(t.org_id == org_id, t.n == 0)
        if start is not None:
            query = query.where(t.timestamp >= start)
        if end is not None:
            query = query.where(t.timestamp < end)
        if before is not None:
            query = query.where(t.request_id < before)
        for name, value in (only or {}).items():
            query = query.where(t[_FILTERS[name]] == value)
        query = query.order_by(t.request_id.desc()).limit(limit)
        async with reading(self._engine) as conn:
            originals = [row_of(row) for row in (await conn.execute(query)).mappings()]
            rows = await rows_of_requests(conn, [row.request_id for row in originals])
        return [_usage(rows[original.request_id]) for original in originals]

    async def one(self, org_id: str, request_id: str) -> RequestUsage | None:
        """None where the org has no such request."""
        async with reading(self._engine) as conn:
            rows = (await rows_of_requests(conn, [request_id])).get(request_id, [])
        return _usage(rows) if rows and rows[0].org_id == org_id else None


def _usage(rows: Sequence[LedgerRow]) -> RequestUsage:
    return RequestUsage(rows[0], tuple(rows[1:]))
