"""Fifty million rows of usage in a few minutes: made by PostgreSQL itself, beside the ledger, then attached to it.

The rows lie as gateways write them: in flushes of 5,000, in each the rows of an org together. They come into a table of
their own without triggers, indexes or a write-ahead log; the indexes are built afterwards, then it becomes the month's
partition. Ids are as long as real ones. Roll-ups come hour by hour, as their job writes them: the buckets of all
tenants among each other, each of them added to once more, vacuumed as often as autovacuum would. `bench.usage`
compares them with the rows of one tenant. What comes of it is for asking, not for verifying: there are no hashes.
"""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import asyncpg

ORGS = 50
FLUSH_ROWS = 5_000
CHUNK_ROWS = 500_000  # in one statement
CONNECTIONS = 2
PARTITION = "usage_records_2026_10"
FIRST = datetime(2026, 10, 1, tzinfo=UTC)
SECONDS = 31 * 86_400
CHANGES = 1  # of each hour's and each day's buckets after they came; the job adds to them once a second at most
VACUUM_HOURS = 48
_OF_ORG = FLUSH_ROWS // ORGS  # rows in each flush


def _id(kind: str, number: str) -> str:
    """SQL of an id as long as real ones."""
    return f"'{kind}_' || lpad(({number})::text, 32, '0')"


def org_id(number: int) -> str:
    return f"org_{number:032d}"


_ROWS = f"""
    INSERT INTO {PARTITION} (request_id, n, seq, timestamp, org_id, env_id, key_id, endpoint, model, region, node_id,
        prompt_tokens, completion_tokens, cached_tokens, reasoning_tokens, total_tokens, evidence, outcome,
        finish_reason, http_status, streamed, attempts, latency_ms, cost_pusd, cost_microdollars, price_version, hash)
    SELECT 'req_' || lpad(to_hex(1790812800000 + ms), 12, '0') || lpad(to_hex(i), 20, '0'), 0, seq,
        timestamptz '2026-10-01 00:00:00+00' + ms * interval '1 millisecond',
        {_id("org", "org")}, {_id("env", "org * 2 + h % 2")}, {_id("key", "org * 8 + h % 8")},
        'chat.completions', 'meta-llama/Llama-3.1-8B-' || h % 8, 'region-' || h % 3, {_id("node", "h % 20")},
        200 + h % 800, 50 + h % 400, h % 100, 0, 250 + h % 800 + h % 400, 'engine', 'completed',
        'stop', 200, true, 1, 900, (200 + h % 800) * 50000::numeric + (50 + h % 400) * 100000, 0, 'prices', ''
    FROM (
        SELECT i, i % {FLUSH_ROWS} / {_OF_ORG} AS org, i / {FLUSH_ROWS} * {_OF_ORG} + i % {_OF_ORG} + 1 AS seq,
            abs(hashint8(i)) AS h,
            ((i / {FLUSH_ROWS} * {FLUSH_ROWS} + i % {_OF_ORG} * {ORGS} + i % {FLUSH_ROWS} / {_OF_ORG})
                ::double precision / $3 * {SECONDS} * 1000)::bigint AS ms
        FROM generate_series($1::bigint, $2::bigint - 1) AS i
    ) AS made
"""
_MIXED = "hashtext(org_id || key_id || model || region)"
_SUMS = ("prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens", "total_tokens")
_GROUP = "org_id, at, env_id, key_id, model, region, endpoint, outcome"
_INDEXES = (
    f"ALTER TABLE {PARTITION} ADD PRIMARY KEY (request_id, n)",
    f"CREATE INDEX ON {PARTITION} (org_id, seq)",
    f"CREATE INDEX ON {PARTITION} (org_id, timestamp)",
    f"CREATE INDEX ON {PARTITION} (key_id, timestamp)",
)


