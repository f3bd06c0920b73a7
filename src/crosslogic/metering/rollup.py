"""Roll-ups: the ledger summed by hour and by day of arrival, moved on by position in each org's log.

Invariant: a commit that moves a log's watermark adds exactly the rows up to it to the sums; nothing else changes them.
So a second run changes nothing, two at once take turns, a kill at any line leaves sums and watermark as they were,
and a row that comes late moves the one bucket of its own hour (and of its day).
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Column, ColumnElement, Table, case, func, literal, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from crosslogic.kernel.crash_points import reach
from crosslogic.store.engine import reading
from crosslogic.store.tables import usage_daily, usage_heads, usage_hourly, usage_records, usage_rollups
from crosslogic.store.types import UtcDateTime, exact_plus, exact_sum

PAGE_ROWS = 20_000  # in one transaction
ORGS_A_ROUND = 1_000
GROUP = ("env_id", "key_id", "model", "region", "endpoint", "outcome")
COUNTS = ("prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens", "total_tokens")


class Rollups:
    """Raises `store.engine.DATABASE_ERRORS`; what was done until then stays done."""

    def __init__(self, engine: AsyncEngine, page_rows: int = PAGE_ROWS) -> None:
        self._engine = engine
        self._page_rows = page_rows

    async def advance(self) -> int:
        """Take in what came into the ledger; returns how many rows."""
        taken = 0
        while behind := await self._behind():
            for org_id in behind:
                while rows := await self._take_in(org_id):
                    taken += rows
        return taken

    async def _behind(self) -> Sequence[str]:
        """Orgs whose roll-ups do not reach the end of the log."""
        heads, done = usage_heads.c, usage_rollups.c
        query = (
            select(heads.org_id)
            .outerjoin(usage_rollups, heads.org_id == done.org_id)
            .where(heads.seq > func.coalesce(done.seq, 0))
            .order_by(heads.org_id)
            .limit(ORGS_A_ROUND)
        )
        async with reading(self._engine) as conn:
            return (await conn.execute(query)).scalars().all()

    async def _take_in(self, org_id: str) -> int:
        done = usage_rollups.c
        async with self._engine.begin() as conn:
            dialect = _dialect(conn)
            begin = dialect.insert(usage_rollups).values(org_id=org_id, seq=0).on_conflict_do_nothing()
            await conn.execute(begin)
            # Whoever holds this row is the only one who adds to this org's sums.
            locked = select(done.seq).where(done.org_id == org_id).with_for_update()
            seq = int((await conn.execute(locked)).scalar_one())
            reach("rollup.locked")
            head = select(usage_heads.c.seq).where(usage_heads.c.org_id == org_id)
            until = min(int(await conn.scalar(head) or 0), seq + self._page_rows)
            if until <= seq:
                return 0
            for table, unit in ((usage_hourly, "hour"), (usage_daily, "day")):
                await _add(conn, table, unit, org_id, seq, until)
                reach(f"rollup.{unit}s_added")
            await conn.execute(update(usage_rollups).where(done.org_id == org_id).values(seq=until))
            reach("rollup.before_commit")
        reach("rollup.committed")
        return until - seq


async def _add(conn: AsyncConnection, table: Table, unit: str, org_id: str, after: int, until: int) -> None:
    rows = usage_records.c
    keys: list[ColumnElement[Any]] = [bucket(unit, conn.dialect.name).label("at"), *(rows[name] for name in GROUP)]
    sums = (
        select(
            literal(org_id),
            *keys,
            func.sum(case((rows.n == 0, 1), else_=0)),
            *(func.sum(rows[name]) for name in COUNTS),
            exact_sum(rows.cost_pusd),
        )
        .where(rows.org_id == org_id, rows.seq > after, rows.seq <= until)
        .group_by(*keys)
        # So that two orgs' transactions, which share no row, touch their pages in one order.
        .order_by(*keys)
    )
    names = ["org_id", "at", *GROUP, "requests", *COUNTS, "cost_pusd"]
    add = _dialect(conn).insert(table).from_select(names, sums)
    changed = {name: table.c[name] + add.excluded[name] for name in ("requests", *COUNTS)}
    changed["cost_pusd"] = exact_plus(table.c.cost_pusd, add.excluded.cost_pusd)
    key: list[Column[Any]] = list(table.primary_key.columns)
    await conn.execute(add.on_conflict_do_update(index_elements=key, set_=changed))


def bucket(unit: str, dialect: str) -> ColumnElement[Any]:
    """The hour or day of arrival of a row of the ledger, in UTC."""
    at = usage_records.c.timestamp
    if dialect == "postgresql":
        return func.date_trunc(unit, at, "UTC", type_=UtcDateTime())
    shown = {"hour": "%Y-%m-%d %H:00:00.000000", "day": "%Y-%m-%d 00:00:00.000000"}[unit]
    return func.strftime(shown, at, type_=UtcDateTime())


def _dialect(conn: AsyncConnection) -> Any:
    return postgresql if conn.dialect.name == "postgresql" else sqlite
