"""Payments over each provider's fake: what the contract suite needs of either, in the same words."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Protocol, TypeVar

from sqlalchemy import exc as database
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from crosslogic.billing.chargebacks.service import ChargebackService
from crosslogic.billing.payments import paypal
from crosslogic.billing.payments import stripe as stripe_adapter
from crosslogic.billing.payments.currencies import minor_text
from crosslogic.billing.payments.model import MethodKind, Payment, Refund, Withdrawal
from crosslogic.billing.payments.ports import PayableInvoice, PaymentProcessor
from crosslogic.billing.payments.service import PaymentService
from crosslogic.kernel.clock import ManualClock
from crosslogic.kernel.errors import Conflict, NotFound
from crosslogic.kernel.ids import OrgId
from crosslogic.store.tables import orgs
from crosslogic.tenancy.audit_sql import AuditTrail
from tests.fake_paypal import CLIENT_ID, SECRET, FakePayPal
from tests.fake_stripe import server
from tests.fake_stripe.server import FakeStripe

ACME, BOLT = OrgId("org_acme"), OrgId("org_bolt")
Answer = TypeVar("Answer")
DUE = datetime.fromisoformat("2026-02-01T00:00:00Z")


class Books:
    """Invoices, and what payments told of them: both sides of what payments pay for, kept in memory."""

    def __init__(self) -> None:
        self.open: dict[str, PayableInvoice] = {}
        self.told_paid: list[tuple[str | None, str, int]] = []
        self.told_refunded: list[tuple[str, str, int]] = []
        self.told_failed: list[str] = []
        self.told_refunding: list[tuple[str, int]] = []
        self.told_withdrawn: list[Withdrawal] = []
        self.own_currency = "usd"
        self.broken = False  # told of a payment, they cannot take note of it

    def add(self, invoice_id: str, amount_minor: int = 1000, org_id: OrgId = ACME) -> str:
        self.open[invoice_id] = PayableInvoice(invoice_id, org_id, invoice_id, amount_minor, "usd", DUE)
        return invoice_id

    async def payable(self, invoice_id: str, org_id: OrgId | None = None) -> PayableInvoice:
        found = self.open.get(invoice_id)
        if found is None or org_id not in (None, found.org_id):
            raise NotFound("there is no such invoice")
        return found

    async def due(self, limit: int) -> list[PayableInvoice]:
        return list(self.open.values())[:limit]

    async def mark_paid(self, invoice_id: str, payment_ref: str, amount_minor: int, at: datetime) -> None:
        self.open.pop(invoice_id, None)

    async def currency(self, org_id: OrgId) -> str:
        return self.own_currency

    async def paid(self, payment: Payment) -> None:
        if self.broken:
            raise Conflict("the books are closed for the night")
        self.told_paid.append((payment.invoice_id, payment.id, payment.captured_minor))

    async def refunded(self, payment: Payment, refund: Refund) -> None:
        self.told_refunded.append((payment.id, refund.status.value, refund.amount_minor))

    async def refunding(self, conn: AsyncConnection, payment: Payment, refund: Refund) -> None:
        self.told_refunding.append((payment.id, refund.amount_minor))

    async def withdrawn(self, conn: AsyncConnection, payment: Payment, change: Withdrawal) -> None:
        self.told_withdrawn.append(change)

    async def failed(self, payment: Payment) -> None:
        self.told_failed.append(payment.id)


class Provider(Protocol):
    """A provider's fake. Behaviours of methods: ok, declined, 3ds, slow."""

    processor: PaymentProcessor

    async def enter(self, setup_ref: str, behaviour: str = "ok", kind: MethodKind = MethodKind.CARD) -> None:
        """The payer enters a method into the provider's form."""
        ...

    def payer_acts(self, payment: Payment, *, succeeds: bool = True) -> None: ...
    def taken_minor(self) -> int:
        """All that was really captured, less what was given back."""
        ...

    def captures(self) -> int: ...
    def advance(self, seconds: float) -> None: ...
    def order(self, fault: str, path: str = "/", times: int = 1) -> None: ...

    def dispute(self, payment: Payment, amount_minor: int | None = None, *, inquiry: bool = False) -> str:
        """The payer's bank asks for it, and withdraws it unless it only inquires; the provider's name of the case."""
        ...

    def escalate(self, ref: str) -> None: ...
    def decide(self, ref: str, *, won: bool) -> None: ...

    charge_path: str
    refund_path: str


class StripeSide:
    charge_path = "/v1/payment_intents"
    refund_path = "/v1/refunds"

    def __init__(self, fake: FakeStripe, processor: PaymentProcessor, clock: ManualClock) -> None:
        self.fake = fake
        self.processor = processor
        self._clock = clock

    async def enter(self, setup_ref: str, behaviour: str = "ok", kind: MethodKind = MethodKind.CARD) -> None:
        wanted = self.fake.state.get("setup_intent", setup_ref)["payment_method_types"][0]
        method = self.fake.payments.new_method(wanted, behaviour)
        self.fake.payments.complete_setup(setup_ref, method)

    def payer_acts(self, payment: Payment, *, succeeds: bool = True) -> None:
        assert payment.provider_ref is not None
        self.fake.payments.payer_acts(payment.provider_ref, succeeds=succeeds)

    def dispute(self, payment: Payment, amount_minor: int | None = None, *, inquiry: bool = False) -> str:
        return self.fake.disputes.open(str(payment.provider_ref), amount_minor, inquiry=inquiry)

    def escalate(self, ref: str) -> None:
        self.fake.disputes.escalate(ref)

    def decide(self, ref: str, *, won: bool) -> None:
        self.fake.disputes.decide(ref, won=won)

    def taken_minor(self) -> int:
        return sum(each["amount_captured"] - each["amount_refunded"] for each in self.fake.state.all("charge"))

    def captures(self) -> int:
        return len(self.fake.state.all("charge"))

    def advance(self, seconds: float) -> None:
        self._clock.advance(seconds)
        self.fake.state.now_s = self._clock.now().timestamp()

    def order(self, fault: str, path: str = "/", times: int = 1) -> None:
        self.fake.faults.order(fault, path, times)


