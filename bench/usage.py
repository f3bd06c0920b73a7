"""What the ledger does at size: a tenant's month from roll-ups over many rows, and how fast rows come in.

    python -m bench.usage --rows 5000000       rows made by PostgreSQL itself (`usage_rows`), asked; a scratch database
    python -m bench.usage --rows 5000000 --cold      and each question asked of a disk: nothing of it is in memory
    python -m bench.usage --ingest 50000       rows through `Ledger.insert`, rated, chained, on both databases

The scratch database is made on CROSSLOGIC_TEST_DATABASE_URL or the PostgreSQL of this machine, and dropped at the end;
for `--cold`, which wants to be root, on a PostgreSQL of its own, which starts again before each question.
Rows that PostgreSQL makes have no hashes: they are for asking, not for verifying.
"""

import argparse
import asyncio
import os
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

from bench.metering_faults.postgres import Postgres
from bench.usage_rows import ORGS, make_rows, org_id
from crosslogic.kernel.ids import EnvId, KeyId, NodeId, OrgId, RequestId
from crosslogic.metering.ledger import Ledger
from crosslogic.metering.ledger_sums import LedgerSums
from crosslogic.metering.model import Evidence, Outcome, UsageRecord
from crosslogic.metering.rollup import Rollups
from crosslogic.metering.rollup_sums import RollupSums
from crosslogic.pricing.book import PriceBook
from crosslogic.pricing.defaults import default_price_list
from crosslogic.store import migrate
from crosslogic.store.engine import create_engine

MONTH = datetime(2026, 10, 1, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC)
WARM, ASKED, ASKED_COLD = 3, 20, 7
NOBODY = "org_of_nobody"


OWN = {"max_wal_size": "8GB", "checkpoint_timeout": "10min"}  # of the PostgreSQL of `--cold`


def say(told: str) -> None:
    sys.stdout.write(f"{told}\n")
    sys.stdout.flush()


@asynccontextmanager
async def scratch(server: str) -> AsyncIterator[AsyncEngine]:
    """A migrated database of its own on a real PostgreSQL, dropped at the end."""
    name = f"crosslogic_bench_{secrets.token_hex(6)}"
    await _execute(server, f'CREATE DATABASE "{name}"')
    engine = create_engine(urlunsplit(urlsplit(server)._replace(path=f"/{name}")))
    try:
        await migrate.upgrade(engine)
        yield engine
    finally:
        await engine.dispose()
        await _execute(server, f'DROP DATABASE "{name}" WITH (FORCE)')


async def _execute(server: str, statement: str) -> None:
    conn = await asyncpg.connect(server)
    try:
        await conn.execute(statement)
    finally:
        await conn.close()


class Disk:
    """Makes questions wait for the disk: PostgreSQL starts again, and the machine forgets what it read."""

    def __init__(self, postgres: Postgres, engine: AsyncEngine) -> None:
        self._postgres, self._engine = postgres, engine

    async def forget(self, sums: RollupSums | LedgerSums, groups: tuple[str, ...]) -> None:
        """Afterwards the server has what it has of all questions: the catalogue, a connection, roots of indexes."""
        await self._engine.dispose()
        self._postgres.stop()
        os.sync()  # only what is on the disk can be forgotten
        Path("/proc/sys/vm/drop_caches").write_text("3")
        await asyncio.to_thread(self._postgres.start, "postgres")
        await sums.summary(NOBODY, start=MONTH[0], end=MONTH[1], group_by=groups)

    async def pages(self) -> int:
        """Read so far, 8 kB each, when what was asked is over."""
        await self._engine.dispose()  # a session tells what it read at its end
        read = "sum(heap_blks_read + coalesce(idx_blks_read, 0)) FROM pg_statio_user_tables"
        async with self._engine.connect() as conn:
            return int(await conn.scalar(text(f"SELECT {read}")) or 0)


