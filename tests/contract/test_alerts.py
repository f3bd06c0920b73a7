"""From rows to notices on both databases: what is spent, reserved, granted and paid is told, once."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.billing.credits.model import CreditClass
from crosslogic.billing.credits.service import CreditsService
from crosslogic.capacity.service import CapacityService
from crosslogic.insight.alerts.budgets import Budgets
from crosslogic.insight.alerts.figures import Figures
from crosslogic.insight.finops.sql import hour_of
from crosslogic.insight.notices.model import NoticeKind
from crosslogic.insight.notices.outbox import Outbox
from crosslogic.jobs.alerts import AlertsJob
from crosslogic.kernel.clock import ManualClock
from crosslogic.kernel.ids import RequestId
from crosslogic.kernel.money import PUSD_PER_USD
from crosslogic.limits.model import Limits
from crosslogic.metering.ledger import Ledger
from crosslogic.metering.rollup import Rollups
from crosslogic.pricing.book import PriceBook, PriceList
from crosslogic.store.tables import payment_methods, payments
from crosslogic.tenancy.directory import LayerLimits
from crosslogic.tenancy.keys import key_hasher
from crosslogic.tenancy.model import Environment, Org
from crosslogic.tenancy.service import TenancyService
from crosslogic.tenancy.sql import TenancySql
from tests.metering_samples import usage
from tests.payment_rows import method_row, payment_row

HASH = key_hasher(None)
USD = PUSD_PER_USD


class House:
    """An org with a budget of 100 USD, whose environment may spend 40 of them."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self.clock = ManualClock()
        self.clock.advance(40 * 86_400 + 3 * 3600)
        self.tenancy = TenancyService(TenancySql(engine), HASH, self.clock)
        self.outbox = Outbox(engine)
        self._requests = 0

    async def build(self) -> None:
        self.org: Org = await self.tenancy.create_org("acme", limits=Limits(spend_per_month_pusd=100 * USD))
        limits = Limits(spend_per_month_pusd=40 * USD)
        self.env: Environment = await self.tenancy.create_environment("acme", "prod", limits=limits)

    def job(self) -> AlertsJob:
        budgets = Budgets(self.engine, self.tenancy, LayerLimits)
        return AlertsJob(budgets, Figures(self.engine), self.outbox, self.clock)

    async def spend(self, usd: int, *, days_ago: float = 0, env: str | None = None, tokens: int = 10) -> None:
        self._requests += 1
        at = self.clock.now() - timedelta(days=days_ago)
        record = usage(
            0,
            request_id=RequestId(f"req_{self._requests:06}"),
            timestamp_us=int(at.timestamp() * 1_000_000),
            org_id=self.org.id,
            env_id=env or self.env.id,
            prompt_tokens=0,
            completion_tokens=tokens,
            cached_tokens=0,
            reasoning_tokens=0,
            plan_price_pusd=usd * USD // tokens,
        )
        await Ledger(self.engine).insert([record], PriceBook(PriceList()))
        await Rollups(self.engine).advance()

    async def told(self, kind: NoticeKind) -> list[dict[str, Any]]:
        """Facts of what was raised, oldest first."""
        found = await self.outbox.raised(self.org.id, kind=kind, after=None, limit=100)
        return [each.facts for each in reversed(found)]


@pytest_asyncio.fixture
async def house(engine: AsyncEngine) -> House:
    house = House(engine)
    await house.build()
    return house


async def test_budgets_of_org_and_environment_are_told_as_they_fill(house: House) -> None:
    for usd, new in ((10, 0), (10, 1), (15, 1), (0, 0), (5, 1), (10, 1), (30, 1), (30, 1)):
        if usd:
            await house.spend(usd)
        assert await house.job().round() == new
    told = [(facts["env_id"] is not None, facts["percent"]) for facts in await house.told(NoticeKind.BUDGET)]
    assert sorted(told) == [(False, 50), (False, 80), (False, 100), (True, 50), (True, 80), (True, 100)]


async def test_a_round_that_runs_twice_at_once_tells_once(house: House) -> None:
    await house.spend(60, env="env_other")
    await asyncio.gather(*(house.job().round() for _ in range(4)))
    assert [facts["percent"] for facts in await house.told(NoticeKind.BUDGET)] == [50]


async def test_a_day_of_more_than_ten_times_the_usual_is_told(house: House) -> None:
    for days_ago in (3, 2, 1):
        await house.spend(1, days_ago=days_ago, env="env_other")
    await house.spend(10, env="env_other")
    await house.job().round()
    assert await house.told(NoticeKind.SPEND_SPIKE) == []
    await house.spend(1, env="env_other")
    await house.job().round()
    (facts,) = await house.told(NoticeKind.SPEND_SPIKE)
    assert (facts["today_usd"], facts["average_usd"]) == ("11.00", "1.00")


async def test_credit_that_is_left_is_told_before_it_expires(house: House) -> None:
    credits = CreditsService(house.engine, HASH, house.clock)
    end = house.clock.now() + timedelta(days=10)
    await credits.grant(house.org.id, CreditClass.PROMOTIONAL, 5 * USD, expires_at=end)
    for _ in range(10):
        await house.job().round()
        house.clock.advance(86_400)
    assert [facts["left"] for facts in await house.told(NoticeKind.CREDIT_EXPIRING)] == ["5.00", "5.00"]


async def test_an_hour_beyond_what_is_reserved_is_told_when_it_is_over(house: House) -> None:
    capacity = CapacityService(house.engine, HASH, house.clock)
    start = hour_of(house.clock.now())
    await capacity.reserve(house.org.id, "model-a", 1, starts_at=start, lasts=timedelta(days=1), force=True)
    await house.spend(1, tokens=3601)
    await house.job().round()
    assert await house.told(NoticeKind.CAPACITY_EXCEEDED) == []
    house.clock.advance(3600 + 600)
    await house.job().round()
    (facts,) = await house.told(NoticeKind.CAPACITY_EXCEEDED)
    assert (facts["used_tokens"], facts["reserved_tokens"]) == (3601, 3600)


@pytest.mark.parametrize(("status", "told"), [("failed", 1), ("pending", 0), ("succeeded", 0)])
async def test_a_payment_that_did_not_go_through_is_told(house: House, status: str, told: int) -> None:
    method = method_row("pm_1", house.org.id)
    resolved_at = None if status == "pending" else house.clock.now()
    payment = payment_row("pay_1", house.org.id, "pm_1", status=status, resolved_at=resolved_at)
    async with house.engine.begin() as conn:
        await conn.execute(insert(payment_methods).values(method))
        await conn.execute(insert(payments).values(payment))
    await house.job().round()
    assert len(await house.told(NoticeKind.PAYMENT_FAILED)) == told
