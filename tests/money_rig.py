"""The rooms of money over one database, with a clock that stands still."""

from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec
from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.billing.charges.accounts import AccountsService
from crosslogic.billing.charges.model import Charge
from crosslogic.billing.charges.rows import to_charge
from crosslogic.billing.charges.service import RatingService
from crosslogic.billing.credits.model import Draw
from crosslogic.billing.credits.rows import to_draw
from crosslogic.billing.credits.service import CreditsService
from crosslogic.kernel.clock import ManualClock
from crosslogic.kernel.ids import OrgId, RequestId
from crosslogic.metering.ledger import Ledger
from crosslogic.metering.ledger_reader import LedgerReader
from crosslogic.metering.model import Evidence, Usage
from crosslogic.pricing.book import PriceBook, PriceEntry, PriceList
from crosslogic.pricing.service import PricesService
from crosslogic.store.tables import charges, credit_draws, orgs
from crosslogic.tenancy.keys import key_hasher
from tests.billing_samples import org_row
from tests.metering_samples import usage

LIST = PriceList((PriceEntry("model-*", Decimal("0.05"), Decimal("0.10"), Decimal("0.01")),))


class MoneyRig:
    def __init__(self, engine: AsyncEngine, org_id: str = "org_1", free_tokens_per_month: int = 0) -> None:
        self.engine = engine
        self.org_id = OrgId(org_id)
        self.clock = ManualClock()
        self.book = PriceBook(LIST)
        self.ledger = Ledger(engine, self.clock)
        self.rating = RatingService(
            engine,
            self.clock,
            free_tokens_per_month=free_tokens_per_month,
            price_list=lambda: (self.book.version, LIST),
        )
        self.prices = PricesService(engine, key_hasher(), self.clock)
        self.credits = CreditsService(engine, key_hasher(), self.clock)
        self.accounts = AccountsService(engine, key_hasher(), self.clock)
        self.requests = 0

    async def put_org(self, **changed: Any) -> None:
        async with self.engine.begin() as conn:
            await conn.execute(insert(orgs).values(org_row(self.org_id, self.org_id, **changed)))

    async def use(
        self, prompt: int = 10, cached: int = 0, output: int = 20, at: datetime | None = None, **changed: Any
    ) -> RequestId:
        """A request that arrives now, in the ledger."""
        self.requests += 1
        request_id = RequestId(f"req_{self.org_id}_{self.requests:06}")
        record = usage(
            self.requests,
            request_id=request_id,
            org_id=self.org_id,
            timestamp_us=int((at or self.clock.now()).timestamp() * 1_000_000),
            prompt_tokens=prompt,
            cached_tokens=cached,
            completion_tokens=output,
            reasoning_tokens=0,
        )
        await self.ledger.insert([msgspec.structs.replace(record, **changed)], self.book)
        return request_id

    async def correct(self, request_id: RequestId, prompt: int, cached: int, output: int) -> bool:
        n = len(await LedgerReader(self.engine).rows_of_request(self.org_id, request_id))
        price = self.book.price("model-a", "local")
        return await self.ledger.correct(
            self.org_id, request_id, n, Usage(prompt, output, cached), price, evidence=Evidence.ENGINE,
            reason=f"look {n}", actor="test",
        )  # fmt: skip

    async def charges(self) -> list[Charge]:
        async with self.engine.connect() as conn:
            query = select(charges).where(charges.c.org_id == self.org_id).order_by(charges.c.seq)
            return [to_charge(row) for row in (await conn.execute(query)).mappings()]

    async def draws(self) -> list[Draw]:
        async with self.engine.connect() as conn:
            query = select(credit_draws).where(credit_draws.c.org_id == self.org_id)
            rows = (await conn.execute(query.order_by(credit_draws.c.seq, credit_draws.c.grant_id))).mappings()
            return [to_draw(row) for row in rows]

    async def owed(self) -> int:
        return sum(each.amount for each in await self.charges()) - sum(each.amount for each in await self.draws())
