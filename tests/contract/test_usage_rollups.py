"""Roll-ups on both databases: a second run changes nothing, a late row moves one bucket, two at once take turns."""

import asyncio
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import product

from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.kernel.ids import EnvId, KeyId, OrgId
from crosslogic.metering.ledger import Ledger
from crosslogic.metering.ledger_sums import LedgerSums
from crosslogic.metering.model import Evidence, Usage
from crosslogic.metering.rollup import Rollups
from crosslogic.metering.rollup_sums import RollupSums
from crosslogic.pricing.book import PriceBook, PriceEntry, PriceList
from crosslogic.store import migrate
from crosslogic.store.tables import usage_daily, usage_hourly, usage_hours, usage_rollups
from tests.metering_samples import DAY_US, JANUARY_1_2026_US, usage

PRICES = PriceBook(PriceList((PriceEntry("*", Decimal("0.05"), Decimal("0.10"), Decimal("0.01")),)))
HOUR_US = DAY_US // 24
START = datetime(2026, 1, 1, tzinfo=UTC)
BEFORE_HOURS = "0026"  # the migration before the one that makes `usage_hours`


async def buckets(engine: AsyncEngine) -> dict[tuple[object, ...], tuple[object, ...]]:
    async with engine.connect() as conn:
        return {
            tuple(row[:8]): tuple(row[8:])
            for table in (usage_hourly, usage_daily)
            for row in await conn.execute(select(table))
        }


