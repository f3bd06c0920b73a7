"""Chargebacks in the database.

Invariant: whoever changes one holds the row of its payment, so all chargebacks of a payment take turns.
"""

from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import RowMapping, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from crosslogic.billing.chargebacks.model import Chargeback
from crosslogic.billing.payments.model import ChargebackFound, ChargebackStatus, Payment
from crosslogic.billing.payments.rows import to_payment
from crosslogic.kernel.errors import NotFound
from crosslogic.kernel.ids import OrgId
from crosslogic.store.engine import reading
from crosslogic.store.tables import chargebacks as table
from crosslogic.store.tables import payments


def to_chargeback(row: RowMapping) -> Chargeback:
    return Chargeback(**{**row, "org_id": OrgId(row["org_id"]), "status": ChargebackStatus(row["status"])})


async def under(conn: AsyncConnection, provider: str, provider_ref: str) -> Chargeback | None:
    query = select(table).where(table.c.provider == provider, table.c.provider_ref == provider_ref)
    row = (await conn.execute(query)).mappings().first()
    return None if row is None else to_chargeback(row)


async def write(conn: AsyncConnection, chargeback: Chargeback, *, new: bool) -> None:
    values = {**msgspec.structs.asdict(chargeback), "status": chargeback.status.value}
    if new:
        await conn.execute(insert(table).values(values))
    else:
        await conn.execute(update(table).where(table.c.id == chargeback.id).values(values))


async def weigh(conn: AsyncConnection, payment_id: str) -> tuple[int, int]:
    """What all chargebacks of a payment have withdrawn, and what of it was lost; written down with the payment."""
    sums = select(func.sum(table.c.withdrawn_minor), func.sum(table.c.lost_minor))
    row = (await conn.execute(sums.where(table.c.payment_id == payment_id))).one()
    withdrawn, lost = int(row[0] or 0), int(row[1] or 0)
    values: dict[str, Any] = {"disputed_minor": withdrawn}
    if lost:
        values["charged_back"] = True
    await conn.execute(update(payments).where(payments.c.id == payment_id).values(values))
    return withdrawn, lost


async def payment_of(engine: AsyncEngine, provider: str, found: ChargebackFound) -> Payment | None:
    """The payment that is disputed; None where it is none of ours."""
    p = payments.c
    for column, ref in ((p.charge_ref, found.charge_ref), (p.provider_ref, found.payment_ref)):
        if ref is None:
            continue
        async with reading(engine) as conn:
            row = (await conn.execute(select(payments).where(p.provider == provider, column == ref))).mappings().first()
        if row is not None:
            return to_payment(row)
    return None


async def one(engine: AsyncEngine, chargeback_id: str) -> Chargeback:
    """Raises NotFound."""
    async with reading(engine) as conn:
        row = (await conn.execute(select(table).where(table.c.id == chargeback_id))).mappings().first()
    if row is None:
        raise NotFound("there is no such chargeback")
    return to_chargeback(row)


async def known(engine: AsyncEngine, provider: str, refs: list[str]) -> set[str]:
    query = select(table.c.provider_ref).where(table.c.provider == provider, table.c.provider_ref.in_(refs))
    async with reading(engine) as conn:
        return set((await conn.execute(query)).scalars())


async def due(engine: AsyncEngine, provider: str, now: datetime, limit: int) -> list[str]:
    """Those that are to be looked at again, by the provider's name of them."""
    query = select(table.c.provider_ref).where(table.c.provider == provider, table.c.next_look_at <= now)
    async with reading(engine) as conn:
        return list((await conn.execute(query.order_by(table.c.next_look_at).limit(limit))).scalars())
