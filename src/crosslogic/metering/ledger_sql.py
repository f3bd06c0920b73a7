"""The ledger's statements, on both databases; each takes part in the caller's transaction.

Invariant: whoever adds rows to an org's log holds its head, and takes heads in the order of their orgs: so writers
wait for each other in turn, and rows become visible in the order of their positions.
"""

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, and_, any_, bindparam, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.types import Text

from crosslogic.metering.ledger_row import LedgerHead, LedgerRow, LogStart, canonical, first_id, microseconds
from crosslogic.store.tables import usage_heads, usage_records, usage_starts, usage_too_late

STATEMENT_ROWS = 5_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Each field of a row, with PostgreSQL's type of the array that carries its column.
_KINDS = {
    "n": "integer",
    "seq": "bigint",
    "timestamp_us": "bigint",
    "prompt_tokens": "bigint",
    "completion_tokens": "bigint",
    "cached_tokens": "bigint",
    "reasoning_tokens": "bigint",
    "total_tokens": "bigint",
    "http_status": "integer",
    "streamed": "boolean",
    "attempts": "integer",
    "latency_ms": "bigint",
    "first_token_ms": "bigint",
    "cost_pusd": "numeric",
    "cost_microdollars": "bigint",
    "failover": "boolean",
    "recorded_us": "bigint",
    "hash": "bytea",
}
_FIELDS = LedgerRow.__struct_fields__
_STORED = {"timestamp_us": "timestamp", "recorded_us": "recorded_at"}


def _postgresql_insert() -> str:
    """One array for each column: a fraction of the time of a row at a time. Times go as whole microseconds."""
    names = ", ".join(f'"{_STORED.get(name, name)}"' for name in _FIELDS)
    arrays = ", ".join(f"${number}::{_KINDS.get(name, 'text')}[]" for number, name in enumerate(_FIELDS, 1))
    values = ", ".join(
        f"timestamptz 'epoch' + \"{name}\" * interval '1 microsecond'" if name in _STORED else f'"{name}"'
        for name in _FIELDS
    )
    fields = ", ".join(f'"{name}"' for name in _FIELDS)
    return f"INSERT INTO usage_records ({names}) SELECT {values} FROM unnest({arrays}) AS r({fields})"  # noqa: S608 - of constants


_POSTGRESQL_INSERT = _postgresql_insert()


async def make_heads(conn: AsyncConnection, org_ids: Sequence[str]) -> None:
    """Begin the logs of these orgs, where they have not begun."""
    rows = [{"org_id": org_id, "seq": 0, "hash": b""} for org_id in sorted(org_ids)]
    dialect = postgresql if conn.dialect.name == "postgresql" else sqlite
    await conn.execute(dialect.insert(usage_heads).on_conflict_do_nothing(), rows)


async def lock_heads(conn: AsyncConnection, org_ids: Sequence[str]) -> dict[str, LedgerHead]:
    """The ends of these logs, held until the end of the transaction; those that have not begun are left out."""
    heads: dict[str, LedgerHead] = {}
    org_ids = sorted(org_ids)
    for start in range(0, len(org_ids), STATEMENT_ROWS):
        some = org_ids[start : start + STATEMENT_ROWS]
        query = select(usage_heads).where(_one_of(conn, usage_heads.c.org_id, some))
        for row in await conn.execute(query.order_by(usage_heads.c.org_id).with_for_update()):
            heads[row.org_id] = LedgerHead(row.org_id, row.seq, bytes(row.hash))
    return heads


async def move_heads(conn: AsyncConnection, heads: Sequence[LedgerHead]) -> None:
    if heads:
        statement = update(usage_heads).where(usage_heads.c.org_id == bindparam("of_org"))
        statement = statement.values(seq=bindparam("to_seq"), hash=bindparam("to_hash"))
        rows = [{"of_org": head.org_id, "to_seq": head.seq, "to_hash": head.hash} for head in heads]
        await conn.execute(statement, rows)


async def log_starts(conn: AsyncConnection, org_ids: Sequence[str]) -> dict[str, LogStart]:
    """Where these logs begin; those that nothing was dropped from are left out."""
    found: dict[str, LogStart] = {}
    for at in range(0, len(org_ids), STATEMENT_ROWS):
        query = select(usage_starts).where(_one_of(conn, usage_starts.c.org_id, org_ids[at : at + STATEMENT_ROWS]))
        for row in (await conn.execute(query)).mappings():
            found[row["org_id"]] = LogStart(**{**row, "hash": bytes(row["hash"])})
    return found


async def set_aside(conn: AsyncConnection, rows: Sequence[LedgerRow]) -> None:
    """Keep rows that the ledger cannot take any more, each once."""
    dialect = postgresql if conn.dialect.name == "postgresql" else sqlite
    values = [
        {
            "request_id": row.request_id,
            "org_id": row.org_id,
            "at": _EPOCH + timedelta(microseconds=row.recorded_us or 0),
            "document": canonical(row).decode(),
        }
        for row in rows
    ]
    await conn.execute(dialect.insert(usage_too_late).on_conflict_do_nothing(), values)


