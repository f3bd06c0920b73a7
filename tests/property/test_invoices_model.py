"""Any story of usage, closes, issues, payments, credits and voids: the two databases and a model in memory agree on it.

Invariants 13, 16, 17, 18 and 24 hold after every step: rounding is bounded and tax parts sum; void and reissue
conserve; issued bytes never change and numbers have no hole; only listed moves happen; no invoice crosses org or
currency.
"""

import asyncio
import json
from collections import defaultdict
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.billing.invoices import states
from crosslogic.billing.invoices.currency import pico_per_minor
from crosslogic.billing.invoices.document import digest_of
from crosslogic.billing.invoices.draft import Bill, UsageSum, drafted
from crosslogic.billing.invoices.model import Invoice, InvoiceStatus
from crosslogic.billing.invoices.periods import Period, ended, period_of
from crosslogic.billing.invoices.service import InvoiceService
from crosslogic.billing.profiles.model import NO_PROFILE, BillingTerms
from crosslogic.kernel.clock import ManualClock
from crosslogic.kernel.errors import Conflict, InvalidRequest
from crosslogic.kernel.ids import OrgId
from crosslogic.store.engine import create_engine, reading
from crosslogic.store.tables import charges
from crosslogic.tenancy.keys import key_hasher
from tests.billing_samples import SELLER, charge_row, desk, org_row, put_rows
from tests.examples import examples

START = datetime(2026, 1, 10, 12, tzinfo=UTC)
LIVE = (InvoiceStatus.ISSUED, InvoiceStatus.OVERDUE, InvoiceStatus.PAID, InvoiceStatus.DRAFT)
_stories = count(1)

USE = st.tuples(
    st.just("use"),
    st.one_of(
        st.integers(-(10**11), 10**12), st.integers(10**12, 10**14)
    ),  # pico: from below a minor unit to a hundred
    st.sampled_from(["m1", "m2"]),
    st.sampled_from(["INR", "JPY"]),
    st.integers(0, 40),  # days ago
)
STEP = st.one_of(
    USE,
    USE,
    st.tuples(st.just("wait"), st.integers(1, 40)),
    st.just(("close",)),
    st.just(("issue",)),
    st.just(("month",)),
    st.just(("month",)),
    st.tuples(st.just("void"), st.integers(0, 5)),
    st.tuples(st.just("reissue"), st.integers(0, 5)),
    st.tuples(st.just("credit"), st.integers(0, 5), st.integers(1, 5000)),
    st.tuples(st.just("pay"), st.integers(0, 5), st.sampled_from([1, 100, 5_000, 100_000])),
)


class Model:
    """Invoices in memory: what the database has to come to, from the same pure functions and nothing else."""

    def __init__(self) -> None:
        self.now = START
        self.used: list[dict[str, Any]] = []  # charges; "root" is the invoice that claimed it
        self.invoices: list[dict[str, Any]] = []

    def close(self) -> None:
        now = self.now - timedelta(hours=1)
        until = max((each["period"].end for each in self.invoices), default=None)
        terms = BillingTerms()
        free = [each["at"] for each in self.used if each["root"] is None and each["at"] < period_of(now, terms).start]
        if not free or (until is not None and period_of(now, terms).start <= until):
            return
        begins = period_of(min(free), terms).start
        for period in ended(begins if until is None else max(begins, until), now, terms):
            for currency in ("INR", "JPY"):
                self._close(period, currency)

    def _close(self, period: Period, currency: str) -> None:
        mine = [e for e in self.used if e["root"] is None and e["at"] < period.end and e["currency"] == currency]
        if not mine or sum(each["amount"] for each in mine) < 0:
            return
        root = len(self.invoices)
        for each in mine:
            each["root"] = root
        new = {"period": period, "currency": currency, "root": root, "revision": 1, "status": "draft"}
        self.invoices.append({**new, "paid": 0, "credited": 0, **self._sums(root, currency)})

    def _sums(self, root: int, currency: str) -> dict[str, int]:
        amounts: dict[str, int] = defaultdict(int)
        for each in self.used:
            if each["root"] == root:
                amounts[each["model"]] += each["amount"]
        usage = tuple(UsageSum(model, "in-mumbai", 1, 0, 0, 0, a, 0, a) for model, a in amounts.items())
        found = drafted(Bill(currency, usage), SELLER, NO_PROFILE, self.now.date())
        return {"exact": found.exact_amount, "total": found.total_minor}

    def issue(self, each: dict[str, Any]) -> None:
        each["status"] = "issued"
        self._settle(each)

    def _settle(self, each: dict[str, Any]) -> None:
        if each["status"] in ("issued", "overdue") and each["total"] - each["paid"] - each["credited"] <= 0:
            each["status"] = "paid"

    def pay(self, each: dict[str, Any], amount: int) -> bool:
        if each["status"] in ("draft", "void"):
            return False
        each["paid"] += amount
        self._settle(each)
        return True

    def credit(self, each: dict[str, Any], amount: int) -> bool:
        if each["status"] in ("draft", "void") or not 0 < amount <= each["total"] - each["credited"]:
            return False
        each["credited"] += amount
        self._settle(each)
        return True

    def void(self, each: dict[str, Any]) -> bool:
        if each["status"] == "void":
            return True
        if each["status"] == "paid" or each["paid"] or each["credited"]:
            return False
        each["status"] = "void"
        return True

    def reissue(self, each: dict[str, Any]) -> bool:
        last = max((e for e in self.invoices if e["root"] == each["root"]), key=lambda e: e["revision"])
        if last is not each and each["status"] == "void":
            return True
        if not self.void(each):
            return False
        fresh = {**each, "revision": each["revision"] + 1, "status": "draft", "paid": 0, "credited": 0}
        self.invoices.append(fresh)
        self.issue(fresh)
        return True


