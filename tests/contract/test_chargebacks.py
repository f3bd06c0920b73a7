"""Payments that are disputed: over both providers' fakes, on both databases, with the real invoices and credits."""

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from random import Random
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.billing.chargebacks.pack import chargeback_pack
from crosslogic.billing.chargebacks.service import ChargebackService
from crosslogic.billing.inbound.service import Inbound
from crosslogic.billing.inbound.verify_paypal import PayPalVerifier
from crosslogic.billing.inbound.verify_stripe import StripeVerifier
from crosslogic.billing.invoices.notices import NoticeOutbox
from crosslogic.billing.payments.auto_charge import AutoCharge
from crosslogic.billing.payments.model import ChargebackStatus, Payment, Status
from crosslogic.insight.notices.outbox import Outbox
from crosslogic.jobs.invoice_notices import InvoiceNotices
from crosslogic.kernel.clock import ManualClock
from crosslogic.kernel.errors import Conflict, NotFound
from crosslogic.store.engine import reading
from crosslogic.store.tables import notices
from crosslogic.tenancy.audit_sql import AuditTrail
from tests.fake_paypal import WEBHOOK_ID
from tests.fake_stripe import webhooks
from tests.fake_stripe.server import DOWN
from tests.paid_house import House, paid_house
from tests.payments_rig import ACME, SIDES, PayPalSide, Rig, StripeSide


@pytest_asyncio.fixture(params=list(SIDES))
async def house(request: pytest.FixtureRequest, engine: AsyncEngine) -> AsyncIterator[House]:
    async with paid_house(engine, request.param) as house:
        yield house


@pytest_asyncio.fixture
async def stripe_house(engine: AsyncEngine) -> AsyncIterator[House]:
    async with paid_house(engine, "stripe") as house:
        yield house


async def payment_now(house: House, payment: Payment) -> Payment:
    return await house.payments.payment(payment.id)


async def test_a_disputed_invoice_waits_and_a_lost_one_is_owed_again(house: House) -> None:
    invoice, payment = await house.paid_invoice()
    ref = house.provider.dispute(payment)
    opened = await house.chargebacks.look_at(ref)
    assert opened is not None
    assert (opened.status, opened.withdrawn_minor, opened.lost_minor) == (ChargebackStatus.NEEDS_RESPONSE, 1000, 0)
    assert await house.sums(invoice) == ("disputed", 1000, 0, 0)
    assert await house.invoices.open_invoices(ACME) == []
    with pytest.raises(Conflict, match="only 0 minor units"):
        await house.payments.refund(payment.id, 1)
    with pytest.raises(Conflict):
        await house.payments.pay_invoice(invoice.id)

    house.provider.decide(ref, won=False)
    lost = await house.chargebacks.look_at(ref)
    assert lost is not None
    assert (lost.id, lost.status, lost.lost_minor) == (opened.id, ChargebackStatus.LOST, 1000)
    assert await house.sums(invoice) == ("issued", 0, 0, 1000)
    assert (await payment_now(house, payment)).charged_back
    assert await AutoCharge(house.payments, house.book).run() == 0, "a payer who took it back is not charged unasked"
    again = await house.payments.pay_invoice(invoice.id)
    assert (again.status, again.attempt) == (Status.SUCCEEDED, 2)
    assert await house.sums(invoice) == ("paid", 1000, 0, 0)
    assert sorted(await house.told()) == [
        "chargeback.lost", "chargeback.needs_response", "invoice.issued", "invoice.paid", "invoice.paid",
        "invoice.reopened",
    ]  # fmt: skip


async def test_a_won_one_leaves_everything_as_it_was(house: House) -> None:
    invoice, payment = await house.paid_invoice()
    ref = house.provider.dispute(payment)
    await house.chargebacks.look_at(ref)
    house.provider.decide(ref, won=True)
    for _ in range(3):
        won = await house.chargebacks.look_at(ref)
    assert won is not None
    assert (won.status, won.withdrawn_minor, won.next_look_at) == (ChargebackStatus.WON, 0, None)
    assert await house.sums(invoice) == ("paid", 1000, 0, 0)
    after = await payment_now(house, payment)
    assert (after.disputed_minor, after.charged_back, after.refundable_minor) == (0, False, 1000)
    assert [row.payment_ref for row in await house.invoices.payments(invoice)] == [payment.id]


