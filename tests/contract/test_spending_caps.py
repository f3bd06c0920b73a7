"""Suspending at a spending cap: who chose it, once it was met, by the system, and never against an administrator."""

from decimal import Decimal

import msgspec
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.insight.notices.outbox import Outbox
from crosslogic.jobs.spending_caps import SpendingCaps
from crosslogic.kernel.clock import ManualClock
from crosslogic.limits.memory import MemoryLimiter
from crosslogic.limits.model import Demand, Dimension, Layer, Limits, Rejected
from crosslogic.metering.floors import SpendFloors
from crosslogic.metering.ledger import Ledger
from crosslogic.metering.spend import CapHit, SpendBook, month_of
from crosslogic.pricing.book import PriceBook, PriceEntry, PriceList
from crosslogic.tenancy.directory import Directory, LayerLimits
from crosslogic.tenancy.keys import key_hasher
from crosslogic.tenancy.model import AtCap, Environment, Org, Plan, Status
from crosslogic.tenancy.service import TenancyService
from crosslogic.tenancy.sql import TenancySql
from crosslogic.tenancy.sync import DirectorySync
from tests.metering_samples import usage

HASH = key_hasher(b"pepper")
PRICES = PriceBook(PriceList((PriceEntry("model-*", Decimal("0.05"), Decimal("0.10"), Decimal("0.01")),)))
COST_PUSD = 6 * 50_000 + 4 * 10_000 + 20 * 100_000  # of one sample record, which has 30 tokens


class House:
    """A tenant that spends, and whoever watches over its cap."""

    def __init__(self, engine: AsyncEngine, configured: LayerLimits | None = None) -> None:
        self.clock = ManualClock()
        self.month = month_of(self.clock.now())
        self.plans = [Plan("metered", "Metered", price_per_token_pusd=1000), Plan("free", "Free")]
        self.tenancy = TenancyService(TenancySql(engine), HASH, self.clock, lambda: self.plans)
        self.spend = SpendBook(engine)
        self.ledger = Ledger(engine)
        self.configured = configured or LayerLimits()
        self.caps = SpendingCaps(self.spend, self.tenancy, lambda: self.configured, self.clock, Outbox(engine))
        self._requests = 0

    async def move_in(self, **org: object) -> None:
        self.org: Org = await self.tenancy.create_org("acme", **org)  # type: ignore[arg-type]
        self.env: Environment = await self.tenancy.create_environment("acme", "prod")

    async def use(self, requests: int) -> None:
        now_us = int(self.clock.now().timestamp() * 1e6)
        plan = next(plan for plan in self.plans if plan.id == self.org.billing_plan)
        changes = {
            "org_id": self.org.id,
            "env_id": self.env.id,
            "timestamp_us": now_us,
            "plan_price_pusd": plan.price_per_token_pusd,
        }
        records = [usage(self._requests + n, **changes) for n in range(requests)]
        self._requests += requests
        await self.ledger.insert(records, PRICES)

    async def met(self, layer: str = "org") -> int:
        """A gateway says so, and the job runs; how many it suspends."""
        hit = CapHit(layer, self.org.id if layer == "org" else self.env.id)
        await self.spend.report(self.month, [hit], self.clock.now())
        return await self.caps.suspend()

    async def statuses(self) -> tuple[Status, Status]:
        env = await self.tenancy.environment("acme", "prod")
        return (await self.tenancy.org("acme")).status, env.status


def cap(requests: float) -> Limits:
    return Limits(spend_per_month_pusd=int(requests * COST_PUSD))


@pytest.fixture
def house(engine: AsyncEngine) -> House:
    return House(engine)


async def test_an_org_that_chose_so_is_suspended_once_and_by_the_system(house: House) -> None:
    await house.move_in(limits=cap(10), at_cap=AtCap.SUSPEND)
    await house.use(9)
    assert await house.met() == 1
    assert await house.statuses() == (Status.SUSPENDED, Status.ACTIVE)
    (entry,) = await house.tenancy.audit.entries(action="org.suspend")
    assert (entry.actor_kind, entry.entity_id) == ("system", house.org.id)
    assert await house.caps.suspend() == 0
    assert await house.spend.hits(house.month) == []


