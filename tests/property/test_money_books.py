"""Invoices, payments, refunds, credits and chargebacks in any order, on both databases: after each step every account
holds what can be computed again, and in the end our books say what the provider's do."""

import asyncio
from contextlib import suppress
from itertools import count
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crosslogic.billing.invoices.model import Invoice, InvoiceStatus
from crosslogic.billing.payments.model import Payment
from crosslogic.billing.postings import sql
from crosslogic.billing.postings.model import Account
from crosslogic.billing.postings.replay import REPLAYED, expected
from crosslogic.kernel.clock import ManualClock
from crosslogic.kernel.errors import Conflict, InvalidRequest
from crosslogic.kernel.ids import OrgId
from crosslogic.store.engine import create_engine
from tests.examples import examples
from tests.paid_house import CENT, House
from tests.payments_rig import Rig, stripe_side

NTH = st.integers(0, 9)
AMOUNT = st.integers(50, 5_000)
STEP = st.one_of(
    st.tuples(st.just("invoice"), AMOUNT),
    st.tuples(st.just("pay"), NTH),
    st.tuples(st.just("buy"), AMOUNT),
    st.tuples(st.just("use"), AMOUNT),
    st.tuples(st.just("refund"), NTH, st.one_of(st.none(), AMOUNT)),
    st.tuples(st.just("credit"), NTH, AMOUNT),
    st.tuples(st.just("void"), NTH),
    st.tuples(st.just("dispute"), NTH, st.booleans()),
    st.tuples(st.just("escalate"), NTH),
    st.tuples(st.just("decide"), NTH, st.booleans()),
    st.tuples(st.just("look"), NTH),
)
_NUMBERS = count()


class Story:
    """One org's; the disputes of its payments are heard of when somebody looks."""

    def __init__(self, house: House, fake: Any) -> None:
        self.house, self.fake = house, fake
        self.invoices: list[Invoice] = []
        self.payments: list[Payment] = []
        self.cases: list[str] = []

    async def step(self, name: str, *given: Any) -> None:
        with suppress(Conflict, InvalidRequest):  # what nobody may do now
            await getattr(self, name)(*given)

    async def invoice(self, amount: int) -> None:
        self.invoices.append(await self.house.invoice(amount))

    async def pay(self, nth: int) -> None:
        if self.invoices:
            invoice = self.invoices[nth % len(self.invoices)]
            self.payments.append(await self.house.payments.pay_invoice(invoice.id))

    async def buy(self, amount: int) -> None:
        self.payments.append(await self.house.bought(amount))

    async def use(self, amount: int) -> None:
        await self.house.use_credit(amount)

    async def refund(self, nth: int, amount: int | None) -> None:
        if self.payments:
            await self.house.payments.refund(self.payments[nth % len(self.payments)].id, amount)

    async def credit(self, nth: int, amount: int) -> None:
        if self.invoices:
            invoice = self.invoices[nth % len(self.invoices)]
            ref = f"note {next(_NUMBERS)}"
            await self.house.issuer.credit_note(invoice.id, ref=ref, reason="outage", amount_minor=amount)

    async def void(self, nth: int) -> None:
        if self.invoices:
            await self.house.issuer.void(self.invoices[nth % len(self.invoices)].id, "wrong")

    async def dispute(self, nth: int, inquiry: bool) -> None:
        if self.payments:
            payment = self.payments[nth % len(self.payments)]
            charge = self.fake.state.get("charge", payment.charge_ref)
            if not charge["disputed"] and charge["amount_captured"] > charge["amount_refunded"]:
                self.cases.append(self.fake.disputes.open(payment.provider_ref, inquiry=inquiry))

    async def escalate(self, nth: int) -> None:
        if self._status(nth) == "warning_needs_response":
            self.fake.disputes.escalate(self.cases[nth % len(self.cases)])

    async def decide(self, nth: int, won: bool) -> None:
        """A bank may change its mind, once it has decided against us."""
        status = self._status(nth)
        if status == "needs_response" or (status == "lost" and won):
            self.fake.disputes.decide(self.cases[nth % len(self.cases)], won=won)

    async def look(self, nth: int) -> None:
        if self.cases:
            await self.house.chargebacks.look_at(self.cases[nth % len(self.cases)])

    def _status(self, nth: int) -> str | None:
        if not self.cases:
            return None
        return str(self.fake.state.get("dispute", self.cases[nth % len(self.cases)])["status"])

    async def check(self) -> None:
        house, org = self.house, self.house.org
        posted = await sql.balances(house.engine, org)
        assert {of for of, _ in posted} <= {org}, "24. No posting crosses org or currency"
        accounts = posted.get((org, "USD"), {})
        assert sum(accounts.values()) == 0, "5. Postings sum to zero"
        wanted = (await expected(house.engine, org)).get("USD", dict.fromkeys(REPLAYED, 0))
        held = {each: accounts.get(each, 0) for each in REPLAYED}
        assert held == wanted, "6. Balances equal replay from zero"
        for invoice in self.invoices:
            await house.sums(invoice)
        for standing in await house.credits.of_org(org):
            parts = (standing.drawn, standing.expired, standing.voided, standing.remaining)
            assert min(parts) >= 0, "14. Grants never negative"
            assert sum(parts) == standing.grant.amount, "15. grant = drawn + expired + voided + remaining"

    async def end(self) -> None:
        """Everything was looked at: nobody holds other money than the provider does."""
        for ref in self.cases:
            await self.house.chargebacks.look_at(ref)
        await self.check()
        taken = 0
        for payment in self.payments:
            charge = self.fake.state.get("charge", payment.charge_ref)
            taken += charge["amount_captured"] - charge["amount_refunded"]
            now = await self.house.payments.payment(payment.id)
            assert charge["amount_refunded"] <= charge["amount_captured"], "19. Refunds ≤ captured"
            assert now.captured_minor - now.refund_reserved_minor == (
                charge["amount_captured"] - charge["amount_refunded"]
            )
        moves = [move for ref in self.cases for move in self.fake.state.get("dispute", ref)["balance_transactions"]]
        cash = (await sql.balances(self.house.engine, self.house.org)).get((self.house.org, "USD"), {})
        assert cash.get(Account.CASH, 0) == (taken + sum(move["amount"] for move in moves)) * CENT
        for invoice in self.invoices:
            now_ = await self.house.invoices.invoice(invoice.id)
            assert now_.status is not InvoiceStatus.PAID or now_.open_minor <= 0


def test_the_books_hold_whatever_happens_to_money(database_url: str) -> None:
    """5, 6, 14, 15, 19, 24 of the invariants of billing."""
    with asyncio.Runner() as runner:
        engine, clock = create_engine(database_url), ManualClock()
        side = stripe_side(clock)
        provider = runner.run(side.__aenter__())
        house = runner.run(House(Rig(engine, provider, clock)).open())

        @settings(max_examples=examples(25), deadline=None, suppress_health_check=list(HealthCheck))
        @given(st.lists(STEP, min_size=4, max_size=25))
        def told(steps: list[tuple[Any, ...]]) -> None:
            async def tell() -> None:
                story = Story(await house.move_in(OrgId(f"org_{next(_NUMBERS)}")), provider.fake)
                for step in steps:
                    await story.step(*step)
                    await story.check()
                await story.end()

            runner.run(tell())

        try:
            told()
        finally:
            runner.run(side.__aexit__(None, None, None))
            runner.run(engine.dispose())
