"""The ledger on both databases: takes every record once, sums exactly."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal

import pytest
import pytest_asyncio
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.kernel.clock import ManualClock
from crosslogic.kernel.errors import InvalidRequest
from crosslogic.kernel.ids import NodeId, RequestId
from crosslogic.metering.ledger import Ledger
from crosslogic.metering.ledger_reader import LedgerReader
from crosslogic.metering.ledger_sums import LedgerSums
from crosslogic.metering.model import Outcome, UsageSum
from crosslogic.pricing.book import PriceBook, PriceEntry, PriceList
from crosslogic.store.tables import usage_records
from tests.metering_samples import DAY_US, JANUARY_1_2026_US, usage

PRICES = PriceBook(PriceList((PriceEntry("model-*", Decimal("0.05"), Decimal("0.10"), Decimal("0.01")),)))
COST_PUSD = 6 * 50_000 + 4 * 10_000 + 20 * 100_000  # of one sample record


@pytest_asyncio.fixture
async def ledger(engine: AsyncEngine) -> AsyncIterator[Ledger]:
    """Whatever a test does with it, its logs are whole and in order in the end."""
    yield Ledger(engine, ManualClock())
    reader = LedgerReader(engine)
    for head in await reader.heads():
        verdict = await reader.verify(head.org_id)
        assert (verdict.problem, verdict.rows) == (None, head.seq)


async def total(engine: AsyncEngine) -> UsageSum:
    (only,) = await LedgerSums(engine).summary("org_1", start=None, end=None)
    return only


async def test_a_row_holds_the_record_and_what_it_costs(ledger: Ledger, engine: AsyncEngine) -> None:
    tried = (NodeId("node_7"), NodeId("node_8"))
    record = usage(1, first_token_ms=3, timestamp_us=JANUARY_1_2026_US + 123_456, failed_nodes=tried)
    assert await ledger.insert([record], PRICES) == 1
    async with engine.connect() as conn:
        row = (await conn.execute(select(usage_records))).mappings().one()
    for field in record.__struct_fields__:
        if field not in ("timestamp_us", "failed_nodes", "plan_price_pusd"):
            assert row[field] == getattr(record, field), field
    assert row["timestamp"] == datetime(2026, 1, 1, 0, 0, 0, 123_456, tzinfo=UTC)
    assert row["failed_nodes"] == "node_7 node_8"
    assert row["total_tokens"] == 30
    assert (row["cost_pusd"], row["cost_microdollars"]) == (COST_PUSD, 2)
    assert row["price_version"] == PRICES.version
    assert (row["n"], row["seq"], row["reason"], row["actor"]) == (0, 1, None, None)
    assert row["recorded_at"] == ManualClock().now()


async def test_the_same_records_any_number_of_times_are_there_once(ledger: Ledger, engine: AsyncEngine) -> None:
    records = [usage(number) for number in range(100)]
    assert await ledger.insert(records[:60], PRICES) == 60
    assert await ledger.insert(records[40:] + records[80:], PRICES) == 40
    assert await ledger.insert(records, PRICES) == 0
    assert (await total(engine)).requests == 100


async def test_the_first_record_of_a_request_stays(ledger: Ledger, engine: AsyncEngine) -> None:
    await ledger.insert([usage(1)], PRICES)
    await ledger.insert([usage(1, prompt_tokens=99)], PRICES)
    assert (await total(engine)).prompt_tokens == 10


async def test_writers_with_the_same_records_neither_fail_nor_double(ledger: Ledger, engine: AsyncEngine) -> None:
    records = [usage(number) for number in range(500)]
    added = await asyncio.gather(*(ledger.insert(records[::step], PRICES) for step in (1, -1, 1, -1)))
    assert sum(added) == 500
    assert (await total(engine)).requests == 500


async def test_an_unknown_model_costs_nothing_and_is_marked(ledger: Ledger, engine: AsyncEngine) -> None:
    await ledger.insert([usage(1, model="unheard-of")], PRICES)
    async with engine.connect() as conn:
        row = (await conn.execute(select(usage_records))).mappings().one()
    assert (row["cost_pusd"], row["price_version"]) == (0, None)


@pytest.mark.parametrize(
    "impossible",
    [
        {"finish_reason": "st\x00op"},
        {"prompt_tokens": 2**63, "cached_tokens": 2**64},
        {"completion_tokens": -5},
        {"timestamp_us": 2**62},
        {"timestamp_us": -1},
        {"attempts": 2**40, "http_status": 2**40, "latency_ms": -(2**70)},
        {"request_id": RequestId("req_" + "x" * 5000)},
    ],
    ids=lambda changes: ",".join(changes),
)
async def test_no_impossible_record_stands_in_the_way(ledger: Ledger, impossible: dict[str, object]) -> None:
    assert await ledger.insert([usage(1), usage(2, **impossible), usage(3)], PRICES) == 3


async def test_sums_are_exact_beyond_64_bits(ledger: Ledger, engine: AsyncEngine) -> None:
    records = [usage(n, completion_tokens=2**40 - n, prompt_tokens=0, cached_tokens=0) for n in range(100)]
    await ledger.insert(records, PRICES)
    expected = sum((2**40 - n) * 100_000 for n in range(100))
    assert expected > 2**63
    assert (await total(engine)).cost_pusd == expected


async def test_one_absurd_record_does_not_break_the_sums(ledger: Ledger, engine: AsyncEngine) -> None:
    await ledger.insert([usage(n, prompt_tokens=2**63, completion_tokens=2**63) for n in range(9)], PRICES)
    assert (await total(engine)).requests == 9


async def test_nothing_sums_to_zero(ledger: Ledger, engine: AsyncEngine) -> None:
    assert await total(engine) == UsageSum({}, 0, 0, 0, 0, 0, 0, 0)
    assert await LedgerSums(engine).summary("org_1", start=None, end=None, group_by=["model"]) == []


async def test_groups_and_periods(ledger: Ledger, engine: AsyncEngine) -> None:
    await ledger.insert(
        [
            usage(1, model="model-a", timestamp_us=JANUARY_1_2026_US),
            usage(2, model="model-a", timestamp_us=JANUARY_1_2026_US + DAY_US - 1),
            usage(3, model="model-b", timestamp_us=JANUARY_1_2026_US + DAY_US),
            usage(4, model="model-b", outcome=Outcome.TRUNCATED, timestamp_us=JANUARY_1_2026_US + DAY_US),
            usage(5, org_id="org_2"),
        ],
        PRICES,
    )

    async def groups(*names: str, start: datetime | None = None, end: datetime | None = None) -> dict[str, int]:
        sums = await LedgerSums(engine).summary("org_1", start=start, end=end, group_by=names)
        return {" ".join(s.group[name] for name in names): s.requests for s in sums}

    assert await groups("model") == {"model-a": 2, "model-b": 2}
    assert await groups("day") == {"2026-01-01": 2, "2026-01-02": 2}
    assert await groups("model", "outcome") == {"model-a completed": 2, "model-b completed": 1, "model-b truncated": 1}
    assert await groups("env", "key", "endpoint", "region") == {"env_1 key_1 chat.completions local": 4}
    second = datetime(2026, 1, 2, tzinfo=UTC)
    assert await groups("day", start=second) == {"2026-01-02": 2}
    assert await groups("day", end=second) == {"2026-01-01": 2}
    (one,) = await LedgerSums(engine).summary("org_1", start=None, end=second, group_by=["model"])
    assert one == UsageSum({"model": "model-a"}, 2, 20, 40, 8, 10, 60, 2 * COST_PUSD)


async def test_an_unknown_group_is_refused(ledger: Ledger, engine: AsyncEngine) -> None:
    with pytest.raises(InvalidRequest, match="cannot group by 'node'"):
        await LedgerSums(engine).summary("org_1", start=None, end=None, group_by=["node"])


async def test_a_plans_own_price_takes_the_place_of_the_price_book(ledger: Ledger, engine: AsyncEngine) -> None:
    await ledger.insert([usage(1, plan_price_pusd=1_000)], PRICES)
    async with engine.connect() as conn:
        row = (await conn.execute(select(usage_records))).mappings().one()
    assert (row["cost_pusd"], row["price_version"]) == (30 * 1_000, "plan")
