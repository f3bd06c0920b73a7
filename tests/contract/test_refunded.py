"""What a refund does to what was paid: a credit note of an invoice, credits taken back; and debts that are paid."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial

import pytest
import pytest_asyncio
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.billing.inbound.service import Inbound
from crosslogic.billing.inbound.verify_stripe import StripeVerifier
from crosslogic.billing.invoices.model import InvoicingTerms
from crosslogic.billing.payments.model import MethodKind, Payment, Refund, Status
from crosslogic.jobs.dunning import Dunning
from crosslogic.kernel.errors import Conflict, InvalidRequest
from crosslogic.tenancy import model as tenancy
from crosslogic.tenancy.keys import key_hasher
from crosslogic.tenancy.service import TenancyService
from crosslogic.tenancy.sql import TenancySql
from tests.fake_stripe import webhooks
from tests.paid_house import House, paid_house
from tests.payments_rig import ACME, SIDES, StripeSide, insisting


@pytest_asyncio.fixture(params=list(SIDES))
async def house(request: pytest.FixtureRequest, engine: AsyncEngine) -> AsyncIterator[House]:
    async with paid_house(engine, request.param) as house:
        yield house


@pytest_asyncio.fixture
async def stripe_house(engine: AsyncEngine) -> AsyncIterator[House]:
    async with paid_house(engine, "stripe", InvoicingTerms(suspend_unpaid=True, reminder_days=())) as house:
        yield house


async def test_a_refund_of_an_invoice_is_credited_once(house: House) -> None:
    invoice, payment = await house.paid_invoice()
    with pytest.raises(InvalidRequest, match="cannot be printed"):
        await house.payments.refund(payment.id, 300, reason="outage\x00 of May")
    refund = await house.payments.refund(payment.id, 300, reason="outage of May")
    assert refund.status is Status.SUCCEEDED
    assert await house.sums(invoice) == ("paid", 700, 300, 0)
    await house.payments.refund_driver.tell(refund.id)
    await house.payments.refund(payment.id)
    assert await house.sums(invoice) == ("paid", 0, 1000, 0)
    first, rest = await house.invoices.credit_notes(await house.invoices.invoice(invoice.id))
    assert (first.ref, first.total_minor, first.reason, rest.total_minor) == (refund.id, 300, "outage of May", 700)
    assert (await house.told()).count("credit_note.issued") == 2


async def test_refunds_at_once_are_each_credited_once(house: House) -> None:
    invoice, payment = await house.paid_invoice()
    wanted = [partial(house.payments.refund, payment.id, 90, creation_ref=f"r{n}") for n in range(20)]
    made = await asyncio.gather(*map(insisting, wanted), return_exceptions=True)
    assert sum(isinstance(each, Refund) for each in made) == 11
    assert all(isinstance(each, Refund | Conflict) for each in made)
    await house.payments.drive_due()
    assert await house.sums(invoice) == ("paid", 10, 990, 0)


async def test_what_was_credited_by_hand_before_is_not_credited_again(house: House) -> None:
    invoice, payment = await house.paid_invoice()
    await house.issuer.credit_note(invoice.id, ref="case-7", reason="outage", amount_minor=400)
    assert await house.sums(invoice) == ("paid", 1000, 400, -400)
    await house.payments.refund(payment.id, 500)
    assert await house.sums(invoice) == ("paid", 500, 500, 0)


async def test_a_refund_that_comes_back_leaves_the_org_its_credit(stripe_house: House) -> None:
    house = stripe_house
    assert isinstance(house.provider, StripeSide)
    invoice, payment = await house.paid_invoice()
    refund = await house.payments.refund(payment.id, 300)
    house.provider.fake.payments.refund_fails(str(refund.provider_ref))
    for _ in range(2):
        failed = await house.payments.refund_driver.look_at(refund.id, str(refund.provider_ref))
    assert failed.status is Status.FAILED
    assert await house.sums(invoice) == ("paid", 1000, 300, -300)
    await house.payments.refund(payment.id, 300)
    assert await house.sums(invoice) == ("paid", 700, 300, 0), "the credit note of the first holds for the second"


async def test_a_refund_of_credits_takes_back_what_is_left_of_them(house: House) -> None:
    payment = await house.bought(1000)
    await house.payments.refund(payment.id, 250)
    assert await house.balance_minor() == 750
    await house.use_credit(600)
    assert await house.balance_minor() == 150
    await house.payments.refund(payment.id, 500)
    assert await house.balance_minor() == 0
    await house.payments.refund(payment.id)
    assert (await house.payments.payment(payment.id)).refundable_minor == 0
    assert await house.balance_minor() == 0
    for each in await house.credits.of_org(ACME):  # 15. grant = drawn + expired + voided + remaining
        assert each.grant.amount == each.drawn + each.expired + each.voided + each.remaining
        assert min(each.drawn, each.expired, each.voided, each.remaining) >= 0


async def test_refunds_of_credits_at_once_take_each_once(house: House) -> None:
    payment = await house.bought(1000)
    wanted = [partial(house.payments.refund, payment.id, 90, creation_ref=f"r{n}") for n in range(20)]
    made = await asyncio.gather(*map(insisting, wanted), return_exceptions=True)
    assert sum(isinstance(each, Refund) for each in made) == 11
    assert await house.balance_minor() == 10


async def test_a_refund_that_fails_gives_credits_again(stripe_house: House) -> None:
    house = stripe_house
    assert isinstance(house.provider, StripeSide)
    payment = await house.bought(1000)
    await house.use_credit(800)
    refund = await house.payments.refund(payment.id, 500)
    assert await house.balance_minor() == 0
    house.provider.fake.payments.refund_fails(str(refund.provider_ref))
    for _ in range(2):
        await house.payments.refund_driver.look_at(refund.id, str(refund.provider_ref))
    assert await house.balance_minor() == 200
    await house.payments.refund(payment.id, 150)
    assert await house.balance_minor() == 50


# debts that are paid


def tenants(house: House) -> TenancyService:
    return TenancyService(TenancySql(house.engine), key_hasher(), house.clock)


async def suspended(house: House) -> tuple[Dunning, TenancyService, Payment]:
    """Acme is suspended for an invoice; its bank debit of it is under way."""
    assert isinstance(house.provider, StripeSide)
    tenancy_ = tenants(house)
    dunning = Dunning(house.engine, tenancy_, house.issuer.terms, house.clock)
    invoice = await house.invoice()
    slow = await house.rig.method(behaviour="slow", kind=MethodKind.BANK_ACCOUNT)
    house.provider.advance(timedelta(days=15).total_seconds())
    await dunning.round()
    org = await tenancy_.org(ACME)
    assert (org.status, org.suspended_for, org.may_pay) == ("suspended", "unpaid", True)
    payment = await house.payments.pay_invoice(invoice.id, method_id=slow, customer_present=True)
    assert payment.status is Status.PENDING
    assert await dunning.restore() == 0
    return dunning, tenancy_, payment


async def test_who_was_suspended_returns_once_a_webhook_says_that_the_debt_is_paid(stripe_house: House) -> None:
    house = stripe_house
    assert isinstance(house.provider, StripeSide)
    dunning, tenancy_, payment = await suspended(house)
    house.provider.fake.payments.bank_answers(str(payment.provider_ref))
    verified = StripeVerifier((webhooks.SECRET,)).verified
    inbound = Inbound(house.engine, house.clock, house.payments, {"stripe": verified}, chargebacks=house.chargebacks)
    payload = webhooks.payload_of(house.provider.fake.state.events[-1])
    signed = webhooks.signature(payload, int(house.clock.now().timestamp()))
    await inbound.take("stripe", payload, {"stripe-signature": signed})
    assert await inbound.act() == 1
    assert await dunning.restore() == 1
    org = await tenancy_.org(ACME)
    assert (org.status, org.suspended_for) == ("active", None)
    assert (await house.told())[-3:] == ["org.suspended", "invoice.paid", "org.restored"]
    assert await dunning.restore() == 0
    await dunning.round()
    assert (await tenancy_.org(ACME)).status is tenancy.Status.ACTIVE


async def test_who_owes_another_invoice_stays_suspended(stripe_house: House) -> None:
    house = stripe_house
    assert isinstance(house.provider, StripeSide)
    second = await house.invoice(500)
    dunning, tenancy_, payment = await suspended(house)
    house.provider.fake.payments.bank_answers(str(payment.provider_ref))
    await house.payments.payment_driver.look_at(payment.id, str(payment.provider_ref))
    assert await dunning.restore() == 0
    await house.invoices.mark_paid(second.id, "utr-1", 500, house.clock.now())
    assert await dunning.restore() == 1
    assert (await tenancy_.org(ACME)).status is tenancy.Status.ACTIVE


async def test_whom_somebody_suspended_stays_so_whatever_is_paid(stripe_house: House) -> None:
    house = stripe_house
    assert isinstance(house.provider, StripeSide)
    dunning, tenancy_, payment = await suspended(house)
    await tenancy_.change_org(ACME, status=tenancy.Status.SUSPENDED)
    org = await tenancy_.org(ACME)
    assert (org.suspended_for, org.may_pay) == (None, False)
    house.provider.fake.payments.bank_answers(str(payment.provider_ref))
    await house.payments.payment_driver.look_at(payment.id, str(payment.provider_ref))
    assert await dunning.restore() == 0
    assert (await tenancy_.org(ACME)).status is tenancy.Status.SUSPENDED


async def test_a_lost_chargeback_is_owed_again_with_grace_of_its_own(stripe_house: House) -> None:
    house = stripe_house
    assert isinstance(house.provider, StripeSide)
    dunning, tenancy_, payment = await suspended(house)
    house.provider.fake.payments.bank_answers(str(payment.provider_ref))
    paid = await house.payments.payment_driver.look_at(payment.id, str(payment.provider_ref))
    await dunning.restore()
    ref = house.provider.dispute(paid)
    house.provider.decide(ref, won=False)
    await house.chargebacks.look_at(ref)
    await dunning.round()
    assert (await tenancy_.org(ACME)).status is tenancy.Status.ACTIVE, "its grace has begun anew"
    house.provider.advance(timedelta(days=8).total_seconds())
    await dunning.round()
    assert (await tenancy_.org(ACME)).suspended_for == "unpaid"
    await house.payments.pay_invoice(str(paid.invoice_id))
    assert await dunning.restore() == 1
