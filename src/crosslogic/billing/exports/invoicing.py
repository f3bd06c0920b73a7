"""Puts issued invoices into the provider's books (`stripe_invoice`), and marks them paid there once they are.

Invariant: one window for each invoice, written before anything is sent. What is there is read before anything is added,
so a step may be repeated at any age, and an invoice is only finalised there when both sums agree.
"""

import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.billing.exports import sql, windows
from crosslogic.billing.exports.items import MOST_ITEMS, items_of
from crosslogic.billing.exports.model import Mode, Window, WindowStatus
from crosslogic.billing.exports.ports import InvoiceItem, InvoiceOrder, InvoiceSink
from crosslogic.billing.exports.service import Counters, NoCounters
from crosslogic.billing.invoices.model import InvoiceStatus
from crosslogic.billing.invoices.service import InvoiceService
from crosslogic.billing.payments.currencies import decimals_of
from crosslogic.billing.payments.model import Status
from crosslogic.billing.payments.ports import OutcomeUnknown, ProviderRefused
from crosslogic.kernel.clock import Clock
from crosslogic.kernel.errors import Unavailable
from crosslogic.kernel.ids import OrgId
from crosslogic.store.engine import reading
from crosslogic.store.tables import export_modes, export_windows, invoices, payments

_LOOK = timedelta(hours=1)  # whether an invoice that is in the books was paid
_WAITING = (WindowStatus.SEALED, WindowStatus.SENDING, WindowStatus.SENT)
_log = logging.getLogger(__name__)


class InvoiceExports:
    def __init__(
        self,
        engine: AsyncEngine,
        clock: Clock,
        sink: InvoiceSink,
        books: InvoiceService,
        customer: Callable[[OrgId], Awaitable[str]],
        counters: Counters | None = None,
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._sink = sink
        self._books = books
        self._customer = customer
        self._counters = counters or NoCounters()

    async def run(self) -> None:
        """The job."""
        await self.plan()
        await self.drive()

    async def plan(self) -> int:
        """A window for each issued invoice that has none, of orgs whose way this is."""
        i, w, m = invoices.c, export_windows.c, export_modes.c
        query = (
            select(i.id, i.org_id, i.period_end, i.total_minor, i.prepaid_minor)
            .join(export_modes, m.org_id == i.org_id)
            .outerjoin(export_windows, (w.meter == i.id) & (w.org_id == i.org_id))
            .where(m.mode == Mode.STRIPE_INVOICE.value, w.id.is_(None), i.issued_at.is_not(None))
            .where(i.issued_at >= m.since, i.status != InvoiceStatus.VOID.value)
            .order_by(i.id)
            .limit(1_000)
        )
        async with reading(self._engine) as conn:
            found = (await conn.execute(query)).all()
        now = self._clock.now()
        for row in found:
            window = Window(
                id=f"cic:{row.org_id}:{row.id}",
                org_id=OrgId(row.org_id),
                mode=Mode.STRIPE_INVOICE,
                meter=row.id,
                hour=row.period_end,
                n=1,
                quantity=row.total_minor - row.prepaid_minor,
                from_seq=0,
                through_seq=0,
                status=WindowStatus.SEALED,
                created_at=now,
                next_step_at=now,
            )
            async with self._engine.begin() as conn:
                await sql.add(conn, window)
        return len(found)

    async def drive(self) -> int:
        """A step for each that waits for one, oldest first, until the provider is away."""
        w = export_windows.c
        now = self._clock.now()
        here = (w.mode == Mode.STRIPE_INVOICE.value, w.next_step_at <= now, w.status.in_(_WAITING))
        taken = 0
        for window in await sql.find(self._engine, *here, limit=500):
            if not await self._step(window):
                break
            taken += 1
        return taken

    async def _step(self, window: Window) -> bool:
        """False when the provider is away."""
        now = self._clock.now()
        async with self._engine.begin() as conn:
            before = await sql.locked(conn, window.id)
            if before.next_step_at is None or before.next_step_at > now:
                return True
            changed = {"next_step_at": now + windows.CLAIM, "sendings": before.sendings + 1, "last_sent_at": now}
            if before.status is not WindowStatus.SENT:
                changed |= {"status": WindowStatus.SENDING, "first_sent_at": before.first_sent_at or now}
            window = await sql.change(conn, window.id, **changed)
        try:
            if window.status is WindowStatus.SENT:
                await self._settle(window)
            else:
                await self._put(window)
        except (OutcomeUnknown, Unavailable) as error:
            await self._failed(window, str(error), windows.pause(window.sendings))
            return False
        except ProviderRefused as refused:
            _log.error("invoice %s is not in the provider's books (%s)", window.meter, refused.code)
            await self._failed(window, f"{refused.code}: {refused}", windows.RETRY)
        return True

    async def _put(self, window: Window) -> None:
        invoice = await self._books.invoice(window.meter)
        decimals = decimals_of(invoice.currency)
        items = items_of(await self._books.lines(invoice), decimals)
        due = invoice.total_minor - invoice.prepaid_minor
        rounding = due - sum(each.amount_minor for each in items)
        if rounding:  # bought credits, what is not a line
            kept = items if len(items) < MOST_ITEMS else (*items[: MOST_ITEMS - 2], _together(items[MOST_ITEMS - 2 :]))
            items = (*kept, InvoiceItem(0, "Paid before, and rounding", rounding))
        ref = await self._sink.put(
            InvoiceOrder(
                invoice_id=invoice.id,
                number=invoice.number or "",
                customer_ref=await self._customer(window.org_id),
                currency=invoice.currency.lower(),
                items=items,
                total_minor=due,
            )
        )
        async with self._engine.begin() as conn:
            await sql.change(
                conn,
                window.id,
                status=WindowStatus.SENT,
                provider_ref=ref,
                billing_failed=False,
                failure=None,
                next_step_at=self._clock.now(),
            )
        self._counters.billing_pushed(1, 0)

    async def _settle(self, window: Window) -> None:
        invoice = await self._books.invoice(window.meter)
        now = self._clock.now()
        values: dict[str, object] = {"next_step_at": now + _LOOK, "billing_failed": False, "failure": None}
        if invoice.status is InvoiceStatus.PAID and window.provider_ref is not None:
            p = payments.c
            paid_by = select(p.provider_ref).where(p.invoice_id == invoice.id, p.status == Status.SUCCEEDED.value)
            async with reading(self._engine) as conn:
                payment_ref = await conn.scalar(paid_by.where(p.provider == "stripe"))
            if await self._sink.settle(window.provider_ref, payment_ref):
                values |= {"next_step_at": None, "status": WindowStatus.VERIFIED, "resolved_at": now}
        elif invoice.status is InvoiceStatus.VOID and window.provider_ref is not None:
            await self._sink.void(window.provider_ref)
            values |= {"next_step_at": None, "resolved_at": now}
        async with self._engine.begin() as conn:
            await sql.change(conn, window.id, **values)

    async def _failed(self, window: Window, why: str, pause: timedelta) -> None:
        self._counters.billing_failed(1)
        async with self._engine.begin() as conn:
            await sql.change(
                conn, window.id, billing_failed=True, failure=why[:300], next_step_at=self._clock.now() + pause
            )


def _together(items: tuple[InvoiceItem, ...]) -> InvoiceItem:
    return InvoiceItem(items[0].n, "Further lines", sum(each.amount_minor for each in items))
