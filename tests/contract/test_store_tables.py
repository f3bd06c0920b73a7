"""What the tables promise whatever the database: exact money, aware time, and a ledger that nobody rewrites."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import Column, Table, delete, func, insert, select, text, update
from sqlalchemy.exc import DBAPIError, StatementError
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.store.engine import reading
from crosslogic.store.tables import usage_records
from crosslogic.store.types import exact_sum

ARRIVAL = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)


def usage_row(request_id: str = "req_1", **changed: Any) -> dict[str, Any]:
    row = {
        "request_id": request_id,
        "n": 0,
        "seq": 1,
        "hash": b"x",
        "timestamp": ARRIVAL,
        "org_id": "org_1",
        "env_id": "env_1",
        "key_id": "key_1",
        "endpoint": "chat.completions",
        "model": "m",
        "region": "local",
        "node_id": "node_1",
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "cached_tokens": 2,
        "reasoning_tokens": 0,
        "total_tokens": 15,
        "evidence": "engine",
        "outcome": "completed",
        "finish_reason": "stop",
        "http_status": 200,
        "streamed": True,
        "attempts": 1,
        "latency_ms": 120,
        "first_token_ms": 30,
        "client_request_id": "my-request",
        "cost_pusd": 750_000,
        "cost_microdollars": 1,
        "price_version": "2026-01",
        "failed_nodes": "node_7 node_8",
        "region_asked": "local",
        "failover": False,
        "reason": "because",
        "actor": "op_1",
        "recorded_at": ARRIVAL,
        "once": "ab12",
        "repeat_of": "req_0",
    }
    return row | changed


async def put(engine: AsyncEngine, *rows: dict[str, Any]) -> None:
    async with engine.begin() as conn:
        await conn.execute(insert(usage_records), list(rows))


async def test_money_is_exact_beyond_64_bits_in_rows_and_in_sums(engine: AsyncEngine) -> None:
    costs = [10**37 + 1, 2**63, 1, 0]
    await put(engine, *(usage_row(f"req_{n}", cost_pusd=cost) for n, cost in enumerate(costs)))
    async with reading(engine) as conn:
        read = (await conn.execute(select(usage_records.c.cost_pusd).order_by(usage_records.c.request_id))).scalars()
        assert [(cost, type(cost)) for cost in read] == [(cost, int) for cost in costs]
        total = await conn.scalar(select(exact_sum(usage_records.c.cost_pusd)))
        assert (total, type(total)) == (sum(costs), int)
        nothing = select(exact_sum(usage_records.c.cost_pusd)).where(usage_records.c.model == "absent")
        assert await conn.scalar(nothing) is None


async def test_a_cost_that_was_not_given_is_zero_and_unpriced(engine: AsyncEngine) -> None:
    row = usage_row()
    for column in ("cost_pusd", "cost_microdollars", "price_version"):
        del row[column]
    await put(engine, row)
    async with reading(engine) as conn:
        read = (await conn.execute(select(usage_records))).one()
    assert (read.cost_pusd, read.cost_microdollars, read.price_version) == (0, 0, None)


async def test_time_comes_back_in_utc_to_the_microsecond_and_compares_across_zones(engine: AsyncEngine) -> None:
    in_delhi = ARRIVAL.astimezone(timezone(timedelta(hours=5, minutes=30)))
    await put(engine, usage_row(timestamp=in_delhi))
    async with reading(engine) as conn:
        read = await conn.scalar(select(usage_records.c.timestamp))
        assert read == ARRIVAL
        assert read.utcoffset() == timedelta(0)
        assert await conn.scalar(select(func.max(usage_records.c.timestamp))) == ARRIVAL
        just_before = usage_records.c.timestamp > ARRIVAL - timedelta(microseconds=1)
        assert await conn.scalar(select(func.count()).where(just_before)) == 1
        assert await conn.scalar(select(func.count()).where(usage_records.c.timestamp > in_delhi)) == 0


async def test_a_naive_time_is_refused(engine: AsyncEngine) -> None:
    with pytest.raises(StatementError, match="naive"):
        await put(engine, usage_row(timestamp=datetime(2026, 1, 1)))


@pytest.mark.parametrize("column", list(usage_records.c), ids=lambda c: c.name)
async def test_no_column_of_a_usage_record_can_change(engine: AsyncEngine, column: Column[Any]) -> None:
    await put(engine, usage_row())
    old = usage_row()[column.name]
    new: Any
    if isinstance(old, bool):
        new = not old
    elif isinstance(old, datetime):
        new = old + timedelta(seconds=1)
    else:
        new = old + ("x" if isinstance(old, str) else b"x" if isinstance(old, bytes) else 1)
    with pytest.raises(DBAPIError, match="immutable"):
        async with engine.begin() as conn:
            await conn.execute(update(usage_records).values({column: new}))
    async with reading(engine) as conn:
        assert await conn.scalar(select(column)) == old


async def test_usage_records_cannot_be_deleted(engine: AsyncEngine) -> None:
    await put(engine, usage_row())
    with pytest.raises(DBAPIError, match="immutable"):
        async with engine.begin() as conn:
            await conn.execute(delete(usage_records))
    assert await _count(engine, usage_records) == 1


async def test_usage_records_cannot_be_replaced_or_truncated(engine: AsyncEngine) -> None:
    await put(engine, usage_row())
    replace = insert(usage_records).prefix_with("OR REPLACE").values(usage_row(model="x"))
    statement = replace if engine.dialect.name == "sqlite" else text("TRUNCATE usage_records")
    with pytest.raises(DBAPIError, match="immutable"):
        async with engine.begin() as conn:
            await conn.execute(statement)
    assert await _count(engine, usage_records) == 1


async def _count(engine: AsyncEngine, table: Table) -> int:
    async with reading(engine) as conn:
        return int(await conn.scalar(select(func.count()).select_from(table)) or 0)
