"""Giving drafts their number, taking invoices back, and crediting them.

Invariants: the number is taken in the transaction that issues, so numbers have no hole; what is issued is written once,
from the charges that name the invoice and the profile of that moment; a void invoice's charges stay its own until a
reissue bills them again, so nothing is billed twice or lost; a credit note never exceeds its invoice.
"""

import json
from datetime import datetime, timedelta
from typing import Any, Protocol

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from crosslogic.billing.invoices import crediting, numbering, periods, sources, sql, states
from crosslogic.billing.invoices.document import Setting, digest_of, written, written_credit_note
from crosslogic.billing.invoices.draft import Draft, drafted
from crosslogic.billing.invoices.model import CreditNote, Invoice, InvoiceStatus, InvoicingTerms, Payment
from crosslogic.billing.invoices.notices import tell
from crosslogic.billing.invoices.service import post_receipt, settle_in, told_of
from crosslogic.billing.postings import book
from crosslogic.billing.postings.sql import post
from crosslogic.billing.profiles.model import BillingProfile, BillingTerms, terms_of
from crosslogic.billing.profiles.rules import text
from crosslogic.billing.profiles.service import profile_in
from crosslogic.kernel.clock import Clock
from crosslogic.kernel.crash_points import reach
from crosslogic.kernel.errors import Conflict, InvalidRequest
from crosslogic.kernel.ids import OrgId, new_credit_note_id, new_invoice_id
from crosslogic.store.tables import orgs
from crosslogic.tenancy import rules as tenancy_rules
from crosslogic.tenancy.audit import SYSTEM, Actor
from crosslogic.tenancy.audit_sql import AuditTrail
from crosslogic.tenancy.keys import KeyHasher


class PaymentMethods(Protocol):
    """Who knows how an org pays."""

    async def described(self, org_id: OrgId) -> str | None:
        """The default method as people know it, "Visa ending in 4242"; None where there is none."""
        ...


class NoMethods:
    """Of a site without a payment provider."""

    async def described(self, org_id: OrgId) -> str | None:
        return None


