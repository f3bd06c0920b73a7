"""All that there is about one request, to settle a dispute with: its rows in the ledger, the proof that nobody changed
them, what they were charged and why, where they were invoiced and how they were exported. JSON for people and programs.
"""

from typing import Any

import msgspec
from sqlalchemy import and_, select
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.kernel.errors import NotFound
from crosslogic.metering.ledger_reader import LedgerReader
from crosslogic.metering.ledger_row import canonical
from crosslogic.store.engine import reading
from crosslogic.store.tables import charges, credit_draws, export_windows, invoices, usage_records

FOLLOWING = 50  # rows behind the request's, by which its place in the chain is seen


async def dispute_pack(engine: AsyncEngine, request_id: str, org_id: str | None = None) -> dict[str, Any]:
    """Raises NotFound, also for a request of another org. Of one whose rows were dropped, what money knows is left."""
    async with reading(engine) as conn:
        owner = await conn.scalar(select(usage_records.c.org_id).where(usage_records.c.request_id == request_id))
        if owner is None:
            owner = await conn.scalar(select(charges.c.org_id).where(charges.c.request_id == request_id))
    if owner is None or org_id not in (None, owner):
        raise NotFound("there is no such request")
    ledger = LedgerReader(engine)
    rows = await ledger.rows_of_request(owner, request_id)
    if not rows:
        return {"request_id": request_id, "org_id": owner, "ledger": [], "proof": await _dropped(ledger, owner)} | (
            await _money(engine, owner, request_id)
        )
    first = rows[0]
    start = await ledger.start(owner)
    before = await ledger.rows_after(owner, first.seq - 2, limit=1) if first.seq > start.seq + 1 else []
    behind = await ledger.rows_after(owner, first.seq - 1, limit=FOLLOWING)
    verdict = await ledger.verify(owner)
    return {
        "request_id": request_id,
        "org_id": owner,
        "ledger": [{"canonical": canonical(row).decode(), "hash": row.hash.hex()} for row in rows],
        "proof": {
            "how": "SHA-256 over 'crosslogic usage 1', a line break, the hash before in hexadecimal, a line break, "
            "and the canonical row",
            "hash_before": before[0].hash.hex() if before else start.hash.hex(),
            "chain": [{"seq": row.seq, "canonical": canonical(row).decode(), "hash": row.hash.hex()} for row in behind],
            "head": {"seq": verdict.rows, "hash": verdict.head},
            "intact": verdict.intact,
            "problem": verdict.problem,
        },
        **await _money(engine, owner, request_id),
    }


async def _dropped(ledger: LedgerReader, org_id: str) -> dict[str, Any]:
    start, verdict = await ledger.start(org_id), await ledger.verify(org_id)
    return {
        "dropped": {"before": start.cutoff.isoformat(), "up_to": start.seq, "hash": start.hash.hex()},
        "head": {"seq": verdict.rows, "hash": verdict.head},
        "intact": verdict.intact,
        "problem": verdict.problem,
    }


async def _money(engine: AsyncEngine, org_id: str, request_id: str) -> dict[str, Any]:
    c, w = charges.c, export_windows.c
    async with reading(engine) as conn:
        charged = (
            (await conn.execute(select(charges).where(c.org_id == org_id, c.request_id == request_id).order_by(c.n)))
            .mappings()
            .all()
        )
        seqs = [row["seq"] for row in charged]
        draws = (
            await conn.execute(
                select(credit_draws).where(credit_draws.c.org_id == org_id, credit_draws.c.seq.in_(seqs))
            )
        ).mappings()
        roots = [row["invoice_id"] for row in charged if row["invoice_id"]]
        billed = (
            await conn.execute(
                select(invoices.c.id, invoices.c.number, invoices.c.status, invoices.c.digest).where(
                    invoices.c.root_id.in_(roots)
                )
            )
        ).mappings()
        exported = []
        for seq in seqs:
            holds = and_(w.org_id == org_id, w.from_seq < seq, w.through_seq >= seq)
            found = await conn.execute(select(w.id, w.status, w.quantity).where(holds).order_by(w.id))
            exported += [dict(row) for row in found.mappings()]
        return {
            "charges": [_charge(dict(row)) for row in charged],
            "credits": [{**row, "amount": str(row["amount"]), "at": row["at"].isoformat()} for row in draws],
            "invoices": [dict(row) for row in billed],
            "exports": exported,
        }


def _charge(row: dict[str, Any]) -> dict[str, Any]:
    """Money as text: it has more digits than JSON numbers are safe with."""
    money = {name: str(row[name]) for name in ("list_amount", "discount_amount", "amount")}
    return {**row, **money, "at": row["at"].isoformat(), "terms": msgspec.json.decode(row["terms"])}
