"""Where usage is kept to be asked what it cost (`CostTracker` of the interface document, in exact integers).

PostgreSQL or SQLite: the ledger itself. ClickHouse: a copy of it, for sizes at which the ledger is not asked any more.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from crosslogic.metering.ledger_row import LedgerRow
from crosslogic.metering.model import UsageRecord


class Period(msgspec.Struct, frozen=True):
    start: datetime  # the first instant that counts
    end: datetime  # the first that counts no more


class Cost(msgspec.Struct, frozen=True):
    """Of one org in a period."""

    org_id: str
    total_tokens: int
    total_requests: int
    cost_pusd: int
    currency: str = "USD"


class CostTracker(Protocol):
    """Raises `Unavailable` or `store.engine.DATABASE_ERRORS` while the store is away."""

    async def record_usage(self, records: Sequence[UsageRecord]) -> None:
        """Keep these, priced; each request once, however often it comes."""
        ...

    async def get_usage(self, org_id: str, period: Period, *, after: str = "", limit: int = 500) -> list[LedgerRow]:
        """An org's rows in the period, by request id from behind `after` on: originals and corrections together, so
        a page may be a few rows longer than `limit` requests."""
        ...

    async def get_cost(self, org_id: str, period: Period) -> Cost: ...

    async def aggregate_usage(self, period: Period) -> dict[str, Cost]:
        """The cost of every org that used anything."""
        ...
