"""Payments: one suite over both providers' fakes, on SQLite and PostgreSQL. The provider's own books are the oracle."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.billing.payments.model import MethodKind, Purpose, Status
from crosslogic.kernel.clock import ManualClock
from crosslogic.kernel.errors import Conflict, InvalidRequest, NotFound, Unavailable
from crosslogic.store.engine import create_engine
from tests.fake_stripe.server import APPLIED_500, DOWN, FAILED_500, FAULTS, LIMITED, LOST_REPLY, LOST_REQUEST
from tests.payments_rig import ACME, BOLT, SIDES, Rig, insisting


@pytest_asyncio.fixture(params=list(SIDES))
async def rig(request: pytest.FixtureRequest, engine: AsyncEngine) -> AsyncIterator[Rig]:
    clock = ManualClock()
    async with SIDES[request.param](clock) as provider:
        yield await Rig(engine, provider, clock).prepare()


async def pay(rig: Rig, invoice: str = "in_1", amount_minor: int = 1000, **more: Any) -> Any:
    return await rig.service.pay_invoice(rig.books.add(invoice, amount_minor), **more)


# methods


async def test_methods_are_set_up_shown_made_the_default_and_removed(rig: Rig) -> None:
    first, second = await rig.method(), await rig.method()
    kept = await rig.service.methods.all(ACME)
    assert [(each.id, each.is_default) for each in kept] == [(first, True), (second, False)]
    assert kept[0].last4
    assert (await rig.service.methods.set_default(ACME, second)).is_default
    assert [each.is_default for each in await rig.service.methods.all(ACME)] == [False, True]
    await rig.service.methods.remove(ACME, first)
    assert [each.id for each in await rig.service.methods.all(ACME)] == [second]
    assert [each.id for each in await rig.service.methods.sync(ACME)] == [second]
    with pytest.raises(NotFound):
        await rig.service.methods.remove(ACME, first)


async def test_another_orgs_method_is_as_unknown_as_none(rig: Rig) -> None:
    mine = await rig.method()
    for wrong in (mine, "pm_none"):
        with pytest.raises(NotFound):
            await rig.service.methods.one(BOLT, wrong)
        with pytest.raises(NotFound):
            await rig.service.methods.set_default(BOLT, wrong)
        with pytest.raises(NotFound):
            await rig.service.top_up(BOLT, 500, "usd", method_id=wrong)


async def test_a_set_up_counts_only_for_its_own_org_and_once_it_is_complete(rig: Rig) -> None:
    begun = await rig.service.methods.begin_setup(ACME, MethodKind.CARD)
    with pytest.raises(Conflict, match="not complete"):
        await rig.service.methods.finish_setup(ACME, begun.setup_ref)
    await rig.provider.enter(begun.setup_ref)
    for org, ref in ((BOLT, begun.setup_ref), (ACME, "unknown_1")):
        with pytest.raises(NotFound):
            await rig.service.methods.finish_setup(org, ref)
    first = await rig.service.methods.finish_setup(ACME, begun.setup_ref)
    assert (await rig.service.methods.finish_setup(ACME, begun.setup_ref)).id == first.id


async def test_bank_accounts_where_the_provider_has_them(rig: Rig) -> None:
    if MethodKind.BANK_ACCOUNT not in rig.provider.processor.kinds:
        with pytest.raises(InvalidRequest, match="takes"):
            await rig.service.methods.begin_setup(ACME, MethodKind.BANK_ACCOUNT)
        return
    method = await rig.method(behaviour="slow", kind=MethodKind.BANK_ACCOUNT)
    payment = await pay(rig, method_id=method)
    assert payment.status is Status.PENDING
    rig.provider.fake.payments.bank_answers(payment.provider_ref)  # type: ignore[attr-defined]
    rig.provider.advance(3600)
    await rig.service.drive_due()
    assert (await rig.service.payment(payment.id)).status is Status.SUCCEEDED


async def test_bank_accounts_are_set_up_and_debited_in_the_currency_of_the_org(rig: Rig) -> None:
    if MethodKind.BANK_ACCOUNT not in rig.provider.processor.kinds:
        return
    rig.books.own_currency = "inr"
    with pytest.raises(InvalidRequest, match="not set up for this kind"):
        await rig.service.methods.begin_setup(ACME, MethodKind.BANK_ACCOUNT)
    rig.books.own_currency = "eur"
    method = await rig.method(behaviour="slow", kind=MethodKind.BANK_ACCOUNT)
    (kept,) = await rig.service.methods.all(ACME)
    assert (kept.kind, kept.brand, kept.last4) == (MethodKind.BANK_ACCOUNT, "37040044", "3000")
    assert [each.id for each in await rig.service.methods.sync(ACME)] == [method]
    payment = await rig.service.top_up(ACME, 900, "eur")
    assert payment.status is Status.PENDING
    rig.books.own_currency = "inr"
    refused = await rig.service.top_up(ACME, 900, "inr")
    assert (refused.status, refused.failure_code) == (Status.FAILED, "unsupported_currency")


# charges


async def test_an_invoice_is_charged_once_and_its_books_are_told(rig: Rig) -> None:
    await rig.method()
    payment = await pay(rig)
    assert (payment.status, payment.captured_minor, payment.purpose) == (Status.SUCCEEDED, 1000, Purpose.INVOICE)
    assert rig.books.told_paid == [("in_1", payment.id, 1000)]
    assert payment.applied_at is not None
    assert payment.next_step_at is None
    with pytest.raises(Conflict, match="under way or has succeeded"):
        await pay(rig)
    assert rig.provider.taken_minor() == 1000


async def test_only_ones_own_invoices_can_be_paid_and_only_with_a_method(rig: Rig) -> None:
    with pytest.raises(Conflict, match="no default payment method"):
        await pay(rig)
    await rig.method(BOLT)
    for invoice in ("in_1", "in_none"):
        with pytest.raises(NotFound):
            await rig.service.pay_invoice(invoice, org_id=BOLT)
    assert rig.provider.captures() == 0


async def test_a_declined_charge_has_failed_for_good_and_the_next_attempt_is_another_payment(rig: Rig) -> None:
    bad = await rig.method(behaviour="declined")
    good = await rig.method()
    first = await pay(rig, method_id=bad)
    assert (first.status, first.captured_minor) == (Status.FAILED, 0)
    assert first.failure_code
    assert rig.books.told_failed == [first.id]
    second = await rig.service.pay_invoice("in_1", method_id=good)
    assert (second.status, second.attempt) == (Status.SUCCEEDED, 2)
    assert rig.provider.taken_minor() == 1000


async def test_a_payer_may_have_to_act_and_the_payment_waits_for_it(rig: Rig) -> None:
    method = await rig.method(behaviour="3ds")
    payment = await rig.service.top_up(ACME, 700, "USD", method_id=method)
    assert payment.status is Status.PENDING
    assert payment.action_url
    rig.provider.payer_acts(payment)
    assert payment.provider_ref is not None
    done = await rig.service.payment_driver.look_at(payment.id, payment.provider_ref)
    assert (done.status, done.captured_minor, done.action_url) == (Status.SUCCEEDED, 700, None)
    assert rig.books.told_paid == [(None, payment.id, 700)]


async def test_a_payer_who_never_acts_ends_the_payment_and_cannot_act_later(rig: Rig) -> None:
    method = await rig.method(behaviour="3ds")
    payment = await rig.service.top_up(ACME, 700, "usd", method_id=method)
    rig.provider.advance(24 * 3600)
    await rig.service.drive_due()
    assert (await rig.service.payment(payment.id)).status is Status.FAILED
    assert rig.provider.taken_minor() == 0


async def test_the_same_idempotency_key_makes_one_payment(rig: Rig) -> None:
    await rig.method()
    made = await asyncio.gather(*(rig.service.top_up(ACME, 500, "usd", creation_ref="k") for _ in range(4)))
    assert len({each.id for each in made}) == 1
    with pytest.raises(Conflict, match="Idempotency-Key"):
        await rig.service.top_up(ACME, 501, "usd", creation_ref="k")
    await rig.until_quiet()
    assert rig.provider.taken_minor() == 500


async def test_many_at_once_pay_an_invoice_once(rig: Rig) -> None:
    await rig.method()
    rig.books.add("in_1")
    answers = await asyncio.gather(*(rig.service.pay_invoice("in_1") for _ in range(8)), return_exceptions=True)
    assert sum(not isinstance(each, Exception) for each in answers) == 1
    assert {type(each) for each in answers if isinstance(each, Exception)} == {Conflict}
    assert rig.provider.taken_minor() == 1000


async def test_what_was_paid_for_is_told_until_it_takes_note(rig: Rig) -> None:
    await rig.method()
    rig.books.broken = True
    with pytest.raises(Conflict):
        await pay(rig)
    (payment,) = await rig.service.payments(org_id=ACME)
    assert (payment.status, payment.applied_at) == (Status.SUCCEEDED, None)
    rig.books.broken = False
    await rig.service.drive_due()
    assert rig.books.told_paid == [("in_1", payment.id, 1000)]


@pytest.mark.parametrize("fault", FAULTS)
async def test_whatever_happens_to_a_charge_on_its_way_it_is_made_once_or_has_failed(rig: Rig, fault: str) -> None:
    await rig.method()
    rig.provider.order(fault, rig.provider.charge_path)
    payment = await pay(rig)
    if payment.status is not Status.SUCCEEDED:
        assert payment.status is Status.UNKNOWN
        await rig.until_quiet()
        payment = await rig.service.payment(payment.id)
    carried_out = fault in (LOST_REPLY, LOST_REQUEST, LIMITED, APPLIED_500)
    assert payment.status is (Status.SUCCEEDED if carried_out else Status.FAILED), fault
    if not carried_out:
        assert fault in (FAILED_500, DOWN)
        payment = await rig.service.pay_invoice("in_1")
        assert payment.status is Status.SUCCEEDED
    assert rig.provider.taken_minor() == 1000


@pytest.mark.parametrize("fault", [LOST_REPLY, LOST_REQUEST])
async def test_after_the_providers_memory_ends_nothing_is_sent_again_but_looked_up(rig: Rig, fault: str) -> None:
    await rig.method()
    rig.provider.order(fault, rig.provider.charge_path)
    payment = await pay(rig)
    assert payment.status is Status.UNKNOWN
    rig.provider.advance(26 * 3600)
    before = rig.provider.captures()
    await rig.until_quiet()
    payment = await rig.service.payment(payment.id)
    assert payment.status is (Status.SUCCEEDED if fault == LOST_REPLY else Status.FAILED)
    assert payment.sendings == 1
    assert rig.provider.captures() == before


async def test_a_clock_that_goes_back_sends_nothing_again(rig: Rig) -> None:
    await rig.method()
    rig.provider.order(LOST_REPLY, rig.provider.charge_path)
    payment = await pay(rig)
    rig.clock._elapsed_s -= 3600  # behind what is written down
    rig.service.payment_driver._clock = rig.clock
    assert (await rig.service.payment_driver.drive(payment.id)).sendings == 1
    rig.provider.advance(7200)
    await rig.until_quiet()
    assert rig.provider.taken_minor() == 1000


# refunds


async def test_refunds_are_partial_and_never_more_than_was_captured(rig: Rig) -> None:
    await rig.method()
    payment = await pay(rig)
    first = await rig.service.refund(payment.id, 300, reason="late")
    assert (first.status, first.amount_minor) == (Status.SUCCEEDED, 300)
    with pytest.raises(Conflict, match="only 700"):
        await rig.service.refund(payment.id, 701)
    with pytest.raises(InvalidRequest):
        await rig.service.refund(payment.id, 0)
    assert (await rig.service.refund(payment.id)).amount_minor == 700
    with pytest.raises(Conflict, match="only 0"):
        await rig.service.refund(payment.id)
    assert rig.provider.taken_minor() == 0
    assert sum(amount for _, _, amount in rig.books.told_refunded) == 1000


async def test_a_repeated_refund_gives_back_once(rig: Rig) -> None:
    await rig.method()
    payment = await pay(rig)
    made = [await rig.service.refund(payment.id, 300, creation_ref="r") for _ in range(3)]
    assert len({each.id for each in made}) == 1
    with pytest.raises(Conflict, match="Idempotency-Key"):
        await rig.service.refund(payment.id, 301, creation_ref="r")
    assert rig.provider.taken_minor() == 700


@pytest.mark.parametrize("fault", FAULTS)
async def test_whatever_happens_to_a_refund_on_its_way_it_is_given_once_or_not_at_all(rig: Rig, fault: str) -> None:
    await rig.method()
    payment = await pay(rig)
    rig.provider.order(fault, rig.provider.refund_path)
    refund = await rig.service.refund(payment.id, 400)
    await rig.until_quiet()
    refund = (await rig.service.refunds(payment_id=payment.id))[0]
    given = 400 if refund.status is Status.SUCCEEDED else 0
    assert rig.provider.taken_minor() == 1000 - given
    assert (await rig.service.payment(payment.id)).refundable_minor == 1000 - given
    assert given == (0 if fault in (FAILED_500, DOWN) else 400)


async def test_what_is_not_captured_cannot_be_refunded(rig: Rig) -> None:
    payment = await pay(rig, method_id=await rig.method(behaviour="declined"))
    with pytest.raises(Conflict, match="only what was captured"):
        await rig.service.refund(payment.id, 1)
    with pytest.raises(NotFound):
        await rig.service.refund("pay_none")


@pytest.mark.parametrize("provider", list(SIDES))
async def test_of_two_hundred_refunds_at_once_only_what_was_captured_goes_back(
    provider: str, postgres_database_url: str
) -> None:
    clock = ManualClock()
    engine = create_engine(postgres_database_url, pool_size=10)
    async with SIDES[provider](clock) as side:
        rig = await Rig(engine, side, clock).prepare()
        await rig.method()
        payment = await pay(rig, amount_minor=1000)
        wanted = [partial(rig.service.refund, payment.id, 90, creation_ref=f"r{n}") for n in range(200)]
        answers = await asyncio.gather(*map(insisting, wanted), return_exceptions=True)
        given = [each for each in answers if not isinstance(each, BaseException)]
        assert len(given) == 11
        assert {type(each) for each in answers if isinstance(each, BaseException)} == {Conflict}
        await rig.until_quiet()
        assert side.taken_minor() == 1000 - 11 * 90
        assert (await rig.service.payment(payment.id)).refundable_minor == 10
    await engine.dispose()


# what else


async def test_the_portal_where_there_is_one(rig: Rig) -> None:
    await rig.method()
    if rig.provider.processor.provider == "paypal":
        with pytest.raises(Conflict, match="no billing portal"):
            await rig.service.portal(ACME, "https://console.test")
    else:
        assert (await rig.service.portal(ACME, "https://console.test")).startswith("https://")


async def test_a_provider_that_is_down_costs_nothing_but_time(rig: Rig) -> None:
    await rig.method()
    rig.provider.fake.faults.down = True  # type: ignore[attr-defined]
    payment = await pay(rig)
    assert payment.status is Status.UNKNOWN
    with pytest.raises(Unavailable):
        await rig.service.methods.begin_setup(ACME, MethodKind.CARD)
    for _ in range(8):
        rig.provider.advance(900)
        await rig.service.drive_due()
    assert (await rig.service.payment(payment.id)).status is Status.UNKNOWN
    rig.provider.fake.faults.down = False  # type: ignore[attr-defined]
    await rig.until_quiet()
    assert (await rig.service.payment(payment.id)).status is Status.FAILED
    assert (await rig.service.pay_invoice("in_1")).status is Status.SUCCEEDED
    assert rig.provider.taken_minor() == 1000


async def test_the_providers_own_books_say_the_same(rig: Rig) -> None:
    await rig.method()
    payment = await pay(rig)
    refund = await rig.service.refund(payment.id, 250)
    now = rig.service.now()
    ref = await rig.service.methods.customer(ACME)
    rows = await rig.provider.processor.settled(ref, now.replace(day=1), now.replace(day=2))
    told = {(row.kind, row.our_id, row.amount_minor, row.currency, row.succeeded) for row in rows}
    assert told == {("payment", payment.id, 1000, "usd", True), ("refund", refund.id, 250, "usd", True)}
