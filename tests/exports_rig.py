"""Exports over the fake Stripe: usage that is charged, windows that are sealed and sent, and Stripe's own sums."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from random import Random

from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.billing.exports import sql
from crosslogic.billing.exports.model import Mode, Window, WindowStatus
from crosslogic.billing.exports.service import Exports
from crosslogic.billing.exports.stripe_meter import StripeMeters
from crosslogic.billing.exports.windows import meter_of
from crosslogic.billing.payments import stripe as stripe_adapter
from crosslogic.kernel.clock import ManualClock
from crosslogic.kernel.ids import OrgId
from crosslogic.store.tables import charges
from crosslogic.tenancy.audit_sql import AuditTrail
from tests.fake_stripe import server
from tests.fake_stripe.server import FakeStripe
from tests.payments_rig import ACME, Rig, StripeSide

MODEL = "Qwen/Qwen2.5-7B-Instruct"


class SteppedClock(ManualClock):
    """A clock whose wall can be set wrong, as clocks of machines are."""

    def __init__(self) -> None:
        super().__init__()
        self.wrong_s = 0.0

    def now(self) -> datetime:
        return super().now() + timedelta(seconds=self.wrong_s)


class ExportRig:
    def __init__(self, rig: Rig, exports: Exports, fake: FakeStripe, clock: SteppedClock) -> None:
        self.rig, self.exports, self.fake, self.clock = rig, exports, fake, clock
        self.seqs: dict[str, int] = {}
        self.used: dict[tuple[str, str], int] = {}  # the oracle: tokens by org and meter
        self.by_seq: dict[tuple[str, int], int] = {}  # and by org and position

    async def use(self, tokens: Iterable[tuple[int, int, int]], at: datetime, org: OrgId = ACME) -> None:
        """Charges of (prompt, cached, completion) tokens at a time."""
        rows = []
        for prompt, cached, completion in tokens:
            seq = self.seqs[org] = self.seqs.get(org, 0) + 1
            rows.append(charge_row(org, seq, at, prompt, cached, completion))
            self.by_seq[org, seq] = prompt + completion
            for kind, count in (("input", prompt - cached), ("cached", cached), ("output", completion)):
                meter = meter_of(MODEL, kind)
                self.used[org, meter] = self.used.get((org, meter), 0) + count
        async with self.exports.engine.begin() as conn:
            await conn.execute(insert(charges), rows)

    def advance(self, seconds: float) -> None:
        """Time passes, and Stripe validates what it has taken, within its first minute."""
        for part in (min(seconds, 60.0), seconds - min(seconds, 60.0)):
            self.clock.advance(part)
            self.fake.state.now_s += part
            self.fake.meters.validate()

    async def told(self) -> dict[tuple[str, str], int]:
        """What counts at Stripe in the end, by org and meter."""
        found = {}
        for org, meter in self.used:
            customer = await self.rig.service.methods.customer(OrgId(org))
            found[org, meter] = self.fake.meters.total(meter, customer)
        return found

    def owed(self) -> dict[tuple[str, str], int]:
        return dict(self.used)

    async def windows(self) -> list[Window]:
        return await sql.find(self.exports.engine)

    async def deliver(self, seen: set[str], random: Random | None = None) -> None:
        """The reports of errors that Stripe has sent, those that were not delivered yet."""
        thin = [event for event in self.fake.state.events if event["object"] == "v2.core.event"]
        for event in thin:
            if event["id"] not in seen:
                await self.exports.on_meter_report(event["id"])
                seen.add(event["id"])

    async def until_quiet(self, rounds: int = 120, step_s: float = 3600.0) -> None:
        seen: set[str] = set()
        for _ in range(rounds):
            await self.exports.run()
            self.advance(step_s)
            await self.deliver(seen)
            waiting = await sql.waiting(self.exports.engine, Mode.STRIPE_METER)
            if not waiting and await self._sealed():
                return
        raise AssertionError(f"exports do not come to an end: {[(w.id, w.status, w.failure) for w in waiting]}")

    async def _sealed(self) -> bool:
        return all(
            each.sealed_seq == self.seqs.get(each.org_id, 0)
            for each in await sql.of_mode(self.exports.engine, Mode.STRIPE_METER)
        )


@asynccontextmanager
async def export_rig(engine: AsyncEngine, fake: FakeStripe | None = None) -> AsyncIterator[ExportRig]:
    clock = SteppedClock()
    async with (fake or FakeStripe()).serve() as served:
        served.state.now_s = clock.now().timestamp()
        client, http = stripe_adapter.new_client(server.API_KEY, base_url=served.base_url, network_retries=0)
        processor = stripe_adapter.StripeProcessor(client, http, "https://console.test")
        rig = await Rig(engine, StripeSide(served, processor, clock), clock).prepare()
        exports = Exports(
            engine,
            clock,
            StripeMeters(client),
            rig.service.methods.customer,
            AuditTrail(clock=clock),
            default=Mode.STRIPE_METER,
        )
        try:
            yield ExportRig(rig, exports, served, clock)
        finally:
            await processor.close()


def charge_row(org: str, seq: int, at: datetime, prompt: int, cached: int, completion: int) -> dict[str, object]:
    return {
        "org_id": org,
        "seq": seq,
        "request_id": f"req_{org}_{seq}",
        "n": 1,
        "at": at,
        "env_id": "env_1",
        "key_id": "key_1",
        "endpoint": "chat/completions",
        "model": MODEL,
        "region": "in-mumbai",
        "prompt_tokens": prompt,
        "cached_tokens": cached,
        "completion_tokens": completion,
        "currency": "USD",
        "list_amount": 0,
        "discount_amount": 0,
        "amount": 0,
        "terms": "{}",
    }


def counting(found: list[Window]) -> int:
    return sum(each.quantity for each in found if each.status in (WindowStatus.SENT, WindowStatus.VERIFIED))
