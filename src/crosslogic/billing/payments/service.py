"""What orgs and operators may do with payments: set up methods, pay invoices, buy credits, refund, look.

Invariants: a payment or refund is written down, with its reservation, before anything is sent; an invoice has at most
one payment that stands or is under way; a repeat under the same Idempotency-Key gives the first one again. How it goes
on from there is `driving.py`'s.
"""

from datetime import datetime

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from crosslogic.billing.payments import sql
from crosslogic.billing.payments.courses import PaymentCourse, RefundCourse
from crosslogic.billing.payments.currencies import checked_currency
from crosslogic.billing.payments.driving import Driver
from crosslogic.billing.payments.methods import PaymentMethods
from crosslogic.billing.payments.model import Payment, Purpose, Refund, Status
from crosslogic.billing.payments.ports import InvoiceBook, PaidFor, PaymentProcessor, ProviderRefused
from crosslogic.billing.payments.rows import to_payment, to_refund
from crosslogic.billing.profiles.rules import text
from crosslogic.kernel.clock import Clock
from crosslogic.kernel.crash_points import reach
from crosslogic.kernel.errors import Conflict, InvalidRequest
from crosslogic.kernel.ids import OrgId, new_id
from crosslogic.store.engine import reading
from crosslogic.store.tables import payments, refunds
from crosslogic.tenancy.audit_sql import AuditTrail

MOST_MINOR = 99_999_999  # what a charge may be at most at Stripe
LEAST_TOP_UP_MINOR = 50


