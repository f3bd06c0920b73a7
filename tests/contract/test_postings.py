"""Double entry, on both databases: everything that moves money is posted with it, and the accounts come out."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
import pytest_asyncio
from sqlalchemy import insert, select, update
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.billing.postings import sql
from crosslogic.billing.postings.complete import complete
from crosslogic.billing.postings.model import Account, Posting
from crosslogic.billing.postings.replay import REPLAYED, expected
from crosslogic.billing.reconciliation.model import Kind
from crosslogic.billing.reconciliation.service import Reconciler
from crosslogic.kernel.clock import ManualClock
from crosslogic.store.tables import invoices, posting_transactions, postings
from crosslogic.tenancy.audit_sql import AuditTrail
from tests.paid_house import CENT, House
from tests.payments_rig import ACME, SIDES, Rig, StripeSide

A = Account


@pytest_asyncio.fixture
async def house(engine: AsyncEngine) -> AsyncIterator[House]:
    clock = ManualClock()
    async with SIDES["stripe"](clock) as provider:
        yield await House(Rig(engine, provider, clock)).open()


async def accounts(house: House) -> dict[Account, int]:
    """In cents; those that hold nothing left out. Every account that can be computed again holds that, too."""
    found = (await sql.balances(house.engine, ACME)).get((ACME, "USD"), {})
    assert sum(found.values()) == 0, "5. Postings sum to zero"
    wanted = (await expected(house.engine, ACME)).get("USD", {})
    assert {each: found.get(each, 0) for each in REPLAYED} == {each: wanted.get(each, 0) for each in REPLAYED}, (
        "6. Balances equal replay from zero"
    )
    return {account: amount // CENT for account, amount in found.items() if amount}


async def test_an_invoice_its_payment_refund_and_credit_note(house: House) -> None:
    invoice = await house.invoice(1000)
    assert await accounts(house) == {A.RECEIVABLE: 1000, A.REVENUE: -1000}
    payment = await house.payments.pay_invoice(invoice.id)
    assert await accounts(house) == {A.CASH: 1000, A.REVENUE: -1000}
    await house.payments.refund(payment.id, 300)
    assert await accounts(house) == {A.CASH: 700, A.REVENUE: -700}
    await house.issuer.credit_note(invoice.id, ref="c", reason="outage", amount_minor=100)
    assert await accounts(house) == {A.CASH: 700, A.REVENUE: -600, A.RECEIVABLE: -100}


async def test_void_and_reissue_post_both_ways(house: House) -> None:
    invoice = await house.invoice(1000)
    await house.issuer.void(invoice.id, "wrong address")
    assert await accounts(house) == {}
    await house.issuer.reissue(invoice.id)
    assert await accounts(house) == {A.RECEIVABLE: 1000, A.REVENUE: -1000}


async def test_what_lines_are_rounded_by_stands_apart(house: House) -> None:
    await house.invoice(1000)
    async with house.engine.connect() as conn:
        before = await conn.scalar(select(invoices.c.rounding_amount))
    assert before == 0
    row = await house.odd_invoice(333)
    found = (await sql.balances(house.engine, ACME))[ACME, "USD"]
    assert found[A.ROUNDING] == -row.rounding_amount != 0
    await accounts(house)


async def test_credits_bought_refunded_and_disputed(house: House) -> None:
    assert isinstance(house.provider, StripeSide)
    payment = await house.bought(1000)
    assert await accounts(house) == {A.CASH: 1000, A.CREDITS: -1000}
    refund = await house.payments.refund(payment.id, 200)
    assert await accounts(house) == {A.CASH: 800, A.CREDITS: -800}
    house.provider.fake.payments.refund_fails(str(refund.provider_ref))
    await house.payments.refund_driver.look_at(refund.id, str(refund.provider_ref))
    assert await accounts(house) == {A.CASH: 1000, A.CREDITS: -1000}
    ref = house.provider.dispute(payment, 600)
    await house.chargebacks.look_at(ref)
    assert await accounts(house) == {A.CASH: 400, A.CREDITS: -400}
    house.provider.decide(ref, won=True)
    await house.chargebacks.look_at(ref)
    assert await accounts(house) == {A.CASH: 1000, A.CREDITS: -1000}
    (grant, *_) = [each.grant for each in await house.credits.of_org(ACME) if each.remaining]
    await house.credits.void(grant.id)
    found = await accounts(house)
    assert found[A.REVENUE] + found.get(A.CREDITS, 0) == -1000


async def test_what_was_used_of_credits_that_are_charged_back_is_lost(house: House) -> None:
    payment = await house.bought(1000)
    await house.use_credit(300)
    ref = house.provider.dispute(payment)
    await house.chargebacks.look_at(ref)
    assert await accounts(house) == {A.CREDITS: -300, A.DISPUTES: 300}
    house.provider.decide(ref, won=False)
    await house.chargebacks.look_at(ref)
    assert await accounts(house) == {A.CREDITS: -300, A.LOSSES: 300}


async def test_a_disputed_invoice_is_owed_again(house: House) -> None:
    _, payment = await house.paid_invoice()
    ref = house.provider.dispute(payment)
    await house.chargebacks.look_at(ref)
    assert await accounts(house) == {A.DISPUTES: 1000, A.REVENUE: -1000}
    house.provider.decide(ref, won=False)
    await house.chargebacks.look_at(ref)
    assert await accounts(house) == {A.RECEIVABLE: 1000, A.REVENUE: -1000}


async def test_the_database_refuses_what_does_not_sum_to_zero_and_every_change(house: House) -> None:
    now = house.clock.now()

    async def put(ref: str, *amounts: int) -> None:
        made = tuple(Posting(A.CASH, amount) for amount in amounts)
        async with house.engine.begin() as conn:
            await sql.post(conn, ref, "receipt", made, org_id=ACME, currency="usd", at=now)

    await put("good", 5 * 10**20, -5 * 10**20)
    await put("good", 7, -7)  # known: nothing more
    with pytest.raises(DBAPIError, match="sum to zero"):
        await put("bad", 5, -4)
    with pytest.raises((DBAPIError, IntegrityError)):  # noqa: PT012 - without its transaction, which the commit misses
        async with house.engine.begin() as conn:
            row = {"transaction_ref": "none", "n": 1, "account": "cash", "amount": 0}
            await conn.execute(insert(postings).values(row))
    with pytest.raises(DBAPIError, match="sum to zero"):  # noqa: PT012 - a further one later, at the commit
        async with house.engine.begin() as conn:
            row = {"transaction_ref": "good", "n": 3, "account": "cash", "amount": 1}
            await conn.execute(insert(postings).values(row))
    for table in (postings, posting_transactions):
        for statement in (table.delete(), update(table).values({next(iter(table.c)).name: "x"})):
            with pytest.raises(DBAPIError, match="immutable"):
                async with house.engine.begin() as conn:
                    await conn.execute(statement)
    (found,) = await sql.listed(house.engine, {"org_id": ACME}, None, 10)
    assert [each.amount for each in found.postings] == [5 * 10**20, -5 * 10**20]


async def test_reconciliation_names_what_is_not_posted_and_posts_it(house: House) -> None:
    """As books are from before there were postings."""
    invoice, payment = await house.paid_invoice()
    await house.payments.refund(payment.id, 300)
    await house.bought(500)
    before = await accounts(house)
    async with house.engine.begin() as conn:
        if house.engine.dialect.name == "postgresql":
            await conn.exec_driver_sql("SET LOCAL session_replication_role = replica")
            await conn.exec_driver_sql("DELETE FROM postings")
            await conn.exec_driver_sql("DELETE FROM posting_transactions")
        else:
            for name in ("postings_delete", "posting_transactions_delete"):
                await conn.exec_driver_sql(f"DROP TRIGGER {name}")
            await conn.exec_driver_sql("DELETE FROM postings")
            await conn.exec_driver_sql("DELETE FROM posting_transactions")
    trail = AuditTrail(clock=house.clock)
    reconciler = Reconciler(house.engine, house.clock, trail)
    report = await reconciler.run(house.clock.now().date(), days=2, org_id=ACME)
    (difference,) = [each for each in report.differences if each.kind is Kind.POSTINGS]
    assert "credits=-5000000000000" in difference.ours
    assert await reconciler.repair(report.id, difference.entity) == "5 transactions were posted"
    assert await accounts(house) == before
    assert await complete(house.engine, ACME) == 0
    house.provider.advance(timedelta(hours=1).total_seconds())
    again = await reconciler.run(house.clock.now().date(), days=2, org_id=ACME)
    assert [each for each in again.differences if each.kind is Kind.POSTINGS] == []
    assert await house.sums(invoice) == ("paid", 700, 300, 0)