async def test_an_inquiry_withdraws_nothing_until_it_becomes_a_chargeback(house: House) -> None:
    invoice, payment = await house.paid_invoice()
    ref = house.provider.dispute(payment, 400, inquiry=True)
    asked = await house.chargebacks.look_at(ref)
    assert asked is not None
    assert (asked.status, asked.amount_minor, asked.withdrawn_minor) == (ChargebackStatus.INQUIRY, 400, 0)
    assert await house.sums(invoice) == ("paid", 1000, 0, 0)
    house.provider.escalate(ref)
    await house.chargebacks.look_at(ref)
    assert await house.sums(invoice) == ("disputed", 1000, 0, 0)
    assert (await payment_now(house, payment)).refundable_minor == 600
    house.provider.decide(ref, won=False)
    await house.chargebacks.look_at(ref)
    assert await house.sums(invoice) == ("issued", 600, 0, 400)


async def test_credits_are_taken_back_while_their_money_is_away_and_never_below_zero(house: House) -> None:
    payment = await house.bought(1000)
    await house.use_credit(300)
    ref = house.provider.dispute(payment)
    await house.chargebacks.look_at(ref)
    assert await house.balance_minor() == 0
    house.provider.decide(ref, won=True)
    for _ in range(2):
        await house.chargebacks.look_at(ref)
    assert await house.balance_minor() == 700
    second = house.provider.dispute(payment, 200)
    await house.chargebacks.look_at(second)
    assert await house.balance_minor() == 500, "what was given again is found again"
    house.provider.decide(second, won=False)
    await house.chargebacks.look_at(second)
    assert await house.balance_minor() == 500


async def test_what_is_not_ours_is_left_alone(house: House) -> None:
    with pytest.raises(NotFound):
        await house.chargebacks.one("cb_none")
    assert await house.chargebacks.look_at("dp_nowhere") is None
    invoice, payment = await house.paid_invoice()
    ref = house.provider.dispute(payment)
    stranger = ChargebackService(
        house.engine, house.payments, house.paid_for, house.clock, AuditTrail(clock=house.clock)
    )
    async with house.engine.begin() as conn:
        await conn.exec_driver_sql("UPDATE payments SET provider_ref = 'x', charge_ref = 'y'")
    assert await stranger.look_at(ref) is None
    assert await house.sums(invoice) == ("paid", 1000, 0, 0)


async def test_what_no_webhook_told_of_is_found_and_what_is_undecided_is_asked_for_again(house: House) -> None:
    invoice, payment = await house.paid_invoice()
    ref = house.provider.dispute(payment)
    assert await house.chargebacks.round() == 1
    assert await house.sums(invoice) == ("disputed", 1000, 0, 0)
    assert await house.chargebacks.round() == 0
    house.provider.decide(ref, won=False)
    house.provider.advance(7 * 3600)
    assert await house.chargebacks.round() == 1
    assert await house.sums(invoice) == ("issued", 0, 0, 1000)
    house.provider.advance(90 * 86400)
    assert await house.chargebacks.round() == 0