class Issuer:
    """Raises InvalidRequest, NotFound and Conflict."""

    def __init__(
        self,
        engine: AsyncEngine,
        hash_key: KeyHasher,
        clock: Clock,
        terms: InvoicingTerms | None = None,
        methods: PaymentMethods | None = None,
        actor: Actor = SYSTEM,
    ) -> None:
        self.terms = terms or InvoicingTerms()
        self._engine = engine
        self._hash_key = hash_key
        self._clock = clock
        self._methods = methods or NoMethods()
        self._trail = AuditTrail(actor, hash_key, clock)

    def acting_as(self, actor: Actor) -> "Issuer":
        return Issuer(self._engine, self._hash_key, self._clock, self.terms, self._methods, actor)

    async def issue(self, invoice_id: str) -> Invoice:
        """Give it a number, a due date and its document, for good. One that is issued already stays as it is."""
        method = await self._method_of(invoice_id)
        async with self._engine.begin() as conn:
            draft = await sql.locked_invoice(conn, invoice_id)
            if draft.status is not InvoiceStatus.DRAFT:
                if draft.status is InvoiceStatus.VOID:
                    raise Conflict("an invoice that is void cannot be issued; reissue it")
                return draft
            issued = await self._issue_in(conn, draft, method)
        reach("invoice.issued")
        return issued

    async def void(self, invoice_id: str, reason: str) -> Invoice:
        """Take it back, whole; nothing may be paid or credited of it. Harmless to repeat."""
        async with self._engine.begin() as conn:
            before = await sql.locked_invoice(conn, invoice_id)
            if before.status is InvoiceStatus.VOID:
                return before
            return await self._void_in(conn, before, text(reason, "reason"))

    async def reissue(self, invoice_id: str, reason: str = "") -> Invoice:
        """Bill the charges of an invoice anew, by the profile of now; it is voided first where it is not void yet.

        Repeated, it gives the invoice that the first call made.
        """
        method = await self._method_of(invoice_id)
        async with self._engine.begin() as conn:
            before = await sql.locked_invoice(conn, invoice_id)
            last = await sql.last_revision(conn, before.root_id)
            if last.id != before.id and before.status is InvoiceStatus.VOID:
                return last
            if before.status is not InvoiceStatus.VOID:
                before = await self._void_in(conn, before, text(reason or "reissued", "reason"))
            anew = msgspec.structs.replace(
                before,
                id=new_invoice_id(),
                revision=before.revision + 1,
                status=InvoiceStatus.DRAFT,
                created_at=self._clock.now(),
                **dict.fromkeys(("series", "fiscal_year", "serial", "number", "issued_at", "due_at"), None),
                **dict.fromkeys(("document", "digest", "overdue_at", "voided_at", "void_reason", "paid_at"), None),
                reopened_at=None,
                paid_minor=0,
            )
            await sql.add_invoice(conn, anew, ())
            return await self._issue_in(conn, anew, method, replaces=before.number)

    async def credit_note(
        self, invoice_id: str, *, ref: str, reason: str, amount_minor: int | None = None
    ) -> CreditNote:
        """Take back so much of an invoice, tax included; all that is left of it where no amount is given.

        Repeated under the same `ref` it makes no second one; with another amount it raises Conflict.
        """
        reference = tenancy_rules.reference(ref)
        if reference is None:
            raise InvalidRequest("give a ref, so that a repeat makes no second credit note", param="ref")
        why, now = text(reason, "reason"), self._clock.now()
        async with self._engine.begin() as conn:
            invoice = await sql.locked_invoice(conn, invoice_id)
            known = await sql.credit_note_under(conn, invoice.id, reference)
            if known is not None:
                if amount_minor not in (None, known.total_minor):
                    raise Conflict("another credit note was made under this ref; use a new one")
                return known
            amount = crediting.check_credit(invoice, amount_minor)
            note, credited = await self._credit_in(conn, invoice, amount, reference, why)
            await settle_in(conn, credited, now, now)
            return note

    async def refunded(self, invoice_id: str, ref: str, amount_minor: int, at: datetime, reason: str) -> Invoice:
        """Money that was paid for an invoice went back: write it down, with a credit note of as much as was not paid
        or credited too much before. Repeated under the same `ref` it changes nothing."""
        now = self._clock.now()
        async with self._engine.begin() as conn:
            invoice = await sql.locked_invoice(conn, invoice_id)
            if await sql.payment_in(conn, invoice.id, ref) is not None:
                return invoice
            credit = crediting.credit_of_refund(invoice, amount_minor)
            await sql.add_payment(conn, Payment(invoice.id, ref, -amount_minor, at, now))
            paid = await sql.change_invoice(conn, invoice, paid_minor=invoice.paid_minor - amount_minor)
            await post_receipt(conn, paid, ref, -amount_minor, at)
            details = {"payment_ref": ref, "amount_minor": -amount_minor, "at": at}
            await self._write_down(conn, "invoice.refund", paid, details)
            if credit:
                _, paid = await self._credit_in(conn, paid, credit, ref, reason)
            reach("refund.credited")
            return await settle_in(conn, paid, at, now)

    async def refund_returned(self, invoice_id: str, ref: str, amount_minor: int, at: datetime) -> Invoice:
        """A refund that had gone out came back: the org has so much more to its credit. Harmless to repeat."""
        now, again = self._clock.now(), f"{ref}:returned"
        async with self._engine.begin() as conn:
            invoice = await sql.locked_invoice(conn, invoice_id)
            if await sql.payment_in(conn, invoice.id, ref) is None:
                return invoice
            if await sql.payment_in(conn, invoice.id, again) is not None:
                return invoice
            await sql.add_payment(conn, Payment(invoice.id, again, amount_minor, at, now))
            paid = await sql.change_invoice(conn, invoice, paid_minor=invoice.paid_minor + amount_minor)
            await post_receipt(conn, paid, again, amount_minor, at)
            details = {"payment_ref": again, "amount_minor": amount_minor, "at": at}
            await self._write_down(conn, "invoice.refund_returned", paid, details)
            return await settle_in(conn, paid, at, now)

    async def _credit_in(
        self, conn: AsyncConnection, invoice: Invoice, amount_minor: int, ref: str, reason: str
    ) -> tuple[CreditNote, Invoice]:
        now = self._clock.now()
        assert invoice.document is not None
        document = json.loads(invoice.document)
        net, taxes = crediting.credited_parts(invoice, document["tax"]["parts"], amount_minor)
        series = self.terms.credit_note_series
        year, serial, number = await self._number(conn, series, now)
        note_id = new_credit_note_id()
        content = written_credit_note(
            document,
            number=number,
            note_id=note_id,
            issued_at=now,
            time_zone=self.terms.time_zone,
            reason=reason,
            net_minor=net,
            taxes=taxes,
        )
        note = CreditNote(
            id=note_id,
            org_id=invoice.org_id,
            invoice_id=invoice.id,
            series=series,
            fiscal_year=year,
            serial=serial,
            number=number,
            currency=invoice.currency,
            net_minor=net,
            tax_minor=amount_minor - net,
            total_minor=amount_minor,
            reason=reason,
            ref=ref,
            issued_at=now,
            document=content,
            digest=digest_of(content),
        )
        await sql.add_credit_note(conn, note)
        await self._post(conn, "credit_note", note.id, book.of_credit_note(note), invoice)
        credited = await sql.change_invoice(conn, invoice, credited_minor=invoice.credited_minor + amount_minor)
        payload = {**told_of(credited), "credit_note": number, "credited_minor": amount_minor, "reason": reason}
        await tell(conn, "credit_note.issued", note.id, org_id=note.org_id, payload=payload, at=now)
        await self._write_down(conn, "credit_note.create", credited, {"number": number, "total_minor": amount_minor})
        return note, credited

    async def draft_of(self, conn: AsyncConnection, invoice: Invoice, profile: BillingProfile, on: datetime) -> Draft:
        """The lines and sums of what was claimed for an invoice."""
        bill = await sources.bill_of(conn, invoice.org_id, invoice.root_id, invoice.currency)
        day = periods.local_day(on, self.terms.time_zone)
        return drafted(bill, self.terms.seller, profile, day, self.terms.tax_rules)

    def own_terms(self, profile: BillingProfile) -> BillingTerms:
        return terms_of(profile, self.terms.configured)

    async def _method_of(self, invoice_id: str) -> str | None:
        """Asked before the transaction: whoever knows may have to ask somebody else."""
        invoice = await sql.InvoicesSql(self._engine).invoice(invoice_id)
        return await self._methods.described(invoice.org_id)

    async def _issue_in(
        self, conn: AsyncConnection, draft: Invoice, method: str | None, replaces: str | None = None
    ) -> Invoice:
        now = self._clock.now()
        profile = await profile_in(conn, draft.org_id)
        own = self.own_terms(profile)
        content = await self.draft_of(conn, draft, profile, now)
        await sql.replace_lines(conn, draft.id, content.lines)
        year, serial, number = await self._number(conn, self.terms.series, now)
        reach("invoice.numbered")
        due_day = periods.local_day(now, own.time_zone) + timedelta(days=own.payment_terms_days)
        issued = msgspec.structs.replace(
            draft,
            **content.columns(),
            status=InvoiceStatus.ISSUED,
            series=self.terms.series,
            fiscal_year=year,
            serial=serial,
            number=number,
            issued_at=now,
            due_at=periods.end_of_day(due_day, own.time_zone),
            grace_days=own.grace_days,
            auto_charge=own.auto_charge,
        )
        hours = await sources.hours_of(conn, draft.org_id, draft.root_id, draft.period_start, draft.period_end)
        setting = Setting(
            seller=self.terms.seller,
            buyer=profile,
            org_name=await _name_of(conn, draft.org_id),
            terms=own,
            hours=hours,
            next_invoice_at=periods.period_of(draft.period_end, own).end,
            payment_method=method,
            replaces_number=replaces,
        )
        document = written(issued, content, setting)
        issued = msgspec.structs.replace(issued, document=document, digest=digest_of(document))
        await sql.change_invoice(conn, draft, **sql.invoice_columns(issued))
        await self._post(conn, "invoice", issued.id, book.of_invoice(issued), issued)
        if issued.total_minor:
            await tell(conn, "invoice.issued", issued.id, org_id=issued.org_id, payload=told_of(issued), at=now)
        await self._write_down(conn, "invoice.issue", issued, {"number": number, "digest": issued.digest})
        return await settle_in(conn, issued, now, now, quietly=not issued.total_minor)

    async def _void_in(self, conn: AsyncConnection, before: Invoice, reason: str) -> Invoice:
        states.check_void(before)
        now = self._clock.now()
        after = await sql.change_invoice(
            conn, before, status=InvoiceStatus.VOID.value, voided_at=now, void_reason=reason
        )
        if before.status is not InvoiceStatus.DRAFT:
            payload = {**told_of(after), "reason": reason}
            await self._post(conn, "void", after.id, book.of_void(after), after)
            await tell(conn, "invoice.void", after.id, org_id=after.org_id, payload=payload, at=now)
        await self._write_down(conn, "invoice.void", after, {"reason": reason, "number": after.number})
        return after

    async def _post(
        self, conn: AsyncConnection, kind: str, entity_id: str, postings: book.Postings, invoice: Invoice
    ) -> None:
        whose = {"org_id": invoice.org_id, "currency": invoice.currency}
        await post(conn, f"{kind}:{entity_id}", kind, postings, **whose, at=self._clock.now())

    async def _number(self, conn: AsyncConnection, series: str, now: datetime) -> tuple[str, int, str]:
        year = numbering.fiscal_year(now, self.terms.time_zone, self.terms.fiscal_year_first_month)
        serial = await sql.next_serial(conn, series, year)
        return year, serial, numbering.number_of(series, year, serial)

    async def _write_down(self, conn: AsyncConnection, action: str, invoice: Invoice, details: dict[str, Any]) -> None:
        await self._trail.append(conn, action, invoice.id, org_id=invoice.org_id, before=None, after=details)


async def _name_of(conn: AsyncConnection, org_id: str) -> str:
    name = await conn.scalar(select(orgs.c.name).where(orgs.c.id == org_id))
    return org_id if name is None else str(name)
