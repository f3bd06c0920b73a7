"""Removes the rows of the ledger that lie before the beginnings of their logs (`retention.py`).

On PostgreSQL a month goes as its partition, whatever its size: the few rows of it that stay (their logs have not come
to them, or they came late) move to the default partition. Elsewhere rows are deleted, some at a time. Invariant: a row
behind the beginning of its log stays, in one transaction with what goes; triggers refuse anything else.
"""

import re
from datetime import UTC, datetime

from sqlalchemy import bindparam, select, text
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.kernel.crash_points import reach
from crosslogic.metering.ledger_row import first_id
from crosslogic.store.engine import reading
from crosslogic.store.tables import usage_records, usage_starts

MOST_MOVED = 100_000  # rows that stay, of a month that goes: nobody writes while they move
PAGE_ROWS = 5_000
_MONTHLY = re.compile(r"usage_records_(\d{4})_(\d{2})")
_DEFAULT = "usage_records_default"
_COLUMNS = ", ".join(f'"{column.name}"' for column in usage_records.c)
# Each log by its index, however many rows go.
_STAYING = """
    FROM usage_heads AS h LEFT JOIN usage_starts AS s ON s.org_id = h.org_id CROSS JOIN LATERAL (
        SELECT * FROM {partition} AS p WHERE p.org_id = h.org_id AND p.seq > coalesce(s.seq, 0) LIMIT {most}
    ) AS staying
"""


async def remove_rows(engine: AsyncEngine, cutoff: datetime) -> bool:
    """False where a month has to stay in whole, for too much of it is not to go yet."""
    whole = True
    if engine.dialect.name == "postgresql":
        for partition in await _months(engine, cutoff):
            whole &= await _drop_month(engine, partition)
    after = ""
    while orgs := await _begun(engine, after):
        for org_id, seq in orgs:
            await _delete(engine, org_id, seq, cutoff)
        after = orgs[-1][0]
    return whole


async def _months(engine: AsyncEngine, cutoff: datetime) -> list[str]:
    """Partitions of months that end before `cutoff`, the oldest first."""
    query = text(
        "SELECT c.relname FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid "
        "WHERE i.inhparent = to_regclass('usage_records') ORDER BY c.relname"
    )
    async with reading(engine) as conn:
        names = (await conn.execute(query)).scalars().all()
    months = [(name, _MONTHLY.fullmatch(name)) for name in names]
    return [
        name
        for name, found in months
        if found is not None and datetime(int(found[1]), int(found[2]), 1, tzinfo=UTC) < cutoff
    ]


async def _drop_month(engine: AsyncEngine, partition: str) -> bool:
    staying = text(f"SELECT count(*) {_STAYING.format(partition=partition, most=MOST_MOVED + 1)}")
    async with reading(engine) as conn:
        if int(await conn.scalar(staying) or 0) > MOST_MOVED:
            return False
    moved = _STAYING.format(partition=partition, most="ALL")
    columns = ", ".join(f"staying.{name}" for name in _COLUMNS.split(", "))
    async with engine.begin() as conn:
        await conn.execute(text("SET LOCAL lock_timeout = '5s'"))  # nobody waits behind us for long
        await conn.execute(text(f"ALTER TABLE usage_records DETACH PARTITION {partition}"))
        reach("retention.detached")
        # Into the partition itself: the trigger of the whole would add them to the month's spend again.
        await conn.execute(text(f"INSERT INTO {_DEFAULT} ({_COLUMNS}) SELECT {columns} {moved}"))
        reach("retention.moved")
        await conn.execute(text(f"DROP TABLE {partition}"))
    reach("retention.month_dropped")
    return True


async def _begun(engine: AsyncEngine, after: str) -> list[tuple[str, int]]:
    query = select(usage_starts.c.org_id, usage_starts.c.seq).where(usage_starts.c.org_id > after)
    async with reading(engine) as conn:
        found = await conn.execute(query.order_by(usage_starts.c.org_id).limit(500))
        return [(row[0], row[1]) for row in found]


async def _delete(engine: AsyncEngine, org_id: str, seq: int, cutoff: datetime) -> None:
    """What no partition took with it: of SQLite all, of PostgreSQL the default one's and ids of later months."""
    values: dict[str, str | int] = {"org": org_id, "seq": seq}
    if engine.dialect.name != "postgresql":
        await _delete_from(engine, "usage_records", "org_id = :org AND seq <= :seq", values)
        return
    await _delete_from(engine, _DEFAULT, "org_id = :org AND seq <= :seq", values)
    later = "org_id = :org AND seq <= :seq AND request_id >= :first"
    await _delete_from(engine, "usage_records", later, {**values, "first": first_id(cutoff)})


async def _delete_from(engine: AsyncEngine, table: str, here: str, values: dict[str, str | int]) -> None:
    page = f"SELECT request_id, n FROM {table} WHERE {here} LIMIT {PAGE_ROWS}"  # noqa: S608 - of constants
    statement = text(f"DELETE FROM {table} WHERE {here} AND (request_id, n) IN ({page})")  # noqa: S608 - of constants
    statement = statement.bindparams(*(bindparam(name, value) for name, value in values.items()))
    while True:
        async with engine.begin() as conn:
            deleted = (await conn.execute(statement)).rowcount
        reach("retention.page_deleted")
        if deleted < PAGE_ROWS:
            return