async def known_outcomes(conn: AsyncConnection, request_ids: Sequence[str]) -> dict[str, str]:
    """How the latest row of each of these requests says that it ended; requests without a row are left out."""
    t = usage_records.c
    latest: dict[str, tuple[int, str]] = {}
    for start in range(0, len(request_ids), STATEMENT_ROWS):
        some = request_ids[start : start + STATEMENT_ROWS]
        query = select(t.request_id, t.n, t.outcome).where(_requests(conn, some))
        for request_id, n, outcome in await conn.execute(query):
            latest[request_id] = max(latest.get(request_id, (n, outcome)), (n, outcome))
    return {request_id: outcome for request_id, (_, outcome) in latest.items()}


async def rows_of_requests(conn: AsyncConnection, request_ids: Sequence[str]) -> dict[str, list[LedgerRow]]:
    """The rows of each of these requests, the original first."""
    t = usage_records.c
    found: dict[str, list[LedgerRow]] = defaultdict(list)
    for start in range(0, len(request_ids), STATEMENT_ROWS):
        some = request_ids[start : start + STATEMENT_ROWS]
        query = select(usage_records).where(_requests(conn, some)).order_by(t.request_id, t.n)
        for stored in (await conn.execute(query)).mappings():
            row = row_of(stored)
            found[row.request_id].append(row)
    return found


async def rows_of_keys(conn: AsyncConnection, runs: Sequence[LedgerRow], ttl_s: int) -> list[LedgerRow]:
    """The rows of all requests that ran under the idempotency keys of these, and ended within `ttl_s` before them.

    Found by their ids, so that PostgreSQL leaves older months alone; an answer takes less than a day.
    """
    t = usage_records.c
    earliest_us = min(row.timestamp_us for row in runs) - ttl_s * 1_000_000
    oldest_id = first_id(_EPOCH + timedelta(microseconds=max(earliest_us, 0)) - timedelta(days=1))
    digests = sorted({row.once for row in runs if row.once is not None})
    found = []
    for start in range(0, len(digests), STATEMENT_ROWS):
        of_keys = _one_of(conn, t.once, digests[start : start + STATEMENT_ROWS])
        query = select(usage_records).where(t.once.is_not(None), of_keys, t.request_id >= oldest_id)
        found += [row_of(stored) for stored in (await conn.execute(query)).mappings()]
    return found


async def add_rows(conn: AsyncConnection, rows: Sequence[LedgerRow]) -> None:
    add = _add_on_postgresql if conn.dialect.name == "postgresql" else _add_on_sqlite
    for start in range(0, len(rows), STATEMENT_ROWS):
        await add(conn, rows[start : start + STATEMENT_ROWS])


def row_of(stored: RowMapping) -> LedgerRow:
    values: dict[str, Any] = dict(stored)
    recorded: datetime | None = values.pop("recorded_at")
    values["timestamp_us"] = microseconds(values.pop("timestamp"))
    values["recorded_us"] = None if recorded is None else microseconds(recorded)
    values["hash"] = bytes(values["hash"])
    return LedgerRow(**values)


async def _add_on_postgresql(conn: AsyncConnection, rows: Sequence[LedgerRow]) -> None:
    columns = [[getattr(row, name) for row in rows] for name in _FIELDS]
    cost = _FIELDS.index("cost_pusd")
    columns[cost] = [Decimal(value) for value in columns[cost]]
    await conn.exec_driver_sql(_POSTGRESQL_INSERT, tuple(columns))


async def _add_on_sqlite(conn: AsyncConnection, rows: Sequence[LedgerRow]) -> None:
    values = [{_STORED.get(name, name): getattr(row, name) for name in _FIELDS} for row in rows]
    for value in values:
        value["timestamp"] = _EPOCH + timedelta(microseconds=value["timestamp"])
        if value["recorded_at"] is not None:
            value["recorded_at"] = _EPOCH + timedelta(microseconds=value["recorded_at"])
    await conn.execute(insert(usage_records), values)


def _requests(conn: AsyncConnection, ids: Sequence[str]) -> ColumnElement[bool]:
    """Rows of these requests, with the bounds by which PostgreSQL leaves the other months alone.

    The bounds are found there, for only the database knows in which order its collation has them.
    """
    column = usage_records.c.request_id
    if conn.dialect.name != "postgresql":
        return column.in_(ids)
    asked = bindparam("ids", list(ids), type_=ARRAY(Text), unique=True)
    each = func.unnest(asked).column_valued("each")
    least, most = (select(bound(each)).scalar_subquery() for bound in (func.min, func.max))
    return and_(column == any_(asked), column >= least, column <= most)


def _one_of(conn: AsyncConnection, column: ColumnElement[str], values: Sequence[str]) -> ColumnElement[bool]:
    """On PostgreSQL as one array, so that the statement is the same for any number of values."""
    if conn.dialect.name == "postgresql":
        return column == any_(bindparam("values", list(values), type_=ARRAY(Text), unique=True))
    return column.in_(values)
