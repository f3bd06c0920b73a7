"""Reminds of invoices that are not paid, calls them overdue, and suspends orgs whose grace is over, where configured.

Invariants: each step is taken once, however often this runs and wherever it is killed; an org that was taken up by hand
in spite of an unpaid invoice is not suspended for it a second time; the system takes up again only whom it suspended
itself, and nobody else suspended since, once no invoice is beyond its grace.
"""

import logging
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.billing.invoices import sql
from crosslogic.billing.invoices.dunning import Measure, Step, steps
from crosslogic.billing.invoices.model import Invoice, InvoiceStatus, InvoicingTerms
from crosslogic.billing.invoices.notices import tell, was_told
from crosslogic.billing.invoices.service import told_of
from crosslogic.kernel.clock import Clock
from crosslogic.kernel.errors import NotFound
from crosslogic.kernel.ids import OrgId
from crosslogic.store.engine import reading
from crosslogic.store.tables import billing_notices
from crosslogic.tenancy.audit import SYSTEM
from crosslogic.tenancy.model import Status, SuspendedFor
from crosslogic.tenancy.service import TenancyService

SUSPENDED, RESTORED = "org.suspended", "org.restored"
_log = logging.getLogger(__name__)


class Dunning:
    """Run as a leased job: of several control processes one acts."""

    def __init__(self, engine: AsyncEngine, tenancy: TenancyService, terms: InvoicingTerms, clock: Clock) -> None:
        self._engine = engine
        self._tenancy = tenancy.acting_as(SYSTEM)
        self._terms = terms
        self._clock = clock

    async def round(self) -> int:
        """Take what steps are to be taken; returns how many were."""
        taken = 0
        for invoice in await sql.InvoicesSql(self._engine).open():
            for step in steps(invoice, self._terms, self._clock.now()):
                if step.measure is Measure.SUSPEND:
                    taken += await self._suspend(invoice, step)
                else:
                    taken += await self._tell(invoice, step)
        return taken

    async def restore(self) -> int:
        """Take up again the orgs that were suspended for what is paid now; returns how many."""
        restored = 0
        for org_id in await self._tenancy.suspended(SuspendedFor.UNPAID):
            now = self._clock.now()
            owing = await sql.InvoicesSql(self._engine).open(org_id)
            if any(step.measure is Measure.SUSPEND for each in owing for step in steps(each, self._terms, now)):
                continue
            # Told first: a kill in between has it told of what the next run does.
            await self._tell_restored(org_id, now)
            restored += await self._tenancy.take_up(org_id, SuspendedFor.UNPAID)
        return restored

    async def _tell_restored(self, org_id: OrgId, now: datetime) -> None:
        t = billing_notices
        last = select(t).where(t.c.org_id == org_id, t.c.kind == SUSPENDED).order_by(t.c.id.desc()).limit(1)
        async with self._engine.begin() as conn:
            notice = (await conn.execute(last)).mappings().first()
            if notice is None:
                return
            invoice = await sql.locked_invoice(conn, notice["entity_id"])
            payload, step = told_of(invoice), notice["id"]
            await tell(conn, RESTORED, invoice.id, org_id=org_id, payload=payload, at=now, step=step)

    async def _tell(self, seen: Invoice, step: Step) -> bool:
        now = self._clock.now()
        async with self._engine.begin() as conn:
            invoice = await sql.locked_invoice(conn, seen.id)
            if step not in steps(invoice, self._terms, now):
                return False  # it was paid meanwhile, say
            if step.measure is Measure.OVERDUE:
                overdue = InvoiceStatus.OVERDUE.value
                invoice = await sql.change_invoice(conn, invoice, status=overdue, overdue_at=now)
            kind = "invoice.overdue" if step.measure is Measure.OVERDUE else "invoice.reminder"
            payload = {**told_of(invoice), "days_after_due": step.days}
            return await tell(conn, kind, invoice.id, org_id=invoice.org_id, payload=payload, at=now, step=step.name)

    async def _suspend(self, invoice: Invoice, step: Step) -> bool:
        """First the suspension, then the notice that says that it was done: a kill in between suspends again, which
        changes nothing."""
        async with reading(self._engine) as conn:
            if await was_told(conn, SUSPENDED, invoice.id, step.name):
                return False
        try:
            org = await self._tenancy.org(invoice.org_id)
            if org.status is Status.ACTIVE:
                await self._tenancy.change_org(org.id, status=Status.SUSPENDED, suspended_for=SuspendedFor.UNPAID)
                _log.warning("%s is suspended: the invoice %s is not paid", org.id, invoice.number)
        except NotFound:
            pass  # the invoice outlives its org
        async with self._engine.begin() as conn:
            locked = await sql.locked_invoice(conn, invoice.id)
            payload, now = told_of(locked), self._clock.now()
            return await tell(conn, SUSPENDED, locked.id, org_id=locked.org_id, payload=payload, at=now, step=step.name)
