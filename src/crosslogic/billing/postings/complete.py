"""Posts what happened before there were postings: from invoices, payments, credit notes and bought credits as they are.

Invariant: what is posted already stays as it is, so that it may run at any time and again.
"""

from typing import Any

from sqlalchemy import ColumnElement, Select, Table, exists, literal, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from crosslogic.billing.charges.sql import hold_org
from crosslogic.billing.credits.model import CreditClass
from crosslogic.billing.credits.returns import ANEW
from crosslogic.billing.invoices import sql as invoices_sql
from crosslogic.billing.invoices.model import InvoiceStatus
from crosslogic.billing.postings import book
from crosslogic.billing.postings.sql import post
from crosslogic.store.tables import (
    chargebacks,
    credit_draws,
    credit_grants,
    credit_notes,
    invoice_payments,
    invoices,
    posting_transactions,
)
from crosslogic.store.types import exact_sum


async def complete(engine: AsyncEngine, org_id: str) -> int:
    """How many transactions were missing."""
    posted = 0
    async with engine.begin() as conn:
        await hold_org(conn, org_id)
        await invoices_sql.lock_org(conn, org_id)
        i = invoices.c
        for row in await _rows(conn, _without("invoice:", invoices, i.id, i.org_id == org_id, i.status != "draft")):
            invoice = invoices_sql.to_invoice(row)
            whose: dict[str, Any] = {"org_id": org_id, "currency": invoice.currency}
            at = invoice.issued_at or invoice.created_at
            if invoice.number is None:
                continue  # it was void before it was issued
            posted += await post(conn, f"invoice:{invoice.id}", "invoice", book.of_invoice(invoice), **whose, at=at)
            if invoice.status is InvoiceStatus.VOID:
                at = invoice.voided_at or at
                posted += await post(conn, f"void:{invoice.id}", "void", book.of_void(invoice), **whose, at=at)
        posted += await _receipts(conn, org_id)
        for row in await _rows(
            conn, _without("credit_note:", credit_notes, credit_notes.c.id, credit_notes.c.org_id == org_id)
        ):
            note = invoices_sql.to_credit_note(row)
            whose = {"org_id": org_id, "currency": note.currency, "at": note.issued_at}
            posted += await post(conn, f"credit_note:{note.id}", "credit_note", book.of_credit_note(note), **whose)
        posted += await _bought(conn, org_id)
    return posted


async def _receipts(conn: AsyncConnection, org_id: str) -> int:
    posted, p = 0, invoice_payments.c
    ours = select(invoices.c.id, invoices.c.currency).where(invoices.c.org_id == org_id)
    currencies = {row.id: row.currency for row in await conn.execute(ours)}
    lost = set((await conn.execute(select(chargebacks.c.id).where(chargebacks.c.org_id == org_id))).scalars())
    named = literal("") + p.invoice_id + ":" + p.payment_ref
    for row in await _rows(conn, _without("receipt:", invoice_payments, named, p.invoice_id.in_(list(currencies)))):
        if row["payment_ref"].partition(":")[0] in lost:
            continue  # posted as what was lost
        currency, amount = currencies[row["invoice_id"]], row["amount_minor"]
        ref, kind = f"receipt:{row['invoice_id']}:{row['payment_ref']}", "receipt" if amount > 0 else "refund"
        receipt = book.of_receipt(amount, currency)
        posted += await post(conn, ref, kind, receipt, org_id=org_id, currency=currency, at=row["at"])
    return posted


async def _bought(conn: AsyncConnection, org_id: str) -> int:
    posted, g = 0, credit_grants.c
    paid = g.credit_class == CreditClass.PAID.value
    for row in await _rows(conn, _without("bought:", credit_grants, g.id, g.org_id == org_id, paid)):
        if str(row["source_ref"] or "").startswith(ANEW):
            continue
        whose: dict[str, Any] = {"org_id": org_id, "currency": row["currency"]}
        ref, amount = row["id"], row["amount"]
        posted += await post(conn, f"bought:{ref}", "bought", book.of_bought(amount), **whose, at=row["created_at"])
        if row["voided_at"] is not None:
            drawn = select(exact_sum(credit_draws.c.amount)).where(credit_draws.c.grant_id == ref)
            left = amount - int(await conn.scalar(drawn) or 0)
            posted += await post(conn, f"voided:{ref}", "voided", book.of_voided(left), **whose, at=row["voided_at"])
    return posted


def _without(prefix: str, table: Table, entity: Any, *here: ColumnElement[bool]) -> Select[Any]:
    """The rows of which nothing is posted."""
    known = exists().where(posting_transactions.c.ref == literal(prefix) + entity)
    return select(table).where(*here, ~known)


async def _rows(conn: AsyncConnection, query: Select[Any]) -> Any:
    return (await conn.execute(query)).mappings().all()
