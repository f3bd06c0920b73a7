"""`CostTracker` over the ledger itself and its roll-ups, on PostgreSQL and SQLite."""

from collections.abc import Callable, Sequence

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.metering.costs.ports import Cost, Period
from crosslogic.metering.ledger import Ledger
from crosslogic.metering.ledger_reader import LedgerReader
from crosslogic.metering.ledger_row import LedgerRow
from crosslogic.metering.ledger_sql import row_of, rows_of_requests
from crosslogic.metering.model import UsageRecord
from crosslogic.metering.rollup_sums import RollupSums
from crosslogic.pricing.book import PriceBook
from crosslogic.store.engine import reading
from crosslogic.store.tables import usage_records

_PAGE = 1_000


class SqlCostTracker:
    def __init__(self, engine: AsyncEngine, prices: Callable[[], PriceBook]) -> None:
        self._engine = engine
        self._ledger = Ledger(engine)
        self._reader = LedgerReader(engine)
        self._sums = RollupSums(engine)
        self._prices = prices

    async def record_usage(self, records: Sequence[UsageRecord]) -> None:
        await self._ledger.insert(records, self._prices())

    async def get_usage(self, org_id: str, period: Period, *, after: str = "", limit: int = 500) -> list[LedgerRow]:
        t = usage_records.c
        query = (
            select(usage_records)
            .where(t.org_id == org_id, t.n == 0, t.request_id > after)
            .where(t.timestamp >= period.start, t.timestamp < period.end)
            .order_by(t.request_id)
            .limit(limit)
        )
        async with reading(self._engine) as conn:
            ids = [row_of(row).request_id for row in (await conn.execute(query)).mappings()]
            rows = await rows_of_requests(conn, ids)
        return [row for request_id in ids for row in rows[request_id]]

    async def get_cost(self, org_id: str, period: Period) -> Cost:
        (found,) = await self._sums.summary(org_id, start=period.start, end=period.end)
        return Cost(org_id, found.total_tokens, found.requests, found.cost_pusd)

    async def aggregate_usage(self, period: Period) -> dict[str, Cost]:
        found: dict[str, Cost] = {}
        after = ""
        while heads := await self._reader.heads(after_org=after, limit=_PAGE):
            for head in heads:
                cost = await self.get_cost(head.org_id, period)
                if cost != Cost(head.org_id, 0, 0, 0):
                    found[head.org_id] = cost
            after = heads[-1].org_id
        return found
