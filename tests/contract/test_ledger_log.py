"""The ledger as a log of each org: positions without a hole, a chain that shows every change, corrections as rows."""

import asyncio
from datetime import UTC, datetime
from decimal import Decimal

import msgspec
import pytest
from sqlalchemy import delete, insert, text, update
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.kernel.clock import ManualClock
from crosslogic.kernel.errors import Conflict, NotFound
from crosslogic.kernel.ids import OrgId, RequestId
from crosslogic.metering.ledger import Ledger
from crosslogic.metering.ledger_reader import LedgerReader
from crosslogic.metering.ledger_sums import LedgerSums
from crosslogic.metering.model import Evidence, Outcome, Usage
from crosslogic.metering.partitions import Partitions
from crosslogic.pricing.book import PriceBook, PriceEntry, PriceList
from crosslogic.store import migrate
from crosslogic.store.tables import usage_heads, usage_records
from tests.metering_samples import JANUARY_1_2026_US, usage

PRICES = PriceBook(PriceList((PriceEntry("*", Decimal("0.05"), Decimal("0.10"), Decimal("0.01")),)))
PRICE = PRICES.price("model-a", "local")
ORGS = tuple(OrgId(f"org_{n}") for n in range(3))


async def open_triggers(engine: AsyncEngine) -> None:
    """What only somebody who owns the database can do."""
    async with engine.begin() as conn:
        if engine.dialect.name == "postgresql":
            await conn.execute(text("ALTER TABLE usage_records DISABLE TRIGGER USER"))
        else:
            for trigger in ("usage_records_immutable", "usage_records_undeletable"):
                await conn.execute(text(f"DROP TRIGGER {trigger}"))


async def test_each_org_has_a_log_of_its_own_in_the_order_of_commits(engine: AsyncEngine) -> None:
    ledger, reader = Ledger(engine), LedgerReader(engine)
    await ledger.insert([usage(n, org_id=ORGS[n % 2]) for n in range(6)], PRICES)
    await ledger.insert([usage(9, org_id=ORGS[0]), usage(0, org_id=ORGS[0])], PRICES)
    rows = await reader.rows_after("org_0", 0)
    assert [(row.seq, row.request_id) for row in rows] == [
        (1, "req_000000"), (2, "req_000002"), (3, "req_000004"), (4, "req_000009"),
    ]  # fmt: skip
    assert [row.seq for row in await reader.rows_after("org_0", 2)] == [3, 4]
    assert [row.seq for row in await reader.rows_after("org_0", 1, limit=2)] == [2, 3]
    assert [(head.org_id, head.seq) for head in await reader.heads()] == [("org_0", 4), ("org_1", 3)]
    assert [head.org_id for head in await reader.heads(after_org="org_0")] == ["org_1"]
    assert (await reader.head("org_0")).hash == rows[-1].hash
    assert (await reader.head("org_9")).seq == 0
    assert await reader.rows_after("org_9", 0) == []


async def test_writers_of_many_orgs_at_once_leave_no_hole(engine: AsyncEngine) -> None:
    reader = LedgerReader(engine)
    records = [usage(n, org_id=ORGS[n * 7 % 3]) for n in range(300)]

    async def write(ledger: Ledger, start: int, step: int) -> int:
        mine = records[start:] + records[:start]
        return sum([await ledger.insert(mine[at : at + 37][::step], PRICES) for at in range(0, 300, 37)])

    writers = [(Ledger(engine), start, step) for start in (0, 100, 211) for step in (1, -1)]
    assert sum(await asyncio.gather(*(write(*one) for one in writers))) == 300
    for org_id in ORGS:
        assert (await reader.verify(org_id)).problem is None
        assert (await reader.head(org_id)).seq == 100


