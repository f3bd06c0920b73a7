"""What payments pay for, as the invoices and the credits of the product: both sides of `ports.py` over their rooms."""

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from crosslogic.billing.charges.own_terms import account
from crosslogic.billing.charges.sql import hold_org
from crosslogic.billing.credits.model import CreditClass
from crosslogic.billing.credits.returns import give_again, outstanding, take_back
from crosslogic.billing.credits.service import CreditsService
from crosslogic.billing.invoices.issuing import Issuer
from crosslogic.billing.invoices.model import OPEN, Invoice
from crosslogic.billing.invoices.service import InvoiceService
from crosslogic.billing.payments.currencies import decimals_of
from crosslogic.billing.payments.model import Payment, Purpose, Refund, Status, Withdrawal
from crosslogic.billing.payments.ports import PayableInvoice
from crosslogic.billing.postings import book
from crosslogic.billing.postings.sql import post, was_posted
from crosslogic.billing.profiles.rules import text
from crosslogic.kernel.clock import Clock
from crosslogic.kernel.errors import Conflict, InvalidRequest
from crosslogic.kernel.ids import InvoiceId, OrgId
from crosslogic.store.engine import reading

_PICO_DIGITS = 12  # of the major unit


class Invoices:
    """`InvoiceBook` over the room of invoices."""

    def __init__(self, invoices: InvoiceService) -> None:
        self._invoices = invoices

    async def payable(self, invoice_id: str, org_id: OrgId | None = None) -> PayableInvoice:
        invoice = await self._invoices.invoice(invoice_id, org_id)
        if invoice.status not in OPEN or invoice.open_minor <= 0:
            raise Conflict(f"the invoice is {invoice.status.value}; nothing of it is to be paid")
        return _payable(invoice)

    async def due(self, limit: int) -> list[PayableInvoice]:
        found = await self._invoices.open_invoices()
        return [_payable(each) for each in found if each.auto_charge and each.open_minor > 0][:limit]

    async def mark_paid(self, invoice_id: str, payment_ref: str, amount_minor: int, at: datetime) -> None:
        await self._invoices.mark_paid(InvoiceId(invoice_id), payment_ref, amount_minor, at)