async def test_a_late_answer_never_undoes_a_newer_one(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    invoice, payment = await house.paid_invoice()
    ref = house.provider.dispute(payment)
    await house.chargebacks.look_at(ref)
    processor = house.provider.processor
    ask, asked = processor.chargeback, 0

    async def slowly(provider_ref: str) -> Any:
        nonlocal asked
        asked += 1
        found = await ask(provider_ref)
        if asked == 1:  # meanwhile it is decided, and somebody else looks
            house.provider.decide(ref, won=False)
            await house.chargebacks.look_at(ref)
        return found

    monkeypatch.setattr(processor, "chargeback", slowly)
    await house.chargebacks.look_at(ref)
    assert asked == 3
    assert await house.sums(invoice) == ("issued", 0, 0, 1000)
    assert [each.status for each in await house.chargebacks.all()] == [ChargebackStatus.LOST]


async def test_money_that_comes_back_after_all_is_kept(stripe_house: House) -> None:
    """Lost, paid again another way, then reinstated: the org has that much too much, which is shown."""
    house = stripe_house
    invoice, payment = await house.paid_invoice()
    assert isinstance(house.provider, StripeSide)
    ref = house.provider.dispute(payment)
    house.provider.decide(ref, won=False)
    await house.chargebacks.look_at(ref)
    await house.payments.pay_invoice(invoice.id)
    house.provider.fake.disputes.decide(ref, won=True)
    await house.chargebacks.look_at(ref)
    assert await house.sums(invoice) == ("paid", 2000, 0, -1000)


async def test_of_a_case_that_is_won_the_money_may_come_later(stripe_house: House) -> None:
    house = stripe_house
    assert isinstance(house.provider, StripeSide)
    invoice, payment = await house.paid_invoice()
    ref = house.provider.dispute(payment)
    house.provider.fake.disputes.decide(ref, won=True, reinstate=False)
    await house.chargebacks.look_at(ref)
    assert await house.sums(invoice) == ("disputed", 1000, 0, 0)
    house.provider.fake.disputes.reinstate(ref)
    house.provider.advance(timedelta(hours=7).total_seconds())
    assert await house.chargebacks.round() == 1
    assert await house.sums(invoice) == ("paid", 1000, 0, 0)


@pytest.mark.parametrize("seed", range(5))
async def test_webhooks_of_disputes_in_any_order_come_to_the_same_end(stripe_house: House, seed: int) -> None:
    """23. Webhook duplicates and reorderings converge."""
    house, random = stripe_house, Random(seed)
    assert isinstance(house.provider, StripeSide)
    fake = house.provider.fake
    verified = StripeVerifier((webhooks.SECRET,)).verified
    inbound = Inbound(house.engine, house.clock, house.payments, {"stripe": verified}, chargebacks=house.chargebacks)
    cases = [await house.paid_invoice(1000 + n) for n in range(4)]
    credits = await house.bought(500)
    told = 0

    async def tell_some() -> None:
        nonlocal told
        fresh, told = fake.state.events[told:], len(fake.state.events)
        for event in webhooks.storm(fresh + random.sample(fake.state.events, 3), random):
            payload = webhooks.payload_of(event)
            signed = webhooks.signature(payload, int(house.clock.now().timestamp()))
            await inbound.take("stripe", payload, {"stripe-signature": signed})
            if random.random() < 0.3:
                if random.random() < 0.2:
                    fake.faults.order(DOWN, "/v1/disputes")
                await inbound.act()

    lost, won, asked, both = (fake.disputes.open(str(p.provider_ref), inquiry=n == 2) for n, (_, p) in enumerate(cases))
    topped = fake.disputes.open(str(credits.provider_ref))
    steps = [
        lambda: fake.disputes.review(lost),
        lambda: fake.disputes.decide(won, won=True),
        lambda: fake.disputes.escalate(asked),
        lambda: fake.disputes.decide(lost, won=False),
        lambda: fake.disputes.decide(both, won=False),
        lambda: fake.disputes.decide(both, won=True),
        lambda: fake.disputes.decide(topped, won=False),
    ]
    for step in steps:
        step()
        if random.random() < 0.6:
            await tell_some()
    await tell_some()
    for _ in range(30):
        await inbound.act()
        house.provider.advance(600)
    ends = [await house.sums(invoice) for invoice, _ in cases]
    assert ends == [
        ("issued", 0, 0, 1000), ("paid", 1001, 0, 0), ("disputed", 1002, 0, 0), ("paid", 1003, 0, 0),
    ]  # fmt: skip
    assert await house.balance_minor() == 0
    assert len(await house.chargebacks.all()) == 5


async def test_paypals_webhooks_of_disputes(engine: AsyncEngine) -> None:
    clock = ManualClock()
    async with SIDES["paypal"](clock) as provider:
        house = await House(Rig(engine, provider, clock)).open()
        assert isinstance(provider, PayPalSide)
        invoice, payment = await house.paid_invoice()

        async def certificate(_url: str) -> bytes:
            return provider.fake.certificate()

        verifier = PayPalVerifier(WEBHOOK_ID, certificate, lambda url: url.startswith(provider.fake.base_url))
        inbound = Inbound(engine, clock, house.payments, {"paypal": verifier.verified}, chargebacks=house.chargebacks)
        ref = provider.dispute(payment)
        provider.fake.resolve(ref, "ACCEPTED", "4.00")
        for event in reversed(provider.fake.events):
            payload = json.dumps(event).encode()
            await inbound.take("paypal", payload, provider.fake.headers_of(payload))
        assert await inbound.act() == len(provider.fake.events)
        assert await house.sums(invoice) == ("issued", 600, 0, 400)


async def test_operators_are_told_and_the_pack_says_everything(house: House) -> None:
    invoice, payment = await house.paid_invoice()
    await house.chargebacks.look_at(house.provider.dispute(payment))
    (chargeback,) = await house.chargebacks.all(org_id=ACME)
    handing = InvoiceNotices(NoticeOutbox(house.engine), Outbox(house.engine), house.clock)
    await handing.round()
    async with reading(house.engine) as conn:
        query = select(notices.c.org_id, notices.c.title, notices.c.facts).where(notices.c.kind == "chargeback")
        (row,) = (await conn.execute(query)).all()
    assert row.org_id is None
    assert row.title.startswith("A payment is disputed: give evidence: USD 10.00")
    assert row.facts["pack"] == f"/admin/chargebacks/{chargeback.id}/pack"
    pack = await chargeback_pack(house.engine, chargeback)
    assert pack["invoice"]["number"] == invoice.number
    assert pack["invoice"]["document"]["number"] == invoice.number
    assert pack["usage"]["requests"] == 1
    assert pack["usage"]["largest"][0]["pack"].startswith("/admin/disputes/req_")
    assert pack["payment"]["method"]["last4"]
