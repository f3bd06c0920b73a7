"""Clocks that jump: minutes, hours, 36 days, backwards, over the end of a month, over 31 March in India.

A hundred runs of a life of journal, ledger, roll-ups, charges and invoices under a clock that is set anew all the
time, as by an operator, a broken NTP or a machine that slept: 12 of them in each run of the suite,
CROSSLOGIC_CLOCK_RUNS=100 for all. What should be there is worked out from the records alone.
"""

import os
import random
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.billing.charges.service import RatingService
from crosslogic.billing.invoices.model import InvoiceStatus
from crosslogic.billing.invoices.service import InvoiceService
from crosslogic.billing.profiles.model import BillingProfile
from crosslogic.kernel.ids import OrgId, RequestId
from crosslogic.metering.flush import JournalFlusher
from crosslogic.metering.journal import FileJournal
from crosslogic.metering.ledger import Ledger
from crosslogic.metering.ledger_reader import LedgerReader
from crosslogic.metering.ledger_sums import LedgerSums
from crosslogic.metering.model import Intent, UsageRecord
from crosslogic.metering.rollup import Rollups
from crosslogic.metering.rollup_sums import RollupSums
from crosslogic.pricing.book import PriceBook
from crosslogic.store.tables import charges, usage_records
from crosslogic.tenancy.keys import key_hasher
from tests.billing_samples import desk, org_row, put_profile, put_rows
from tests.metering_samples import intent, usage
from tests.money_rig import LIST

RUNS = int(os.environ.get("CROSSLOGIC_CLOCK_RUNS", "12"))
ORG = OrgId("org_1")
INPUT_PUSD, CACHED_PUSD, OUTPUT_PUSD = 50_000, 10_000, 100_000
STEPS = 10
BEGINNINGS = (
    datetime(2026, 3, 31, 18, 29, 58, tzinfo=UTC),  # two seconds before India's fiscal year
    datetime(2026, 1, 31, 23, 59, 58, tzinfo=UTC),
    datetime(2026, 2, 28, 23, 59, 58, tzinfo=UTC),
    datetime(2026, 12, 31, 23, 59, 58, tzinfo=UTC),
    datetime(2026, 6, 15, 10, 30, tzinfo=UTC),
)


class Hands:
    """A clock that anybody sets, forwards and backwards; only `monotonic_s` keeps its word."""

    def __init__(self, at: datetime) -> None:
        self._at = at
        self._elapsed_s = 0.0

    def now(self) -> datetime:
        # No two looks are at the same moment.
        self._at += timedelta(microseconds=137)
        self._elapsed_s += 137e-6
        return self._at

    def monotonic_s(self) -> float:
        return self._elapsed_s

    def set(self, at: datetime) -> None:
        self._at = at


def _jumps(at: datetime) -> dict[str, datetime]:
    month = (at.replace(day=1, hour=0, minute=0, second=0, microsecond=0) + timedelta(days=32)).replace(day=1)
    return {
        "a moment": at + timedelta(seconds=2),
        "+5 min": at + timedelta(minutes=5),
        "-5 min": at - timedelta(minutes=5),
        "+1 h": at + timedelta(hours=1),
        "-1 h": at - timedelta(hours=1),
        "+36 d": at + timedelta(days=36),
        "-36 d": at - timedelta(days=36),
        "the end of the month": month - timedelta(milliseconds=1),
        "31 March in India": datetime(at.year, 3, 31, 18, 29, 59, 999_000, tzinfo=UTC),
        "the month before": at.replace(day=1) - timedelta(hours=2),
    }


