"""Closing periods: what was used in one comes to stand on an invoice.

Invariant: for each org, kind, period and currency there is one invoice, however often the close runs and wherever it is
killed: charges are claimed, and the draft is written, in one transaction, under the org's lock. What comes in late, or
would come to less than nothing, stands on the next one.
"""

import logging
from collections.abc import AsyncIterator
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from crosslogic.billing.invoices import periods, sources, sql
from crosslogic.billing.invoices.currency import PICO_DIGITS
from crosslogic.billing.invoices.document import Setting, written
from crosslogic.billing.invoices.draft import Bill, Draft, drafted
from crosslogic.billing.invoices.issuing import Issuer
from crosslogic.billing.invoices.model import Invoice, InvoiceKind, InvoiceStatus
from crosslogic.billing.invoices.periods import Period
from crosslogic.billing.profiles.model import BillingProfile, BillingTerms, Cycle
from crosslogic.billing.profiles.service import profile_in
from crosslogic.kernel.clock import Clock
from crosslogic.kernel.crash_points import reach
from crosslogic.kernel.errors import CrossLogicError
from crosslogic.kernel.ids import InvoiceId, OrgId, new_invoice_id
from crosslogic.store.engine import reading
from crosslogic.store.tables import billing_accounts, invoices, orgs

_PAGE = 500
_DRAFTS = 100
_log = logging.getLogger(__name__)


