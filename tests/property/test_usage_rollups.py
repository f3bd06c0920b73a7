"""Roll-ups against the rows, under any order of arrival, any paging, kills between the steps, and corrections."""

import asyncio
import shutil
import tempfile
from decimal import Decimal
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from crosslogic.metering.ledger import Ledger
from crosslogic.metering.ledger_reader import LedgerReader
from crosslogic.metering.ledger_sums import LedgerSums
from crosslogic.metering.model import Evidence, Usage, UsageSum
from crosslogic.metering.rollup import Rollups
from crosslogic.metering.rollup_sums import RollupSums
from crosslogic.pricing.book import PriceBook, PriceEntry, PriceList
from crosslogic.store.engine import create_engine
from crosslogic.store.tables import usage_daily, usage_hourly, usage_hours
from tests.examples import examples
from tests.metering_samples import JANUARY_1_2026_US, usage

PRICES = PriceBook(PriceList((PriceEntry("*", Decimal("0.05"), Decimal("0.6"), Decimal("0.01")),)))
HOUR_US = 3_600_000_000
RECORDS = [
    usage(
        n,
        timestamp_us=JANUARY_1_2026_US + n * HOUR_US * 3 // 4,
        prompt_tokens=n,
        cached_tokens=n // 2,
        model=f"m{n % 3}",
    )
    for n in range(24)
]
steps = st.lists(
    st.one_of(
        st.lists(st.sampled_from(range(24)), max_size=12).map(lambda batch: ("insert", batch)),
        st.integers(1, 9).map(lambda page: ("advance", page)),
        st.tuples(st.integers(0, 23), st.integers(0, 40)).map(lambda one: ("correct", one)),
        st.integers(0, 12).map(lambda awaits: ("killed", awaits)),
    ),
    max_size=8,
)


async def killed_after(rollups: Rollups, turns: int) -> None:
    task = asyncio.create_task(rollups.advance())
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def play(url: str, script: list[tuple[str, object]]) -> None:
    engine = create_engine(url)
    try:
        ledger, reader = Ledger(engine), LedgerReader(engine)
        for step, what in script:
            if step == "insert":
                await ledger.insert([RECORDS[n] for n in what], PRICES)  # type: ignore[attr-defined]
            elif step == "advance":
                await Rollups(engine, page_rows=what).advance()  # type: ignore[arg-type]
            elif step == "killed":
                await killed_after(Rollups(engine, page_rows=2), what)  # type: ignore[arg-type]
            else:
                number, tokens = what  # type: ignore[misc]
                request_id = RECORDS[number].request_id
                rows = await reader.rows_of_request("org_1", request_id)
                if rows:
                    price = PRICES.price(rows[0].model, "local")
                    more = {"evidence": Evidence.ENGINE, "reason": f"r{len(rows)}", "actor": "a"}
                    await ledger.correct("org_1", request_id, len(rows), Usage(tokens, tokens), price, **more)
            for group_by in (["day", "model"], ["hour"]):
                assert await sums_by(group_by, RollupSums(engine)) == await sums_by(group_by, LedgerSums(engine))
        await Rollups(engine).advance()
        assert (await reader.verify("org_1")).intact
        (truth,) = await LedgerSums(engine).summary("org_1", start=None, end=None)
        for table in (usage_hourly, usage_daily, usage_hours):
            async with engine.connect() as conn:
                rows = (await conn.execute(select(table))).mappings().all()
            for name in (
                "requests",
                "prompt_tokens",
                "completion_tokens",
                "cached_tokens",
                "total_tokens",
                "cost_pusd",
            ):
                assert sum(row[name] for row in rows) == getattr(truth, name), (table.name, name)
    finally:
        await engine.dispose()


async def sums_by(group_by: list[str], sums: RollupSums | LedgerSums) -> list[UsageSum]:
    return await sums.summary("org_1", start=None, end=None, group_by=group_by)


@settings(max_examples=examples(25), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(script=steps)
def test_the_sums_are_those_of_the_rows(sqlite_template: Path, script: list[tuple[str, object]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "ledger.db"
        shutil.copy(sqlite_template, path)
        asyncio.run(play(f"sqlite:///{path}", script))