async def test_a_correction_is_a_row_of_its_own(engine: AsyncEngine) -> None:
    ledger, reader = Ledger(engine), LedgerReader(engine)
    await ledger.insert([usage(1), usage(2)], PRICES)

    async def correct(n: int, tokens: int, reason: str = "the engine's own count") -> bool:
        truth = Usage(10, tokens, 4, 0)
        return await ledger.correct(
            "org_1", "req_000001", n, truth, PRICE, evidence=Evidence.ENGINE, reason=reason, actor="op_1"
        )

    assert await correct(1, 15)
    assert not await correct(1, 15), "asked again, as after a lost answer"
    first, second = await reader.rows_of_request("org_1", "req_000001")
    assert (first.n, first.completion_tokens, first.reason) == (0, 20, None)
    assert (second.n, second.seq, second.completion_tokens, second.reasoning_tokens) == (1, 3, -5, -5)
    assert (second.total_tokens, second.cost_pusd) == (-5, -5 * 100_000)
    assert (second.reason, second.actor) == ("the engine's own count", "op_1")
    assert second.timestamp_us == first.timestamp_us
    with pytest.raises(Conflict):
        await correct(1, 17, "something else")
    assert await correct(2, 17)
    assert not await correct(3, 17), "it adds up already"
    (total,) = await LedgerSums(engine).summary("org_1", start=None, end=None)
    assert (total.requests, total.completion_tokens) == (2, 37)
    with pytest.raises(NotFound):
        await ledger.correct(
            "org_2", "req_000001", 3, Usage(1, 1), PRICE, evidence=Evidence.ENGINE, reason="", actor=""
        )
    assert await reader.rows_of_request("org_2", "req_000001") == []
    assert (await reader.verify("org_1")).intact


async def test_a_record_that_comes_after_its_request_was_closed_corrects_it_once(engine: AsyncEngine) -> None:
    ledger, reader = Ledger(engine), LedgerReader(engine)
    nothing = {"prompt_tokens": 0, "completion_tokens": 0, "cached_tokens": 0, "reasoning_tokens": 0}
    closed = usage(1, outcome=Outcome.INTERRUPTED, evidence=Evidence.NONE, **nothing)
    await ledger.insert([closed], PRICES)
    for _ in range(2):
        await ledger.insert([usage(1), usage(2)], PRICES)
        await ledger.insert([closed], PRICES)
    first, late = await reader.rows_of_request("org_1", "req_000001")
    assert (first.outcome, first.total_tokens) == ("interrupted", 0)
    assert (late.n, late.outcome, late.total_tokens, late.actor) == (1, "completed", 30, "crosslogic")
    (total,) = await LedgerSums(engine).summary("org_1", start=None, end=None)
    assert (total.requests, total.total_tokens) == (2, 60)


async def test_requests_without_an_id_are_not_taken_for_each_other(engine: AsyncEngine) -> None:
    ledger = Ledger(engine)
    nameless = [usage(n, request_id=RequestId("")) for n in range(3)]
    assert await ledger.insert(nameless, PRICES) == 3
    assert await ledger.insert(nameless, PRICES) == 0


@pytest.mark.parametrize("column", [c.name for c in usage_records.c if c.name not in ("request_id", "n", "org_id")])
async def test_a_changed_row_is_noticed(sqlite_engine: AsyncEngine, column: str) -> None:
    ledger, reader = Ledger(sqlite_engine), LedgerReader(sqlite_engine)
    await ledger.insert([usage(n) for n in range(5)], PRICES)
    await open_triggers(sqlite_engine)
    old = (await reader.rows_after("org_1", 2, limit=1))[0]
    forged = _other(msgspec.structs.asdict(old).get(column, ManualClock().now()), column)
    async with sqlite_engine.begin() as conn:
        await conn.execute(update(usage_records).where(usage_records.c.seq == 3).values({column: forged}))
    assert not (await reader.verify("org_1")).intact


def _other(value: object, column: str) -> object:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 100
    if isinstance(value, bytes):
        return value[::-1]
    return "x" if value is None or isinstance(value, str) else value