class Life:
    def __init__(self, engine: AsyncEngine, directory: Path, seed: int) -> None:
        self.engine, self.directory, self.rng = engine, directory, random.Random(seed)
        self.clock = Hands(BEGINNINGS[seed % len(BEGINNINGS)])
        self.latest = self.clock.now()
        self.book = PriceBook(LIST)
        self.records: list[UsageRecord] = []
        self.announced: list[Intent] = []  # by gateways that died
        ledger = Ledger(engine, self.clock)
        self.flusher = JournalFlusher(directory, ledger, lambda: self.book, self.clock)
        self.rating = RatingService(engine, self.clock, price_list=lambda: (self.book.version, LIST))

    async def live(self) -> None:
        journal = await self._journal()
        for _ in range(STEPS):
            _, at = self.rng.choice(sorted(_jumps(self.clock.now()).items()))
            self.clock.set(at)
            self.latest = max(self.latest, at)
            for _ in range(self.rng.randint(1, 3)):
                await self._request(journal)
            if self.rng.random() < 0.4:
                await self._die(journal)
                journal = await self._journal()
            await self._jobs()
        await journal.close()
        for days in (0, 40, 80):  # in the end it is right, and two more months pass
            self.clock.set(self.latest + timedelta(days=days))
            await self._jobs()

    async def _journal(self) -> FileJournal:
        return await FileJournal.open(self.directory, "w", clock=self.clock, segment_bytes=16 << 10)

    async def _request(self, journal: FileJournal) -> None:
        number = len(self.records) + len(self.announced)
        at_us = int(self.clock.now().timestamp() * 1_000_000)
        prompt, output = self.rng.randint(1, 500), self.rng.randint(1, 300)
        fields = {"request_id": _id(at_us, number), "timestamp_us": at_us, "prompt_tokens": prompt}
        fields |= {"cached_tokens": self.rng.randint(0, prompt), "completion_tokens": output, "reasoning_tokens": 0}
        record = usage(number, **fields)
        await journal.record(record)
        self.records.append(record)

    async def _die(self, journal: FileJournal) -> None:
        """With one request announced, and no goodbye: its files stay, its lock goes as with a killed process."""
        number = len(self.records) + len(self.announced)
        at_us = int(self.clock.now().timestamp() * 1_000_000)
        announced = Intent(_id(at_us, number), at_us, *(getattr(intent(number), name) for name in _REST))
        journal.intend(announced)
        await journal.close()
        self.announced.append(announced)

    async def _jobs(self) -> None:
        await self.flusher.flush()
        await Rollups(self.engine).advance()
        await self.rating.round()
        closer, issuer = desk(self.engine, self.clock)  # type: ignore[arg-type]
        for draft in await closer.close_ended(ORG):
            if draft.status is InvoiceStatus.DRAFT:
                await issuer.issue(draft.id)

    async def judge(self) -> None:
        async with self.engine.connect() as conn:
            rows = (await conn.execute(select(usage_records))).mappings().all()
            rated = (await conn.execute(select(charges))).mappings().all()
        by_id = {row["request_id"]: row for row in rows}
        assert len(by_id) == len(rows) == len(self.records) + len(self.announced)
        for record in self.records:
            row = by_id[record.request_id]
            assert row["outcome"] == "completed"
            assert (row["prompt_tokens"], row["completion_tokens"]) == (record.prompt_tokens, record.completion_tokens)
            assert int(row["cost_pusd"]) == _cost(record)
        for announced in self.announced:
            assert (by_id[announced.request_id]["outcome"], by_id[announced.request_id]["total_tokens"]) == (
                "interrupted",
                0,
            )
        assert (await LedgerReader(self.engine).verify(ORG)).problem is None
        groups = ["hour", "day", "month", "outcome"]
        rolled = await RollupSums(self.engine).summary(ORG, start=None, end=None, group_by=groups)
        assert rolled == await LedgerSums(self.engine).summary(ORG, start=None, end=None, group_by=groups)
        assert (await self.rating.rebuild(ORG)).wrong_seq is None
        exact = sum(map(_cost, self.records))
        assert len(rated) == len(rows)
        assert sum(int(row["amount"]) for row in rated) == exact
        await self._judge_invoices(exact)

    async def _judge_invoices(self, exact: int) -> None:
        """Each pico-dollar is on one invoice; periods touch at most; numbers have no gaps."""
        found = await InvoiceService(self.engine, key_hasher(), self.clock).invoices()  # type: ignore[arg-type]
        assert sum(invoice.exact_amount for invoice in found) == exact
        periods = sorted((invoice.period_start, invoice.period_end) for invoice in found)
        assert all(before[1] <= after[0] for before, after in pairwise(periods)), periods
        serials: dict[str, list[int]] = {}
        for invoice in found:
            assert invoice.status is not InvoiceStatus.DRAFT
            assert invoice.serial is not None
            serials.setdefault(str(invoice.fiscal_year), []).append(invoice.serial)
        assert all(sorted(each) == list(range(1, len(each) + 1)) for each in serials.values()), serials


_REST = (
    "org_id", "env_id", "key_id", "endpoint", "model", "region", "node_id", "prompt_tokens_estimate",
)  # fmt: skip


def _id(at_us: int, number: int) -> RequestId:
    return RequestId(f"req_{at_us // 1000:012x}{number:020x}")


def _cost(record: UsageRecord) -> int:
    uncached = record.prompt_tokens - record.cached_tokens
    return uncached * INPUT_PUSD + record.cached_tokens * CACHED_PUSD + record.completion_tokens * OUTPUT_PUSD


@pytest.mark.parametrize("seed", range(RUNS))
async def test_a_clock_that_jumps_costs_nobody_anything(seed: int, sqlite_engine: AsyncEngine, tmp_path: Path) -> None:
    await put_rows(sqlite_engine, orgs=[org_row(ORG)])
    await put_profile(sqlite_engine, BillingProfile(time_zone="Asia/Kolkata" if seed % 2 else "UTC"), ORG)
    life = Life(sqlite_engine, tmp_path / "journal", seed)
    await life.live()
    await life.judge()


async def test_the_same_on_postgresql(postgres_engine: AsyncEngine, tmp_path: Path) -> None:
    await put_rows(postgres_engine, orgs=[org_row(ORG)])
    await put_profile(postgres_engine, BillingProfile(time_zone="Asia/Kolkata"), ORG)
    life = Life(postgres_engine, tmp_path / "journal", 0)
    await life.live()
    await life.judge()
