"""Any part of the records, in any order and batches, any number of times: the same ledger."""

import asyncio
import tempfile
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crosslogic.metering.ledger import Ledger
from crosslogic.metering.ledger_sums import LedgerSums
from crosslogic.metering.model import UsageSum
from crosslogic.pricing.book import PriceBook, PriceEntry, PriceList
from crosslogic.pricing.rate import rate
from crosslogic.store import migrate
from crosslogic.store.engine import create_engine
from tests.examples import examples
from tests.metering_samples import usage

PRICES = PriceBook(PriceList((PriceEntry("*", Decimal("0.05"), Decimal("0.6"), Decimal("0.01")),)))
RECORDS = [
    usage(n, prompt_tokens=n * 7, cached_tokens=n * 3, completion_tokens=n * n, model=f"m{n % 3}") for n in range(30)
]
deliveries = st.lists(st.lists(st.sampled_from(range(30)), max_size=40), max_size=6)


async def deliver(url: str, batches: list[list[int]]) -> tuple[int, list[UsageSum]]:
    engine = create_engine(url)
    try:
        ledger = Ledger(engine)
        added = 0
        for batch in batches:
            added += await ledger.insert([RECORDS[n] for n in batch], PRICES)
        return added, await LedgerSums(engine).summary("org_1", start=None, end=None, group_by=["model"])
    finally:
        await engine.dispose()


def expected(seen: set[int]) -> list[UsageSum]:
    sums = []
    for model in sorted({RECORDS[n].model for n in seen}):
        mine = [RECORDS[n] for n in seen if RECORDS[n].model == model]
        sums.append(
            UsageSum(
                {"model": model},
                len(mine),
                sum(r.prompt_tokens for r in mine),
                sum(r.completion_tokens for r in mine),
                sum(r.cached_tokens for r in mine),
                sum(r.reasoning_tokens for r in mine),
                sum(r.total_tokens for r in mine),
                sum(rate(r, PRICES.price(r.model, r.region)) for r in mine),
            )
        )
    return sums


@pytest.fixture(scope="module")
def template() -> bytes:
    async def migrated(path: Path) -> bytes:
        engine = create_engine(f"sqlite:///{path}")
        await migrate.upgrade(engine)
        await engine.dispose()
        return await asyncio.to_thread(path.read_bytes)

    with tempfile.TemporaryDirectory() as directory:
        return asyncio.run(migrated(Path(directory, "template.db")))


@settings(max_examples=examples(40), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(deliveries)
def test_only_what_was_delivered_counts_and_only_once(template: bytes, batches: list[list[int]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "ledger.db")
        path.write_bytes(template)
        added, sums = asyncio.run(deliver(f"sqlite:///{path}", batches))
    seen = {n for batch in batches for n in batch}
    assert added == len(seen)
    assert sums == expected(seen)