async def test_a_second_run_changes_nothing_and_a_late_row_moves_its_own_buckets(engine: AsyncEngine) -> None:
    ledger, rollups = Ledger(engine), Rollups(engine, page_rows=7)
    at_us = [JANUARY_1_2026_US + n * HOUR_US // 2 for n in range(60)]
    await ledger.insert([usage(n, timestamp_us=at_us[n], model=f"m{n % 2}") for n in range(60)], PRICES)
    assert await rollups.advance() == 60
    before = await buckets(engine)
    assert await rollups.advance() == 0
    assert await buckets(engine) == before
    await ledger.insert([usage(99, timestamp_us=at_us[4] + 1, model="m0")], PRICES)
    assert await rollups.advance() == 1
    after = await buckets(engine)
    assert after.keys() == before.keys()
    moved = sorted(str(key[1]) for key in after if after[key] != before[key])
    assert moved == ["2026-01-01 00:00:00+00:00", "2026-01-01 02:00:00+00:00"], "the day's and the hour's"


async def org_hours(engine: AsyncEngine) -> tuple[list[tuple[object, ...]], list[tuple[object, ...]]]:
    """What is kept of each org's hours, and what the buckets of these hours add up to."""
    sums = [column.name for column in usage_hours.c if not column.primary_key]
    async with engine.connect() as conn:
        kept = [tuple(row) for row in await conn.execute(select(usage_hours).order_by("org_id", "at"))]
        added: dict[tuple[object, ...], list[int]] = {}
        for row in (await conn.execute(select(usage_hourly))).mappings():
            mine = added.setdefault((row["org_id"], row["at"]), [0] * len(sums))
            mine[:] = [one + row[name] for one, name in zip(mine, sums, strict=True)]
    return kept, [(*key, *mine) for key, mine in sorted(added.items())]  # type: ignore[type-var]


async def test_an_orgs_hour_is_what_its_buckets_add_up_to(engine: AsyncEngine) -> None:
    """Whoever adds to the buckets, a version that knows nothing of it too; and of rows that were there before."""
    ledger, rollups = Ledger(engine), Rollups(engine, page_rows=7)
    records = [
        usage(
            n,
            org_id=OrgId(f"org_{n % 2}"),
            timestamp_us=JANUARY_1_2026_US + n * HOUR_US // 9,
            model=f"m{n % 3}",
            completion_tokens=2**40 + n,
        )
        for n in range(60)
    ]
    await ledger.insert(records[:40], PRICES)
    await rollups.advance()
    kept, added = await org_hours(engine)
    assert kept == added
    assert len(kept) == 10, "two orgs, five hours"
    await ledger.insert(records[30:], PRICES)
    await rollups.advance()
    kept, added = await org_hours(engine)
    assert kept == added
    assert sum(row[2] for row in kept) == 60  # type: ignore[misc]
    await migrate.downgrade(engine, BEFORE_HOURS)
    await migrate.upgrade(engine)
    assert await org_hours(engine) == (kept, added)
    await ledger.insert([usage(99, org_id=OrgId("org_1"), timestamp_us=JANUARY_1_2026_US)], PRICES)
    await rollups.advance()
    kept, added = await org_hours(engine)
    assert kept == added
    assert sum(row[2] for row in kept) == 61  # type: ignore[misc]


async def test_a_month_is_answered_from_indexes_alone(postgres_engine: AsyncEngine) -> None:
    """An org's buckets lie on as many pages of the table as there are buckets; in the index they lie together."""
    await Ledger(postgres_engine).insert([usage(n, org_id=OrgId(f"org_{n}")) for n in range(200)], PRICES)
    await Rollups(postgres_engine).advance()
    async with postgres_engine.connect() as conn:
        await conn.execution_options(isolation_level="AUTOCOMMIT")
        await conn.execute(text("VACUUM ANALYZE usage_hourly, usage_daily, usage_hours"))
        await conn.execute(text("SET enable_seqscan = off"))  # so few rows are read fastest in whole
        for table in (usage_hourly, usage_daily, usage_hours):
            asked = select(func.sum(table.c.requests), func.sum(table.c.cost_pusd)).where(
                table.c.org_id == "org_1", table.c.at >= START, table.c.at < START + timedelta(days=31)
            )
            sql = asked.compile(conn.sync_engine, compile_kwargs={"literal_binds": True})
            plan = "\n".join((await conn.execute(text(f"EXPLAIN (ANALYZE) {sql}"))).scalars())
            assert f"Index Only Scan using pk_{table.name}" in plan
            assert "Heap Fetches: 0" in plan


async def test_processes_at_once_count_each_row_once(engine: AsyncEngine) -> None:
    records = [usage(n, org_id=OrgId(f"org_{n % 3}"), timestamp_us=JANUARY_1_2026_US + n * HOUR_US) for n in range(120)]
    ledger = Ledger(engine)

    async def write() -> None:
        for start in range(0, 120, 20):
            await ledger.insert(records[start : start + 20], PRICES)

    async def roll() -> None:
        for _ in range(5):
            await Rollups(engine, page_rows=11).advance()
            await asyncio.sleep(0)

    await asyncio.gather(write(), roll(), roll(), roll())
    await Rollups(engine).advance()
    async with engine.connect() as conn:
        for table in (usage_hourly, usage_daily):
            assert await conn.scalar(select(func.sum(table.c.requests))) == 120
        assert [row.seq for row in await conn.execute(select(usage_rollups))] == [40, 40, 40]


async def test_any_question_has_the_answer_of_the_rows_themselves(engine: AsyncEngine) -> None:
    """Wherever the roll-ups stand, and whether or not a period begins with an hour or a day."""
    ledger, rollups = Ledger(engine), Rollups(engine)
    records = [
        usage(
            n,
            timestamp_us=JANUARY_1_2026_US + n * 5_333_333_333,
            model=f"m{n % 3}",
            key_id=KeyId(f"key_{n % 2}"),
            env_id=EnvId(f"env_{n % 2}"),
            region=f"r{n % 2}",
        )
        for n in range(80)
    ]
    await ledger.insert(records[:50], PRICES)
    await rollups.advance()
    await ledger.insert(records[50:], PRICES)
    price = PRICES.price("m0", "r0")
    corrected = {"evidence": Evidence.ENGINE, "reason": "counted anew", "actor": "op_1"}
    assert await ledger.correct("org_1", "req_000003", 1, Usage(1, 2), price, **corrected)  # type: ignore[arg-type]
    edges = [
        None,
        START,
        START + timedelta(hours=5, minutes=20),
        START + timedelta(days=2),
        START + timedelta(days=3.3),
    ]
    groups = [(), ("model",), ("day", "key"), ("hour",), ("month", "env", "region"), ("outcome", "endpoint")]
    only = [None, {"model": "m1"}, {"key": "key_0", "region": "r0"}]
    asked = [one for one in product(edges, edges, groups, only) if None in one[:2] or one[0] < one[1]]  # type: ignore[operator]
    for start, end, group_by, chosen in asked[:: 1 if engine.dialect.name == "sqlite" else 7]:
        answers = [
            await sums.summary("org_1", start=start, end=end, group_by=group_by, only=chosen)
            for sums in (RollupSums(engine), LedgerSums(engine))
        ]
        assert answers[0] == answers[1], (start, end, group_by, chosen)
    pages = []
    after = None
    while found := await RollupSums(engine).summary(
        "org_1", start=None, end=None, group_by=["day", "model"], after=after, limit=2
    ):
        pages += found
        after = list(found[-1].group.values())
    assert pages == await LedgerSums(engine).summary("org_1", start=None, end=None, group_by=["day", "model"])


async def test_a_months_sum_beyond_64_bits_is_exact(engine: AsyncEngine) -> None:
    huge = [usage(n, completion_tokens=2**40, prompt_tokens=0, cached_tokens=0) for n in range(100)]
    ledger = Ledger(engine)
    for start in range(0, 100, 25):
        await ledger.insert(huge[start : start + 25], PRICES)
        await Rollups(engine).advance()
    (total,) = await RollupSums(engine).summary("org_1", start=None, end=None)
    assert total.cost_pusd == 100 * 2**40 * 100_000
