"""Invoices that nobody pays: reminded of, overdue, suspended; each once, and handed to whoever sends notices."""

from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.billing.invoices.model import InvoiceStatus, InvoicingTerms
from crosslogic.billing.invoices.notices import NoticeOutbox
from crosslogic.billing.invoices.service import InvoiceService
from crosslogic.insight.notices.outbox import Outbox
from crosslogic.jobs.dunning import Dunning
from crosslogic.jobs.invoice_notices import InvoiceNotices
from crosslogic.kernel.clock import ManualClock
from crosslogic.kernel.ids import InvoiceId, OrgId
from crosslogic.store.engine import reading
from crosslogic.store.tables import notices
from crosslogic.tenancy.keys import key_hasher
from crosslogic.tenancy.model import Status
from crosslogic.tenancy.service import TenancyService
from crosslogic.tenancy.sql import TenancySql
from tests.invoice_samples import FEB, issued, put

DUE = datetime.fromisoformat("2026-02-08T00:00:00+00:00")
ONE = InvoiceId("inv_1")


class Desk:
    def __init__(self, engine: AsyncEngine, **terms: object) -> None:
        self.clock = ManualClock(FEB)
        self.engine = engine
        self.tenancy = TenancyService(TenancySql(engine), key_hasher(), self.clock)
        self.dunning = Dunning(engine, self.tenancy, InvoicingTerms(**terms), self.clock)  # type: ignore[arg-type]
        self.invoices = InvoiceService(engine, key_hasher(), self.clock)

    async def at(self, when: datetime) -> list[tuple[str, str]]:
        """What was told since the last look, after two rounds at that time."""
        self.clock.advance((when - self.clock.now()).total_seconds())
        await self.dunning.round()
        assert await self.dunning.round() == 0
        told = await NoticeOutbox(self.engine).pending()
        handing = InvoiceNotices(NoticeOutbox(self.engine), Outbox(self.engine), self.clock)
        assert await handing.round() == len(told)
        assert await handing.round() == 0
        return [(each.kind, each.step) for each in told]


async def org_with_invoice(engine: AsyncEngine, desk: Desk) -> str:
    org = await desk.tenancy.create_org("acme")
    await put(engine, issued(org_id=OrgId(org.id), due_at=DUE, grace_days=7))
    return org.id


async def test_reminders_overdue_and_suspension_come_once_each(engine: AsyncEngine) -> None:
    desk = Desk(engine, suspend_unpaid=True)
    org = await org_with_invoice(engine, desk)
    assert await desk.at(DUE - timedelta(days=4)) == []
    assert await desk.at(DUE - timedelta(days=2)) == [("invoice.reminder", "-3d")]
    assert await desk.at(DUE + timedelta(hours=1)) == [("invoice.overdue", "")]
    assert (await desk.invoices.invoice(ONE)).status is InvoiceStatus.OVERDUE
    # Nothing ran for days: only the last reminder is sent.
    assert await desk.at(DUE + timedelta(days=6)) == [("invoice.reminder", "+3d")]
    assert (await desk.tenancy.org(org)).status is Status.ACTIVE
    late = await desk.at(DUE + timedelta(days=7, hours=1))
    assert late == [("invoice.reminder", "+7d"), ("org.suspended", "")]
    assert (await desk.tenancy.org(org)).status is Status.SUSPENDED
    await desk.tenancy.change_org(org, status=Status.ACTIVE)  # somebody decides otherwise
    assert await desk.at(DUE + timedelta(days=30)) == []
    assert (await desk.tenancy.org(org)).status is Status.ACTIVE
    async with reading(engine) as conn:
        rows = (await conn.execute(select(notices.c.title, notices.c.kind).order_by(notices.c.at))).all()
    assert tuple(rows[-1]) == ("Suspended: invoice INV/2026/000001 is not paid", "suspended")
    assert len(rows) == 5


async def test_who_has_paid_is_left_alone_and_nobody_is_suspended_unasked(engine: AsyncEngine) -> None:
    desk = Desk(engine)
    org = await org_with_invoice(engine, desk)
    assert await desk.at(DUE + timedelta(days=20)) == [("invoice.overdue", ""), ("invoice.reminder", "+7d")]
    assert (await desk.tenancy.org(org)).status is Status.ACTIVE
    await desk.invoices.mark_paid(ONE, "utr-1", 1180, desk.clock.now())
    assert await desk.at(DUE + timedelta(days=21)) == [("invoice.paid", "")]


async def test_a_kill_between_suspending_and_saying_so_says_it_later(engine: AsyncEngine) -> None:
    desk = Desk(engine, suspend_unpaid=True)
    org = await org_with_invoice(engine, desk)
    await desk.tenancy.change_org(org, status=Status.SUSPENDED)  # as far as the process came that died
    told = await desk.at(DUE + timedelta(days=8))
    assert ("org.suspended", "") in told
    entries = await desk.tenancy.audit.entries(org_id=org, action="org.suspend")
    assert len(entries) == 1