@asynccontextmanager
async def stripe_side(clock: ManualClock, fake: FakeStripe | None = None) -> AsyncIterator[StripeSide]:
    async with (fake or FakeStripe()).serve() as served:
        served.state.now_s = clock.now().timestamp()
        client, http = stripe_adapter.new_client(server.API_KEY, base_url=served.base_url, network_retries=0)
        processor = stripe_adapter.StripeProcessor(client, http, "https://console.test/billing")
        try:
            yield StripeSide(served, processor, clock)
        finally:
            await processor.close()


class Rig:
    """A service over a provider's fake, on a real database with two orgs."""

    def __init__(self, engine: AsyncEngine, provider: Provider, clock: ManualClock) -> None:
        self.engine = engine
        self.provider = provider
        self.clock = clock
        self.books = Books()
        trail = AuditTrail(clock=clock)
        self.service = PaymentService(engine, provider.processor, self.books, self.books, clock, trail)
        self.chargebacks = ChargebackService(engine, self.service, self.books, clock, trail)

    async def prepare(self) -> "Rig":
        rows: list[dict[str, Any]] = [org_row(ACME, self.clock.now()), org_row(BOLT, self.clock.now())]
        async with self.engine.begin() as conn:
            await conn.execute(insert(orgs), rows)
        return self

    async def method(self, org: OrgId = ACME, behaviour: str = "ok", kind: MethodKind = MethodKind.CARD) -> str:
        begun = await self.service.methods.begin_setup(org, kind)
        await self.provider.enter(begun.setup_ref, behaviour, kind)
        return (await self.service.methods.finish_setup(org, begun.setup_ref)).id

    async def until_quiet(self, step: timedelta = timedelta(minutes=20), rounds: int = 200) -> None:
        """Let time pass and the job run until nothing waits any more, pending payments left out."""
        for _ in range(rounds):
            await self.service.drive_due()
            waiting = [p for p in await self.service.payments() if p.next_step_at and p.status.value != "pending"]
            waiting += [r for r in await self.service.refunds() if r.next_step_at and r.status.value != "pending"]  # type: ignore[misc]
            if not waiting:
                return
            self.provider.advance(step.total_seconds())
        raise AssertionError("payments do not come to an end")


async def insisting(call: Callable[[], Awaitable[Answer]]) -> Answer:
    """What a call answers in the end: on a busy machine the database has no connection or no lock for it at first.

    A caller is told 503 then, and asks again; what is called must name itself, so that it happens once.
    """
    while True:
        try:
            return await call()
        except (database.TimeoutError, database.OperationalError):
            await asyncio.sleep(0.05)


def org_row(org_id: str, now: datetime) -> dict[str, Any]:
    return {
        "id": org_id,
        "name": org_id.removeprefix("org_"),
        "status": "active",
        "billing_plan": "free",
        "created_at": now,
        "limits": {},
        "allowed_models": [],
    }


class PayPalSide:
    charge_path = "/v2/checkout/orders"
    refund_path = "/refund"

    def __init__(self, fake: FakePayPal, processor: PaymentProcessor, clock: ManualClock) -> None:
        self.fake = fake
        self.processor = processor
        self._clock = clock

    async def enter(self, setup_ref: str, behaviour: str = "ok", kind: MethodKind = MethodKind.CARD) -> None:
        self.fake.approve_setup(setup_ref, behaviour)

    def payer_acts(self, payment: Payment, *, succeeds: bool = True) -> None:
        assert payment.provider_ref is not None
        if succeeds:
            self.fake.approve_order(payment.provider_ref)
        else:
            self.fake.orders[payment.provider_ref]["status"] = "VOIDED"

    def dispute(self, payment: Payment, amount_minor: int | None = None, *, inquiry: bool = False) -> str:
        amount = None if amount_minor is None else minor_text(amount_minor, payment.currency)
        return self.fake.dispute(str(payment.provider_ref), amount, inquiry=inquiry)

    def escalate(self, ref: str) -> None:
        self.fake.escalate(ref)

    def decide(self, ref: str, *, won: bool) -> None:
        self.fake.resolve(ref, "RESOLVED_SELLER_FAVOUR" if won else "RESOLVED_BUYER_FAVOUR")

    def taken_minor(self) -> int:
        taken = sum(Decimal(each["amount"]["value"]) for each in self.fake.captures() if each["status"] == "COMPLETED")
        given = sum(Decimal(each["amount"]["value"]) for each in self.fake.refunds.values())
        return int(100 * (taken - given))

    def captures(self) -> int:
        return len(self.fake.captures())

    def advance(self, seconds: float) -> None:
        self._clock.advance(seconds)
        self.fake.now = self._clock.now()

    def order(self, fault: str, path: str = "/", times: int = 1) -> None:
        self.fake.faults.order(fault, path, times)


@asynccontextmanager
async def paypal_side(clock: ManualClock, fake: FakePayPal | None = None) -> AsyncIterator[PayPalSide]:
    async with (fake or FakePayPal()).serve() as served:
        served.now = clock.now()
        processor = paypal.PayPalProcessor(CLIENT_ID, SECRET, "https://console.test/billing", base_url=served.base_url)
        try:
            yield PayPalSide(served, processor, clock)
        finally:
            await processor.close()


SIDES = {"stripe": stripe_side, "paypal": paypal_side}
