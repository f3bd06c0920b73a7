"""All that there is about what a disputed payment has paid for, to answer its bank with: the payment and how it was
made, the invoice as it was issued, its usage, and where the proof of each request is to be had."""

from typing import Any

import msgspec
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from crosslogic.billing.chargebacks.model import Chargeback
from crosslogic.store.engine import reading
from crosslogic.store.tables import (
    charges,
    credit_draws,
    credit_grants,
    credit_notes,
    invoices,
    payment_methods,
    payments,
    refunds,
)

MOST_REQUESTS = 200  # that are named one by one: the largest


async def chargeback_pack(engine: AsyncEngine, chargeback: Chargeback) -> dict[str, Any]:
    """JSON for people and programs; amounts of requests are exact, in 1e-12 of the currency, as text."""
    async with reading(engine) as conn:
        payment = (await conn.execute(select(payments).where(payments.c.id == chargeback.payment_id))).mappings().one()
        method = select(payment_methods).where(payment_methods.c.id == payment["method_id"])
        paid_with = (await conn.execute(method)).mappings().one()
        given_back = select(refunds).where(refunds.c.payment_id == payment["id"]).order_by(refunds.c.id)
        return {
            "chargeback": msgspec.to_builtins(chargeback),
            "payment": {
                "id": payment["id"],
                "purpose": payment["purpose"],
                "amount_minor": payment["captured_minor"],
                "currency": payment["currency"],
                "made_at": payment["created_at"].isoformat(),
                "customer_present": payment["customer_present"],
                "provider_ref": payment["provider_ref"],
                "charge_ref": payment["charge_ref"],
                "method": {name: paid_with[name] for name in ("kind", "brand", "last4")},
                "method_since": paid_with["created_at"].isoformat(),
                "refunds": [
                    {name: row[name] for name in ("id", "amount_minor", "status", "reason")}
                    for row in (await conn.execute(given_back)).mappings()
                ],
            },
            "invoice": await _invoice(conn, payment["invoice_id"]),
            "usage": await _usage(conn, chargeback.org_id, payment["invoice_id"], payment["id"]),
        }


async def _invoice(conn: AsyncConnection, invoice_id: str | None) -> dict[str, Any] | None:
    if invoice_id is None:
        return None
    row = (await conn.execute(select(invoices).where(invoices.c.id == invoice_id))).mappings().first()
    if row is None:
        return None
    notes = select(credit_notes.c.number, credit_notes.c.total_minor, credit_notes.c.reason)
    found = (await conn.execute(notes.where(credit_notes.c.invoice_id == invoice_id))).mappings()
    return {
        "id": row["id"],
        "number": row["number"],
        "status": row["status"],
        "digest": row["digest"],
        "document": None if row["document"] is None else msgspec.json.decode(row["document"]),
        "pdf": f"/admin/invoices/{row['id']}/pdf",
        "credit_notes": [dict(each) for each in found],
    }


async def _usage(conn: AsyncConnection, org_id: str, invoice_id: str | None, payment_id: str) -> dict[str, Any]:
    """The requests that the invoice bills, or that were paid with the credits that the payment bought."""
    c = charges.c
    if invoice_id is not None:
        root = select(invoices.c.root_id).where(invoices.c.id == invoice_id).scalar_subquery()
        here = (c.org_id == org_id, c.invoice_id == root)
    else:
        bought = select(credit_grants.c.id).where(
            credit_grants.c.org_id == org_id, credit_grants.c.source_ref == payment_id
        )
        drawn = select(credit_draws.c.seq).where(credit_draws.c.org_id == org_id, credit_draws.c.grant_id.in_(bought))
        here = (c.org_id == org_id, c.seq.in_(drawn))
    count, first, last = (await conn.execute(select(func.count(), func.min(c.at), func.max(c.at)).where(*here))).one()
    rows = (
        select(c.request_id, c.at, c.model, c.amount)
        .where(*here)
        .order_by((c.prompt_tokens + c.completion_tokens).desc(), c.seq)
    )
    return {
        "requests": count,
        "first_at": None if first is None else first.isoformat(),
        "last_at": None if last is None else last.isoformat(),
        "largest": [
            {
                "request_id": row.request_id,
                "at": row.at.isoformat(),
                "model": row.model,
                "amount": str(row.amount),
                "pack": f"/admin/disputes/{row.request_id}",
            }
            for row in await conn.execute(rows.limit(MOST_REQUESTS))
        ],
    }