class PaymentService:
    """Raises InvalidRequest, NotFound, also for what is another org's, and Conflict."""

    def __init__(
        self,
        engine: AsyncEngine,
        processor: PaymentProcessor,
        invoices: InvoiceBook,
        paid_for: PaidFor,
        clock: Clock,
        trail: AuditTrail,
    ) -> None:
        self.processor = processor
        self._engine = engine
        self._invoices = invoices
        self._paid_for = paid_for
        self._clock = clock
        self._trail = trail
        self.methods = PaymentMethods(engine, processor, clock, trail, paid_for.currency)
        self.payment_driver = Driver(engine, clock, PaymentCourse(engine, processor, paid_for, trail))
        self.refund_driver = Driver(engine, clock, RefundCourse(engine, processor, paid_for, trail))

    def recording(self, trail: AuditTrail) -> "PaymentService":
        """The same service; what it does is written down in `trail`, as done by its actor."""
        return PaymentService(self._engine, self.processor, self._invoices, self._paid_for, self._clock, trail)

    async def pay_invoice(
        self,
        invoice_id: str,
        *,
        org_id: OrgId | None = None,
        method_id: str | None = None,
        customer_present: bool = False,
        creation_ref: str | None = None,
    ) -> Payment:
        """Charge an invoice that is issued and not paid. Raises Conflict while another payment of it is under way."""
        if creation_ref is not None and org_id is not None:
            earlier = await self._earlier(org_id, creation_ref, invoice_id)
            if earlier is not None:
                return await self.payment_driver.drive(earlier.id)
        invoice = await self._invoices.payable(invoice_id, org_id)
        if not 0 < invoice.amount_minor <= MOST_MINOR:
            raise Conflict("an invoice of this amount cannot be charged; settle it by bank transfer")
        try:
            async with self._engine.begin() as conn:
                attempts = await sql.attempts_of(conn, invoice_id)
                if any(each.stands for each in attempts):
                    raise Conflict("a payment of this invoice is under way or has succeeded")
                payment = await self._write(
                    conn,
                    org_id=invoice.org_id,
                    purpose=Purpose.INVOICE,
                    invoice_id=invoice.id,
                    attempt=1 + max((each.attempt for each in attempts), default=0),
                    amount_minor=invoice.amount_minor,
                    currency=checked_currency(invoice.currency),
                    method_id=method_id,
                    customer_present=customer_present,
                    creation_ref=creation_ref,
                )
        except IntegrityError:  # somebody else was quicker, or the same call came twice at once
            again = None if creation_ref is None else await self._earlier(invoice.org_id, creation_ref, invoice_id)
            if again is not None:
                return again
            raise Conflict("a payment of this invoice is under way or has succeeded") from None
        reach("payment.written")
        return await self.payment_driver.drive(payment.id)

    async def top_up(
        self,
        org_id: OrgId,
        amount_minor: int,
        currency: str,
        *,
        method_id: str | None = None,
        customer_present: bool = True,
        creation_ref: str | None = None,
    ) -> Payment:
        """Buy credits; they are granted once the payment has succeeded."""
        currency = checked_currency(currency)
        if not LEAST_TOP_UP_MINOR <= amount_minor <= MOST_MINOR:
            raise InvalidRequest(
                f"buy credits for {LEAST_TOP_UP_MINOR} to {MOST_MINOR} minor units", param="amount_minor"
            )
        own = await self._paid_for.currency(org_id)
        if currency != own:
            raise InvalidRequest(f"this organisation buys credits in {own}", param="currency")
        try:
            async with self._engine.begin() as conn:
                earlier = None if creation_ref is None else await sql.payment_under(conn, org_id, creation_ref)
                if earlier is None:
                    earlier = await self._write(
                        conn,
                        org_id=org_id,
                        purpose=Purpose.TOP_UP,
                        invoice_id=None,
                        attempt=1,
                        amount_minor=amount_minor,
                        currency=currency,
                        method_id=method_id,
                        customer_present=customer_present,
                        creation_ref=creation_ref,
                    )
        except IntegrityError:
            async with reading(self._engine) as conn:
                earlier = await sql.payment_under(conn, org_id, creation_ref or "")
            if earlier is None:
                raise
        if (earlier.amount_minor, earlier.currency, earlier.purpose) != (amount_minor, currency, Purpose.TOP_UP):
            raise Conflict("another payment was made under this Idempotency-Key; use a new one")
        return await self.payment_driver.drive(earlier.id)

    async def refund(
        self,
        payment_id: str,
        amount_minor: int | None = None,
        *,
        reason: str | None = None,
        creation_ref: str | None = None,
    ) -> Refund:
        """Give back so much of a payment, or what is left of it. Raises Conflict for more than is left."""
        reason = None if reason is None else text(reason, "reason")  # it is printed on credit notes
        async with self._engine.begin() as conn:
            payment = await sql.payment_in(conn, payment_id, None, lock=True)
            earlier = None if creation_ref is None else await sql.refund_under(conn, payment_id, creation_ref)
            if earlier is None:
                refund = await self._reserved(conn, payment, amount_minor, reason, creation_ref)
            elif amount_minor not in (None, earlier.amount_minor):
                raise Conflict("another refund was made under this Idempotency-Key; use a new one")
            else:
                refund = earlier
        return await self.refund_driver.drive(refund.id)

    async def payment(self, payment_id: str, org_id: OrgId | None = None) -> Payment:
        async with reading(self._engine) as conn:
            return await sql.payment_in(conn, payment_id, org_id)

    async def payments(
        self,
        *,
        org_id: OrgId | None = None,
        invoice_id: str | None = None,
        status: Status | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> list[Payment]:
        """Newest first."""
        only = {"org_id": org_id, "invoice_id": invoice_id, "status": None if status is None else status.value}
        return [to_payment(row) for row in await sql.listed(self._engine, payments, only, after, limit)]

    async def refunds(
        self,
        *,
        org_id: OrgId | None = None,
        payment_id: str | None = None,
        status: Status | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> list[Refund]:
        """Newest first."""
        only = {"org_id": org_id, "payment_id": payment_id, "status": None if status is None else status.value}
        return [to_refund(row) for row in await sql.listed(self._engine, refunds, only, after, limit)]

    async def portal(self, org_id: OrgId, return_url: str) -> str:
        try:
            return await self.processor.portal(await self.methods.customer(org_id), return_url)
        except ProviderRefused as refused:
            raise Conflict(str(refused)) from None

    async def drive_due(self) -> int:
        """One step for each payment and refund that waits for one; a job's."""
        return await self.payment_driver.drive_due() + await self.refund_driver.drive_due()

    def now(self) -> datetime:
        return self._clock.now()

    async def _earlier(self, org_id: OrgId, creation_ref: str, invoice_id: str) -> Payment | None:
        async with reading(self._engine) as conn:
            earlier = await sql.payment_under(conn, org_id, creation_ref)
        if earlier is not None and earlier.invoice_id != invoice_id:
            raise Conflict("another payment was made under this Idempotency-Key; use a new one")
        return earlier

    async def _write(
        self,
        conn: AsyncConnection,
        *,
        org_id: OrgId,
        purpose: Purpose,
        invoice_id: str | None,
        attempt: int,
        amount_minor: int,
        currency: str,
        method_id: str | None,
        customer_present: bool,
        creation_ref: str | None,
    ) -> Payment:
        method = await sql.method_to_charge(conn, method_id, org_id, self.processor.provider)
        now = self._clock.now()
        payment = Payment(
            id=new_id("pay"),
            org_id=org_id,
            provider=self.processor.provider,
            purpose=purpose,
            invoice_id=invoice_id,
            attempt=attempt,
            amount_minor=amount_minor,
            currency=currency,
            method_id=method.id,
            customer_present=customer_present,
            status=Status.CREATED,
            created_at=now,
            next_step_at=now,
            creation_ref=creation_ref,
        )
        await sql.add_payment(conn, payment)
        said = {"amount_minor": amount_minor, "currency": currency, "invoice_id": invoice_id, "method_id": method.id}
        await self._trail.append(conn, "payment.create", payment.id, org_id=org_id, before=None, after=said)
        return payment

    async def _reserved(
        self,
        conn: AsyncConnection,
        payment: Payment,
        amount_minor: int | None,
        reason: str | None,
        creation_ref: str | None,
    ) -> Refund:
        if payment.provider != self.processor.provider:
            raise Conflict(f"the payment was made with {payment.provider}; refund it there")
        if payment.status is not Status.SUCCEEDED:
            raise Conflict(f"the payment is {payment.status.value}; only what was captured can be refunded")
        if payment.applied_at is None:  # else what it buys might come after what is taken back of it
            raise Conflict("the payment has succeeded just now; refund it in a moment")
        wanted = payment.refundable_minor if amount_minor is None else amount_minor
        if wanted < 1 and amount_minor is not None:
            raise InvalidRequest("refund at least one minor unit", param="amount_minor")
        if wanted < 1 or not await sql.reserve_refund(conn, payment.id, wanted):
            raise Conflict(f"only {payment.refundable_minor} minor units of this payment are left to be refunded")
        now = self._clock.now()
        refund = Refund(
            id=new_id("refund"),
            payment_id=payment.id,
            org_id=payment.org_id,
            amount_minor=wanted,
            currency=payment.currency,
            status=Status.CREATED,
            created_at=now,
            reason=reason,
            next_step_at=now,
            creation_ref=creation_ref,
        )
        await sql.add_refund(conn, refund)
        await self._paid_for.refunding(conn, payment, refund)
        said = {"payment_id": payment.id, "amount_minor": wanted, "currency": payment.currency, "reason": reason}
        await self._trail.append(conn, "refund.create", refund.id, org_id=payment.org_id, before=None, after=said)
        return refund
