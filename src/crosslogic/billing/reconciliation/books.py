"""What stands in our own books, summed up for comparison. Reads only."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import RowMapping, and_, func, or_, select
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.billing.exports.model import Mode
from crosslogic.billing.exports.sql import free_of_charge
from crosslogic.billing.invoices.model import LineKind
from crosslogic.billing.payments.model import Payment, Purpose, Refund, Status
from crosslogic.billing.payments.rows import to_payment, to_refund
from crosslogic.metering.rollup import bucket
from crosslogic.store.engine import reading
from crosslogic.store.tables import (
    charge_cursors,
    charges,
    credit_grants,
    engine_counters,
    export_modes,
    export_windows,
    invoice_lines,
    invoice_payments,
    invoices,
    metadata,
    node_witness,
    payments,
    refunds,
    usage_heads,
    usage_records,
    usage_starts,
)
from crosslogic.store.types import exact_sum

_TOKENS = ("prompt_tokens", "cached_tokens", "completion_tokens")
EXAMPLES = 20  # rows that are named one by one
_HOUR = timedelta(hours=1)


class Books:
    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine

    async def orgs(self) -> list[str]:
        """All that ever used or paid anything."""
        parts = (usage_heads.c.org_id, charges.c.org_id, payments.c.org_id)
        found: set[str] = set()
        for column in parts:
            found.update(await self._scalars(select(column).distinct()))
        return sorted(found)

    async def witnessed(self, start: datetime, end: datetime) -> tuple[int, int, int]:
        """How many nodes' engines were watched through whole hours of this time, the tokens that they generated in
        these hours by their own counters, and those of the ledger's rows that arrived in them."""
        w, k, rows = node_witness.c, engine_counters.c, usage_records.c
        watched = select(w.node_id, func.min(w.hour), k.at).join(engine_counters, k.node_id == w.node_id)
        grown = select(w.node_id, w.hour, w.generated_tokens).where(w.hour >= start, w.hour < end)
        async with reading(self.engine) as conn:
            spans = {n: (first, last) for n, first, last in await conn.execute(watched.group_by(w.node_id, k.at))}
            hour = bucket("hour", conn.dialect.name)
            billed = (
                select(rows.node_id, hour, func.sum(rows.completion_tokens))
                .where(rows.timestamp >= start, rows.timestamp < end, rows.node_id.in_(spans))
                .group_by(rows.node_id, hour)
            )
            engines = [tuple(row) for row in await conn.execute(grown)]
            ledger = [tuple(row) for row in await conn.execute(billed)] if spans else []

        def whole(node: str, at: datetime) -> bool:
            """Neither the hour in which watching began nor the one in which the counter was last seen."""
            return node in spans and spans[node][0] < at and at + _HOUR <= spans[node][1]

        nodes = {node for node, at, _ in (*engines, *ledger) if whole(node, at)}
        sums = [sum(int(tokens) for node, at, tokens in book if whole(node, at)) for book in (engines, ledger)]
        return len(nodes), sums[0], sums[1]

    async def cursor(self, org_id: str) -> int:
        """Up to where the ledger is rated."""
        found = await self._scalars(select(charge_cursors.c.seq).where(charge_cursors.c.org_id == org_id))
        return int(found[0]) if found else 0

    async def start(self, org_id: str) -> int:
        """Up to where the ledger's rows were dropped."""
        found = await self._scalars(select(usage_starts.c.seq).where(usage_starts.c.org_id == org_id))
        return int(found[0]) if found else 0

    async def ledger(self, org_id: str, after: int, through: int) -> dict[str, int]:
        t = usage_records.c
        sums = [func.sum(t[name]) for name in _TOKENS]
        here = and_(t.org_id == org_id, t.seq > after, t.seq <= through)
        return await self._sums(select(func.count(), *sums).where(here), ("rows", *_TOKENS))

    async def charged(self, org_id: str, after: int, through: int) -> dict[str, int]:
        t = charges.c
        sums = [func.sum(t[name]) for name in _TOKENS]
        here = and_(t.org_id == org_id, t.seq > after, t.seq <= through)
        return await self._sums(select(func.count(), *sums).where(here), ("rows", *_TOKENS))

    async def unlike_charges(self, org_id: str, after: int, through: int) -> list[tuple[str, int]]:
        """Rows of the ledger whose charge is missing or other."""
        u, c = usage_records.c, charges.c
        differs = or_(c.seq.is_(None), *(u[name] != c[name] for name in _TOKENS), u.request_id != c.request_id)
        query = (
            select(u.request_id, u.n)
            .outerjoin(charges, and_(c.org_id == u.org_id, c.seq == u.seq))
            .where(u.org_id == org_id, u.seq > after, u.seq <= through, differs)
            .order_by(u.seq)
            .limit(EXAMPLES)
        )
        async with reading(self.engine) as conn:
            return [(row[0], row[1]) for row in await conn.execute(query)]

    async def rolled_up(self, org_id: str) -> tuple[dict[str, int], dict[str, int]] | None:
        """What the hourly roll-ups say, and the ledger up to the same position with what was dropped from it; None
        where there are none."""
        hourly, heads = metadata.tables.get("usage_hourly"), metadata.tables.get("usage_rollups")
        if hourly is None or heads is None:
            return None
        names = ("total_tokens", "cost_pusd")
        through = await self._scalars(select(heads.c.seq).where(heads.c.org_id == org_id))
        mine = select(func.sum(hourly.c.total_tokens), exact_sum(hourly.c.cost_pusd)).where(hourly.c.org_id == org_id)
        t, s = usage_records.c, usage_starts.c
        rows = select(func.sum(t.total_tokens), exact_sum(t.cost_pusd)).where(
            t.org_id == org_id, t.seq > await self.start(org_id), t.seq <= (through[0] if through else 0)
        )
        dropped = select(func.sum(s.total_tokens), exact_sum(s.cost_pusd)).where(s.org_id == org_id)
        there, gone = await self._sums(rows, names), await self._sums(dropped, names)
        return await self._sums(mine, names), {name: there[name] + gone[name] for name in names}

    async def invoiced(self, org_id: str, start: datetime, end: datetime) -> list[tuple[str, int, int]]:
        """Invoices of these days: the exact usage on their lines, and that of the charges they claimed."""
        i, line = invoices.c, invoice_lines.c
        query = select(i.id, i.root_id).where(
            i.org_id == org_id, i.issued_at.is_not(None), i.status != "void", i.issued_at >= start, i.issued_at < end
        )
        found = []
        async with reading(self.engine) as conn:
            for invoice_id, root_id in (await conn.execute(query.order_by(i.id))).all():
                lines = select(exact_sum(line.exact_amount)).where(
                    line.invoice_id == invoice_id, line.kind == LineKind.USAGE.value
                )
                claimed = select(exact_sum(charges.c.amount)).where(
                    charges.c.org_id == org_id, charges.c.invoice_id == root_id
                )
                found.append((invoice_id, int(await conn.scalar(lines) or 0), int(await conn.scalar(claimed) or 0)))
        return found

    async def unapplied(self, org_id: str) -> list[Payment]:
        """Payments that have succeeded, and whose invoice or credits do not know of it."""
        p, i = payments.c, invoice_payments.c
        told = select(i.payment_ref).where(i.invoice_id == p.invoice_id, i.payment_ref == p.id)
        told = told.where(i.amount_minor == p.captured_minor)
        granted = select(credit_grants.c.source_ref).where(
            credit_grants.c.org_id == p.org_id, credit_grants.c.source_ref == p.id
        )
        missing = or_(
            and_(p.purpose == Purpose.INVOICE.value, ~told.exists()),
            and_(p.purpose == Purpose.TOP_UP.value, ~granted.exists()),
        )
        query = select(payments).where(p.org_id == org_id, p.status == Status.SUCCEEDED.value, missing)
        return [to_payment(row) for row in await self._rows(query.order_by(p.id).limit(EXAMPLES))]

    async def paid_by_nothing(self, org_id: str) -> list[tuple[str, str, int]]:
        """Payments on invoices that name one of ours which has not succeeded."""
        i, p = invoice_payments.c, payments.c
        query = (
            select(i.invoice_id, i.payment_ref, i.amount_minor)
            .join(invoices, invoices.c.id == i.invoice_id)
            .outerjoin(payments, p.id == i.payment_ref)
            .where(invoices.c.org_id == org_id, i.payment_ref.like("pay\\_%", escape="\\"))
            .where(or_(p.id.is_(None), p.status != Status.SUCCEEDED.value))
            .limit(EXAMPLES)
        )
        async with reading(self.engine) as conn:
            return [(row[0], row[1], int(row[2])) for row in await conn.execute(query)]

    async def payments(self, org_id: str, provider: str, start: datetime, end: datetime) -> list[Payment]:
        p = payments.c
        here = and_(p.org_id == org_id, p.provider == provider, p.created_at >= start, p.created_at < end)
        return [to_payment(row) for row in await self._rows(select(payments).where(here))]

    async def refunds_of(self, of: Sequence[Payment]) -> list[Refund]:
        ids = [each.id for each in of]
        return [to_refund(row) for row in await self._rows(select(refunds).where(refunds.c.payment_id.in_(ids)))]

    async def windowed(self, org_id: str) -> tuple[int, int] | None:
        """Tokens in windows that stand, and in the charges they are of; None where meters are not its way."""
        m = export_modes.c
        found = await self._rows(
            select(m.since, m.sealed_seq).where(m.org_id == org_id, m.mode == Mode.STRIPE_METER.value)
        )
        if not found:
            return None
        w, c = export_windows.c, charges.c
        own = and_(w.org_id == org_id, w.mode == Mode.STRIPE_METER.value, w.status != "replaced")
        first = select(func.min(w.from_seq)).where(w.org_id == org_id, w.mode == Mode.STRIPE_METER.value)
        tokens = select(func.sum(w.quantity)).where(own)
        async with reading(self.engine) as conn:
            start = await conn.scalar(first)
            in_windows = int(await conn.scalar(tokens) or 0)
            if start is None:
                return in_windows, 0
            used = select(func.sum(c.prompt_tokens + c.completion_tokens)).where(
                c.org_id == org_id, c.seq > start, c.seq <= found[0]["sealed_seq"], ~free_of_charge()
            )
            return in_windows, int(await conn.scalar(used) or 0)

    async def _sums(self, query: Any, names: Sequence[str]) -> dict[str, int]:
        async with reading(self.engine) as conn:
            row = (await conn.execute(query)).one()
        return {name: int(value or 0) for name, value in zip(names, row, strict=True)}

    async def _rows(self, query: Any) -> list[RowMapping]:
        async with reading(self.engine) as conn:
            return list((await conn.execute(query)).mappings())

    async def _scalars(self, query: Any) -> list[Any]:
        async with reading(self.engine) as conn:
            return list((await conn.execute(query)).scalars())
