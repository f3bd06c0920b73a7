"""Real processes that end at each named point of rating, invoices, payments, webhooks and exports; Stripe's own books
(the fake's) and the ledger are the oracle."""

import asyncio
import os
import sys
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.billing.inbound import sql as inbound_sql
from crosslogic.billing.inbound.model import InboundEvent
from crosslogic.billing.payments.model import Status
from crosslogic.kernel.clock import ManualClock
from crosslogic.kernel.crash_points import KILLED, MONEY
from crosslogic.store.tables import charges, credit_notes, invoice_payments, invoices, refunds, usage_records
from tests.chaos.money_process import REFUND_MINOR
from tests.fake_stripe import webhooks
from tests.money_rig import MoneyRig
from tests.payments_rig import ACME, Rig, StripeSide, stripe_side

ROUNDS = int(os.environ.get("CROSSLOGIC_CRASH_ROUNDS", "1"))  # a point's n-th round ends at its n-th hit
MONTH = timedelta(days=31)
TEN_DOLLARS = 200_000_000  # prompt tokens


class Site:
    def __init__(self, url: str, rig: Rig, side: StripeSide) -> None:
        self.url, self.rig, self.side = url, rig, side
        self.used = MoneyRig(rig.engine, ACME)
        self.told = 0

    @property
    def now(self) -> datetime:
        return self.rig.clock.now()

    async def run(self, point: str | None = None) -> int:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.chaos.money_process", self.url, self.side.fake.base_url,
            self.now.isoformat(), *([point] if point else []), stderr=asyncio.subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )  # fmt: skip
        _, complaints = await asyncio.wait_for(process.communicate(), 120)
        assert process.returncode in (0, KILLED), complaints.decode()
        return process.returncode

    async def month(self) -> None:
        """Usage of three requests, then the month is over; a payer disputes what was paid before."""
        for _ in range(3):
            await self.used.use(prompt=TEN_DOLLARS, at=self.now)
        self.pass_time(MONTH)
        fake = self.side.fake
        disputed = {each["charge"] for each in fake.state.all("dispute")}
        for charge in fake.state.all("charge")[1:2]:
            if charge["id"] not in disputed:
                ref = fake.disputes.open(charge["payment_intent"])
                fake.disputes.decide(ref, won=len(disputed) % 2 == 0)
        await self.hear()

    async def hear(self) -> None:
        """Everything that Stripe has to tell is stored, the latest first."""
        events = self.side.fake.state.events
        fresh, self.told = events[self.told :], len(events)
        for event in reversed([each for each in fresh if each["object"] == "event"]):
            payload = webhooks.payload_of(event).decode()
            stored = InboundEvent("stripe", event["id"], event["type"], payload)
            await inbound_sql.store(self.rig.engine, stored, self.now)

    def pass_time(self, span: timedelta) -> None:
        self.side.advance(span.total_seconds())
        self.side.fake.meters.validate()


@pytest.mark.chaos
@pytest.mark.timeout(900)
async def test_wherever_a_process_ends_no_money_moves_twice_and_none_is_lost(
    engine: AsyncEngine, database_url: str
) -> None:
    clock = ManualClock()
    async with stripe_side(clock) as side:
        rig = await Rig(engine, side, clock).prepare()
        await rig.method()
        site = Site(database_url, rig, side)
        ended_at: Counter[str] = Counter()
        for _ in range(3):  # so that there is something to dispute
            await site.month()
            assert await site.run() == 0
            await site.hear()
        for hit in range(1, ROUNDS + 1):
            for point in sorted(MONEY):
                await site.month()
                ended_at[point] += await site.run(f"{point}:{hit}") == KILLED
                site.pass_time(timedelta(minutes=3))
                await site.hear()
        assert {point for point, times in ended_at.items() if times} == MONEY, "each point was hit"
        for _ in range(4):
            assert await site.run() == 0
            site.pass_time(timedelta(hours=7))
            await site.hear()
        assert await site.run() == 0
        await compare(site)


async def compare(site: Site) -> None:
    fake, engine = site.side.fake, site.rig.engine
    async with engine.connect() as conn:
        rows = await conn.scalar(select(func.count()).select_from(usage_records))
        rated = (await conn.execute(select(func.count(), func.count(charges.c.invoice_id)).select_from(charges))).one()
        assert tuple(rated) == (rows, rows), "each request is charged once, and stands on an invoice"
        made = (await conn.execute(select(invoices).order_by(invoices.c.serial))).mappings().all()
        for year in {row["fiscal_year"] for row in made}:
            serials = [row["serial"] for row in made if row["fiscal_year"] == year]
            assert serials == [*range(1, len(serials) + 1)], "numbers have no hole"
        assert sum(row["total_minor"] for row in made) == 1000 * rows
        sums = select(invoice_payments.c.invoice_id, func.sum(invoice_payments.c.amount_minor))
        paid = dict((await conn.execute(sums.group_by(invoice_payments.c.invoice_id))).all())
        assert {row["id"]: row["paid_minor"] for row in made} == {row["id"]: paid.get(row["id"], 0) for row in made}
        given = (await conn.execute(select(refunds.c.id, refunds.c.status))).all()
        credited = (await conn.execute(select(credit_notes.c.ref, credit_notes.c.total_minor))).all()
    assert {row.status for row in given} <= {"succeeded", "failed"}  # what was never sent, and is looked up too late
    given = [row for row in given if row.status == "succeeded"]
    assert sorted((row.id, REFUND_MINOR) for row in given) == sorted((row.ref, row.total_minor) for row in credited)
    assert len(fake.state.all("refund")) == len(given)

    ours = await site.rig.service.payments(limit=1000)
    assert {each.status for each in ours} <= {Status.SUCCEEDED, Status.FAILED}
    ours = [each for each in ours if each.status is Status.SUCCEEDED]
    assert sorted(each.charge_ref or "" for each in ours) == sorted(each["id"] for each in fake.state.all("charge"))
    taken = sum(each["amount_captured"] - each["amount_refunded"] for each in fake.state.all("charge"))
    gone = -sum(move["amount"] for each in fake.state.all("dispute") for move in each["balance_transactions"])
    assert gone > 0
    assert sum(paid.values()) == taken - gone

    customer = await site.rig.service.methods.customer(ACME)
    told = sum(site.side.fake.meters.total(each["event_name"], customer) for each in fake.state.all("billing.meter"))
    async with engine.connect() as conn:
        tokens = await conn.scalar(select(func.sum(charges.c.prompt_tokens + charges.c.completion_tokens)))
    assert told == tokens
