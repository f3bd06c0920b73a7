"""What the ledger does at size: a tenant's month from roll-ups over many rows, and how fast rows come in.

    python -m bench.usage --rows 5000000       rows made by PostgreSQL itself (`usage_rows`), asked; a scratch database
    python -m bench.usage --ingest 50000       rows through `Ledger.insert`, rated, chained, on both databases

The scratch database is made on CROSSLOGIC_TEST_DATABASE_URL or the PostgreSQL of this machine, and dropped at the end.
Rows that PostgreSQL makes have no hashes: they are for asking, not for verifying.
"""

import argparse
import asyncio
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.servers import postgres_server

from bench.usage_rows import ORGS, make_rows
from crosslogic.kernel.ids import EnvId, KeyId, NodeId, OrgId, RequestId
from crosslogic.metering.ledger import Ledger
from crosslogic.metering.ledger_sums import LedgerSums
from crosslogic.metering.model import Evidence, Outcome, UsageRecord
from crosslogic.metering.rollup_sums import RollupSums
from crosslogic.pricing.book import PriceBook
from crosslogic.pricing.defaults import default_price_list
from crosslogic.store import migrate
from crosslogic.store.engine import create_engine

MONTH = datetime(2026, 10, 1, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC)
WARM, ASKED = 3, 20


def say(told: str) -> None:
    sys.stdout.write(f"{told}\n")
    sys.stdout.flush()


@asynccontextmanager
async def scratch(server: str) -> AsyncIterator[AsyncEngine]:
    """A migrated database of its own on a real PostgreSQL, dropped at the end."""
    name = f"crosslogic_bench_{secrets.token_hex(6)}"
    conn = await asyncpg.connect(server)
    await conn.execute(f'CREATE DATABASE "{name}"')
    engine = create_engine(urlunsplit(urlsplit(server)._replace(path=f"/{name}")))
    try:
        await migrate.upgrade(engine)
        yield engine
    finally:
        await engine.dispose()
        await conn.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
        await conn.close()


async def ask_at_size(server: str, rows: int) -> None:
    async with scratch(server) as engine:
        await make_rows(_url(server, engine), rows, say)
        async with engine.connect() as conn:
            for table in ("usage_hourly", "usage_daily"):
                say(f"  {table}: {await conn.scalar(text(f'SELECT count(*) FROM {table}')):,} rows")
            size = await conn.scalar(text("SELECT pg_size_pretty(pg_database_size(current_database()))"))
            say(f"  database: {size}")
        rolled, straight = RollupSums(engine), LedgerSums(engine)
        for groups in ((), ("model",), ("day", "model"), ("key", "region"), ("hour",)):
            await _time(f"a tenant's month by {', '.join(groups) or 'nothing'}, from roll-ups", rolled, groups, ASKED)
        await _time("the same by model, from the rows", straight, ("model",), 1)
        start, end = MONTH
        one = await rolled.summary("org_1", start=start, end=end, group_by=["model"])
        if one != await straight.summary("org_1", start=start, end=end, group_by=["model"]):
            raise SystemExit("the roll-ups are not the sums of the rows")
        say("both answers are the same")


def _url(server: str, engine: AsyncEngine) -> str:
    return urlunsplit(urlsplit(server)._replace(path=f"/{engine.url.database}"))


async def _time(what: str, sums: RollupSums | LedgerSums, groups: tuple[str, ...], times: int) -> None:
    took_ms: list[float] = []
    found = 0
    for number in range(WARM + times if times > 2 else times):
        org_id = f"org_{number % ORGS}"
        began = time.perf_counter()
        found = len(await sums.summary(org_id, start=MONTH[0], end=MONTH[1], group_by=groups))
        took_ms.append((time.perf_counter() - began) * 1000)
    counted = sorted(took_ms[-times:])
    say(f"{what}: median {statistics.median(counted):.1f} ms, worst {counted[-1]:.1f} ms ({found} groups)")


def records(count: int) -> list[UsageRecord]:
    first_us = round(MONTH[0].timestamp() * 1e6)
    return [
        UsageRecord(
            RequestId(f"req_{first_us // 1000 + n:012x}{n:020x}"), first_us + n * 1000, OrgId(f"org_{n % ORGS}"),
            EnvId("env_1"), KeyId(f"key_{n % 200}"), "chat.completions", "meta-llama/Llama-3.1-8B-Instruct",
            "in-south", NodeId("node_1"), 500, 200, 100, 0, Evidence.ENGINE, Outcome.COMPLETED, "stop", 200, True, 1,
            900, 80,
        )
        for n in range(count)
    ]  # fmt: skip


async def ingest(server: str, count: int) -> None:
    made = records(count)

    async def into(engine: AsyncEngine, name: str, writers: int) -> None:
        prices = PriceBook(default_price_list())

        async def write(number: int) -> None:
            mine = made[number::writers]
            ledger = Ledger(engine)
            for start in range(0, len(mine), 5_000):
                await ledger.insert(mine[start : start + 5_000], prices)

        began, began_cpu = time.monotonic(), time.process_time()
        await asyncio.gather(*(write(number) for number in range(writers)))
        took_s, cpu_s = time.monotonic() - began, time.process_time() - began_cpu
        async with engine.connect() as conn:
            if await conn.scalar(text("SELECT count(*) FROM usage_records")) != count:
                raise SystemExit("rows are missing")
        say(
            f"{name}, {writers} writer(s): {count:,} rows in {took_s:.1f} s, {count / took_s:,.0f} a second; "
            f"{cpu_s / count * 1e6:.0f} µs CPU a row on our side"
        )

    for writers in (1, 2):
        async with scratch(server) as engine:
            await into(engine, "PostgreSQL", writers)
    with tempfile.TemporaryDirectory() as directory:
        engine = create_engine(f"sqlite:///{Path(directory) / 'ledger.db'}")
        await migrate.upgrade(engine)
        await into(engine, "SQLite", 1)
        await engine.dispose()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=0, help="rows to make and ask; about 0.5 GB a million")
    parser.add_argument("--ingest", type=int, default=0, help="rows to put through the ledger")
    asked = parser.parse_args()
    if not asked.rows and not asked.ingest:
        parser.error("give --rows or --ingest")

    async def all_of_it(server: str) -> None:
        if asked.ingest:
            await ingest(server, asked.ingest)
        if asked.rows:
            await ask_at_size(server, asked.rows)

    with postgres_server() as server:
        asyncio.run(all_of_it(server))


if __name__ == "__main__":
    main()
