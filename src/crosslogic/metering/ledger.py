"""The usage ledger: one row for each dispatched request, what it used and what it costs. Rows never change.

Invariants: inserting is idempotent by request id, so the same records may come any number of times and in any
batches; and it takes every record. A value that the database cannot hold (a NUL, a number out of all proportion)
is brought into range, for one impossible record must never stand in the way of all that come after it.
"""

import asyncio
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.dialects import sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from crosslogic.kernel.errors import InvalidRequest
from crosslogic.kernel.money import PicoUsd, microdollars
from crosslogic.metering.model import Evidence, Usage, UsageRecord, UsageSum
from crosslogic.pricing.book import PriceBook
from crosslogic.pricing.rate import rate
from crosslogic.store.engine import reading
from crosslogic.store.tables import usage_records
from crosslogic.store.types import exact_sum

INSERT_ROWS = 5_000  # in one statement
_MAX_32 = 2**31 - 1
_MAX_64 = 2**63 - 1
_MAX_TOKENS = 2**40  # beyond any request, and small enough that sums of them stay within 64 bits
_MAX_TIMESTAMP_US = 253_402_300_799_999_999  # the last microsecond of the year 9999
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_Row = tuple[Any, ...]
# The columns in the order of `_row`, with PostgreSQL's type of the array that carries them.
_COLUMNS = (
    ("request_id", "text"),
    ("timestamp", "bigint"),
    ("org_id", "text"),
    ("env_id", "text"),
    ("key_id", "text"),
    ("endpoint", "text"),
    ("model", "text"),
    ("region", "text"),
    ("node_id", "text"),
    ("prompt_tokens", "bigint"),
    ("completion_tokens", "bigint"),
    ("cached_tokens", "bigint"),
    ("reasoning_tokens", "bigint"),
    ("total_tokens", "bigint"),
    ("evidence", "text"),
    ("outcome", "text"),
    ("finish_reason", "text"),
    ("http_status", "integer"),
    ("streamed", "boolean"),
    ("attempts", "integer"),
    ("latency_ms", "bigint"),
    ("first_token_ms", "bigint"),
    ("client_request_id", "text"),
    ("cost_pusd", "numeric"),
    ("cost_microdollars", "bigint"),
    ("price_version", "text"),
)
_NAMES = tuple(name for name, _ in _COLUMNS)
_COST = _NAMES.index("cost_pusd")


def _postgresql_insert() -> str:
    """One array for each column: a fraction of the time of a row at a time. Times go as whole microseconds."""
    names = ", ".join(f'"{name}"' for name in _NAMES)
    arrays = ", ".join(f"${number}::{kind}[]" for number, (_, kind) in enumerate(_COLUMNS, 1))
    values = names.replace('"timestamp"', "timestamptz 'epoch' + \"timestamp\" * interval '1 microsecond'")
    return (
        f"INSERT INTO usage_records ({names}) SELECT {values} FROM unnest({arrays}) AS r({names}) "  # noqa: S608 - of constants
        "ON CONFLICT (request_id) DO NOTHING"
    )


_POSTGRESQL_INSERT = _postgresql_insert()

_GROUPS = {
    "model": usage_records.c.model,
    "env": usage_records.c.env_id,
    "key": usage_records.c.key_id,
    "day": usage_records.c.timestamp,
    "endpoint": usage_records.c.endpoint,
    "region": usage_records.c.region,
    "outcome": usage_records.c.outcome,
}


