"""Reconciliation: books that agree are found to, and each way in which they may not is found with its cause."""

import hashlib
import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from sqlalchemy import insert, update
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.billing.exports.stripe_meter import StripeMeters
from crosslogic.billing.payments import stripe as stripe_adapter
from crosslogic.billing.payments.model import Status
from crosslogic.billing.reconciliation.dispute import dispute_pack
from crosslogic.billing.reconciliation.model import Difference, Kind, Repair, Report
from crosslogic.billing.reconciliation.service import Reconciler
from crosslogic.kernel.errors import Conflict, InvalidRequest, NotFound
from crosslogic.metering.ledger import Ledger
from crosslogic.store.tables import export_windows, invoice_payments, invoices, payments
from crosslogic.tenancy.audit_sql import AuditTrail
from tests.contract.test_exports_invoice import LINES, invoice_row
from tests.contract.test_ledger_sql import PRICES
from tests.exports_rig import ExportRig, export_rig
from tests.fake_stripe import server
from tests.metering_samples import usage
from tests.payments_rig import ACME


class Audit:
    def __init__(self, rig: ExportRig, reconciler: Reconciler) -> None:
        self.rig, self.reconciler = rig, reconciler
        self.engine = reconciler.engine

    async def run(self) -> Report:
        today = self.rig.clock.now().date()
        return await self.reconciler.run(today, days=31)

    async def found(self) -> list[Difference]:
        """What differs; the rig's charges follow no ledger, which a test of its own is about."""
        return [each for each in (await self.run()).differences if each.kind is not Kind.LEDGER_CHARGE]

    async def kinds(self) -> set[Kind]:
        return {each.kind for each in (await self.run()).differences}


@pytest_asyncio.fixture
async def audit(engine: AsyncEngine) -> AsyncIterator[Audit]:
    async with export_rig(engine) as rig:
        client, http = stripe_adapter.new_client(server.API_KEY, base_url=rig.fake.base_url, network_retries=0)
        trail = AuditTrail(clock=rig.clock)
        yield Audit(rig, Reconciler(engine, rig.clock, trail, rig.rig.service, StripeMeters(client)))
        await http.close_async()


async def test_books_that_agree_are_found_to_agree(audit: Audit) -> None:
    rig = audit.rig
    await rig.use([(10, 4, 5)], rig.clock.now())
    await rig.until_quiet()
    await rig.rig.method()
    payment = await rig.rig.service.pay_invoice(rig.rig.books.add("inv_1"))
    await rig.rig.service.refund(payment.id, 100)
    await paid_invoice(audit, payment.id, 1000)
    rig.advance(3 * 3600)
    report = await audit.run()
    assert [each for each in report.differences if each.kind is not Kind.LEDGER_CHARGE] == []
    assert report.skipped == ()
    assert report.checked["payments"] == 1
    assert report.checked["payments at the provider"] == 2
    assert report.checked["meter hours"] == 3
    assert (await audit.reconciler.report(report.id)).checked == report.checked
    assert [each.id for each in await audit.reconciler.reports()] == [report.id]


async def paid_invoice(audit: Audit, ref: str, amount: int) -> None:
    now = audit.rig.clock.now()
    async with audit.engine.begin() as conn:
        await conn.execute(insert(invoices).values(**invoice_row("inv_1", LINES, now, 0)))
        row = {"invoice_id": "inv_1", "payment_ref": ref, "amount_minor": amount, "at": now, "recorded_at": now}
        await conn.execute(insert(invoice_payments).values(**row))


async def test_a_payment_that_its_invoice_does_not_know_is_told_again(audit: Audit) -> None:
    service = audit.rig.rig.service
    await audit.rig.rig.method()
    payment = await service.pay_invoice(audit.rig.rig.books.add("inv_1"))
    (found,) = (await audit.run()).differences
    assert (found.kind, found.entity, found.repair) == (Kind.INVOICE_PAYMENT, payment.id, Repair.LOOK)
    report = (await audit.reconciler.reports())[0]
    told = len(audit.rig.rig.books.told_paid)
    assert "succeeded" in await audit.reconciler.repair(report.id, payment.id)
    assert len(audit.rig.rig.books.told_paid) == told + 1


async def test_money_that_moved_at_the_provider_without_us_is_found(audit: Audit) -> None:
    rig, fake = audit.rig.rig, audit.rig.fake
    await rig.method()
    payment = await rig.service.pay_invoice(rig.books.add("inv_1"))
    await paid_invoice(audit, payment.id, 1000)
    fake.payments.create_refund({"payment_intent": payment.provider_ref, "amount": "200"})
    (method,) = await rig.service.methods.all(ACME)
    customer = await rig.service.methods.customer(ACME)
    order = {"amount": "700", "currency": "usd", "customer": customer, "payment_method": method.method_ref}
    fake.payments.create_intent({**order, "confirm": "true"})
    report = await audit.run()
    assert {(each.kind, each.theirs) for each in report.differences} == {
        (Kind.REFUND_PROVIDER, "200 usd"),
        (Kind.PAYMENT_PROVIDER, "700 usd"),
    }
    with pytest.raises(Conflict, match="cannot be repaired"):
        await audit.reconciler.repair(report.id, report.differences[0].entity)


