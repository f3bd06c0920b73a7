"""Fees of a month that has ended, and what new orgs are given: once, however often and by whomever it is done."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.billing.charges.model import Fee, FeeKind
from crosslogic.billing.charges.monthly import MonthlyFees, SignupCredits
from crosslogic.billing.charges.own_terms import Account
from crosslogic.billing.charges.terms import Commitment
from crosslogic.kernel.clock import ManualClock
from crosslogic.store.tables import capacity_reservations, fees
from crosslogic.tenancy.model import Plan
from tests.money_rig import MoneyRig

JANUARY = datetime(2026, 1, 1, tzinfo=UTC)
DOLLAR = 10**12
PLAN = Plan("team", "Team", price_per_month_pusd=31 * DOLLAR)


class AtMonthsEnd:
    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self.rig = MoneyRig(engine)
        self.clock = self.rig.clock

    def job(self) -> MonthlyFees:
        return MonthlyFees(self.engine, self.clock, lambda: (PLAN,))

    async def reserve(self, reservation_id: str, start: datetime, end: datetime, dollars: int) -> None:
        async with self.engine.begin() as conn:
            await conn.execute(insert(capacity_reservations).values(
                id=reservation_id, org_id=self.rig.org_id, model="model-a", units=5, starts_at=start, created_at=start,
                expires_at=end, nodes=[], shared_fallback=True, price_per_month_pusd=dollars * DOLLAR,
            ))  # fmt: skip

    async def fees(self) -> dict[tuple[FeeKind, str], Fee]:
        async with self.engine.connect() as conn:
            found = [
                Fee(**{**row, "kind": FeeKind(row["kind"])}) for row in (await conn.execute(select(fees))).mappings()
            ]
        return {(each.kind, each.reference): each for each in found}


@pytest.fixture
def books(engine: AsyncEngine) -> AtMonthsEnd:
    return AtMonthsEnd(engine)


async def test_fees_are_written_once_when_the_month_is_over(books: AtMonthsEnd) -> None:
    await books.rig.put_org(billing_plan="team", created_at=JANUARY + timedelta(days=11))
    await books.reserve("res_1", JANUARY, JANUARY + timedelta(days=400), 62)
    await books.reserve("res_2", JANUARY + timedelta(days=30), JANUARY + timedelta(days=35), 31)
    assert await books.job().round() == 0  # December: there was nobody
    books.clock.advance(31 * 86_400)
    assert await books.job().round() == 0  # the last usage may still be on its way
    books.clock.advance(300)
    job = books.job()
    assert await job.round() == 3
    assert await job.round() == 0
    assert sum(await asyncio.gather(*(books.job().round() for _ in range(3)))) == 0
    found = await books.fees()
    assert {key: fee.amount for key, fee in found.items()} == {
        (FeeKind.PLAN, "team"): 20 * DOLLAR,
        (FeeKind.RESERVED_CAPACITY, "res_1"): 62 * DOLLAR,
        (FeeKind.RESERVED_CAPACITY, "res_2"): 1 * DOLLAR,
    }
    assert {fee.month for fee in found.values()} == {"2026-01"}
    assert all(fee.at < JANUARY + timedelta(days=31) for fee in found.values())  # on January's invoice
    books.clock.advance(28 * 86_400)
    assert await books.job().round() == 3
    assert {fee.month for fee in (await books.fees()).values()} == {"2026-02"}  # the same references, of another month


async def test_what_is_missing_of_a_commitment_is_owed(books: AtMonthsEnd) -> None:
    rig = books.rig
    await rig.put_org()
    await rig.accounts.put(Account(rig.org_id, commitment=Commitment(10**7, JANUARY)))
    await rig.use()  # 2.5 million pico-dollars
    await rig.rating.round()
    books.clock.advance(31 * 86_400 + 300)
    assert await books.job().round() == 1
    (fee,) = (await books.fees()).values()
    assert (fee.kind, fee.amount, fee.currency) == (FeeKind.COMMITMENT_SHORTFALL, 7_500_000, "USD")


async def test_who_is_not_billed_owes_no_fees(books: AtMonthsEnd) -> None:
    await books.rig.put_org(billing_plan="team", billing_enabled=False)
    books.clock.advance(31 * 86_400 + 300)
    assert await books.job().round() == 0


async def test_each_new_org_is_given_its_credit_once(engine: AsyncEngine) -> None:
    clock = ManualClock()
    rigs = [MoneyRig(engine, name) for name in ("org_old", "org_new", "org_free")]
    await rigs[0].put_org(created_at=JANUARY - timedelta(days=30))
    jobs = [SignupCredits(engine, rigs[0].credits, 10 * DOLLAR, clock) for _ in range(2)]
    await rigs[1].put_org(created_at=JANUARY)
    await rigs[2].put_org(created_at=JANUARY, billing_enabled=False)
    await asyncio.gather(*(job.round() for job in jobs))
    assert await jobs[0].round() == 0
    assert [await rig.credits.balance(rig.org_id) for rig in rigs] == [0, 10 * DOLLAR, 0]