async def test_one_that_did_not_is_only_refused(house: House) -> None:
    await house.move_in(limits=cap(10))
    await house.use(10)
    assert await house.met() == 0
    assert await house.statuses() == (Status.ACTIVE, Status.ACTIVE)


async def test_a_single_request_that_is_too_large_suspends_nobody(house: House) -> None:
    await house.move_in(limits=cap(10), at_cap=AtCap.SUSPEND)
    await house.use(4)
    assert await house.met() == 0
    await house.use(1)
    assert await house.met() == 1


async def test_whom_an_administrator_takes_up_again_is_left_alone_until_the_cap_is_met_again(house: House) -> None:
    await house.move_in(limits=cap(10), at_cap=AtCap.SUSPEND)
    await house.use(10)
    assert await house.met() == 1
    await house.tenancy.change_org("acme", status=Status.ACTIVE)
    assert await house.caps.suspend() == 0
    assert await house.met() == 1


@pytest.mark.parametrize("whose", ["environment", "org", "plan", "configuration"])
async def test_an_environment_is_suspended_at_whichever_cap_holds_for_it(engine: AsyncEngine, whose: str) -> None:
    house = House(engine, LayerLimits(env=cap(10)) if whose == "configuration" else None)
    if whose == "plan":
        house.plans[1] = msgspec.structs.replace(house.plans[1], env_limits=cap(10))
    await house.move_in(**({"env_limits": cap(10)} if whose == "org" else {}), billing_plan="free")
    own = cap(10) if whose == "environment" else None
    await house.tenancy.change_environment("acme", "prod", limits=own, at_cap=AtCap.SUSPEND)
    await house.use(6)
    assert await house.met("env") == 1
    assert await house.statuses() == (Status.ACTIVE, Status.SUSPENDED)


async def test_a_plans_own_price_counts_instead_of_the_price_list(house: House) -> None:
    ten = Limits(spend_per_month_pusd=10 * 30 * 1000)
    await house.move_in(limits=ten, at_cap=AtCap.SUSPEND, billing_plan="metered")
    await house.use(4)
    assert await house.met() == 0
    await house.use(1)
    assert await house.met() == 1


async def test_who_is_gone_stands_in_nobodys_way(house: House) -> None:
    await house.move_in(limits=cap(10), at_cap=AtCap.SUSPEND)
    await house.use(10)
    await house.spend.report(house.month, [CapHit("org", "org_gone"), CapHit("env", "env_gone")], house.clock.now())
    assert await house.met() == 1


@pytest.mark.parametrize("plan", ["free", "metered"])
async def test_a_gateway_that_starts_knows_what_was_spent(engine: AsyncEngine, house: House, plan: str) -> None:
    each = COST_PUSD if plan == "free" else 30 * 1000
    await house.move_in(limits=Limits(spend_per_month_pusd=10 * each), billing_plan=plan)
    made = await house.tenancy.create_key("acme", "prod", name="k")
    await house.use(8)
    directory = Directory(HASH, LayerLimits(), house.plans)
    await DirectorySync(engine, directory).load()
    limiter = MemoryLimiter(house.clock)
    await SpendFloors(house.spend, directory, limiter, house.clock).start()
    principal = directory.resolve(made.token.encode())
    assert principal is not None
    for _ in range(2):
        admitted = await limiter.admit(principal.scopes, Demand(0, 0, each))
        assert not isinstance(admitted, Rejected)
        limiter.settle(admitted, Demand(0, 0, each))
    refused = await limiter.admit(principal.scopes, Demand(0, 0, each))
    assert isinstance(refused, Rejected)
    assert (refused.layer, refused.dimension) == (Layer.ORG, Dimension.SPEND_PER_MONTH)


async def test_only_orgs_under_a_cap_are_asked_for(engine: AsyncEngine, house: House) -> None:
    await house.move_in()
    directory = Directory(HASH, LayerLimits(), house.plans)
    sync = DirectorySync(engine, directory)
    await sync.load()
    assert directory.budgeted_orgs() == set()
    version = directory.version
    key = await house.tenancy.create_key("acme", "prod", name="k", limits=cap(1))
    await sync.load()
    assert directory.budgeted_orgs() == {house.org.id}
    assert directory.version > version
    assert key.key.limits == cap(1)