async def test_removed_added_and_moved_rows_are_noticed(engine: AsyncEngine) -> None:
    ledger, reader = Ledger(engine), LedgerReader(engine)
    for org_id in ORGS:
        await ledger.insert([usage(n, org_id=org_id, request_id=f"req_{org_id}_{n}") for n in range(5)], PRICES)
    await open_triggers(engine)
    rows = usage_records.c
    async with engine.begin() as conn:
        await conn.execute(delete(usage_records).where(rows.org_id == "org_0", rows.seq == 3))
        await conn.execute(delete(usage_records).where(rows.org_id == "org_1", rows.seq == 5))
        stored = (await conn.execute(usage_records.select().where(rows.org_id == "org_2", rows.seq == 5))).mappings()
        row = {**stored.one(), "request_id": "req_forged", "seq": 6}
        await conn.execute(insert(usage_records).values(row))
    problems = [(await reader.verify(org_id)).problem for org_id in ORGS]
    assert problems == [
        "row 3 is missing: 4 comes next",
        "the log ends at row 4, it had 5",
        "row 6 was added past the end of the log",
    ]
    async with engine.begin() as conn:
        await conn.execute(delete(usage_heads).where(usage_heads.c.org_id == "org_0"))
    assert (await reader.verify("org_0")).problem == "the record of where the log ends is gone"
    assert (await reader.verify("org_9")).problem is None


async def test_a_database_with_rows_gets_its_logs_by_the_migration(engine: AsyncEngine) -> None:
    """The hashes of rows that were there are what this version would have written."""
    ledger, reader = Ledger(engine), LedgerReader(engine)
    first = [
        usage(n, org_id=ORGS[n % 3], timestamp_us=JANUARY_1_2026_US - n, first_token_ms=n or None) for n in range(9)
    ]
    await ledger.insert(first, PRICES)
    await ledger.insert([usage(50, org_id=ORGS[0], client_request_id="mine ☃", failed_nodes=("a", "b"))], PRICES)
    await migrate.downgrade(engine, "0012")
    await migrate.upgrade(engine)
    for org_id in ORGS:
        verdict = await reader.verify(org_id)
        assert (verdict.problem, verdict.rows) == (None, 4 if org_id == "org_0" else 3)
    assert [row.request_id for row in await reader.rows_after("org_0", 0)] == [
        "req_000006", "req_000003", "req_000000", "req_000050",
    ]  # fmt: skip
    assert await ledger.insert([*first, usage(60, org_id=ORGS[1])], PRICES) == 1
    assert (await reader.verify("org_1")).rows == 4


async def test_months_are_made_ahead_and_one_whose_rows_came_first_is_left_out(
    postgres_engine: AsyncEngine, sqlite_engine: AsyncEngine
) -> None:
    early = RequestId(f"req_{1_932_000_000_000:012x}{1:020x}")  # March 2031
    await Ledger(postgres_engine).insert([usage(1, request_id=early)], PRICES)
    partitions = Partitions(postgres_engine, ManualClock(datetime(2031, 2, 28, tzinfo=UTC)))
    assert await partitions.make_ahead() == 2, "February and April"
    assert await partitions.make_ahead() == 0
    assert await Partitions(sqlite_engine, ManualClock()).make_ahead() == 0


async def test_on_postgresql_a_month_of_ids_has_a_partition_of_its_own(postgres_engine: AsyncEngine) -> None:
    ids = [RequestId(f"req_{ms:012x}{n:020x}") for n, ms in enumerate((1_767_225_599_999, 1_767_225_600_000))]
    async with postgres_engine.begin() as conn:
        for month, made in (("2026-01-01", True), ("2026-01-31", False), ("2025-12-07", True)):
            assert await conn.scalar(text(f"SELECT usage_records_partition('{month}')")) is made
    await Ledger(postgres_engine).insert([usage(n, request_id=id_) for n, id_ in enumerate(ids)], PRICES)
    async with postgres_engine.begin() as conn:
        found = await conn.execute(text("SELECT tableoid::regclass::text, request_id FROM usage_records ORDER BY 2"))
        assert [tuple(row) for row in found] == [("usage_records_2025_12", ids[0]), ("usage_records_2026_01", ids[1])]
    for statement in ("DELETE FROM usage_records_2026_01", "TRUNCATE usage_records_2026_01"):
        with pytest.raises(Exception, match="immutable"):
            async with postgres_engine.begin() as conn:
                await conn.execute(text(statement))