class Closer:
    """Raises NotFound for an org that there is not, and DATABASE_ERRORS."""

    def __init__(self, engine: AsyncEngine, issuer: Issuer, clock: Clock) -> None:
        self._engine = engine
        self._issuer = issuer
        self._clock = clock
        # Orgs without anything to bill, and until when that was looked at: saves asking again and again.
        self._idle: dict[str, datetime] = {}

    async def round(self) -> int:
        """Close every period of every org that has ended, and issue the drafts; returns how many were made."""
        made = 0
        async for org_id in self._orgs():
            try:
                made += len(await self.close_ended(org_id))
            except CrossLogicError as error:
                _log.warning("the period of %s cannot be closed: %s", org_id, error)
        if self._issuer.terms.issue_at_once:
            await self.issue_drafts()
        return made

    async def issue_drafts(self) -> int:
        """Those that wait, oldest first."""
        t, issued, after = invoices.c, 0, ""
        while True:
            query = select(t.id).where(t.status == InvoiceStatus.DRAFT.value, t.id > after)
            async with reading(self._engine) as conn:
                ids = (await conn.execute(query.order_by(t.id).limit(_DRAFTS))).scalars().all()
            for invoice_id in ids:
                try:
                    await self._issuer.issue(invoice_id)
                    issued += 1
                except CrossLogicError as error:
                    _log.warning("the draft %s cannot be issued: %s", invoice_id, error)
            if len(ids) < _DRAFTS:
                return issued
            after = ids[-1]

    async def close_ended(self, org_id: OrgId) -> list[Invoice]:
        """The drafts of all periods of an org that ended long enough ago, and of usage that reached its threshold."""
        now = self._clock.now() - timedelta(seconds=self._issuer.terms.close_delay_s)
        async with reading(self._engine) as conn:
            own = self._issuer.own_terms(await profile_in(conn, org_id))
            until = await sql.closed_until(conn, org_id)
            wanted = await self._ended(conn, org_id, own, until, now)
        made: list[Invoice] = []
        for period in wanted:
            made += await self.close(org_id, InvoiceKind.MONTHLY, period)
        if own.cycle is Cycle.USAGE:
            made += await self._close_used(org_id, own, now)
        return made

    async def close_now(self, org_id: OrgId) -> list[Invoice]:
        """What was used up to now, before the period has ended: for an org that leaves, say."""
        made = await self.close_ended(org_id)
        now = self._clock.now()
        async with reading(self._engine) as conn:
            own = self._issuer.own_terms(await profile_in(conn, org_id))
            until = await sql.closed_until(conn, org_id)
        start = max(filter(None, (periods.period_of(now, own).start, until)))
        return made + await self.close(org_id, InvoiceKind.USAGE, Period(start, now))

    async def close(self, org_id: OrgId, kind: InvoiceKind, period: Period) -> list[Invoice]:
        """The draft of a period for each currency; nothing where there is nothing to bill.

        Repeated, it gives the invoices that are there.
        """
        made = []
        async with self._engine.begin() as conn:
            await sql.lock_org(conn, org_id)
            found = await sources.currencies(conn, org_id, period.end)
            closed = await _closed(conn, org_id, kind, period)
            for currency in sorted({*found, *(invoice.currency for invoice in closed)}):
                known = next((invoice for invoice in closed if invoice.currency == currency), None)
                invoice = known or await self._close_in(conn, org_id, kind, period, currency)
                if invoice is not None:
                    made.append(invoice)
        return made

    async def preview(self, org_id: OrgId) -> tuple[Invoice, Draft, str]:
        """The invoice that would be made if the running period ended now; nothing is stored."""
        now = self._clock.now()
        async with reading(self._engine) as conn:
            org_name = await conn.scalar(select(orgs.c.name).where(orgs.c.id == org_id))
            profile = await profile_in(conn, org_id)
            own = self._issuer.own_terms(profile)
            period = periods.period_of(now, own)
            until = await sql.closed_until(conn, org_id)
            start = period.start if until is None else max(period.start, min(until, now))
            found = await sources.currencies(conn, org_id, now)
            currency = found[0] if found else await _currency_of(conn, org_id)
            bill = await sources.open_bill(conn, org_id, currency, now)
            hours = await sources.open_hours(conn, org_id, currency, start, now)
        draft = self._drafted(bill, profile, now)
        invoice = _invoice(org_id, InvoiceKind.MONTHLY, Period(start, period.end), draft, now)
        setting = Setting(
            seller=self._issuer.terms.seller,
            buyer=profile,
            org_name=str(org_name or org_id),
            terms=own,
            hours=hours,
            next_invoice_at=period.end,
        )
        return invoice, draft, written(invoice, draft, setting)

    async def _close_in(
        self, conn: AsyncConnection, org_id: OrgId, kind: InvoiceKind, period: Period, currency: str
    ) -> Invoice | None:
        now = self._clock.now()
        if (await sources.open_bill(conn, org_id, currency, period.end)).exact_net < 0:
            return None  # what is owed to the org is set off against what it uses next
        invoice_id = new_invoice_id()
        await sources.claim(conn, org_id, currency, period.end, invoice_id)
        reach("invoice.claimed")
        bill = await sources.bill_of(conn, org_id, invoice_id, currency)
        draft = self._drafted(bill, await profile_in(conn, org_id), now)
        invoice = _invoice(org_id, kind, period, draft, now, invoice_id)
        await sql.add_invoice(conn, invoice, draft.lines)
        reach("invoice.drafted")
        return invoice

    async def _close_used(self, org_id: OrgId, own: BillingTerms, now: datetime) -> list[Invoice]:
        """Where usage-based: once what was used comes to the threshold."""
        end = now.replace(minute=0, second=0, microsecond=0)
        async with reading(self._engine) as conn:
            until = await sql.closed_until(conn, org_id)
            amounts = [
                await sources.open_amount(conn, org_id, currency, end)
                for currency in await sources.currencies(conn, org_id, end)
            ]
        start = max(filter(None, (periods.period_of(end, own).start, until)))
        if start >= end or max(amounts, default=0) < own.usage_threshold * 10**PICO_DIGITS:
            return []
        return await self.close(org_id, InvoiceKind.USAGE, Period(start, end))

    async def _ended(
        self, conn: AsyncConnection, org_id: str, own: BillingTerms, until: datetime | None, now: datetime
    ) -> list[Period]:
        """Periods that may have something to bill. From the first charge on that stands nowhere, or from where the
        last one ended: what is older than that belongs to the one that comes next."""
        latest = periods.period_of(now, own).start
        if (until is not None and latest <= until) or self._idle.get(org_id) == latest:
            return []
        first = await sources.earliest(conn, org_id) if await sources.anything_free(conn, org_id, latest) else None
        if first is None:
            self._idle[org_id] = latest
            return []
        begins = periods.period_of(first, own).start
        return periods.ended(begins if until is None else max(begins, until), now, own)

    def _drafted(self, bill: Bill, profile: BillingProfile, now: datetime) -> Draft:
        terms = self._issuer.terms
        day = periods.local_day(now, terms.time_zone)
        return drafted(bill, terms.seller, profile, day, terms.tax_rules)

    async def _orgs(self) -> AsyncIterator[OrgId]:
        """Those that are billed, whatever their status: who is suspended owes what was used before."""
        after = ""
        while True:
            query = select(orgs.c.id).where(orgs.c.billing_enabled, orgs.c.id > after).order_by(orgs.c.id).limit(_PAGE)
            async with reading(self._engine) as conn:
                ids = (await conn.execute(query)).scalars().all()
            for org_id in ids:
                yield OrgId(org_id)
            if len(ids) < _PAGE:
                return
            after = ids[-1]


async def _closed(conn: AsyncConnection, org_id: str, kind: InvoiceKind, period: Period) -> list[Invoice]:
    t = invoices.c
    query = select(invoices).where(
        t.org_id == org_id, t.kind == kind.value, t.period_start == period.start, t.revision == 1
    )
    return [sql.to_invoice(row) for row in (await conn.execute(query)).mappings()]


async def _currency_of(conn: AsyncConnection, org_id: str) -> str:
    query = select(billing_accounts.c.currency).where(billing_accounts.c.org_id == org_id)
    return str(await conn.scalar(query) or "USD")


def _invoice(
    org_id: OrgId, kind: InvoiceKind, period: Period, draft: Draft, now: datetime, invoice_id: InvoiceId | None = None
) -> Invoice:
    own_id = invoice_id or InvoiceId("preview")
    return Invoice(
        id=own_id,
        org_id=org_id,
        kind=kind,
        period_start=period.start,
        period_end=period.end,
        revision=1,
        root_id=own_id,
        status=InvoiceStatus.DRAFT,
        created_at=now,
        **draft.columns(),
    )
