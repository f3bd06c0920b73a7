"""Invoices, credits and payments of one org, all of them real, over a provider's fake."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
from sqlalchemy import delete, insert
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.billing.chargebacks.service import ChargebackService
from crosslogic.billing.charges.rows import canonical
from crosslogic.billing.charges.state import RatingState
from crosslogic.billing.credits.service import CreditsService
from crosslogic.billing.invoices.closing import Closer
from crosslogic.billing.invoices.issuing import Issuer
from crosslogic.billing.invoices.model import Invoice, InvoicingTerms
from crosslogic.billing.invoices.notices import NoticeOutbox
from crosslogic.billing.invoices.service import InvoiceService
from crosslogic.billing.payments.model import Payment, Status
from crosslogic.billing.payments.owed import Invoices, PaidForOurs
from crosslogic.billing.payments.service import PaymentService
from crosslogic.kernel.clock import ManualClock
from crosslogic.kernel.ids import OrgId
from crosslogic.store.tables import charge_cursors, charges, credit_draws, orgs
from crosslogic.tenancy.audit_sql import AuditTrail
from crosslogic.tenancy.keys import key_hasher
from tests.billing_samples import charge_row
from tests.payments_rig import ACME, SIDES, Provider, Rig, org_row

CENT = 10**10  # in 1e-12 of a dollar


class House:
    """Acme has a card; what it owes is billed at once."""

    def __init__(self, rig: Rig, terms: InvoicingTerms | None = None) -> None:
        engine, clock, trail = rig.engine, rig.clock, AuditTrail(clock=rig.clock)
        self.engine, self.clock, self.rig = engine, clock, rig
        self.invoices = InvoiceService(engine, key_hasher(), clock)
        self.issuer = Issuer(engine, key_hasher(), clock, terms)
        self.closer = Closer(engine, self.issuer, clock)
        self.credits = CreditsService(engine, key_hasher(), clock)
        self.paid_for = PaidForOurs(engine, self.invoices, self.issuer, self.credits, clock)
        self.book = Invoices(self.invoices)
        self.payments = PaymentService(engine, rig.provider.processor, self.book, self.paid_for, clock, trail)
        rig.service = self.payments
        self.chargebacks = ChargebackService(engine, self.payments, self.paid_for, clock, trail)
        self.org = ACME
        self._charges = self._odd = self._draws = 0

    @property
    def provider(self) -> Provider:
        return self.rig.provider

    async def open(self) -> "House":
        await self.rig.prepare()
        await self.rig.method()
        return self

    async def move_in(self, org: OrgId) -> "House":
        """Another org, with a card of its own; for stories that are told one after the other."""
        self.org, self._charges, self._draws = org, 0, 0
        async with self.engine.begin() as conn:
            await conn.execute(insert(orgs).values(org_row(org, self.clock.now())))
        await self.rig.method(org)
        return self

    async def invoice(self, amount_minor: int = 1000) -> Invoice:
        """Issued, of usage that was just now."""
        self._charges += 1
        row = charge_row(
            self._charges,
            self.clock.now(),
            amount_minor * CENT + self._odd,
            org_id=self.org,
            currency="USD",
            region="us-east",
        )
        async with self.engine.begin() as conn:
            await conn.execute(insert(charges).values(row))
        self.provider.advance(3600)
        (draft,) = await self.closer.close_now(self.org)
        return await self.issuer.issue(draft.id)

    async def paid_invoice(self, amount_minor: int = 1000) -> tuple[Invoice, Payment]:
        invoice = await self.invoice(amount_minor)
        payment = await self.payments.pay_invoice(invoice.id)
        assert payment.status is Status.SUCCEEDED
        return await self.invoices.invoice(invoice.id), payment

    async def bought(self, amount_minor: int = 1000) -> Payment:
        payment = await self.payments.top_up(self.org, amount_minor, "usd")
        assert payment.status is Status.SUCCEEDED
        return payment

    async def use_credit(self, amount_minor: int) -> None:
        """As rating would: so much is drawn from what there is, in order."""
        left, drawn = amount_minor * CENT, {}
        for each in await self.credits.of_org(self.org):
            drawn[each.grant.id] = each.drawn
            part = min(left, each.remaining)
            if part <= 0:
                continue
            left -= part
            drawn[each.grant.id] += part
            self._draws += 1
            draw = {"org_id": self.org, "seq": 10**6 + self._draws, "grant_id": each.grant.id, "amount": part}
            async with self.engine.begin() as conn:
                await conn.execute(insert(credit_draws).values(**draw, at=self.clock.now()))
        async with self.engine.begin() as conn:
            await conn.execute(delete(charge_cursors).where(charge_cursors.c.org_id == self.org))
            state = canonical(RatingState(drawn=drawn))
            await conn.execute(insert(charge_cursors).values(org_id=self.org, seq=self._charges, state=state))

    async def odd_invoice(self, amount: int) -> Invoice:
        """Of so many 1e-12 of a dollar more than ten dollars, which no invoice can ask for."""
        self._odd = amount
        return await self.invoice(1000)

    async def balance_minor(self) -> int:
        return await self.credits.balance(self.org) // CENT

    async def told(self) -> list[str]:
        """The kinds of what was to be told, oldest first."""
        return [each.kind for each in await NoticeOutbox(self.engine).pending(1000)]

    async def sums(self, invoice: Invoice) -> tuple[str, int, int, int]:
        """Status, paid, credited, open of an invoice now; what was paid is the sum of its payments."""
        now = await self.invoices.invoice(invoice.id)
        assert now.paid_minor == sum(each.amount_minor for each in await self.invoices.payments(now))
        notes = await self.invoices.credit_notes(now)
        assert now.credited_minor == sum(each.total_minor for each in notes)
        assert msgspec.structs.replace(now, status=invoice.status).document == now.document
        return now.status.value, now.paid_minor, now.credited_minor, now.open_minor


@asynccontextmanager
async def paid_house(engine: AsyncEngine, provider: str, terms: InvoicingTerms | None = None) -> AsyncIterator[House]:
    """An open house over the fake of this provider, one of `SIDES`."""
    clock = ManualClock()
    async with SIDES[provider](clock) as side:
        yield await House(Rig(engine, side, clock), terms).open()
