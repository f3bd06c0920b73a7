"""Invoices in the database: reading them, and the steps of a transaction that changes one.

Invariant: whoever changes an invoice holds its row (or the org's lock, where there is no row yet) to the end of the
transaction.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import RowMapping, Select, delete, func, insert, select, text, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from crosslogic.billing.invoices.model import (
    OPEN,
    CreditNote,
    Invoice,
    InvoiceKind,
    InvoiceStatus,
    Line,
    LineKind,
    Payment,
)
from crosslogic.kernel.ids import CreditNoteId, InvoiceId, OrgId
from crosslogic.store.engine import reading
from crosslogic.store.tables import credit_notes, invoice_lines, invoice_numbers, invoice_payments, invoices
from crosslogic.tenancy.writing import check_ref, locked, not_found

WORD = "invoice"
_CLOSING = "SELECT pg_advisory_xact_lock(hashtextextended('crosslogic billing ' || CAST(:org_id AS text), 0))"


async def lock_org(conn: AsyncConnection, org_id: str) -> None:
    """One close of an org at a time; SQLite has one writer anyway."""
    if conn.dialect.name == "postgresql":
        await conn.execute(text(_CLOSING), {"org_id": org_id})


def to_invoice(row: RowMapping) -> Invoice:
    fields = dict(row)
    return Invoice(
        **{
            **fields,
            "id": InvoiceId(fields["id"]),
            "org_id": OrgId(fields["org_id"]),
            "root_id": InvoiceId(fields["root_id"]),
            "kind": InvoiceKind(fields["kind"]),
            "status": InvoiceStatus(fields["status"]),
        }
    )


def invoice_columns(invoice: Invoice) -> dict[str, Any]:
    columns: dict[str, Any] = msgspec.structs.asdict(invoice)
    return {**columns, "kind": invoice.kind.value, "status": invoice.status.value}


def to_credit_note(row: RowMapping) -> CreditNote:
    fields = dict(row)
    return CreditNote(
        **{
            **fields,
            "id": CreditNoteId(fields["id"]),
            "org_id": OrgId(fields["org_id"]),
            "invoice_id": InvoiceId(fields["invoice_id"]),
        }
    )


async def locked_invoice(conn: AsyncConnection, invoice_id: str, org_id: str | None = None) -> Invoice:
    """Raises NotFound, also for an invoice of another org."""
    check_ref(invoice_id, WORD)
    found = to_invoice(await locked(conn, invoices, invoice_id, WORD))
    if org_id is not None and found.org_id != org_id:
        raise not_found(WORD)
    return found


async def add_invoice(conn: AsyncConnection, invoice: Invoice, lines: Sequence[Line]) -> None:
    await conn.execute(insert(invoices).values(invoice_columns(invoice)))
    await write_lines(conn, invoice.id, lines)


async def write_lines(conn: AsyncConnection, invoice_id: str, lines: Sequence[Line]) -> None:
    rows = [
        {
            "invoice_id": invoice_id,
            "n": n,
            "kind": line.kind.value,
            "description": line.description,
            "model": line.model,
            "region": line.region,
            "quantity": line.quantity,
            "details": line.details,
            "exact_amount": line.exact_amount,
            "amount_minor": line.amount_minor,
        }
        for n, line in enumerate(lines, 1)
    ]
    if rows:
        await conn.execute(insert(invoice_lines), rows)


async def change_invoice(conn: AsyncConnection, before: Invoice, **values: Any) -> Invoice:
    await conn.execute(update(invoices).where(invoices.c.id == before.id).values(values))
    changed = {**values, "status": InvoiceStatus(values.get("status", before.status))}
    return msgspec.structs.replace(before, **changed)


async def closed_until(conn: AsyncConnection, org_id: str) -> datetime | None:
    """Where the last period that was closed ended."""
    end: datetime | None = await conn.scalar(select(func.max(invoices.c.period_end)).where(invoices.c.org_id == org_id))
    return end


async def last_revision(conn: AsyncConnection, root_id: str) -> Invoice:
    query = select(invoices).where(invoices.c.root_id == root_id).order_by(invoices.c.revision.desc()).limit(1)
    return to_invoice((await conn.execute(query)).mappings().one())


async def next_serial(conn: AsyncConnection, series: str, fiscal_year: str) -> int:
    """Take the next number; who comes later waits until this transaction has ended, whichever way."""
    into: Any = postgresql.insert if conn.dialect.name == "postgresql" else sqlite.insert
    first = into(invoice_numbers).values(series=series, fiscal_year=fiscal_year, last=1)
    taken = first.on_conflict_do_update(
        index_elements=["series", "fiscal_year"], set_={"last": invoice_numbers.c.last + 1}
    ).returning(invoice_numbers.c.last)
    return int((await conn.execute(taken)).scalar_one())


async def replace_lines(conn: AsyncConnection, invoice_id: str, lines: Sequence[Line]) -> None:
    """Of a draft; the triggers refuse it for any other."""
    await conn.execute(delete(invoice_lines).where(invoice_lines.c.invoice_id == invoice_id))
    await write_lines(conn, invoice_id, lines)


async def credit_note_under(conn: AsyncConnection, invoice_id: str, ref: str) -> CreditNote | None:
    query = select(credit_notes).where(credit_notes.c.invoice_id == invoice_id, credit_notes.c.ref == ref)
    row = (await conn.execute(query)).mappings().first()
    return None if row is None else to_credit_note(row)


async def add_credit_note(conn: AsyncConnection, note: CreditNote) -> None:
    await conn.execute(insert(credit_notes).values(msgspec.structs.asdict(note)))


async def payment_in(conn: AsyncConnection, invoice_id: str, payment_ref: str) -> Payment | None:
    t = invoice_payments.c
    query = select(invoice_payments).where(t.invoice_id == invoice_id, t.payment_ref == payment_ref)
    row = (await conn.execute(query)).mappings().first()
    return None if row is None else Payment(**dict(row))


async def add_payment(conn: AsyncConnection, payment: Payment) -> None:
    await conn.execute(insert(invoice_payments).values(msgspec.structs.asdict(payment)))


class InvoicesSql:
    """What only reads. Raises NotFound, also for an invoice of another org, and DATABASE_ERRORS."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine

    async def invoice(self, invoice_id: str, org_id: str | None = None) -> Invoice:
        """By id or by number."""
        check_ref(invoice_id, WORD)
        here = invoices.c.id if invoice_id.startswith("inv_") else invoices.c.number
        query = select(invoices).where(here == invoice_id)
        if org_id is not None:
            query = query.where(invoices.c.org_id == org_id)
        found = await self._rows(query)
        if not found:
            raise not_found(WORD)
        return to_invoice(found[0])

    async def lines(self, invoice_id: str) -> list[Line]:
        t = invoice_lines.c
        query = select(
            t.kind, t.description, t.exact_amount, t.amount_minor, t.model, t.region, t.quantity, t.details
        ).where(t.invoice_id == invoice_id)
        rows = await self._rows(query.order_by(t.n))
        return [Line(**{**row, "kind": LineKind(row["kind"])}) for row in rows]

    async def open(self, org_id: str | None = None, due_by: datetime | None = None) -> list[Invoice]:
        """Issued and not settled, oldest first; of an org, or of all."""
        query = select(invoices).where(invoices.c.status.in_([status.value for status in OPEN]))
        if org_id is not None:
            query = query.where(invoices.c.org_id == org_id)
        if due_by is not None:
            query = query.where(invoices.c.due_at <= due_by)
        return [to_invoice(row) for row in await self._rows(query.order_by(invoices.c.issued_at, invoices.c.id))]

    async def page(
        self,
        only: Mapping[str, Any],
        *,
        issued: bool,
        start: datetime | None,
        end: datetime | None,
        after: str | None,
        limit: int,
    ) -> list[Invoice]:
        """The newest first; `after` is the last id of the page before. `start` and `end` bound the period's end."""
        query = select(invoices).order_by(invoices.c.id.desc()).limit(limit)
        for name, value in only.items():
            if value is not None:
                query = query.where(invoices.c[name] == value)
        if issued:
            query = query.where(invoices.c.number.is_not(None))
        if start is not None:
            query = query.where(invoices.c.period_end >= start)
        if end is not None:
            query = query.where(invoices.c.period_end < end)
        if after is not None:
            query = query.where(invoices.c.id < after)
        return [to_invoice(row) for row in await self._rows(query)]

    async def payments(self, invoice_id: str) -> list[Payment]:
        t = invoice_payments.c
        query = select(invoice_payments).where(t.invoice_id == invoice_id).order_by(t.at, t.payment_ref)
        return [Payment(**dict(row)) for row in await self._rows(query)]

    async def credit_notes(self, invoice_id: str) -> list[CreditNote]:
        query = select(credit_notes).where(credit_notes.c.invoice_id == invoice_id).order_by(credit_notes.c.id)
        return [to_credit_note(row) for row in await self._rows(query)]

    async def _rows(self, query: Select[Any]) -> Sequence[RowMapping]:
        async with reading(self.engine) as conn:
            found: Sequence[RowMapping] = (await conn.execute(query)).mappings().all()
            return found