async def make_rows(url: str, rows: int, say: Callable[[str], None]) -> None:
    """Fill October 2026 of a migrated, empty database. `rows` is rounded up to whole flushes."""
    rows = -(-rows // FLUSH_ROWS) * FLUSH_ROWS
    pool = await asyncpg.create_pool(
        url, min_size=CONNECTIONS, max_size=CONNECTIONS, server_settings={"maintenance_work_mem": "1GB"}
    )
    try:
        began = time.monotonic()
        await pool.execute(
            f"CREATE UNLOGGED TABLE {PARTITION} (LIKE usage_records INCLUDING DEFAULTS INCLUDING CONSTRAINTS) "
            "WITH (autovacuum_enabled = false)"
        )
        starts = range(0, rows, CHUNK_ROWS)
        await _all(pool, [(_ROWS, start, min(start + CHUNK_ROWS, rows), float(rows)) for start in starts])
        took_s = time.monotonic() - began
        say(f"{rows:,} rows of {ORGS} tenants made in {took_s:.0f} s ({rows / took_s:,.0f} a second)")
        began = time.monotonic()
        await _all(pool, [(statement,) for statement in _INDEXES])
        await pool.execute(
            f"ALTER TABLE usage_records ATTACH PARTITION {PARTITION} "
            "FOR VALUES FROM ('req_01a0f4c2c400') TO ('req_01a19467e800')"
        )
        say(f"indexed and attached in {time.monotonic() - began:.0f} s")
        began = time.monotonic()
        await _roll_up(pool, rows)
        say(f"rolled up in {time.monotonic() - began:.0f} s")
        await pool.execute("ANALYZE")
    finally:
        await pool.close()


async def _all(pool: asyncpg.Pool, statements: list[tuple[object, ...]]) -> None:
    """Each once, `CONNECTIONS` at a time."""
    left = iter(statements)

    async def work() -> None:
        for statement, *values in left:
            await pool.execute(statement, *values)

    await asyncio.gather(*(work() for _ in range(CONNECTIONS)))


async def _roll_up(pool: asyncpg.Pool, rows: int) -> None:
    sums = ", ".join(f"sum({name})::bigint AS {name}" for name in _SUMS)
    group = _GROUP.replace("at", "date_trunc('hour', timestamp, 'UTC') AS at", 1)
    await pool.execute(
        f"CREATE UNLOGGED TABLE summed AS SELECT {group}, count(*) AS requests, {sums}, "
        f"sum(cost_pusd) AS cost_pusd FROM {PARTITION} GROUP BY 1, 2, 3, 4, 5, 6, 7, 8"
    )
    await pool.execute("CREATE INDEX ON summed (at)")
    names = f"{_GROUP}, requests, {', '.join(_SUMS)}, cost_pusd"
    added = ", ".join(f"sum({name})" for name in ("requests", *_SUMS, "cost_pusd"))
    rest = _GROUP.replace("at, ", "")
    hours = f"INSERT INTO usage_hourly ({names}) SELECT * FROM summed WHERE at = $1 ORDER BY {_MIXED}"
    days = (
        f"INSERT INTO usage_daily ({names}) SELECT org_id, $1, {rest.removeprefix('org_id, ')}, {added} FROM summed "
        f"WHERE at >= $1 AND at < $1 + interval '1 day' GROUP BY {rest} ORDER BY {_MIXED}"
    )
    for hour in range(SECONDS // 3600):
        at = FIRST + timedelta(hours=hour)
        await pool.execute(hours, at)
        await _change(pool, "usage_hourly", at)
        if hour % 24 == 0:
            await pool.execute(days, at)
            await _change(pool, "usage_daily", at)
        if hour % VACUUM_HOURS == VACUUM_HOURS - 1:
            await pool.execute("VACUUM ANALYZE usage_hourly, usage_daily, usage_hours")
    await pool.execute("DROP TABLE summed")
    last = rows // ORGS
    heads = f"INSERT INTO usage_heads SELECT {_id('org', 'i')}, {last}, '' FROM generate_series(0, {ORGS - 1}) i"
    await pool.execute(heads)
    await pool.execute(f"INSERT INTO usage_rollups SELECT org_id, {last} FROM usage_heads")


async def _change(pool: asyncpg.Pool, table: str, at: datetime) -> None:
    """As the job does: buckets get new versions, tenant by tenant in no order."""
    change = f"UPDATE {table} SET requests = requests WHERE org_id = ANY($2) AND at = $1"
    for _ in range(CHANGES):
        await pool.execute(change, at, [org_id(number) for number in range(ORGS)])