class Story:
    """One org in the database, and the model of it."""

    def __init__(self, engine: AsyncEngine) -> None:
        n = next(_stories)
        self.engine = engine
        self.org = OrgId(f"org_s{n}_{id(self) % 997}")
        self.series = f"S{n}"
        self.clock = ManualClock(START)
        self.closer, self.issuer = desk(engine, self.clock, series=self.series, credit_note_series=f"C{n}")
        self.service = InvoiceService(engine, key_hasher(), self.clock)
        self.model = Model()
        self.seq = 0
        self.seen: dict[str, Invoice] = {}  # as each was when last looked at

    async def begin(self) -> None:
        await put_rows(self.engine, orgs=[org_row(self.org, self.org)])

    async def step(self, step: tuple[Any, ...]) -> None:
        match step:
            case ("use", amount, model, currency, days):
                self.seq += 1
                at = max(self.clock.now() - timedelta(days=days), START - timedelta(days=9))
                row = charge_row(self.seq, at, amount, org_id=self.org, model=model, currency=currency)
                await put_rows(self.engine, charges=[row])
                self.model.used.append({"at": at, "amount": amount, "model": model, "currency": currency, "root": None})
            case ("wait", days):
                self.clock.advance(days * 86_400.0)
                self.model.now = self.clock.now()
            case ("month",):  # what happens most of the time: a month goes by, and what it came to is issued
                for each in (("wait", 31), ("close",), ("issue",)):
                    await self.step(each)
            case ("close",):
                await desk(self.engine, self.clock, series=self.series)[0].close_ended(self.org)
                self.model.close()
            case ("issue",):
                for invoice, each in zip(await self.all(), list(self.model.invoices), strict=True):
                    if each["status"] == "draft":
                        await self.issuer.issue(invoice.id)
                        self.model.issue(each)
            case (verb, n, *more):
                found = await self.all()
                if found:
                    place = n % len(found)
                    await self._act(verb, found[place], self.model.invoices[place], *more)

    async def _act(self, verb: str, invoice: Invoice, each: dict[str, Any], amount: int = 0) -> None:
        self.seq += 1
        ref = f"r{self.seq}"
        expected = {
            "void": lambda: self.model.void(each),
            "reissue": lambda: self.model.reissue(each),
            "pay": lambda: self.model.pay(each, amount),
            "credit": lambda: self.model.credit(each, amount),
        }[verb]()
        doing: Coroutine[Any, Any, object] = {
            "void": lambda: self.issuer.void(invoice.id, "story"),
            "reissue": lambda: self.issuer.reissue(invoice.id, "story"),
            "pay": lambda: self.service.mark_paid(invoice.id, ref, amount, self.clock.now()),
            "credit": lambda: self.issuer.credit_note(invoice.id, ref=ref, reason="story", amount_minor=amount),
        }[verb]()
        try:
            await doing
        except (Conflict, InvalidRequest):
            assert not expected, (verb, invoice.status)
        else:
            assert expected, (verb, invoice.status)

    async def all(self) -> list[Invoice]:
        """In the order of the model's: by period, currency and revision."""
        self.model.invoices.sort(key=lambda each: (each["period"].start, each["currency"], each["revision"]))
        found = await self.service.invoices(org_id=self.org, limit=500)
        return sorted(found, key=lambda each: (each.period_start, each.currency, each.revision))

    async def check(self) -> None:
        found = await self.all()
        self._agrees(found)
        for invoice in found:
            self._rounding(invoice)
            self._immutable(invoice)
        serials: dict[str, list[int]] = defaultdict(list)
        for invoice in found:
            if invoice.serial is not None:
                serials[str(invoice.fiscal_year)].append(invoice.serial)
        for taken in serials.values():
            assert sorted(taken) == list(range(1, len(taken) + 1))  # 17: no hole
        await self._conserves(found)

    def _agrees(self, found: list[Invoice]) -> None:
        """27, for invoices: the database and the model say the same."""
        there = [
            (*(each.period_start, each.currency, each.revision, each.status.value), *_amounts(each)) for each in found
        ]
        modelled = [
            (*(each["period"].start, each["currency"], each["revision"], each["status"]), *_modelled(each))
            for each in self.model.invoices
        ]
        assert there == modelled

    def _rounding(self, invoice: Invoice) -> None:
        """13. |invoice - exact| is at most half a minor unit for each line; tax parts sum."""
        unit = pico_per_minor(invoice.currency)
        net = invoice.subtotal_minor - invoice.discount_minor - invoice.credit_minor
        assert net * unit - invoice.exact_amount == invoice.rounding_amount
        assert 2 * abs(invoice.rounding_amount) <= unit * invoice.line_count
        assert invoice.total_minor == net + invoice.tax_minor
        if invoice.document is not None:
            parts = json.loads(invoice.document)["tax"]["parts"]
            assert sum(part["amount_minor"] for part in parts) == invoice.tax_minor

    def _immutable(self, invoice: Invoice) -> None:
        """17 and 18: bytes stay, statuses only move along listed edges (two at most between two looks)."""
        before = self.seen.get(invoice.id)
        self.seen[invoice.id] = invoice
        if invoice.document is not None:
            assert invoice.digest == digest_of(invoice.document)
        if before is None or before.status is invoice.status:
            return
        direct = (before.status, invoice.status) in states.MOVES
        by_issue = before.status is InvoiceStatus.DRAFT and (InvoiceStatus.ISSUED, invoice.status) in states.MOVES
        assert direct or by_issue
        if before.status is not InvoiceStatus.DRAFT:
            assert (invoice.document, invoice.number, invoice.total_minor) == (
                before.document,
                before.number,
                before.total_minor,
            )

    async def _conserves(self, found: list[Invoice]) -> None:
        """16 and 24: what was used is on one live invoice, on a void one, or free; never on two, of another org or in
        another currency."""
        async with reading(self.engine) as conn:
            rows = (await conn.execute(select(charges).where(charges.c.org_id == self.org))).mappings().all()
        roots = {invoice.id: invoice for invoice in found if invoice.revision == 1}
        claimed: dict[str, int] = defaultdict(int)
        for row in rows:
            if row["invoice_id"] is not None:
                root = roots[row["invoice_id"]]
                assert (root.org_id, root.currency) == (row["org_id"], row["currency"])
                claimed[root.id] += row["amount"]
        for invoice in found:
            assert invoice.exact_amount == claimed[invoice.root_id]
        for root_id in roots:
            live = [each for each in found if each.root_id == root_id and each.status in LIVE]
            assert len(live) <= 1


def _amounts(invoice: Invoice) -> tuple[int, ...]:
    return (invoice.exact_amount, invoice.total_minor, invoice.paid_minor, invoice.credited_minor)


def _modelled(invoice: dict[str, Any]) -> tuple[int, ...]:
    return tuple(invoice[name] for name in ("exact", "total", "paid", "credited"))


def test_every_story_is_told_alike_by_database_and_memory(database_url: str) -> None:
    with asyncio.Runner() as runner:
        engine = create_engine(database_url)

        @settings(max_examples=examples(60), deadline=None, suppress_health_check=list(HealthCheck))
        @given(st.lists(STEP, min_size=6, max_size=24))
        def told(steps: list[tuple[Any, ...]]) -> None:
            async def tell() -> None:
                story = Story(engine)
                await story.begin()
                for step in steps:
                    await story.step(step)
                    await story.check()

                reached.update(each.status for each in await story.all())

            runner.run(tell())

        reached: set[InvoiceStatus] = set()
        told()
        assert {InvoiceStatus.ISSUED, InvoiceStatus.PAID, InvoiceStatus.VOID} <= reached  # the stories tell something
        runner.run(engine.dispose())
