"""Months of the ledger that go: only what is done with, never what is not, and what stays is as good as before."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import delete, func, select, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.billing.reconciliation.dispute import dispute_pack
from crosslogic.billing.reconciliation.service import Reconciler
from crosslogic.billing.retention.service import RetentionService
from crosslogic.kernel.clock import ManualClock
from crosslogic.kernel.errors import InvalidRequest
from crosslogic.kernel.ids import OrgId, RequestId
from crosslogic.metering import removal
from crosslogic.metering.costs.copying import UsageCopies
from crosslogic.metering.ledger import Ledger
from crosslogic.metering.ledger_reader import LedgerReader
from crosslogic.metering.ledger_row import first_id, microseconds
from crosslogic.metering.model import Evidence, Outcome, UsageRecord
from crosslogic.metering.rollup import Rollups
from crosslogic.metering.rollup_sums import RollupSums
from crosslogic.store.tables import invoices, monthly_spend, usage_records, usage_starts
from crosslogic.tenancy.audit_sql import AuditTrail, entries
from tests.billing_samples import desk
from tests.contract.test_cost_trackers import FailingStore
from tests.contract.test_ledger_log import PRICES, open_triggers
from tests.metering_samples import usage
from tests.money_rig import MoneyRig

JANUARY, FEBRUARY, MARCH, MAY = (datetime(2026, month, 1, tzinfo=UTC) for month in (1, 2, 3, 5))


def request_id(at: datetime, number: int) -> RequestId:
    return RequestId(f"{first_id(at)}{number:020x}")


def of(at: datetime, number: int, **changed: object) -> UsageRecord:
    return usage(number, **{"request_id": request_id(at, number), "timestamp_us": microseconds(at), **changed})


def retention(engine: AsyncEngine, now: datetime, rig: MoneyRig | None = None, **changed: bool) -> RetentionService:
    clock = ManualClock(now)
    rating = (rig or MoneyRig(engine)).rating
    kept = {"billed": rig is not None, **changed}
    return RetentionService(engine, clock, AuditTrail(clock=clock), rating, months=2, **kept)


async def rows_left(engine: AsyncEngine) -> int:
    async with engine.connect() as conn:
        return int(await conn.scalar(select(func.count()).select_from(usage_records)) or 0)


async def spend(engine: AsyncEngine) -> list[tuple[object, ...]]:
    async with engine.connect() as conn:
        return [tuple(row) for row in await conn.execute(select(monthly_spend).order_by(monthly_spend.c.month))]


async def months_of(engine: AsyncEngine, *starts: datetime) -> None:
    if engine.dialect.name == "postgresql":
        async with engine.begin() as conn:
            for at in starts:
                await conn.execute(text(f"SELECT usage_records_partition('{at.date()}')"))


async def test_rows_go_once_they_are_rolled_up_rated_and_invoiced_and_no_book_notices(engine: AsyncEngine) -> None:
    rig = MoneyRig(engine)
    await months_of(engine, JANUARY, FEBRUARY)
    await rig.put_org()
    ids = []
    for number in range(12):
        at = JANUARY + timedelta(days=5 * number, minutes=7)  # the last one arrives on 25 February
        ids.append(request_id(at, number))
        await rig.use(at=at, request_id=ids[-1])
    await rig.correct(ids[3], 10, 0, 7)
    kept = request_id(MAY, 99)
    await rig.use(at=MAY, request_id=kept)
    service = retention(engine, MAY + timedelta(days=3), rig)

    async def why() -> list[str]:
        assert await service.round() == 0
        assert await rows_left(engine) == 14
        return [each.why for each in await service.waiting()]

    assert await why() == ["it is not in the roll-ups"]
    await Rollups(engine).advance()
    assert await why() == ["it is not rated"]
    await rig.rating.round()
    assert await why() == ["it is on no invoice"]
    closer, issuer = desk(engine, ManualClock(MAY + timedelta(days=1)))
    for made in await closer.close_ended(rig.org_id):
        assert made.status == "draft"
    assert await why() == ["its invoice is a draft"]
    async with engine.connect() as conn:
        drafts = (await conn.execute(select(invoices.c.id).order_by(invoices.c.id))).scalars().all()
    await issuer.issue(drafts[0])
    if len(drafts) > 1:
        assert await why() == ["its invoice is a draft"]
    for draft in drafts[1:]:
        await issuer.issue(draft)

    before = await RollupSums(engine).summary(rig.org_id, start=None, end=None, group_by=["day", "key"])
    spent = await spend(engine)
    assert await service.round() == 13
    assert await service.round() == 0
    assert await rows_left(engine) == 1
    assert await service.waiting() == []
    assert await RollupSums(engine).summary(rig.org_id, start=None, end=None, group_by=["day", "key"]) == before
    assert await spend(engine) == spent
    reader = LedgerReader(engine)
    verdict = await reader.verify(rig.org_id)
    assert (verdict.problem, verdict.rows, verdict.dropped) == (None, 14, 13)
    rebuilt = await rig.rating.rebuild(rig.org_id)
    assert (rebuilt.wrong_seq, rebuilt.rows) == (None, 14)
    report = await Reconciler(engine, ManualClock(MAY), AuditTrail()).run(MAY.date(), days=31)
    assert report.differences == ()
    (drop,) = await service.drops()
    assert (drop.cutoff, drop.row_count, drop.org_count) == (MARCH, 13, 1)
    assert drop.removed_at is not None
    (entry,) = await entries(engine, action="usage")
    assert (entry.action, entry.entity_id) == ("usage.drop", "2026-03")
    pack = await dispute_pack(engine, ids[3])
    assert (pack["proof"]["intact"], pack["proof"]["dropped"]["up_to"], len(pack["charges"])) == (True, 13, 2)
    pack = await dispute_pack(engine, kept)
    assert pack["proof"]["hash_before"] == (await reader.start(rig.org_id)).hash.hex()

    # The log goes on, rating too, and the next months go in their turn.
    await rig.use(at=MAY + timedelta(days=2), request_id=request_id(MAY, 100))
    assert await rig.rating.round() == 1
    assert (await rig.rating.rebuild(rig.org_id)).wrong_seq is None
    assert (await reader.verify(rig.org_id)).intact
    later = retention(engine, datetime(2026, 9, 2, tzinfo=UTC), rig)
    await Rollups(engine).advance()
    assert await later.round() == 0
    assert [each.why for each in await later.waiting()] == ["it is on no invoice"]


async def test_without_billing_roll_ups_are_enough_and_the_last_row_may_go(engine: AsyncEngine) -> None:
    ledger = Ledger(engine)
    await ledger.insert([of(JANUARY + timedelta(hours=n), n, org_id=OrgId(f"org_{n % 2}")) for n in range(10)], PRICES)
    service = retention(engine, MAY)
    assert await service.round() == 0
    await Rollups(engine).advance()
    assert await service.round() == 10
    assert await rows_left(engine) == 0
    for org_id in ("org_0", "org_1"):
        assert (await LedgerReader(engine).verify(org_id)).problem is None
    await ledger.insert([of(MAY, 77, org_id=OrgId("org_0"))], PRICES)
    verdict = await LedgerReader(engine).verify("org_0")
    assert (verdict.problem, verdict.rows, verdict.dropped) == (None, 6, 5)


async def test_a_row_that_came_behind_later_ones_stays_with_all_that_follows(engine: AsyncEngine) -> None:
    await months_of(engine, JANUARY, MAY)
    ledger = Ledger(engine)
    await ledger.insert([of(JANUARY, n) for n in range(3)], PRICES)
    await ledger.insert([of(MAY, 3)], PRICES)
    await ledger.insert([of(JANUARY, 4)], PRICES)
    await Rollups(engine).advance()
    spent = await spend(engine)
    service = retention(engine, MAY)
    assert await service.round() == 3
    rows = await LedgerReader(engine).rows_after("org_1", 0)
    assert [row.request_id for row in rows] == [request_id(MAY, 3), request_id(JANUARY, 4)]
    assert (await LedgerReader(engine).verify("org_1")).problem is None
    assert await spend(engine) == spent, "moving a row spends nothing"
    if engine.dialect.name == "postgresql":
        async with engine.connect() as conn:
            assert await conn.scalar(text("SELECT to_regclass('usage_records_2026_01')")) is None
            assert await conn.scalar(text("SELECT count(*) FROM usage_records_default")) == 1
    assert await retention(engine, datetime(2026, 8, 1, tzinfo=UTC)).round() == 2
    assert await rows_left(engine) == 0


async def test_records_of_a_dropped_time_are_set_aside_and_counted_by_nobody(engine: AsyncEngine) -> None:
    ledger = Ledger(engine)
    records = [of(JANUARY, n) for n in range(3)]
    await ledger.insert(records, PRICES)
    await Rollups(engine).advance()
    service = retention(engine, MAY)
    await service.round()
    spent = await spend(engine)
    late = of(FEBRUARY, 8, outcome=Outcome.INTERRUPTED, evidence=Evidence.NONE)
    for _ in range(2):
        assert await ledger.insert([*records, late], PRICES) == 0
    assert await ledger.insert([*records, of(MAY, 9), of(JANUARY, 50, org_id=OrgId("org_2"))], PRICES) == 2
    found = await service.too_late()
    assert [each.request_id for each in found] == sorted(each.request_id for each in (*records, late))
    assert [each.request_id for each in await service.too_late(after=found[1].request_id, limit=1)] == [
        found[2].request_id
    ]
    assert await service.too_late(org_id="org_2") == []
    assert [row for row in await spend(engine) if row[0] == "2026-01" and row[1] == "org_1"] == spent
    assert (await LedgerReader(engine).verify("org_1")).rows == 4


async def test_the_database_lets_nothing_go_but_what_is_before_a_beginning(engine: AsyncEngine) -> None:
    ledger = Ledger(engine)
    await ledger.insert([of(JANUARY, 1), of(JANUARY, 2), of(MAY, 3)], PRICES)
    await Rollups(engine).advance()
    await retention(engine, MAY).round()
    starts = usage_starts.c
    for statement in (
        delete(usage_records),
        delete(usage_starts),
        update(usage_starts).values(seq=starts.seq - 1),
        update(usage_starts).values(seq=starts.seq, hash=b"x"),
    ):
        with pytest.raises(DBAPIError, match=r"immutable|only moves on"):
            async with engine.begin() as conn:
                await conn.execute(statement)
    assert await rows_left(engine) == 1


async def test_evidence_of_a_forgery_stays(sqlite_engine: AsyncEngine) -> None:
    await Ledger(sqlite_engine).insert([of(JANUARY, n) for n in range(5)], PRICES)
    await Rollups(sqlite_engine).advance()
    await open_triggers(sqlite_engine)
    async with sqlite_engine.begin() as conn:
        await conn.execute(update(usage_records).where(usage_records.c.seq == 3).values(completion_tokens=1))
    assert await retention(sqlite_engine, MAY).round() == 0
    assert await rows_left(sqlite_engine) == 5


async def test_parts_of_an_hour_that_is_gone_are_refused(engine: AsyncEngine) -> None:
    await Ledger(engine).insert([of(JANUARY + timedelta(minutes=30), 1), of(MAY, 2)], PRICES)
    await Rollups(engine).advance()
    sums = RollupSums(engine)
    await retention(engine, MAY).round()
    (whole,) = await sums.summary("org_1", start=JANUARY, end=JANUARY + timedelta(hours=1))
    assert whole.requests == 1
    for start, end in ((JANUARY + timedelta(minutes=1), None), (None, JANUARY + timedelta(minutes=40))):
        with pytest.raises(InvalidRequest, match="whole hours"):
            await sums.summary("org_1", start=start, end=end)
    (kept,) = await sums.summary("org_1", start=MAY, end=MAY + timedelta(minutes=1))
    assert kept.requests == 1


async def test_what_is_to_be_copied_waits_for_it(engine: AsyncEngine) -> None:
    await Ledger(engine).insert([of(JANUARY, 1)], PRICES)
    await Rollups(engine).advance()
    service = retention(engine, MAY, copied=True)
    assert await service.round() == 0
    assert [each.why for each in await service.waiting()] == ["it is not copied to the other store of usage"]


async def test_a_copy_that_begins_after_the_rows_went_ends(engine: AsyncEngine) -> None:
    ledger = Ledger(engine)
    await ledger.insert([of(JANUARY, n, org_id=OrgId(f"org_{n % 2}")) for n in range(4)], PRICES)
    await Rollups(engine).advance()
    await retention(engine, MAY).round()
    await ledger.insert([of(MAY, 9, org_id=OrgId("org_1"))], PRICES)
    store = FailingStore(9)
    async with asyncio.timeout(20):
        assert await UsageCopies(engine, store).advance() == 1
        assert await UsageCopies(engine, store).advance() == 0
    assert [request for request, _ in store.rows] == [request_id(MAY, 9)]


async def test_a_month_of_which_too_much_stays_is_left_whole(
    postgres_engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await months_of(postgres_engine, JANUARY)
    ledger = Ledger(postgres_engine)
    await ledger.insert([of(JANUARY, n) for n in range(4)], PRICES)
    await ledger.insert([of(MAY, 5, org_id=OrgId("org_2")), of(JANUARY, 6, org_id=OrgId("org_2"))], PRICES)
    await Rollups(postgres_engine).advance()
    monkeypatch.setattr(removal, "MOST_MOVED", 0)
    service = retention(postgres_engine, MAY)
    assert await service.round() == 4
    assert [each.removed_at for each in await service.drops()] == [None]
    assert await rows_left(postgres_engine) == 6
    assert (await LedgerReader(postgres_engine).verify("org_1")).problem is None
    monkeypatch.undo()
    await service.round()
    assert [each.removed_at is not None for each in await service.drops()] == [True]
    assert await rows_left(postgres_engine) == 2