class PaidForOurs:
    """`PaidFor`: an invoice becomes paid, a top-up becomes credits."""

    def __init__(
        self,
        engine: AsyncEngine,
        invoices: InvoiceService,
        issuer: Issuer,
        credits: CreditsService,
        clock: Clock,
    ) -> None:
        self._engine = engine
        self._invoices = invoices
        self._issuer = issuer
        self._credits = credits
        self._clock = clock

    async def paid(self, payment: Payment) -> None:
        at = payment.resolved_at or self._clock.now()
        if payment.purpose is Purpose.INVOICE and payment.invoice_id is not None:
            await self._invoices.mark_paid(InvoiceId(payment.invoice_id), payment.id, payment.captured_minor, at)
        else:
            await self._grant(payment)

    async def refunding(self, conn: AsyncConnection, payment: Payment, refund: Refund) -> None:
        """Credits are taken back before their money goes, so that nobody uses them meanwhile."""
        if payment.purpose is not Purpose.TOP_UP:
            return
        amount, now = _pico(refund.amount_minor, refund.currency), self._clock.now()
        taken = await take_back(
            conn, self._credits, payment.org_id, payment.id, amount, owner_ref=refund.id, ref=refund.id, now=now
        )
        await self._post(conn, f"returned:{refund.id}", "refund", book.of_returned(taken), payment)

    async def refunded(self, payment: Payment, refund: Refund) -> None:
        """What went back of an invoice's payment is credited; credits whose money stays are given again."""
        at, succeeded = refund.resolved_at or self._clock.now(), refund.status is Status.SUCCEEDED
        if payment.purpose is not Purpose.INVOICE or payment.invoice_id is None:
            async with self._engine.begin() as conn:
                await (self._credits_refunded if succeeded else self._credits_given)(conn, payment, refund)
        elif succeeded:
            reason = _printable(refund.reason) or "Refund"
            await self._issuer.refunded(payment.invoice_id, refund.id, refund.amount_minor, at, reason)
        else:
            await self._issuer.refund_returned(payment.invoice_id, refund.id, refund.amount_minor, at)

    async def withdrawn(self, conn: AsyncConnection, payment: Payment, change: Withdrawal) -> None:
        """An invoice is disputed, then owed again or paid; credits are taken back as long as their money is away."""
        moved = book.of_withdrawal(change.withdrawn_delta_minor, payment.currency)
        await self._post(conn, f"withdrawal:{change.ref}", "chargeback", moved, payment)
        if payment.purpose is Purpose.INVOICE and payment.invoice_id is not None:
            await self._invoices.withdrawn_in(
                conn,
                payment.invoice_id,
                change.ref,
                lost_minor=change.lost_delta_minor,
                held_minor=change.held_minor,
                at=change.at,
            )
        else:
            await self._credits_withdrawn(conn, payment, change)

    async def _credits_refunded(self, conn: AsyncConnection, payment: Payment, refund: Refund) -> None:
        await hold_org(conn, payment.org_id)
        gone = book.of_refund(refund.amount_minor, refund.currency)
        await self._post(conn, f"refund:{refund.id}", "refund", gone, payment)

    async def _credits_given(self, conn: AsyncConnection, payment: Payment, refund: Refund) -> None:
        """The refund has failed, perhaps after it had been told to have succeeded."""
        amount, ref = _pico(refund.amount_minor, refund.currency), f"{refund.id}:failed"
        given = await give_again(
            conn, self._credits, payment.org_id, amount, owner_ref=refund.id, ref=ref, now=self._clock.now()
        )
        await self._post(conn, f"returned:{ref}", "refund", book.of_returned(-given), payment)
        if await was_posted(conn, f"refund:{refund.id}"):
            back = book.of_refund(-refund.amount_minor, refund.currency)
            await self._post(conn, f"refund:{ref}", "refund", back, payment)

    async def _credits_withdrawn(self, conn: AsyncConnection, payment: Payment, change: Withdrawal) -> None:
        owner, ref, now = change.chargeback_id, change.ref, self._clock.now()
        before = await outstanding(conn, owner)
        amount = _pico(change.withdrawn_delta_minor, payment.currency)
        org, taken = payment.org_id, 0
        if amount > 0:
            taken = await take_back(conn, self._credits, org, payment.id, amount, owner_ref=owner, ref=ref, now=now)
        elif amount < 0:
            taken = -await give_again(conn, self._credits, org, -amount, owner_ref=owner, ref=ref, now=now)
        await self._post(conn, f"credits:{ref}", "chargeback", book.of_disputed_credits(taken), payment)
        lost = [
            max(0, _pico(minor, payment.currency) - took)
            for minor, took in (
                (change.lost_minor - change.lost_delta_minor, before),
                (change.lost_minor, before + taken),
            )
        ]
        await self._post(conn, f"loss:{ref}", "chargeback", book.of_lost_credits(lost[1] - lost[0]), payment)

    async def _post(
        self, conn: AsyncConnection, ref: str, kind: str, postings: book.Postings, payment: Payment
    ) -> None:
        await post(conn, ref, kind, postings, org_id=payment.org_id, currency=payment.currency, at=self._clock.now())

    async def failed(self, payment: Payment) -> None:
        """The invoice stays open, and its reminders go on."""

    async def currency(self, org_id: OrgId) -> str:
        async with reading(self._engine) as conn:
            return (await account(conn, org_id)).currency.lower()

    async def _grant(self, payment: Payment) -> None:
        await self._credits.grant(
            payment.org_id,
            CreditClass.PAID,
            _pico(payment.captured_minor, payment.currency),
            source_ref=payment.id,
            reason="bought",
        )


def _printable(reason: str | None) -> str:
    """Of a refund that has gone out already: what cannot be printed must not keep it from being written down."""
    try:
        return text(reason or "", "reason")
    except InvalidRequest:
        return ""


def _pico(amount_minor: int, currency: str) -> int:
    return amount_minor * int(10 ** (_PICO_DIGITS - decimals_of(currency)))


def _payable(invoice: Invoice) -> PayableInvoice:
    return PayableInvoice(
        id=invoice.id,
        org_id=invoice.org_id,
        number=invoice.number or "",
        amount_minor=invoice.open_minor,
        currency=invoice.currency.lower(),
        due_at=invoice.due_at or invoice.created_at,
    )
