"""Published versions reach what gateways hold for caps, and what the ledger prices rows at."""

from datetime import datetime, timedelta
from decimal import Decimal

from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.metering.ledger import Ledger
from crosslogic.metering.ledger_reader import LedgerReader
from crosslogic.metering.spend import SpendBook
from crosslogic.pricing.estimate import CostEstimates
from crosslogic.pricing.sync import PriceSync, PublishedPrices
from crosslogic.pricing.terms import PricedModel, PriceTerms
from crosslogic.store.changes import Change
from tests.money_rig import MoneyRig


def terms(price: str) -> PriceTerms:
    return PriceTerms(prices=(PricedModel("model-*", Decimal(price), Decimal(price)),), regions={"eu": Decimal(3)})


async def test_holds_and_the_ledger_follow_versions_and_the_bill_agrees(engine: AsyncEngine) -> None:
    rig = MoneyRig(engine)
    await rig.put_org()
    rig.ledger = Ledger(engine, rig.clock, published=PublishedPrices(engine))
    costs = CostEstimates(rig.book, ["local"], now=rig.clock.now)
    sync = PriceSync(engine, costs.publish)
    await sync.load()

    def held(org_id: str = rig.org_id) -> int:
        return costs.at_most(("model-a",), 10, 20, org_id=org_id, endpoint="chat.completions")

    configured = 10 * 50_000 + 20 * 100_000
    assert held() == configured
    await rig.use()
    now = rig.clock.now()
    for_all = await rig.prices.draft(terms("1"), currency="USD")
    await rig.prices.publish(for_all.id, effective_from=now + timedelta(hours=1))
    own = await rig.prices.draft(terms("2"), currency="USD", org_id=rig.org_id)
    await rig.prices.publish(own.id, effective_from=now + timedelta(hours=2))
    await sync.apply([Change(1, "price", own.id)])
    assert held() == configured, "it does not hold yet"
    rig.clock.advance(3600)
    assert (held(), held("org_2")) == (30 * 10**6, 30 * 10**6)
    await rig.use()
    rig.clock.advance(3600)
    assert (held(), held("org_2")) == (60 * 10**6, 30 * 10**6)
    await rig.use()
    costs.serve_in(["local", "eu"])
    assert held() == 180 * 10**6
    late = await rig.use(at=now + timedelta(minutes=90))
    rows = await LedgerReader(engine).rows_after(rig.org_id, 0)
    assert [row.price_version for row in rows] == [rig.book.version, for_all.id, own.id, for_all.id]
    assert [row.cost_pusd for row in rows] == [configured, 30 * 10**6, 60 * 10**6, 30 * 10**6]
    assert rows[3].request_id == late
    (spent,) = await SpendBook(engine).of_orgs(f"{now:%Y-%m}", [rig.org_id])
    assert spent.cost_pusd == configured + 120 * 10**6
    await rig.rating.round()
    assert [each.amount for each in await rig.charges()] == [row.cost_pusd for row in rows]
    usage = rows[2]
    at = datetime.fromtimestamp(usage.timestamp_us / 1e6, now.tzinfo)
    asked = {"org_id": usage.org_id, "endpoint": usage.endpoint, "at": at}
    assert costs.of(usage, "model-a", "local", **asked) == usage.cost_pusd  # type: ignore[arg-type]


async def test_a_version_in_another_currency_counts_in_dollars_or_not_at_all(engine: AsyncEngine) -> None:
    rig = MoneyRig(engine)
    await rig.put_org()
    prices = PublishedPrices(engine)
    own = await rig.prices.draft(terms("80"), currency="INR", org_id=rig.org_id)
    await rig.prices.publish(own.id)
    asked = (rig.org_id, "model-a", "local", "chat.completions", rig.clock.now())
    assert (await prices.now()).price(*asked) is None
    await rig.prices.set_rate("INR", Decimal(80))
    found = (await prices.now()).price(*asked)
    assert found is not None
    assert (found.input_pusd, found.output_pusd, found.version) == (10**6, 10**6, own.id)
    assert (await prices.now()).price(rig.org_id, "other", "local", "chat.completions", rig.clock.now()) is None
