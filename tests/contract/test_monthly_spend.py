"""What was spent in a month always agrees with the ledger, on both databases."""

import asyncio
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.kernel.ids import EnvId, KeyId, OrgId
from crosslogic.metering.ledger import Ledger
from crosslogic.metering.model import Evidence
from crosslogic.metering.spend import CapHit, MonthlySpend, SpendBook, month_of
from crosslogic.pricing.book import PriceBook, PriceEntry, PriceList
from crosslogic.store import migrate
from tests.metering_samples import DAY_US, JANUARY_1_2026_US, usage

PRICES = PriceBook(PriceList((PriceEntry("model-*", Decimal("0.05"), Decimal("0.10"), Decimal("0.01")),)))
COST_PUSD = 6 * 50_000 + 4 * 10_000 + 20 * 100_000  # of one sample record, which has 30 tokens
JANUARY = "2026-01"


@pytest.fixture
def spend(engine: AsyncEngine) -> SpendBook:
    return SpendBook(engine)


async def test_each_key_has_a_sum_of_its_own_and_repeated_records_count_once(
    engine: AsyncEngine, spend: SpendBook
) -> None:
    ledger = Ledger(engine)
    ours = [usage(n) for n in range(4)]
    other_key = [usage(n, key_id=KeyId("key_2"), env_id=EnvId("env_2")) for n in range(10, 13)]
    other_org = [usage(n, org_id=OrgId("org_2")) for n in range(20, 25)]
    for _ in range(2):
        await ledger.insert([*ours, *other_key, *other_org], PRICES)
    found = await spend.of_orgs(JANUARY, ["org_1"])
    assert sorted(found, key=lambda one: one.key_id) == [
        MonthlySpend("org_1", "env_1", "key_1", 4 * COST_PUSD),
        MonthlySpend("org_1", "env_2", "key_2", 3 * COST_PUSD),
    ]
    assert await spend.of_orgs(JANUARY, []) == []
    assert await spend.of_orgs("2026-02", ["org_1"]) == []


async def test_writers_with_the_same_records_neither_fail_nor_double(engine: AsyncEngine, spend: SpendBook) -> None:
    ledger = Ledger(engine)
    records = [usage(n, key_id=KeyId(f"key_{n % 7}")) for n in range(400)]
    await asyncio.gather(*(ledger.insert(records[::step], PRICES) for step in (1, -1, 1, -1)))
    assert sum(one.cost_pusd for one in await spend.of_orgs(JANUARY, ["org_1"])) == 400 * COST_PUSD


async def test_months_begin_and_end_in_utc(engine: AsyncEngine, spend: SpendBook) -> None:
    edges = [JANUARY_1_2026_US - 1, JANUARY_1_2026_US, JANUARY_1_2026_US + 31 * DAY_US - 1]
    await Ledger(engine).insert([usage(n, timestamp_us=at_us) for n, at_us in enumerate(edges)], PRICES)
    months = ("2025-12", JANUARY)
    spent = {month: sum(one.cost_pusd for one in await spend.of_orgs(month, ["org_1"])) for month in months}
    assert spent == {"2025-12": COST_PUSD, JANUARY: 2 * COST_PUSD}
    assert [month_of(datetime.fromtimestamp(at_us / 1e6, UTC)) for at_us in edges[1:]] == [JANUARY, JANUARY]
    assert month_of(datetime.fromisoformat("2026-02-01T01:00:00+02:00")) == JANUARY


async def test_an_answer_from_the_cache_is_neither_cost_nor_tokens(engine: AsyncEngine, spend: SpendBook) -> None:
    await Ledger(engine).insert([usage(1, evidence=Evidence.CACHED)], PRICES)
    assert await spend.of_orgs(JANUARY, ["org_1"]) == [MonthlySpend("org_1", "env_1", "key_1", 0)]


async def test_a_ledger_that_was_there_before_is_summed_once(engine: AsyncEngine, spend: SpendBook) -> None:
    await Ledger(engine).insert([usage(n) for n in range(50)], PRICES)
    await migrate.downgrade(engine, "0004")
    await migrate.upgrade(engine)
    await Ledger(engine).insert([usage(n) for n in range(40, 60)], PRICES)
    assert await spend.of_orgs(JANUARY, ["org_1"]) == [MonthlySpend("org_1", "env_1", "key_1", 60 * COST_PUSD)]


async def test_sums_that_no_integer_of_the_database_holds_stop_nobody(engine: AsyncEngine, spend: SpendBook) -> None:
    huge = [usage(n, completion_tokens=2**40, prompt_tokens=0, cached_tokens=0) for n in range(100)]
    assert await Ledger(engine).insert(huge, PRICES) == 100
    (found,) = await spend.of_orgs(JANUARY, ["org_1"])
    assert found.cost_pusd >= 9 * 10**18


async def test_asking_reads_one_row_for_each_key_however_many_requests_there_were(engine: AsyncEngine) -> None:
    await Ledger(engine).insert([usage(n) for n in range(2_000)], PRICES)
    async with engine.connect() as conn:
        assert (await conn.execute(text("SELECT count(*) FROM monthly_spend"))).scalar() == 1


async def test_caps_that_were_met_wait_until_somebody_has_seen_to_them(spend: SpendBook) -> None:
    now = datetime(2026, 1, 31, tzinfo=UTC)
    org, env = CapHit("org", "org_1"), CapHit("env", "env_1")
    await spend.report(JANUARY, [org, env], now)
    await spend.report(JANUARY, [org], now + timedelta(seconds=1))
    assert sorted(hit.layer for hit in await spend.hits(JANUARY)) == ["env", "org"]
    assert await spend.hits("2026-02") == []
    await spend.forget([org])
    assert await spend.hits(JANUARY) == [env]
