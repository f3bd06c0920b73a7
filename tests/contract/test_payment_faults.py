"""Many faults, one after the other, seeded: the provider's books are the oracle. `CROSSLOGIC_FAULT_RUNS` is how many of
each; every test run has a short one."""

import os
from collections.abc import AsyncIterator
from random import Random

import pytest
import pytest_asyncio

from crosslogic.billing.exports.model import WindowStatus
from crosslogic.billing.inbound.service import Inbound
from crosslogic.billing.inbound.verify_stripe import StripeVerifier
from crosslogic.billing.payments.model import Status
from crosslogic.kernel.clock import ManualClock
from crosslogic.store.engine import create_engine
from tests.exports_rig import ExportRig, export_rig
from tests.fake_stripe import webhooks
from tests.fake_stripe.server import APPLIED_500, DOWN, FAILED_500, LIMITED, LOST_REPLY, LOST_REQUEST
from tests.payments_rig import ACME, SIDES, Rig

RUNS = int(os.environ.get("CROSSLOGIC_FAULT_RUNS", "10"))


@pytest_asyncio.fixture(params=list(SIDES))
async def rig(request: pytest.FixtureRequest, sqlite_url: str) -> AsyncIterator[Rig]:
    engine, clock = create_engine(sqlite_url), ManualClock()
    async with SIDES[request.param](clock) as provider:
        rig = await Rig(engine, provider, clock).prepare()
        await rig.method()
        yield rig
    await engine.dispose()


@pytest_asyncio.fixture
async def exporting(sqlite_url: str) -> AsyncIterator[ExportRig]:
    engine = create_engine(sqlite_url)
    async with export_rig(engine) as rig:
        yield rig
    await engine.dispose()


@pytest.mark.parametrize(
    "kinds",
    [(LOST_REPLY,), (LOST_REQUEST,), (FAILED_500, APPLIED_500, LIMITED, DOWN)],
    ids=["applied, then no answer", "lost", "5xx and 429"],
)
async def test_charges_and_refunds_through_faults(rig: Rig, kinds: tuple[str, ...]) -> None:
    random, expected = Random(19), 0
    for number in range(RUNS):
        amount = random.randint(100, 9_000)
        rig.provider.order(random.choice(kinds), random.choice((rig.provider.charge_path, rig.provider.refund_path)))
        payment = await rig.service.top_up(ACME, amount, "usd", creation_ref=f"k{number}")
        if random.random() < 0.3:
            rig.provider.advance(random.choice((60, 3600, 26 * 3600)))
        await rig.until_quiet()
        payment = await rig.service.payment(payment.id)
        if payment.status is Status.SUCCEEDED:
            await rig.service.refund(payment.id, random.randint(1, amount))
            await rig.until_quiet()
            expected += (await rig.service.payment(payment.id)).refundable_minor
        else:
            assert payment.status is Status.FAILED
    rig.provider.fake.faults.ordered.clear()  # type: ignore[attr-defined]
    assert rig.provider.taken_minor() == expected
    told = [ref for _, ref, _ in rig.books.told_paid]
    assert len(set(told)) == rig.provider.captures()


@pytest.mark.parametrize("what", ["a day without an answer", "rejected later", "sums that lag"])
async def test_usage_through_faults(exporting: ExportRig, what: str) -> None:
    rig, random = exporting, Random(7)
    customer = await rig.rig.service.methods.customer(ACME)
    for _ in range(max(RUNS // 10, 5)):
        await rig.use([(random.randint(1, 900), 0, random.randint(1, 900))], rig.clock.now())
        rig.advance(4000)
        if what == "rejected later":
            hidden = rig.fake.state.objects["customer"].pop(customer)
            await rig.exports.run()
            rig.advance(10)
            rig.fake.state.objects["customer"][customer] = hidden
        else:
            rig.fake.faults.order(random.choice((LOST_REPLY, LOST_REQUEST)), "/v1/billing/meter_events", 2)
            await rig.exports.run()
            rig.advance(25 * 3600)
            rig.fake.meters.lag_s = random.choice((1800, 5 * 3600)) if what == "sums that lag" else 0
        await rig.until_quiet()
        rig.fake.faults.ordered.clear()
    assert await rig.told() == rig.owed()
    statuses = {each.status for each in await rig.windows()}
    assert statuses <= {WindowStatus.SENT, WindowStatus.VERIFIED, WindowStatus.REPLACED}
    assert WindowStatus.REPLACED in statuses


async def test_webhooks_twice_out_of_order_forged_and_while_the_provider_fails(sqlite_url: str) -> None:
    random, clock = Random(23), ManualClock()
    engine = create_engine(sqlite_url)
    async with SIDES["stripe"](clock) as side:
        rig = await Rig(engine, side, clock).prepare()
        fake = side.fake  # type: ignore[attr-defined]
        methods = [await rig.method(behaviour=each) for each in ("ok", "3ds", "declined")]
        inbound = Inbound(engine, clock, rig.service, {"stripe": StripeVerifier((webhooks.SECRET,)).verified})
        for _ in range(RUNS):
            payment = await rig.service.top_up(ACME, random.randint(100, 900), "usd", method_id=random.choice(methods))
            if payment.status is Status.PENDING:
                side.payer_acts(payment, succeeds=random.random() < 0.7)
        told = webhooks.storm(fake.state.events, random)
        for event in told:
            payload = webhooks.payload_of(event)
            signed = webhooks.signature(payload, int(clock.now().timestamp()))
            await inbound.take("stripe", payload, {"stripe-signature": signed})
            if random.random() < 0.05:
                fake.faults.order(random.choice((FAILED_500, LIMITED, LOST_REPLY)), "/v1/payment_intents/")
                await inbound.act()
        for _ in range(40):
            await inbound.act()
            side.advance(600)
        taken = sum(each.captured_minor for each in await rig.service.payments(limit=2000))
        assert taken == side.taken_minor()
        assert all(each.status in (Status.SUCCEEDED, Status.FAILED) for each in await rig.service.payments(limit=2000))
        assert len({ref for _, ref, _ in rig.books.told_paid}) == side.captures()
    await engine.dispose()
