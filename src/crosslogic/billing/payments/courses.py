"""How a payment is taken and how a refund is given back, for `driving.py`."""

from sqlalchemy import RowMapping, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from crosslogic.billing.payments.model import (
    ChargeOrder,
    MethodKind,
    Payment,
    Purpose,
    Refund,
    RefundOrder,
    Result,
    Status,
)
from crosslogic.billing.payments.ports import PaidFor, PaymentProcessor
from crosslogic.billing.payments.rows import to_payment, to_refund
from crosslogic.store.engine import reading
from crosslogic.store.tables import payment_customers, payment_methods, payments, refunds
from crosslogic.tenancy.audit_sql import AuditTrail

_DESCRIPTIONS = {Purpose.INVOICE: "Invoice", Purpose.TOP_UP: "Credits"}


class PaymentCourse:
    table = payments
    refund = False

    def __init__(self, engine: AsyncEngine, processor: PaymentProcessor, paid_for: PaidFor, trail: AuditTrail) -> None:
        self.processor = processor
        self._engine = engine
        self._paid_for = paid_for
        self._trail = trail

    def value(self, row: RowMapping) -> Payment:
        return to_payment(row)

    async def send(self, value: Payment) -> Result:
        return await self.processor.charge(await self._order(value))

    async def find(self, value: Payment) -> Result | None:
        return await self.processor.find_charge(await self._order(value))

    async def refresh(self, value: Payment, provider_ref: str, *, give_up: bool) -> Result:
        return await self.processor.refresh(provider_ref, value.id, give_up=give_up)

    async def moved(self, conn: AsyncConnection, before: Payment, after: Payment) -> None:
        if after.status is before.status:
            return
        await self._trail.append(
            conn,
            f"payment.{after.status.value}",
            after.id,
            org_id=after.org_id,
            before={"status": before.status.value},
            after={"status": after.status.value, "captured_minor": after.captured_minor, "code": after.failure_code},
        )

    async def apply(self, value: Payment) -> None:
        if value.status is Status.SUCCEEDED:
            await self._paid_for.paid(value)
        else:
            await self._paid_for.failed(value)

    async def _order(self, value: Payment) -> ChargeOrder:
        query = (
            select(payment_methods.c.method_ref, payment_methods.c.kind, payment_customers.c.customer_ref)
            .join(
                payment_customers,
                (payment_customers.c.org_id == payment_methods.c.org_id)
                & (payment_customers.c.provider == payment_methods.c.provider),
            )
            .where(payment_methods.c.id == value.method_id)
        )
        async with reading(self._engine) as conn:
            row = (await conn.execute(query)).one()
        return ChargeOrder(
            payment_id=value.id,
            org_id=value.org_id,
            customer_ref=row.customer_ref,
            method_ref=row.method_ref,
            kind=MethodKind(row.kind),
            amount_minor=value.amount_minor,
            currency=value.currency,
            customer_present=value.customer_present,
            description=" ".join(filter(None, (_DESCRIPTIONS[value.purpose], value.invoice_id))),
            sent_at=value.first_sent_at or value.created_at,
        )


class RefundCourse:
    """What a refund takes of its payment was taken when it was made; one that fails gives it back."""

    table = refunds
    refund = True

    def __init__(self, engine: AsyncEngine, processor: PaymentProcessor, paid_for: PaidFor, trail: AuditTrail) -> None:
        self.processor = processor
        self._engine = engine
        self._paid_for = paid_for
        self._trail = trail

    def value(self, row: RowMapping) -> Refund:
        return to_refund(row)

    async def send(self, value: Refund) -> Result:
        return await self.processor.refund(await self._order(value))

    async def find(self, value: Refund) -> Result | None:
        return await self.processor.find_refund(await self._order(value))

    async def refresh(self, value: Refund, provider_ref: str, *, give_up: bool) -> Result:
        return await self.processor.refresh_refund(provider_ref, value.id)

    async def moved(self, conn: AsyncConnection, before: Refund, after: Refund) -> None:
        if after.status is before.status:
            return
        if after.status is Status.FAILED:
            left = payments.c.refund_reserved_minor - after.amount_minor
            await conn.execute(
                update(payments).where(payments.c.id == after.payment_id).values(refund_reserved_minor=left)
            )
        await self._trail.append(
            conn,
            f"refund.{after.status.value}",
            after.id,
            org_id=after.org_id,
            before={"status": before.status.value},
            after={"status": after.status.value, "code": after.failure_code},
        )

    async def apply(self, value: Refund) -> None:
        await self._paid_for.refunded(await self._payment(value), value)

    async def _payment(self, value: Refund) -> Payment:
        async with reading(self._engine) as conn:
            query = select(payments).where(payments.c.id == value.payment_id)
            return to_payment((await conn.execute(query)).mappings().one())

    async def _order(self, value: Refund) -> RefundOrder:
        payment = await self._payment(value)
        return RefundOrder(
            refund_id=value.id,
            payment_ref=payment.provider_ref or "",
            charge_ref=payment.charge_ref or "",
            amount_minor=value.amount_minor,
            currency=value.currency,
        )
