"""What was spent in a month so far, by org, environment and key, as the ledger says; and where a cap was met.

A trigger of the database adds up what comes into the ledger (migration 0005), so asking costs a few rows, however
many requests there were. Invariant: the sums agree with the ledger at every commit.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime

import msgspec
from sqlalchemy import delete, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.store.engine import reading
from crosslogic.store.tables import cap_hits, monthly_spend

_PAGE = 500


class MonthlySpend(msgspec.Struct, frozen=True):
    """Of one key in one month."""

    org_id: str
    env_id: str
    key_id: str
    cost_pusd: int


class CapHit(msgspec.Struct, frozen=True):
    """A month's spending cap of an org or environment that refused a request."""

    layer: str  # "org" or "env"
    entity_id: str


def month_of(instant: datetime) -> str:
    """The calendar month in UTC, as the ledger names it: `2026-01`."""
    return instant.astimezone(UTC).strftime("%Y-%m")


class SpendBook:
    """Raises `store.engine.DATABASE_ERRORS`."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def of_orgs(self, month: str, org_ids: Iterable[str]) -> list[MonthlySpend]:
        """What each key of these orgs has spent; keys without a request are not there."""
        columns = monthly_spend.c
        found: list[MonthlySpend] = []
        async with reading(self._engine) as conn:
            for ids in _pages(sorted(org_ids)):
                query = select(columns.org_id, columns.env_id, columns.key_id, columns.cost_pusd).where(
                    columns.month == month, columns.org_id.in_(ids)
                )
                found += [MonthlySpend(*row) for row in await conn.execute(query)]
        return found

    async def report(self, month: str, hits: Iterable[CapHit], now: datetime) -> None:
        """Write down that these caps refused requests; harmless to repeat."""
        for hit in hits:
            row = {"month": month, "layer": hit.layer, "entity_id": hit.entity_id, "at": now}
            try:
                async with self._engine.begin() as conn:
                    await conn.execute(insert(cap_hits).values(row))
            except IntegrityError:
                continue  # it is there already

    async def hits(self, month: str) -> list[CapHit]:
        query = select(cap_hits.c.layer, cap_hits.c.entity_id).where(cap_hits.c.month == month)
        async with reading(self._engine) as conn:
            return [CapHit(*row) for row in await conn.execute(query)]

    async def forget(self, hits: Iterable[CapHit]) -> None:
        """These were seen to, in whichever month they came."""
        async with self._engine.begin() as conn:
            for hit in hits:
                await conn.execute(
                    delete(cap_hits).where(cap_hits.c.layer == hit.layer, cap_hits.c.entity_id == hit.entity_id)
                )


def _pages(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(ids), _PAGE):
        yield ids[start : start + _PAGE]
