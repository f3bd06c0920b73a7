"""Our invoices in Stripe's books, auto-charge, and licences: the same sums there, whatever is lost on the way."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.billing.credits.service import CreditsService
from crosslogic.billing.exports import licence, sql
from crosslogic.billing.exports.invoicing import InvoiceExports
from crosslogic.billing.exports.items import MOST_ITEMS, items_of
from crosslogic.billing.exports.model import Mode, Window, WindowStatus
from crosslogic.billing.exports.stripe_invoice import StripeInvoices
from crosslogic.billing.invoices.issuing import Issuer
from crosslogic.billing.invoices.model import Line, LineKind
from crosslogic.billing.invoices.service import InvoiceService
from crosslogic.billing.payments import stripe as stripe_adapter
from crosslogic.billing.payments.auto_charge import AutoCharge
from crosslogic.billing.payments.model import Status
from crosslogic.billing.payments.owed import Invoices, PaidForOurs
from crosslogic.billing.payments.service import PaymentService
from crosslogic.kernel.clock import ManualClock
from crosslogic.kernel.errors import ConfigurationError, InvalidRequest
from crosslogic.store.tables import credit_grants, invoice_lines, invoices
from crosslogic.tenancy.audit_sql import AuditTrail
from crosslogic.tenancy.keys import key_hasher
from tests.fake_stripe import server
from tests.fake_stripe.server import FAULTS, FakeStripe
from tests.payments_rig import ACME, Rig, StripeSide


class Shop:
    def __init__(self, rig: Rig, fake: FakeStripe, exports: InvoiceExports, books: InvoiceService) -> None:
        self.rig, self.fake, self.exports, self.books = rig, fake, exports, books
        self.invoices = Invoices(books)
        issuer = Issuer(rig.engine, key_hasher(), rig.clock)
        credits = CreditsService(rig.engine, key_hasher(), rig.clock)
        paid_for = PaidForOurs(rig.engine, books, issuer, credits, rig.clock)
        rig.service = PaymentService(
            rig.engine, rig.provider.processor, self.invoices, paid_for, rig.clock, AuditTrail(clock=rig.clock)
        )

    async def issue(self, name: str, lines: list[Line], *, prepaid_minor: int = 0, auto: bool = False) -> None:
        now = self.rig.clock.now()
        row = invoice_row(name, lines, now, prepaid_minor)
        async with self.rig.engine.begin() as conn:
            await conn.execute(insert(invoices).values(**row, auto_charge=auto))
            for n, line in enumerate(lines, 1):
                values = {name: getattr(line, name) for name in Line.__struct_fields__}
                await conn.execute(
                    insert(invoice_lines).values(**{**values, "kind": line.kind.value}, invoice_id=name, n=n)
                )
            await conn.execute(
                update(invoices).where(invoices.c.id == name).values(status="issued", issued_at=now, number=f"N-{name}")
            )

    async def windows(self) -> list[Window]:
        return await sql.find(self.rig.engine)

    def there(self) -> list[dict[str, Any]]:
        return self.fake.state.all("invoice")


@pytest_asyncio.fixture
async def shop(engine: AsyncEngine) -> AsyncIterator[Shop]:
    clock = ManualClock()
    async with FakeStripe().serve() as fake:
        fake.state.now_s = clock.now().timestamp()
        client, http = stripe_adapter.new_client(server.API_KEY, base_url=fake.base_url, network_retries=0)
        processor = stripe_adapter.StripeProcessor(client, http, "https://console.test")
        rig = await Rig(engine, StripeSide(fake, processor, clock), clock).prepare()
        books = InvoiceService(engine, key_hasher(), clock)
        exports = InvoiceExports(engine, clock, StripeInvoices(client), books, rig.service.methods.customer)
        await sql.give_modes(engine, Mode.STRIPE_INVOICE, clock.now())
        yield Shop(rig, fake, exports, books)
        await processor.close()


def usage(exact: int, minor: int, tokens: int) -> Line:
    return Line(LineKind.USAGE, "m", exact, minor, "m", "in", {"requests": 1, "prompt_tokens": tokens})


LINES = [
    usage(12_345_678 * 5 * 10**4, 62, 12_345_678),
    usage(10**12, 100, 3),
    Line(LineKind.CREDIT, "promotion", -5 * 10**11, -50),
    Line(LineKind.TAX, "GST 18%", 20 * 10**10, 20),
]


async def test_an_issued_invoice_stands_there_line_by_line_over_the_same_sum(shop: Shop) -> None:
    await shop.issue("inv_1", LINES)
    await shop.exports.run()
    (there,) = shop.there()
    assert (there["status"], there["total"], there["auto_advance"]) == ("open", 132, False)
    items = sorted(shop.fake.state.all("invoiceitem"), key=lambda item: item["metadata"]["crosslogic_line"])
    assert [item["amount"] for item in items] == [62, 100, -50, 20]
    assert (items[0]["quantity_decimal"], items[0]["pricing"]["unit_amount_decimal"]) == ("12345678", "0.000005000000")
    assert items[1]["quantity_decimal"] == "1"  # a third of it has no end
    (window,) = await shop.windows()
    assert (window.status, window.quantity, window.provider_ref) == (WindowStatus.SENT, 132, there["id"])
    before = len(shop.fake.seen)
    await shop.exports.plan()
    assert await shop.exports.drive() == 1
    assert await shop.exports.drive() == 0
    assert len(shop.fake.seen) == before


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("path", ["/v1/invoices", "/v1/invoiceitems", "/finalize"])
async def test_whatever_is_lost_on_the_way_there_is_one_invoice_in_the_end(shop: Shop, fault: str, path: str) -> None:
    await shop.issue("inv_1", LINES)
    shop.fake.faults.order(fault, path, times=2)
    for _ in range(8):
        await shop.exports.run()
        shop.rig.provider.advance(900)
    finalised = [each for each in shop.there() if each["status"] != "draft"]
    assert [each["total"] for each in finalised] == [132]
    (window,) = await shop.windows()
    assert (window.status, window.billing_failed) == (WindowStatus.SENT, False)


async def test_an_item_that_is_there_twice_is_taken_away_and_another_sum_is_never_finalised(shop: Shop) -> None:
    await shop.issue("inv_1", LINES)
    shop.fake.faults.order("503", "/finalize")
    await shop.exports.run()
    (there,) = shop.there()
    customer = there["customer"]
    twice = {"customer": customer, "invoice": there["id"], "amount": "100", "currency": "usd"}
    shop.fake.invoices.create_item({**twice, "metadata": {"crosslogic_line": "2"}})
    shop.rig.provider.advance(900)
    shop.fake.invoices.create_item({**twice, "metadata": {"crosslogic_line": "somebody else's"}})
    await shop.exports.run()
    (window,) = await shop.windows()
    assert window.billing_failed
    assert "total_differs" in str(window.failure)
    assert there["status"] == "draft"
    extra = [i for i in shop.fake.state.all("invoiceitem") if "else" in i["metadata"]["crosslogic_line"]]
    shop.fake.invoices.delete_item(extra[0]["id"])
    shop.rig.provider.advance(900)
    await shop.exports.run()
    assert there["status"] == "open"
    assert there["total"] == 132


async def test_what_was_paid_here_is_paid_there_too(shop: Shop) -> None:
    await shop.rig.method()
    await shop.issue("inv_1", LINES)
    await shop.issue("inv_2", [usage(10**12, 100, 3)])
    await shop.exports.run()
    paid = await shop.rig.service.pay_invoice("inv_1")
    assert paid.status is Status.SUCCEEDED
    assert (await shop.books.invoice("inv_1")).status.value == "paid"
    for _ in range(3):
        shop.rig.provider.advance(3700)
        await shop.exports.run()
    assert sorted((each["total"], each["status"]) for each in shop.there()) == [(100, "open"), (132, "paid")]
    assert shop.fake.calls["POST /v1/invoices/{}/attach_payment"] == 1
    statuses = {window.meter: window.status for window in await shop.windows()}
    assert statuses == {"inv_1": WindowStatus.VERIFIED, "inv_2": WindowStatus.SENT}


async def test_what_is_void_here_is_void_there(shop: Shop) -> None:
    await shop.issue("inv_1", LINES)
    await shop.exports.run()
    async with shop.rig.engine.begin() as conn:
        gone = {"status": "void", "voided_at": shop.rig.clock.now(), "void_reason": "wrong"}
        await conn.execute(update(invoices).where(invoices.c.id == "inv_1").values(**gone))
    for _ in range(2):
        shop.rig.provider.advance(3700)
        await shop.exports.run()
    assert [each["status"] for each in shop.there()] == ["void"]
    assert (await shop.windows())[0].next_step_at is None


async def test_an_outage_leaves_invoices_waiting_and_nothing_is_lost(shop: Shop) -> None:
    for number in range(3):
        await shop.issue(f"inv_{number}", [usage(10**12, 100, 3)])
    shop.fake.faults.down = True
    for _ in range(30):
        await shop.exports.run()
        shop.rig.provider.advance(3600)
    assert any(window.billing_failed for window in await shop.windows())
    shop.fake.faults.down = False
    for _ in range(4):
        await shop.exports.run()
        shop.rig.provider.advance(900)
    assert [each["status"] for each in shop.there()] == ["open"] * 3


async def test_bought_credits_are_granted_once_in_the_orgs_currency(shop: Shop) -> None:
    await shop.rig.method()
    bought = await shop.rig.service.top_up(ACME, 700, "usd")
    await shop.rig.service.payment_driver.tell(bought.id)
    with pytest.raises(InvalidRequest, match="in usd"):
        await shop.rig.service.top_up(ACME, 700, "inr")
    async with shop.rig.engine.connect() as conn:
        grants = (await conn.execute(select(credit_grants))).mappings().all()
    assert [(row["amount"], row["source_ref"], row["credit_class"]) for row in grants] == [
        (7 * 10**12, bought.id, "paid")
    ]


def test_more_lines_than_stripe_takes_are_told_together() -> None:
    lines = [usage(10**12 + n, 100, 7) for n in range(400)]
    items = items_of(lines, 2)
    assert len(items) == MOST_ITEMS
    assert sum(each.amount_minor for each in items) == 400 * 100


# auto-charge


async def test_issued_invoices_are_charged_at_most_four_times_days_apart(shop: Shop) -> None:
    charge = AutoCharge(shop.rig.service, shop.invoices)
    await shop.issue("inv_1", LINES, auto=True)
    assert await charge.run() == 0  # there is no method yet
    bad = await shop.rig.method(behaviour="declined")
    for _ in range(40):
        await charge.run()
        shop.rig.provider.advance(12 * 3600)
    attempts = await shop.rig.service.payments(invoice_id="inv_1")
    assert [each.status for each in attempts] == [Status.FAILED] * 4
    assert {each.method_id for each in attempts} == {bad}


async def test_an_invoice_is_charged_once_by_however_many_jobs(shop: Shop) -> None:
    charge = AutoCharge(shop.rig.service, shop.invoices)
    await shop.rig.method()
    await shop.issue("inv_1", LINES, auto=True)
    shop.fake.faults.order("applied, reply lost", "/v1/payment_intents")
    for _ in range(5):
        await charge.run()
        await shop.rig.service.drive_due()
        shop.rig.provider.advance(60)
    assert shop.rig.provider.taken_minor() == 132
    assert (await shop.books.invoice("inv_1")).open_minor == 0


# licences


def test_a_licence_counts_only_as_it_was_signed() -> None:
    private, public = licence.new_keys()
    now = datetime(2026, 6, 1, tzinfo=UTC)
    made = licence.Licence("lic_1", "A Bank", now, now + timedelta(days=365), nodes=8)
    text = licence.sign(made, private)
    assert licence.read(text, public) == made
    assert [made.standing(now + timedelta(days=days)) for days in (-2, 0, 340, 365)] == [
        "not yet", "valid", "expires soon", "expired",
    ]  # fmt: skip
    lines = text.splitlines()
    forged = "\n".join((lines[0], lines[1][:-4] + "AAAA", *lines[2:]))
    for wrong in (forged, text.replace("BEGIN", "BEG"), "", lines[1], "\n".join(lines[:3])):
        with pytest.raises(ConfigurationError):
            licence.read(wrong, public)
    with pytest.raises(ConfigurationError, match="not signed with the key"):
        licence.read(text, licence.new_keys()[1])


def invoice_row(name: str, lines: list[Line], now: datetime, prepaid_minor: int) -> dict[str, Any]:
    total = sum(line.amount_minor for line in lines)
    return {
        "id": name,
        "org_id": ACME,
        "kind": "monthly",
        "period_start": now - timedelta(days=31, minutes=len(name)),
        "period_end": now,
        "revision": int(name.split("_")[1]) + 1,
        "root_id": name,
        "status": "draft",
        "currency": "USD",
        "subtotal_minor": total,
        "discount_minor": 0,
        "credit_minor": 0,
        "tax_minor": 0,
        "total_minor": total,
        "prepaid_minor": prepaid_minor,
        "exact_amount": 0,
        "rounding_amount": 0,
        "line_count": len(lines),
        "created_at": now,
        "due_at": now + timedelta(days=14),
    }
