"""Invoices to put into databases of tests."""

from datetime import UTC, datetime
from typing import Any

import msgspec
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.billing.charges.model import FeeKind
from crosslogic.billing.invoices import sql
from crosslogic.billing.invoices.document import Hours, Setting, digest_of, written, written_credit_note
from crosslogic.billing.invoices.draft import Bill, FeeSum, drafted
from crosslogic.billing.invoices.model import Invoice, InvoiceKind, InvoiceStatus, Line, LineKind
from crosslogic.billing.profiles.model import BillingProfile, BillingTerms, Seller
from crosslogic.kernel.ids import InvoiceId, OrgId
from crosslogic.store.tables import credit_notes

JAN = datetime(2026, 1, 1, tzinfo=UTC)
FEB = datetime(2026, 2, 1, tzinfo=UTC)
LATER = ("status", "paid_minor", "credited_minor", "paid_at", "overdue_at", "voided_at", "void_reason", "reopened_at")
PAISE = 10**10  # 1e-12 of a rupee in a paisa, or of a dollar in a cent


def draft(invoice_id: str = "inv_1", **changed: Any) -> Invoice:
    """Of 10.00, tax 1.80 included in 11.80."""
    fields: dict[str, Any] = {
        "id": InvoiceId(invoice_id),
        "org_id": OrgId("org_1"),
        "kind": InvoiceKind.MONTHLY,
        "period_start": JAN,
        "period_end": FEB,
        "revision": 1,
        "root_id": InvoiceId(invoice_id),
        "status": InvoiceStatus.DRAFT,
        "currency": "INR",
        "subtotal_minor": 1000,
        "discount_minor": 0,
        "credit_minor": 0,
        "tax_minor": 180,
        "total_minor": 1180,
        "prepaid_minor": 0,
        "exact_amount": 1000 * PAISE,
        "rounding_amount": 0,
        "line_count": 2,
        "created_at": FEB,
    }
    return Invoice(**{**fields, **changed})


LINES = (
    Line(LineKind.USAGE, "m in in-mumbai", 1000 * PAISE, 1000, model="m", region="in-mumbai", quantity={"requests": 3}),
    Line(LineKind.TAX, "IGST 18%", 180 * PAISE, 180, details={"rate": "18"}),
)


def issued(invoice_id: str = "inv_1", **changed: Any) -> Invoice:
    fields: dict[str, Any] = {
        "status": InvoiceStatus.ISSUED,
        "series": "INV",
        "fiscal_year": "2026",
        "serial": 1,
        "number": "INV/2026/000001",
        "issued_at": FEB,
        "due_at": datetime(2026, 2, 8, tzinfo=UTC),
        "document": '{"number":"INV/2026/000001"}',
        "digest": "00",
    }
    return msgspec.structs.replace(draft(invoice_id), **{**fields, **changed})


async def put(engine: AsyncEngine, *invoices: Invoice) -> None:
    """Each as a draft with its lines, then as it is."""
    async with engine.begin() as conn:
        for invoice in invoices:
            await sql.add_invoice(
                conn, msgspec.structs.replace(invoice, status=InvoiceStatus.DRAFT, paid_minor=0), LINES
            )
            if invoice.status is not InvoiceStatus.DRAFT:
                columns = sql.invoice_columns(invoice)
                await sql.change_invoice(conn, invoice, **{**columns, "status": "issued"})
                if invoice.status is InvoiceStatus.DISPUTED:
                    await sql.change_invoice(conn, invoice, status="paid")
                if invoice.status is not InvoiceStatus.ISSUED:
                    await sql.change_invoice(conn, invoice, **{name: columns[name] for name in LATER})


def documented(invoice: Invoice) -> Invoice:
    """With the document of an issued invoice over a fee of 10.00."""
    fee = FeeSum("fee_1", FeeKind.PLAN, "pro", "2026-01", "Plan pro", 1000 * PAISE)
    content = drafted(Bill("INR", fees=(fee,)), Seller(), BillingProfile(), FEB.date())
    setting = Setting(Seller(), BillingProfile(), "acme", BillingTerms(), Hours(JAN), FEB)
    document = written(invoice, content, setting)
    return msgspec.structs.replace(invoice, document=document, digest=digest_of(document))


async def put_credit_note(engine: AsyncEngine, invoice: Invoice, note_id: str, serial: int) -> None:
    """Of one rupee."""
    assert invoice.document is not None
    document = written_credit_note(
        msgspec.json.decode(invoice.document),
        number=note_id,
        note_id=note_id,
        issued_at=FEB,
        time_zone="UTC",
        reason="outage",
        net_minor=100,
        taxes=[],
    )
    row = {
        "id": note_id,
        "org_id": invoice.org_id,
        "invoice_id": invoice.id,
        "series": "CN",
        "fiscal_year": "2026",
        "serial": serial,
        "number": note_id,
        "currency": "INR",
        "net_minor": 100,
        "tax_minor": 0,
        "total_minor": 100,
        "reason": "outage",
        "ref": "n1",
        "issued_at": FEB,
        "document": document,
        "digest": digest_of(document),
    }
    async with engine.begin() as conn:
        await conn.execute(insert(credit_notes).values(row))
