"""Compares all books, keeps the report, and repairs on demand.

Invariants: looking changes nothing; a repair is a correction beside what is there (a look at the provider, a further
window), written down in the audit log, and never done by itself.
"""

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import msgspec
from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.billing.exports import sql as exports_sql
from crosslogic.billing.exports import windows
from crosslogic.billing.exports.model import COUNTING, Mode, Window, WindowStatus
from crosslogic.billing.exports.ports import MeterSink
from crosslogic.billing.payments.ports import ProviderRefused
from crosslogic.billing.payments.service import PaymentService
from crosslogic.billing.payments.sql import customer_ref
from crosslogic.billing.postings.complete import complete
from crosslogic.billing.postings.replay import REPLAYED, expected
from crosslogic.billing.postings.sql import balances
from crosslogic.billing.reconciliation import compare
from crosslogic.billing.reconciliation.books import Books
from crosslogic.billing.reconciliation.model import Difference, Kind, Repair, Report
from crosslogic.kernel.clock import Clock
from crosslogic.kernel.errors import Conflict, InvalidRequest, NotFound, Unavailable
from crosslogic.kernel.ids import OrgId, new_id
from crosslogic.metering.ledger_reader import LedgerReader
from crosslogic.store.engine import reading
from crosslogic.store.tables import reconciliations
from crosslogic.tenancy.audit_sql import AuditTrail

MOST_DAYS = 31
_DAY = timedelta(days=1)
_UNTOLD = "it is told until it is taken note of"


