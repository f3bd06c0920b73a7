"""How long the close of a month takes on PostgreSQL, part by part.

    python -m bench.invoice_close --charges 260000

One org with so many charges in a month, 4 models in 3 regions, every tenth of them paid from a credit; the month is
closed and its invoice issued as the product does it. It prints what each kind of statement took in sum.
"""

import argparse
import asyncio
import secrets
import sys
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
from sqlalchemy import event, insert, text
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.billing_samples import BUYER, charge_row, desk, grant_row, org_row, put_profile, put_rows
from tests.servers import postgres_server

from crosslogic.kernel.clock import ManualClock
from crosslogic.kernel.ids import OrgId
from crosslogic.store import migrate
from crosslogic.store.engine import create_engine
from crosslogic.store.tables import charges

JAN, FEB = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)
_COPY = """
    INSERT INTO charges SELECT (jsonb_populate_record(NULL::charges, to_jsonb(c) || jsonb_build_object(
        'seq', i, 'request_id', 'req_' || i, 'model', 'model-' || i % 4, 'region', 'region-' || i % 3,
        'at', c.at + i * CAST(:step AS interval)))).*
    FROM charges AS c, generate_series(2, CAST(:count AS bigint)) AS i WHERE c.seq = 1
"""
_DRAW = "INSERT INTO credit_draws SELECT org_id, seq, 'g1', amount / 2, at FROM charges WHERE seq % 10 = 0"


def say(told: str) -> None:
    sys.stdout.write(f"{told}\n")
    sys.stdout.flush()


async def fill(engine: AsyncEngine, count: int) -> None:
    await put_rows(engine, orgs=[org_row()], grants=[grant_row("g1", 10**24)])
    await put_profile(engine, BUYER)
    async with engine.begin() as conn:
        await conn.execute(insert(charges).values(charge_row(1, JAN, 7 * 10**8)))
        step = timedelta(days=30) / count
        connection = (await conn.get_raw_connection()).driver_connection
        assert connection is not None
        statement = _COPY.replace(":step", "$1").replace(":count", "$2")
        await connection.execute(statement, step, count, timeout=3600)
        await connection.execute(_DRAW, timeout=3600)
    async with engine.connect() as conn:
        await conn.execution_options(isolation_level="AUTOCOMMIT")
        await conn.execute(text("ANALYZE charges"))


def timed(engine: AsyncEngine) -> Counter[str]:
    """Seconds by kind of statement, from now on."""
    spent: Counter[str] = Counter()
    began: list[float] = []

    def before(*_: Any) -> None:
        began.append(time.perf_counter())

    def after(_conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
        words = " ".join(statement.split()).split()
        what = "claim" if statement.startswith("UPDATE charges") else words[0].lower()
        spent[what] += time.perf_counter() - began.pop()

    event.listen(engine.sync_engine, "before_cursor_execute", before)
    event.listen(engine.sync_engine, "after_cursor_execute", after)
    return spent


async def measure(url: str, count: int) -> None:
    engine = create_engine(url)
    await migrate.upgrade(engine)
    await fill(engine, count)
    closer, issuer = desk(engine, ManualClock(FEB + timedelta(days=1)))
    spent = timed(engine)
    began = time.perf_counter()
    (draft,) = await closer.close_ended(OrgId("org_1"))
    closed_s = time.perf_counter() - began
    issued = await issuer.issue(draft.id)
    issued_s = time.perf_counter() - began - closed_s
    say(f"{count:,} charges: closed in {closed_s:.1f} s ({count / closed_s:,.0f}/s), issued in {issued_s:.1f} s")
    say("in statements: " + ", ".join(f"{what} {seconds:.1f} s" for what, seconds in spent.most_common(4)))
    say(f"{issued.number}: {issued.total_minor} {issued.currency} minor units, {issued.line_count} lines")
    await engine.dispose()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--charges", type=int, default=260_000)
    given = parser.parse_args()
    with postgres_server() as server:
        name = f"crosslogic_close_{secrets.token_hex(4)}"
        asyncio.run(_execute(server, f'CREATE DATABASE "{name}"'))
        try:
            asyncio.run(measure(urlunsplit(urlsplit(server)._replace(path=f"/{name}")), given.charges))
        finally:
            asyncio.run(_execute(server, f'DROP DATABASE "{name}" WITH (FORCE)'))


async def _execute(url: str, statement: str) -> None:
    conn = await asyncpg.connect(url, timeout=10)
    try:
        await conn.execute(statement)
    finally:
        await conn.close()


if __name__ == "__main__":
    main()