async def ask_at_size(server: str, rows: int, postgres: Postgres | None) -> None:
    async with scratch(server) as engine:
        await make_rows(_url(server, engine), rows, say)
        async with engine.connect() as conn:
            for table in ("usage_hourly", "usage_daily", "usage_hours"):
                count = await conn.scalar(text(f"SELECT count(*) FROM {table}"))
                of = f"pg_size_pretty(pg_table_size('{table}')), pg_size_pretty(pg_indexes_size('{table}'))"
                heap, index = (await conn.execute(text(f"SELECT {of}"))).one()
                say(f"  {table}: {count:,} rows, {heap}, its index {index}")
            size = await conn.scalar(text("SELECT pg_size_pretty(pg_database_size(current_database()))"))
            say(f"  database: {size}")
        rolled, straight = RollupSums(engine), LedgerSums(engine)
        for disk in (None, Disk(postgres, engine)) if postgres is not None else (None,):
            for groups in ((), ("model",), ("day", "model"), ("key", "region"), ("hour",), ("hour", "model")):
                what = f"a tenant's month by {', '.join(groups) or 'nothing'}"
                if disk is None:
                    await _time(f"{what}, from roll-ups", rolled, groups, ASKED)
                else:
                    await _time(f"{what}, from a cold disk", rolled, groups, ASKED_COLD, disk)
        if postgres is not None:
            await _execute(
                _url(server, engine), f'ALTER DATABASE "{engine.url.database}" SET enable_indexonlyscan = off'
            )
            for groups in (("day", "model"), ("hour", "model")):
                what = f"the same by {', '.join(groups)}, as if indexes had no sums"
                await _time(what, rolled, groups, ASKED_COLD, Disk(postgres, engine))
        await _time("the same by model, from the rows", straight, ("model",), 1)
        start, end = MONTH
        for groups in (("model",), ("hour",)):
            one = await rolled.summary(org_id(1), start=start, end=end, group_by=groups)
            if one != await straight.summary(org_id(1), start=start, end=end, group_by=groups):
                raise SystemExit("the roll-ups are not the sums of the rows")
        say("both answers are the same")


def _url(server: str, engine: AsyncEngine) -> str:
    return urlunsplit(urlsplit(server)._replace(path=f"/{engine.url.database}"))


async def _time(
    what: str, sums: RollupSums | LedgerSums, groups: tuple[str, ...], times: int, disk: Disk | None = None
) -> None:
    took_ms: list[float] = []
    found = read = 0
    for number in range(WARM + times if times == ASKED else times):
        if disk is not None:
            await disk.forget(sums, groups)
            before = await disk.pages()
            await sums.summary(NOBODY, start=MONTH[0], end=MONTH[1], group_by=groups)
        began = time.perf_counter()
        found = len(await sums.summary(org_id(number % ORGS), start=MONTH[0], end=MONTH[1], group_by=groups))
        took_ms.append((time.perf_counter() - began) * 1000)
        if disk is not None:
            read += await disk.pages() - before
    counted = sorted(took_ms[-times:])
    pages = f", {read / times:,.0f} pages read" if disk is not None else ""
    say(f"{what}: median {statistics.median(counted):.1f} ms, worst {counted[-1]:.1f} ms ({found} groups{pages})")


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
        began = time.monotonic()
        await Rollups(engine).advance()
        say(f"    rolled up in {time.monotonic() - began:.1f} s, {count / (time.monotonic() - began):,.0f} a second")

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
    parser.add_argument("--cold", action="store_true", help="ask also when nothing is in memory")
    asked = parser.parse_args()
    if not asked.rows and not asked.ingest:
        parser.error("give --rows or --ingest")

    async def all_of_it(server: str, postgres: Postgres | None) -> None:
        if asked.ingest:
            await ingest(server, asked.ingest)
        if asked.rows:
            await ask_at_size(server, asked.rows, postgres)

    if asked.cold:
        with tempfile.TemporaryDirectory(prefix="crosslogic-usage-", ignore_cleanup_errors=True) as directory:
            (Path(directory) / "disk").mkdir()
            postgres = Postgres(Path(directory), Path(directory) / "disk", OWN)
            postgres.create()
            try:
                asyncio.run(all_of_it(postgres.url, postgres))
            finally:
                postgres.stop_at_once()
        return
    with postgres_server() as server:
        asyncio.run(all_of_it(server, None))


if __name__ == "__main__":
    main()
