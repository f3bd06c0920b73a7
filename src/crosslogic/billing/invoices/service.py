"""What may be done with invoices that are there: look at them, and write down that they were paid.

Invariant: every change commits together with its entry in the audit log and its notice, or not at all; a payment
counts once, however often it is reported.
"""

from datetime import datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from crosslogic.billing.invoices import sql, states
from crosslogic.billing.invoices.model import CreditNote, Invoice, InvoiceKind, InvoiceStatus, Line, Payment
from crosslogic.billing.invoices.notices import tell
from crosslogic.billing.postings import book
from crosslogic.billing.postings.sql import post
from crosslogic.kernel.clock import Clock
from crosslogic.kernel.errors import Conflict, InvalidRequest
from crosslogic.kernel.ids import InvoiceId, OrgId
from crosslogic.tenancy import rules as tenancy_rules
from crosslogic.tenancy.audit import SYSTEM, Actor
from crosslogic.tenancy.audit_sql import AuditTrail
from crosslogic.tenancy.keys import KeyHasher

MAX_MINOR = 10**15
_MAX_REF = 200


class InvoiceService:
    """Raises InvalidRequest, NotFound, also for an invoice of another org, and Conflict."""

    def __init__(self, engine: AsyncEngine, hash_key: KeyHasher, clock: Clock, actor: Actor = SYSTEM) -> None:
        self._engine = engine
        self._hash_key = hash_key
        self._clock = clock
        self._sql = sql.InvoicesSql(engine)
        self._trail = AuditTrail(actor, hash_key, clock)

    def acting_as(self, actor: Actor) -> "InvoiceService":
        """The same service; what it changes is written down as done by `actor`."""
        return InvoiceService(self._engine, self._hash_key, self._clock, actor)

    def now(self) -> datetime:
        return self._clock.now()

    async def invoice(self, invoice_id: str, org_id: OrgId | None = None) -> Invoice:
        """By id or by number."""
        return await self._sql.invoice(invoice_id, org_id)

    async def lines(self, invoice: Invoice) -> list[Line]:
        return await self._sql.lines(invoice.id)

    async def payments(self, invoice: Invoice) -> list[Payment]:
        return await self._sql.payments(invoice.id)

    async def credit_notes(self, invoice: Invoice) -> list[CreditNote]:
        return await self._sql.credit_notes(invoice.id)

    async def invoices(
        self,
        *,
        org_id: OrgId | None = None,
        status: InvoiceStatus | None = None,
        kind: InvoiceKind | None = None,
        currency: str | None = None,
        number: str | None = None,
        issued: bool = False,
        start: datetime | None = None,
        end: datetime | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> list[Invoice]:
        """The newest first; `start` and `end` bound the end of the period. `issued`: only what has a number."""
        only = {"org_id": org_id, "status": status, "kind": kind, "currency": currency, "number": number}
        page = tenancy_rules.page_limit(limit)
        return await self._sql.page(only, issued=issued, start=start, end=end, after=after, limit=page)

    async def open_invoices(self, org_id: OrgId | None = None) -> list[Invoice]:
        """Issued and not settled, oldest first; of an org, or of all."""
        return await self._sql.open(org_id)

    async def due(self, now: datetime) -> list[Invoice]:
        """Those of them that should have been paid by `now`."""
        return await self._sql.open(due_by=now)

    async def mark_paid(self, invoice_id: InvoiceId, payment_ref: str, amount_minor: int, at: datetime) -> Invoice:
        """Write down a payment; with the last of what is open the invoice becomes paid.

        Repeated with the same reference it changes nothing; with another amount under it, it raises Conflict. A
        payment for an invoice that is paid already is kept too (`open_minor` falls below zero): money that came in
        is never dropped. Raises Conflict for a draft and a void one.
        """
        if not 0 < amount_minor <= MAX_MINOR:
            raise InvalidRequest("a payment is of at least one minor unit", param="amount_minor")
        if not (0 < len(payment_ref) <= _MAX_REF and payment_ref.isascii() and payment_ref.isprintable()):
            raise InvalidRequest("a payment reference is 1 to 200 printable ASCII characters", param="payment_ref")
        async with self._engine.begin() as conn:
            before = await sql.locked_invoice(conn, invoice_id)
            known = await sql.payment_in(conn, invoice_id, payment_ref)
            if known is not None:
                if known.amount_minor != amount_minor:
                    raise Conflict(f"the payment {payment_ref} is known with another amount")
                return before
            if before.status in (InvoiceStatus.DRAFT, InvoiceStatus.VOID):
                raise Conflict(f"an invoice that is {before.status} cannot be paid")
            now = self._clock.now()
            await sql.add_payment(conn, Payment(before.id, payment_ref, amount_minor, at, now))
            after = await sql.change_invoice(conn, before, paid_minor=before.paid_minor + amount_minor)
            await post_receipt(conn, after, payment_ref, amount_minor, at)
            details = {"payment_ref": payment_ref, "amount_minor": amount_minor, "at": at}
            await self._write_down(conn, "invoice.payment", after, details)
            return await settle_in(conn, after, at, now)

    async def withdrawn_in(
        self, conn: AsyncConnection, invoice_id: str, ref: str, *, lost_minor: int, held_minor: int, at: datetime
    ) -> Invoice:
        """In the transaction of a chargeback that has changed: what was lost to it (below zero: came back) is owed
        again, and while a bank holds `held_minor` the invoice is disputed."""
        now = self._clock.now()
        invoice = await sql.locked_invoice(conn, invoice_id)
        if lost_minor:
            await sql.add_payment(conn, Payment(invoice.id, ref, -lost_minor, at, now))
            invoice = await sql.change_invoice(conn, invoice, paid_minor=invoice.paid_minor - lost_minor)
            lost, whose = (
                book.of_lost_invoice(lost_minor, invoice.currency),
                {"org_id": invoice.org_id, "currency": invoice.currency},
            )
            await post(conn, f"lost:{ref}", "chargeback", lost, **whose, at=at)
        status = states.after_chargeback(invoice, held_minor)
        details = {"ref": ref, "lost_minor": lost_minor, "held_minor": held_minor, "status": status.value}
        await self._write_down(conn, "invoice.chargeback", invoice, details)
        if status is invoice.status:
            return await settle_in(conn, invoice, at, now)
        states.check_move(invoice.status, status)
        if status is InvoiceStatus.ISSUED:
            again: dict[str, Any] = {"reopened_at": now, "paid_at": None, "overdue_at": None}
            invoice = await sql.change_invoice(conn, invoice, status=status.value, **again)
            payload = told_of(invoice)
            await tell(conn, "invoice.reopened", invoice.id, org_id=invoice.org_id, payload=payload, at=now, step=ref)
            return invoice
        return await sql.change_invoice(conn, invoice, status=status.value, paid_at=invoice.paid_at or at)

    async def _write_down(self, conn: AsyncConnection, action: str, invoice: Invoice, details: dict[str, Any]) -> None:
        await self._trail.append(conn, action, invoice.id, org_id=invoice.org_id, before=None, after=details)


async def post_receipt(
    conn: AsyncConnection, invoice: Invoice, payment_ref: str, amount_minor: int, at: datetime
) -> None:
    """Money for an invoice came in; below zero: went back."""
    postings = book.of_receipt(amount_minor, invoice.currency)
    ref, kind = f"receipt:{invoice.id}:{payment_ref}", "receipt" if amount_minor > 0 else "refund"
    await post(conn, ref, kind, postings, org_id=invoice.org_id, currency=invoice.currency, at=at)


async def settle_in(
    conn: AsyncConnection, invoice: Invoice, at: datetime, now: datetime, *, quietly: bool = False
) -> Invoice:
    """Make it paid where nothing of it is left to pay."""
    if not states.settled(invoice):
        return invoice
    paid = await sql.change_invoice(conn, invoice, status=InvoiceStatus.PAID.value, paid_at=at)
    if not quietly:
        step = "" if paid.reopened_at is None else paid.reopened_at.isoformat()
        await tell(conn, "invoice.paid", paid.id, org_id=paid.org_id, payload=told_of(paid), at=now, step=step)
    return paid


def told_of(invoice: Invoice) -> dict[str, Any]:
    """What a message about an invoice needs to say."""
    return {
        "number": invoice.number,
        "currency": invoice.currency,
        "total_minor": invoice.total_minor,
        "open_minor": invoice.open_minor,
        "issued_at": _iso(invoice.issued_at),
        "due_at": _iso(invoice.due_at),
        "auto_charge": invoice.auto_charge,
    }


def _iso(instant: datetime | None) -> str | None:
    return None if instant is None else instant.isoformat()