class Reconciler:
    """`payments` and `meters` are None where there is no provider: then our own books are compared with each other."""

    def __init__(
        self,
        engine: AsyncEngine,
        clock: Clock,
        trail: AuditTrail,
        payments: PaymentService | None = None,
        meters: MeterSink | None = None,
    ) -> None:
        self.engine = engine
        self._clock = clock
        self._trail = trail
        self._payments = payments
        self._meters = meters
        self._books = Books(engine)

    def recording(self, trail: AuditTrail) -> "Reconciler":
        return Reconciler(self.engine, self._clock, trail, self._payments, self._meters)

    async def daily(self) -> Report | None:
        """The job, once a day however often it runs: yesterday and the day before, where late things happen."""
        yesterday = (self._clock.now() - _DAY).date()
        if any(each.day >= yesterday and each.days >= 2 for each in await self.reports(limit=10)):
            return None
        return await self.run(yesterday, days=2)

    async def run(self, day: date | None = None, days: int = 1, org_id: str | None = None) -> Report:
        """Compare everything; of invoices, payments and exports those of `days` days up to and with `day` (UTC)."""
        began = self._clock.now()
        last = day or (began - _DAY).date()
        if not 1 <= days <= MOST_DAYS:
            raise InvalidRequest(f"compare 1 to {MOST_DAYS} days at once", param="days")
        end = datetime.combine(last, time(), UTC) + _DAY
        found: list[Difference] = []
        checked: dict[str, int] = {}
        skipped: list[str] = []
        if org_id is None:
            nodes, generated, billed = await self._books.witnessed(end - days * _DAY, end)
            _count(checked, "nodes with a witness", nodes)
            found += compare.witness(nodes, generated, billed)
        for org in [org_id] if org_id is not None else await self._books.orgs():
            found += await self._own_books(org, end - days * _DAY, end, checked)
            try:
                found += await self._provider(org, end - days * _DAY, end, checked)
            except (Unavailable, ProviderRefused) as error:
                skipped.append(f"{org}: the provider's books ({type(error).__name__})")
        report = Report(
            id=new_id("rec"),
            day=last,
            days=days,
            started_at=began,
            ended_at=self._clock.now(),
            checked=checked,
            differences=tuple(found),
            skipped=tuple(skipped),
        )
        await self._keep(report)
        return report

    async def reports(self, after: str | None = None, limit: int = 100) -> list[Report]:
        """Newest first."""
        t = reconciliations.c
        query = select(reconciliations).order_by(t.id.desc()).limit(limit)
        if after is not None:
            query = query.where(t.id < after)
        async with reading(self.engine) as conn:
            return [_report(dict(row)) for row in (await conn.execute(query)).mappings()]

    async def report(self, report_id: str) -> Report:
        query = select(reconciliations).where(reconciliations.c.id == report_id)
        async with reading(self.engine) as conn:
            row = (await conn.execute(query)).mappings().first()
        if row is None:
            raise NotFound("there is no such reconciliation")
        return _report(dict(row))

    async def repair(self, report_id: str, entity: str) -> str:
        """Put one difference of a report right; says what was done. Raises Conflict where only people can."""
        report = await self.report(report_id)
        for difference in report.differences:
            if difference.entity == entity and difference.repair is not None:
                done = await self._repair(difference)
                async with self.engine.begin() as conn:
                    await self._trail.append(
                        conn,
                        "reconciliation.repair",
                        entity,
                        org_id=difference.org_id,
                        before={"ours": difference.ours, "theirs": difference.theirs},
                        after={"done": done, "report": report_id},
                    )
                return done
        raise Conflict("this difference cannot be repaired by itself; its cause says what to do")

    async def _repair(self, difference: Difference) -> str:
        if difference.repair is Repair.TELL_AGAIN:
            return await self._tell_again(difference)
        if difference.repair is Repair.POST:
            return f"{await complete(self.engine, difference.org_id)} transactions were posted"
        if self._payments is None:
            raise Conflict("payments are off; set enable_payments: true")
        if difference.kind is Kind.REFUND_PROVIDER:
            refund = await self._payments.refund_driver.look_at(difference.entity, difference.provider_ref or "")
            return f"looked: the refund is {refund.status.value}"
        if difference.provider_ref is None:
            payment = await self._payments.payment_driver.tell(difference.entity)
        else:
            payment = await self._payments.payment_driver.look_at(difference.entity, difference.provider_ref)
        return f"looked: the payment is {payment.status.value}"

    async def _own_books(self, org: str, start: datetime, end: datetime, checked: dict[str, int]) -> list[Difference]:
        books = self._books
        verdict = await LedgerReader(self.engine).verify(org)
        _count(checked, "ledger rows", verdict.rows)
        found = []
        if verdict.problem is not None:
            where = f"row {verdict.wrong_seq}"
            found.append(Difference(Kind.LEDGER_CHAIN, org, where, "its hash", "another", verdict.problem))
        through = await books.cursor(org)
        after = await books.start(org)
        ledger, charged = await books.ledger(org, after, through), await books.charged(org, after, through)
        _count(checked, "charges", charged["rows"])
        if ledger != charged:
            named = await books.unlike_charges(org, after, through)
            cause = "charges do not follow the ledger: " + (", ".join(f"{r} ({n})" for r, n in named) or "too many")
            found += compare.sums(Kind.LEDGER_CHARGE, org, f"up to {through}", ledger, charged, cause)
        rolled = await books.rolled_up(org)
        if rolled is not None:
            _count(checked, "roll-ups", 1)
            found += compare.sums(
                Kind.LEDGER_ROLLUP, org, "usage_hourly", rolled[1], rolled[0], "roll-ups do not follow the ledger"
            )
        for invoice, on_lines, claimed in await books.invoiced(org, start, end):
            _count(checked, "invoices", 1)
            found += compare.sums(
                Kind.CHARGE_INVOICE,
                org,
                invoice,
                {"amount": claimed},
                {"amount": on_lines},
                "the invoice's lines are not its charges",
            )
        for payment in await books.unapplied(org):
            kind = Kind.INVOICE_PAYMENT if payment.invoice_id else Kind.CREDIT_PAYMENT
            shown = f"{payment.captured_minor} {payment.currency}"
            found.append(Difference(kind, org, payment.id, shown, "nothing", _UNTOLD, Repair.LOOK))
        for invoice, ref, amount in await books.paid_by_nothing(org):
            cause = f"the invoice was marked paid by {ref}, which has not succeeded"
            found.append(Difference(Kind.INVOICE_PAYMENT, org, invoice, "no payment", str(amount), cause))
        found += await self._accounts(org, checked)
        windowed = await books.windowed(org)
        if windowed is not None:
            _count(checked, "exports", 1)
            found += compare.sums(
                Kind.CHARGE_EXPORT,
                org,
                "windows",
                {"tokens": windowed[1]},
                {"tokens": windowed[0]},
                "windows do not hold what was charged",
            )
        return found

    async def _accounts(self, org: str, checked: dict[str, int]) -> list[Difference]:
        """Every account that can be computed again holds that, and all of them together nothing."""
        found = []
        posted = {currency: accounts for (_, currency), accounts in (await balances(self.engine, org)).items()}
        wanted = await expected(self.engine, org)
        for currency in sorted(posted.keys() | wanted.keys()):
            _count(checked, "accounts", len(posted.get(currency, {})))
            ours = {each.value: wanted.get(currency, {}).get(each, 0) for each in REPLAYED}
            theirs = {each.value: posted.get(currency, {}).get(each, 0) for each in REPLAYED}
            cause = "postings do not follow invoices, payments, credit notes and credits"
            differing = compare.sums(Kind.POSTINGS, org, currency, ours, theirs, cause)
            found += [msgspec.structs.replace(each, repair=Repair.POST) for each in differing]
            total = {"total": sum(posted.get(currency, {}).values())}
            found += compare.sums(Kind.POSTINGS, org, currency, {"total": 0}, total, "postings do not sum to zero")
        return found

    async def _provider(self, org: str, start: datetime, end: datetime, checked: dict[str, int]) -> list[Difference]:
        if self._payments is None:
            return []
        processor = self._payments.processor
        ref = await customer_ref(self.engine, OrgId(org), processor.provider)
        if ref is None:
            return []
        ours = await self._books.payments(org, processor.provider, start, end)
        there = await processor.settled(ref, start, end)
        _count(checked, "payments", len(ours))
        _count(checked, "payments at the provider", len(there))
        found = compare.payments(org, ours, there)
        found += compare.refunds(org, await self._books.refunds_of(ours), there)
        return found + await self._meter_sums(org, ref, start, end, checked)

    async def _meter_sums(
        self, org: str, customer: str, start: datetime, end: datetime, checked: dict[str, int]
    ) -> list[Difference]:
        if self._meters is None:
            return []
        w = exports_sql.table.c
        here = (w.org_id == org, w.mode == Mode.STRIPE_METER.value, w.event_time >= start, w.event_time < end)
        by_hour: dict[tuple[str, datetime], list[Window]] = {}
        for window in await exports_sql.find(self.engine, *here):
            if window.event_time is not None:
                by_hour.setdefault((window.meter, window.event_time), []).append(window)
        found = []
        for (meter, hour), mates in by_hour.items():
            if any(each.status in (WindowStatus.SENDING, WindowStatus.DOUBTFUL) for each in mates):
                continue  # the exporter is at it
            if any(each.last_sent_at and self._clock.now() - each.last_sent_at < windows.SUMS_SETTLE for each in mates):
                continue  # the provider's sums may not show it yet
            _count(checked, "meter hours", 1)
            told = sum(each.quantity for each in mates if each.status in COUNTING)
            total = await self._meters.total(meter, customer, hour)
            if total != told:
                cause = "less was counted there than was taken" if total < told else "more was counted there than told"
                repair = Repair.TELL_AGAIN if total < told else None
                entity = f"{meter} {hour.isoformat()}"
                found.append(Difference(Kind.EXPORT_PROVIDER, org, entity, str(told), str(total), cause, repair, meter))
        return found

    async def _tell_again(self, difference: Difference) -> str:
        """Doubt the windows of that hour: the exporter then finds out which count there, and tells the others anew."""
        meter, _, when = difference.entity.partition(" ")
        w = exports_sql.table.c
        here = (w.org_id == difference.org_id, w.meter == meter, w.event_time == datetime.fromisoformat(when))
        doubted = 0
        for window in await exports_sql.find(self.engine, *here):
            async with self.engine.begin() as conn:
                if (await exports_sql.locked(conn, window.id)).status in COUNTING:
                    await exports_sql.change(
                        conn, window.id, status=WindowStatus.DOUBTFUL, next_step_at=self._clock.now()
                    )
                    doubted += 1
        return f"{doubted} windows are compared with the provider's sums again; what does not count is told anew"

    async def _keep(self, report: Report) -> None:
        row = {
            "id": report.id,
            "day": report.day,
            "days": report.days,
            "started_at": report.started_at,
            "ended_at": report.ended_at,
            "checked": {**report.checked, "skipped": list(report.skipped)},
            "differences": msgspec.to_builtins(report.differences),
        }
        async with self.engine.begin() as conn:
            await conn.execute(insert(reconciliations).values(**row))


def _count(checked: dict[str, int], what: str, many: int) -> None:
    checked[what] = checked.get(what, 0) + many


def _report(row: dict[str, Any]) -> Report:
    checked = dict(row["checked"])
    skipped: Sequence[str] = checked.pop("skipped", ())
    differences = msgspec.convert(row["differences"], tuple[Difference, ...])
    fields = {**row, "checked": checked, "skipped": tuple(skipped), "differences": differences}
    return Report(**fields)
