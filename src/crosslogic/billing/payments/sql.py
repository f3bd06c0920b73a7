"""Payments, refunds and methods in the database: what is read, and how new ones are written.

Invariant: what is taken of a payment by refunds, failed ones left out, is never more than what was captured: it is
taken in the one statement that also looks whether it is there.
"""

from typing import Any

from sqlalchemy import ColumnElement, RowMapping, Select, Table, and_, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from crosslogic.billing.payments.model import Method, Payment, Refund, Status
from crosslogic.billing.payments.rows import columns, to_method, to_payment, to_refund
from crosslogic.kernel.errors import Conflict, NotFound
from crosslogic.kernel.ids import OrgId
from crosslogic.store.engine import reading
from crosslogic.store.tables import payment_customers, payment_methods, payments, refunds

_LIVE = payment_methods.c.removed_at.is_(None)


async def customer_ref(engine: AsyncEngine, org_id: OrgId, provider: str) -> str | None:
    here = and_(payment_customers.c.org_id == org_id, payment_customers.c.provider == provider)
    async with reading(engine) as conn:
        found: str | None = await conn.scalar(select(payment_customers.c.customer_ref).where(here))
    return found


async def org_of_customer(engine: AsyncEngine, provider: str, ref: str) -> str | None:
    here = and_(payment_customers.c.customer_ref == ref, payment_customers.c.provider == provider)
    async with reading(engine) as conn:
        found: str | None = await conn.scalar(select(payment_customers.c.org_id).where(here))
    return found


async def methods(engine: AsyncEngine, org_id: OrgId, provider: str) -> list[Method]:
    query = select(payment_methods).where(
        payment_methods.c.org_id == org_id, payment_methods.c.provider == provider, _LIVE
    )
    async with reading(engine) as conn:
        return [to_method(row) for row in (await conn.execute(query.order_by(payment_methods.c.id))).mappings()]


async def method_in(conn: AsyncConnection, method_id: str, org_id: OrgId, provider: str) -> Method:
    """Raises NotFound, also for another org's and for one that was removed."""
    query = select(payment_methods).where(
        payment_methods.c.id == method_id,
        payment_methods.c.org_id == org_id,
        payment_methods.c.provider == provider,
        _LIVE,
    )
    row = (await conn.execute(query.with_for_update())).mappings().first()
    if row is None:
        raise NotFound("there is no such payment method")
    return to_method(row)


async def method_to_charge(conn: AsyncConnection, method_id: str | None, org_id: OrgId, provider: str) -> Method:
    """The one that is named, or the default. Raises NotFound, Conflict where there is no default."""
    if method_id is not None:
        return await method_in(conn, method_id, org_id, provider)
    query = select(payment_methods).where(
        payment_methods.c.org_id == org_id, payment_methods.c.provider == provider, _LIVE
    )
    row = (await conn.execute(query.where(payment_methods.c.is_default))).mappings().first()
    if row is None:
        raise Conflict("the organisation has no default payment method; set one up first")
    return to_method(row)


async def make_default_in(conn: AsyncConnection, org_id: OrgId, method_id: str) -> None:
    mine = payment_methods.c.org_id == org_id
    await conn.execute(update(payment_methods).where(mine, payment_methods.c.is_default).values(is_default=False))
    await conn.execute(update(payment_methods).where(payment_methods.c.id == method_id).values(is_default=True))


async def payment_under(conn: AsyncConnection, org_id: OrgId, creation_ref: str) -> Payment | None:
    query = select(payments).where(payments.c.org_id == org_id, payments.c.creation_ref == creation_ref)
    row = (await conn.execute(query)).mappings().first()
    return None if row is None else to_payment(row)


async def attempts_of(conn: AsyncConnection, invoice_id: str) -> list[Payment]:
    query = select(payments).where(payments.c.invoice_id == invoice_id).order_by(payments.c.attempt)
    return [to_payment(row) for row in (await conn.execute(query)).mappings()]


async def add_payment(conn: AsyncConnection, payment: Payment) -> None:
    await conn.execute(insert(payments).values(**columns(payment)))


async def reserve_refund(conn: AsyncConnection, payment_id: str, amount_minor: int) -> bool:
    """Take so much of what was captured and is not disputed; False when there is not so much left."""
    p = payments.c
    taken = await conn.execute(
        update(payments)
        .where(
            p.id == payment_id,
            p.status == Status.SUCCEEDED.value,
            p.refund_reserved_minor + p.disputed_minor + amount_minor <= p.captured_minor,
        )
        .values(refund_reserved_minor=p.refund_reserved_minor + amount_minor)
    )
    return taken.rowcount == 1


async def add_refund(conn: AsyncConnection, refund: Refund) -> None:
    await conn.execute(insert(refunds).values(**columns(refund)))


async def refund_under(conn: AsyncConnection, payment_id: str, creation_ref: str) -> Refund | None:
    query = select(refunds).where(refunds.c.payment_id == payment_id, refunds.c.creation_ref == creation_ref)
    row = (await conn.execute(query)).mappings().first()
    return None if row is None else to_refund(row)


async def payment_in(conn: AsyncConnection, payment_id: str, org_id: OrgId | None, *, lock: bool = False) -> Payment:
    """Raises NotFound, also for another org's."""
    query = select(payments).where(payments.c.id == payment_id)
    if org_id is not None:
        query = query.where(payments.c.org_id == org_id)
    row = (await conn.execute(query.with_for_update() if lock else query)).mappings().first()
    if row is None:
        raise NotFound("there is no such payment")
    return to_payment(row)


async def listed(
    engine: AsyncEngine, table: Table, only: dict[str, Any], after: str | None, limit: int
) -> list[RowMapping]:
    """Newest first; `only` are columns and the one value that counts, None: any."""
    here: list[ColumnElement[bool]] = [table.c[name] == value for name, value in only.items() if value is not None]
    if after is not None:
        here.append(table.c.id < after)
    query: Select[Any] = select(table).where(*here).order_by(table.c.id.desc()).limit(limit)
    async with reading(engine) as conn:
        return list((await conn.execute(query)).mappings())


async def count_methods(conn: AsyncConnection, org_id: OrgId) -> int:
    query = select(func.count()).select_from(payment_methods).where(payment_methods.c.org_id == org_id, _LIVE)
    return int((await conn.execute(query)).scalar_one())