class Ledger:
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def insert(self, records: Iterable[UsageRecord], prices: PriceBook) -> int:
        """Rate the records and add those whose request the ledger does not have yet; returns how many.

        All or nothing. Raises `store.engine.DATABASE_ERRORS`, after which the rows may be there or not: insert again.
        """
        # In the order of their keys: two writers with overlapping records then wait for each other in turn,
        # instead of both ways.
        rows = sorted((_row(record, prices) for record in records), key=lambda row: row[0])
        if not rows:
            return 0
        if self._engine.dialect.name != "sqlite":
            return await self._add(rows)
        # Cancelled in the middle of a transaction, SQLite's driver keeps the write lock until the garbage collector
        # finds the statement. So the transaction, which is short, is ended first.
        adding = asyncio.create_task(self._add(rows))
        try:
            return await asyncio.shield(adding)
        except asyncio.CancelledError:
            await asyncio.gather(adding, return_exceptions=True)
            raise

    async def _add(self, rows: list[_Row]) -> int:
        added = 0
        async with self._engine.begin() as conn:
            insert = _insert_postgresql if conn.dialect.name == "postgresql" else _insert_sqlite
            for start in range(0, len(rows), INSERT_ROWS):
                added += await insert(conn, rows[start : start + INSERT_ROWS])
        return added

    async def summary(
        self, org_id: str, *, start: datetime | None, end: datetime | None, group_by: Sequence[str] = ()
    ) -> list[UsageSum]:
        """Usage of an org from `start` (included) to `end` (not included), one sum for each group.

        Groups: model, env, key, day (UTC), endpoint, region, outcome. Without any there is one sum, of nothing
        perhaps. Raises InvalidRequest for another group, DATABASE_ERRORS.
        """
        t = usage_records.c
        names = list(dict.fromkeys(group_by))
        groups = [_group(name, self._engine.dialect.name) for name in names]
        query = select(
            *groups,
            func.count(),
            func.sum(t.prompt_tokens),
            func.sum(t.completion_tokens),
            func.sum(t.cached_tokens),
            func.sum(t.total_tokens),
            exact_sum(t.cost_pusd),
        ).where(t.org_id == org_id)
        if start is not None:
            query = query.where(t.timestamp >= start)
        if end is not None:
            query = query.where(t.timestamp < end)
        if groups:
            query = query.group_by(*groups).order_by(*groups)
        async with reading(self._engine) as conn:
            rows = (await conn.execute(query)).all()
        return [
            UsageSum(dict(zip(names, row, strict=False)), *(int(value or 0) for value in row[len(names) :]))
            for row in rows
        ]


def _group(name: str, dialect: str) -> ColumnElement[str]:
    column = _GROUPS.get(name)
    if column is None:
        raise InvalidRequest(f"cannot group by {name!r}; choose of {', '.join(_GROUPS)}", param="group_by")
    if name != "day":
        return column
    if dialect == "postgresql":
        return func.to_char(func.timezone("UTC", column), "YYYY-MM-DD").label("day")
    return func.strftime("%Y-%m-%d", column).label("day")


def _row(record: UsageRecord, prices: PriceBook) -> _Row:
    price = prices.price(record.model, record.region)
    tokens = Usage(
        _within(record.prompt_tokens, _MAX_TOKENS),
        _within(record.completion_tokens, _MAX_TOKENS),
        _within(record.cached_tokens, _MAX_TOKENS),
        _within(record.reasoning_tokens, _MAX_TOKENS),
    )
    # An answer from the cache is recorded with its tokens and costs nothing: no node ran.
    cost = PicoUsd(0) if record.evidence is Evidence.CACHED else rate(tokens, price)
    return (
        _text(record.request_id),
        _within(record.timestamp_us, _MAX_TIMESTAMP_US),
        _text(record.org_id),
        _text(record.env_id),
        _text(record.key_id),
        _text(record.endpoint),
        _text(record.model),
        _text(record.region),
        _text(record.node_id),
        tokens.prompt_tokens,
        tokens.completion_tokens,
        tokens.cached_tokens,
        tokens.reasoning_tokens,
        tokens.prompt_tokens + tokens.completion_tokens,
        record.evidence.value,
        record.outcome.value,
        None if record.finish_reason is None else _text(record.finish_reason),
        _within(record.http_status, _MAX_32),
        record.streamed,
        _within(record.attempts, _MAX_32),
        _within(record.latency_ms, _MAX_64),
        None if record.first_token_ms is None else _within(record.first_token_ms, _MAX_64),
        None if record.client_request_id is None else _text(record.client_request_id),
        cost,
        _within(microdollars(cost), _MAX_64),
        price.version,
    )


def _text(value: str) -> str:
    """PostgreSQL's text has no NUL."""
    return value.replace("\x00", "�") if "\x00" in value else value


def _within(value: int, most: int) -> int:
    return min(max(value, 0), most)


async def _insert_postgresql(conn: AsyncConnection, rows: list[_Row]) -> int:
    columns: list[Any] = [list(column) for column in zip(*rows, strict=True)]
    columns[_COST] = [Decimal(cost) for cost in columns[_COST]]
    return (await conn.exec_driver_sql(_POSTGRESQL_INSERT, tuple(columns))).rowcount


async def _insert_sqlite(conn: AsyncConnection, rows: list[_Row]) -> int:
    values = [dict(zip(_NAMES, row, strict=True)) for row in rows]
    for value in values:
        value["timestamp"] = _EPOCH + timedelta(microseconds=value["timestamp"])
    statement = sqlite.insert(usage_records).on_conflict_do_nothing(index_elements=["request_id"])
    return (await conn.execute(statement, values)).rowcount
