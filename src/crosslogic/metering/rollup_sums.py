"""Usage summed from the roll-ups, and from the ledger where they do not reach.

Invariant: the answer is what the rows of the ledger add up to at one instant, whatever the roll-ups have taken in by
then: whole days and hours up to the watermark come from them, what came behind it and parts of an hour from the rows.
Of a time whose rows were dropped parts of an hour are refused, not told too small.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, CompoundSelect, Select, Table, case, func, select, union_all
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from crosslogic.kernel.errors import InvalidRequest
from crosslogic.metering.ledger_sums import GROUPS, group_column, page, sums_of
from crosslogic.metering.model import UsageSum
from crosslogic.metering.rollup import COUNTS, GROUP
from crosslogic.store.engine import reading
from crosslogic.store.tables import (
    usage_daily,
    usage_hourly,
    usage_hours,
    usage_records,
    usage_rollups,
    usage_starts,
)
from crosslogic.store.types import exact_sum

_HOUR = timedelta(hours=1)
_DAY = timedelta(days=1)
_FIRST = datetime(1970, 1, 1, tzinfo=UTC)
_LAST = datetime(9000, 1, 1, tzinfo=UTC)
_SUMMED = ("prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens", "total_tokens", "cost_pusd")


class RollupSums:
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def summary(
        self,
        org_id: str,
        *,
        start: datetime | None,
        end: datetime | None,
        group_by: Sequence[str] = (),
        only: Mapping[str, str] | None = None,
        after: Sequence[str] | None = None,
        limit: int | None = None,
    ) -> list[UsageSum]:
        """As `LedgerSums.summary`; raises InvalidRequest also for parts of an hour whose rows were dropped."""
        names = list(dict.fromkeys(group_by))
        dialect = self._engine.dialect.name
        async with _one_instant(self._engine) as conn:
            # Asked first, so that the planner knows how few rows are behind it.
            done = select(usage_rollups.c.seq).where(usage_rollups.c.org_id == org_id)
            watermark = int(await conn.scalar(done) or 0)
            cutoff = await conn.scalar(select(usage_starts.c.cutoff).where(usage_starts.c.org_id == org_id))
            if cutoff is not None and any(at and at < cutoff and at != _floor(at, _HOUR) for at in (start, end)):
                raise InvalidRequest(
                    f"of the time before {cutoff:%Y-%m-%d} only whole hours are kept; begin and end at full hours",
                    param="from",
                )
            wanted = {GROUPS[name] for name in (*names, *(only or {})) if name in GROUPS}
            alike = [name for name in GROUP if name in wanted]
            found = _pieces(org_id, start or _FIRST, end or _LAST, watermark, alike, by_hour="hour" in names)
            pieces = found.subquery("pieces")
            if "at" in wanted:  # to write a time out takes longer than to add numbers up: first one row for each time
                keys = [pieces.c[name] for name in sorted(wanted)]
                pieces = select(*keys, *_sums(pieces.c)).group_by(*keys).subquery("by_time")
            groups = [group_column(name, pieces.c, dialect) for name in names]
            query: Select[*tuple[Any, ...]] = select(*groups, *_sums(pieces.c))
            for name, value in (only or {}).items():
                query = query.where(group_column(name, pieces.c, dialect) == value)
            if groups:
                query = page(query.group_by(*groups), len(groups), after, limit)
            return sums_of(names, (await conn.execute(query)).all())


@asynccontextmanager
async def _one_instant(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """All that is read sees the database at one instant, as on SQLite it always does."""
    async with reading(engine) as conn:
        if conn.dialect.name == "postgresql":
            await conn.execution_options(isolation_level="REPEATABLE READ")
        yield conn


def _pieces(
    org_id: str, start: datetime, end: datetime, watermark: int, alike: Sequence[str], *, by_hour: bool
) -> CompoundSelect[*tuple[Any, ...]]:
    """Rows and buckets that make up the period, each once; of what they have in common only `alike`."""
    t = usage_records.c
    columns = [*(t[name] for name in alike), case((t.n == 0, 1), else_=0).label("requests")]
    rows = select(t.timestamp.label("at"), *columns, *(t[name] for name in _SUMMED)).where(t.org_id == org_id)
    behind = rows.where(t.seq > watermark, t.timestamp >= start, t.timestamp < end)
    known = rows.where(t.seq <= watermark)
    hours = _ceiling(start, _HOUR), _floor(end, _HOUR)
    if hours[0] >= hours[1]:
        return union_all(behind, known.where(t.timestamp >= start, t.timestamp < end))
    pieces = [behind]
    for first, last in ((start, hours[0]), (hours[1], end)):
        if first < last:
            pieces.append(known.where(t.timestamp >= first, t.timestamp < last))
    days = _ceiling(start, _DAY), _floor(end, _DAY)
    spans = [hours]
    if not by_hour and days[0] < days[1]:
        spans = [(hours[0], days[0]), (days[1], hours[1])]
        pieces.append(_buckets(usage_daily, org_id, days, alike))
    hourly = usage_hourly if alike else usage_hours
    pieces += [_buckets(hourly, org_id, span, alike) for span in spans if span[0] < span[1]]
    return union_all(*pieces)


def _buckets(
    table: Table, org_id: str, span: tuple[datetime, datetime], alike: Sequence[str]
) -> Select[*tuple[Any, ...]]:
    t = table.c
    whole = select(t.at, *(t[name] for name in (*alike, "requests", *_SUMMED)))
    return whole.where(t.org_id == org_id, t.at >= span[0], t.at < span[1])


def _sums(of: Any) -> list[ColumnElement[Any]]:
    sums = [func.sum(of[name]).label(name) for name in ("requests", *COUNTS)]
    return [*sums, exact_sum(of.cost_pusd).label("cost_pusd")]


def _floor(at: datetime, unit: timedelta) -> datetime:
    return at - (at - _FIRST) % unit


def _ceiling(at: datetime, unit: timedelta) -> datetime:
    return at + (_FIRST - at) % unit