async def test_a_payment_whose_end_was_never_heard_of_is_found_and_looked_at(audit: Audit) -> None:
    rig = audit.rig.rig
    await rig.method(behaviour="3ds")
    payment = await rig.service.top_up(ACME, 700, "usd")
    rig.provider.payer_acts(payment)
    found = next(each for each in (await audit.run()).differences if each.kind is Kind.PAYMENT_PROVIDER)
    assert (found.ours, found.theirs, found.repair) == ("pending", "succeeded", Repair.LOOK)
    report = (await audit.reconciler.reports())[0]
    await audit.reconciler.repair(report.id, payment.id)
    assert (await rig.service.payment(payment.id)).status is Status.SUCCEEDED


async def test_one_that_failed_here_and_succeeded_there_is_found(audit: Audit) -> None:
    rig = audit.rig.rig
    await rig.method()
    payment = await rig.service.top_up(ACME, 700, "usd")
    async with audit.engine.begin() as conn:
        gone = {"status": "failed", "captured_minor": 0}
        await conn.execute(update(payments).where(payments.c.id == payment.id).values(**gone))
    found = next(each for each in (await audit.run()).differences if each.kind is Kind.PAYMENT_PROVIDER)
    assert "refund it at the provider" in found.cause
    assert found.repair is None


async def test_usage_that_the_provider_has_lost_is_found_and_told_again(audit: Audit) -> None:
    rig = audit.rig
    await rig.use([(10, 0, 0)], rig.clock.now())
    await rig.use([(3, 0, 0)], rig.clock.now())
    await rig.until_quiet()
    rig.fake.meters.counted.pop()
    rig.advance(26 * 3600)
    found = next(each for each in (await audit.run()).differences if each.kind is Kind.EXPORT_PROVIDER)
    assert (found.ours, found.theirs, found.repair) == ("13", "0", Repair.TELL_AGAIN)
    report = (await audit.reconciler.reports())[0]
    await audit.reconciler.repair(report.id, found.entity)
    await rig.until_quiet()
    assert await rig.told() == rig.owed()
    rig.advance(3 * 3600)
    assert Kind.EXPORT_PROVIDER not in await audit.kinds()
    assert Kind.CHARGE_EXPORT not in await audit.kinds()


async def test_windows_that_do_not_hold_what_was_charged_are_found(audit: Audit) -> None:
    rig = audit.rig
    await rig.use([(10, 0, 0)], rig.clock.now())
    await rig.until_quiet()
    await rig.use([(5, 0, 0)], rig.clock.now())
    await rig.exports.run()
    assert Kind.CHARGE_EXPORT not in await audit.kinds()
    windows = (await rig.windows())[0]
    async with audit.engine.begin() as conn:
        await conn.execute(update(export_windows).where(export_windows.c.id == windows.id).values(quantity=9))
    assert Kind.CHARGE_EXPORT in await audit.kinds()


async def test_a_provider_that_is_away_is_said_and_the_rest_is_compared(audit: Audit) -> None:
    await audit.rig.rig.method()
    await audit.rig.rig.service.top_up(ACME, 700, "usd")
    audit.rig.fake.faults.down = True
    report = await audit.run()
    assert len(report.skipped) == 1
    assert not report.agrees
    assert {each.kind for each in report.differences} == {Kind.CREDIT_PAYMENT}


async def test_it_runs_once_a_day_and_not_over_any_time(audit: Audit) -> None:
    assert await audit.reconciler.daily() is not None
    assert await audit.reconciler.daily() is None
    audit.rig.advance(86_400)
    assert await audit.reconciler.daily() is not None
    with pytest.raises(InvalidRequest):
        await audit.reconciler.run(days=32)
    with pytest.raises(NotFound):
        await audit.reconciler.report("rec_none")


async def test_a_request_has_a_pack_that_proves_itself_and_another_orgs_has_none(audit: Audit) -> None:
    await Ledger(audit.engine, audit.rig.clock).insert([usage(1), usage(2)], PRICES)
    pack = await dispute_pack(audit.engine, "req_000001", "org_1")
    previous = pack["proof"]["hash_before"]
    for row in pack["proof"]["chain"]:
        said = f"crosslogic usage 1\n{previous}\n{row['canonical']}"
        assert hashlib.sha256(said.encode()).hexdigest() == row["hash"]
        previous = row["hash"]
    assert pack["proof"]["intact"]
    assert pack["ledger"][0]["hash"] in {row["hash"] for row in pack["proof"]["chain"]}
    json.dumps(pack)
    for request, org in (("req_000001", "org_other"), ("req_none", None)):
        with pytest.raises(NotFound):
            await dispute_pack(audit.engine, request, org)
