"""Looks after chargebacks: asks the provider how one stands, and lets what was paid for follow.

Invariants: a chargeback, its payment, its invoice or credits, the notice of it and the audit log change in one
transaction or not at all; an answer that was asked for before another was written down is thrown away, so an old one
never undoes a newer one. Evidence is given at the provider; what there is of it here is `pack.py`'s.
"""

import logging
from datetime import timedelta
from typing import Any

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from crosslogic.billing.chargebacks import sql, states
from crosslogic.billing.chargebacks.model import Chargeback
from crosslogic.billing.invoices.notices import tell
from crosslogic.billing.payments import sql as payments_sql
from crosslogic.billing.payments.model import ChargebackFound, ChargebackStatus, Payment, Status
from crosslogic.billing.payments.ports import PaidFor, ProviderRefused
from crosslogic.billing.payments.service import PaymentService
from crosslogic.kernel.clock import Clock
from crosslogic.kernel.crash_points import reach
from crosslogic.kernel.errors import CrossLogicError, Unavailable
from crosslogic.kernel.ids import OrgId, new_id
from crosslogic.store.engine import reading
from crosslogic.store.tables import chargebacks
from crosslogic.tenancy.audit_sql import AuditTrail

ASKED_BACK = timedelta(days=3)  # for what no webhook told of
ASK_EVERY_S = 3600.0
AT_ONCE = 100
_TRIES = 5
_log = logging.getLogger(__name__)


class ChargebackService:
    def __init__(
        self, engine: AsyncEngine, payments: PaymentService, paid_for: PaidFor, clock: Clock, trail: AuditTrail
    ) -> None:
        self.engine = engine
        self._payments = payments
        self._processor = payments.processor
        self._paid_for = paid_for
        self._clock = clock
        self._trail = trail
        self._asked_s: float | None = None

    async def look_at(self, provider_ref: str) -> Chargeback | None:
        """Ask how it stands, and follow; None where it is of none of our payments. Raises Unavailable."""
        for _ in range(_TRIES):
            seen = await self._version(provider_ref)
            try:
                found = await self._processor.chargeback(provider_ref)
            except ProviderRefused:
                return None
            payment = await sql.payment_of(self.engine, self._processor.provider, found)
            if payment is None:
                return None
            await self._settled(payment)
            done = await self._follow(payment.id, found, seen)
            if done is not None:
                return done
        raise Unavailable("a chargeback changes too quickly; it is looked at again")

    async def round(self) -> int:
        """Look again at what is undecided, and at what no webhook told of; a job's. Returns how many were looked at."""
        provider = self._processor.provider
        refs = await sql.due(self.engine, provider, self._clock.now(), AT_ONCE)
        if self._asked_s is None or self._clock.monotonic_s() - self._asked_s >= ASK_EVERY_S:
            there = await self._processor.chargebacks(self._clock.now() - ASKED_BACK)
            known = await sql.known(self.engine, provider, there)
            refs += [ref for ref in there if ref not in known]
            self._asked_s = self._clock.monotonic_s()
        looked = 0
        for ref in refs:
            try:
                looked += await self.look_at(ref) is not None
            except CrossLogicError as error:
                _log.warning("chargeback %s waits (%s)", ref, type(error).__name__)
        return looked

    async def one(self, chargeback_id: str) -> Chargeback:
        return await sql.one(self.engine, chargeback_id)

    async def all(
        self,
        *,
        org_id: OrgId | None = None,
        payment_id: str | None = None,
        status: ChargebackStatus | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> list[Chargeback]:
        """Newest first."""
        only = {"org_id": org_id, "payment_id": payment_id, "status": None if status is None else status.value}
        found = await payments_sql.listed(self.engine, chargebacks, only, after, limit)
        return [sql.to_chargeback(row) for row in found]

    async def _version(self, provider_ref: str) -> int:
        async with reading(self.engine) as conn:
            known = await sql.under(conn, self._processor.provider, provider_ref)
        return 0 if known is None else known.version

    async def _settled(self, payment: Payment) -> None:
        """What it has paid for knows of the payment before it hears that it is disputed."""
        if payment.status is not Status.SUCCEEDED or payment.applied_at is None:
            payment = await self._payments.payment_driver.look_at(payment.id, payment.provider_ref or "")
        if payment.status is not Status.SUCCEEDED or payment.applied_at is None:
            raise Unavailable("the payment is not settled here yet")

    async def _follow(self, payment_id: str, found: ChargebackFound, seen: int) -> Chargeback | None:
        """None where another was quicker."""
        now = self._clock.now()
        async with self.engine.begin() as conn:
            payment = await payments_sql.payment_in(conn, payment_id, None, lock=True)
            known = await sql.under(conn, self._processor.provider, found.provider_ref)
            if seen != (0 if known is None else known.version):
                return None
            before = known or _opened(payment, found)
            after = states.told(before, found, now)
            if known is None and after.version == 0:
                after = msgspec.structs.replace(after, version=1)
            after = msgspec.structs.replace(after, next_look_at=states.next_look_at(after, now))
            await sql.write(conn, after, new=known is None)
            if known is None or after.version != known.version:
                await self._changed(conn, payment, before, after, new=known is None)
                reach("chargeback.followed")
            return after

    async def _changed(
        self, conn: AsyncConnection, payment: Payment, before: Chargeback, after: Chargeback, *, new: bool
    ) -> None:
        withdrawn, lost = await sql.weigh(conn, payment.id)
        change = states.withdrawal(before, after, withdrawn - lost, after.updated_at)
        if change.withdrawn_delta_minor or change.lost_delta_minor:
            await self._paid_for.withdrawn(conn, payment, change)
        if new or before.status is not after.status:
            kind, step = f"chargeback.{after.status.value}", str(after.version)
            await tell(
                conn, kind, after.id, org_id=after.org_id, payload=_told_of(after), at=after.updated_at, step=step
            )
        shown = [
            {"status": each.status.value, "withdrawn_minor": each.withdrawn_minor, "lost_minor": each.lost_minor}
            for each in (before, after)
        ]
        await self._trail.append(
            conn,
            f"chargeback.{'opened' if new else after.status.value}",
            after.id,
            org_id=after.org_id,
            before=None if new else shown[0],
            after=shown[1],
        )


def _opened(payment: Payment, found: ChargebackFound) -> Chargeback:
    return Chargeback(
        id=new_id("cb"),
        org_id=payment.org_id,
        payment_id=payment.id,
        invoice_id=payment.invoice_id,
        provider=payment.provider,
        provider_ref=found.provider_ref,
        amount_minor=found.amount_minor,
        currency=found.currency,
        reason=found.reason,
        status=found.status,
        opened_at=found.opened_at,
        updated_at=found.opened_at,
    )


def _told_of(chargeback: Chargeback) -> dict[str, Any]:
    return {
        "payment_id": chargeback.payment_id,
        "invoice_id": chargeback.invoice_id,
        "amount_minor": chargeback.amount_minor,
        "withdrawn_minor": chargeback.withdrawn_minor,
        "lost_minor": chargeback.lost_minor,
        "currency": chargeback.currency,
        "reason": chargeback.reason,
        "respond_by": None if chargeback.respond_by is None else chargeback.respond_by.isoformat(),
        "pack": f"/admin/chargebacks/{chargeback.id}/pack",
    }
