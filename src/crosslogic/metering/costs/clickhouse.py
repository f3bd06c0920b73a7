"""`CostTracker` over ClickHouse: a copy of the ledger for sizes at which PostgreSQL is not asked any more.

Invariant: a row counts once however often it was written: its key is (org, month, request, correction), the table
replaces rows of the same key, and every question is asked of the replaced state (`FINAL`). Values go as parameters or
as JSON, never into the text of a statement.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

import httpx
import msgspec

from crosslogic.kernel.errors import Unavailable
from crosslogic.metering.costs.ports import Cost, Period
from crosslogic.metering.ledger_row import LedgerRow, microseconds
from crosslogic.metering.model import UsageRecord
from crosslogic.metering.rated import original
from crosslogic.pricing.book import PriceBook

TIMEOUT_S = 30.0
BATCH_ROWS = 10_000
_FIELDS = tuple(name for name in LedgerRow.__struct_fields__ if name != "hash")
_KINDS = {
    "n": "UInt32",
    "seq": "UInt64",
    "timestamp_us": "UInt64",
    "recorded_us": "Nullable(UInt64)",
    "first_token_ms": "Nullable(Int64)",
    "http_status": "Int32",
    "attempts": "Int32",
    "streamed": "Bool",
    "failover": "Bool",
    "cost_pusd": "Decimal(38, 0)",
    **dict.fromkeys(
        (
            "prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens", "total_tokens", "latency_ms",
            "cost_microdollars",
        ),
        "Int64",
    ),
    **dict.fromkeys(("endpoint", "model", "region", "evidence", "outcome"), "LowCardinality(String)"),
    **dict.fromkeys(
        (
            "finish_reason", "client_request_id", "price_version", "failed_nodes", "region_asked", "reason", "actor",
            "once", "repeat_of",
        ),
        "Nullable(String)",
    ),
}  # fmt: skip
CREATE = (
    "CREATE TABLE IF NOT EXISTS usage_rows ("
    + ", ".join(f"{name} {_KINDS.get(name, 'String')}" for name in _FIELDS)
    + ") ENGINE = ReplacingMergeTree PARTITION BY toYYYYMM(fromUnixTimestamp64Micro(toInt64(timestamp_us), 'UTC')) "
    "ORDER BY (org_id, request_id, n)"
)
ADD = "ALTER TABLE usage_rows " + ", ".join(  # to a table of an earlier version
    f"ADD COLUMN IF NOT EXISTS {name} {_KINDS[name]}" for name in ("once", "repeat_of")
)
_INSERT = "INSERT INTO usage_rows FORMAT JSONEachRow"
_WITHIN = "timestamp_us >= {start:UInt64} AND timestamp_us < {end:UInt64}"
_COLUMNS = "org_id, toString(sum(total_tokens)) AS tokens, toString(countIf(n = 0)) AS requests"
_SUMS = f"SELECT {_COLUMNS}, toString(sum(cost_pusd)) AS cost FROM usage_rows FINAL WHERE {_WITHIN}"  # noqa: S608
_READ = ", ".join(f"toString({name}) AS {name}" if name == "cost_pusd" else name for name in _FIELDS)
_PAGE = (
    f"SELECT {_READ} FROM (SELECT * FROM usage_rows FINAL WHERE org_id = {{org:String}} AND {_WITHIN} "  # noqa: S608
    "AND request_id IN (SELECT request_id FROM usage_rows FINAL WHERE org_id = {org:String} AND n = 0 "
    f"AND request_id > {{after:String}} AND {_WITHIN} ORDER BY request_id LIMIT {{limit:UInt32}})) "
    "ORDER BY request_id, n"
)


class ClickHouse(Protocol):
    """One statement; the answer's rows as JSON, a line each."""

    async def run(self, statement: str, parameters: Mapping[str, str], data: bytes = b"") -> bytes:
        """Raises Unavailable."""
        ...


class HttpClickHouse:
    """A ClickHouse server's own HTTP interface."""

    def __init__(self, url: str, *, database: str, user: str, password: str) -> None:
        self._http = httpx.AsyncClient(
            base_url=url,
            params={"database": database, "default_format": "JSONEachRow"},
            headers={"X-ClickHouse-User": user, "X-ClickHouse-Key": password},
            timeout=TIMEOUT_S,
            trust_env=False,
        )

    async def run(self, statement: str, parameters: Mapping[str, str], data: bytes = b"") -> bytes:
        params = {f"param_{name}": value for name, value in parameters.items()}
        try:
            answer = await self._http.post("/", params=params, content=statement.encode() + b"\n" + data)
        except httpx.HTTPError as error:
            raise Unavailable(f"ClickHouse does not answer ({type(error).__name__})") from None
        if not answer.is_success:
            code = answer.headers.get("x-clickhouse-exception-code", "unknown")
            raise Unavailable(f"ClickHouse refused a statement (exception code {code})")
        return answer.content

    async def close(self) -> None:
        await self._http.aclose()


class ClickHouseCostTracker:
    def __init__(self, clickhouse: ClickHouse, prices: Callable[[], PriceBook], now: Callable[[], datetime]) -> None:
        self._clickhouse = clickhouse
        self._prices = prices
        self._now = now

    async def create(self) -> None:
        """Make the table, where there is none."""
        await self._clickhouse.run(CREATE, {})
        await self._clickhouse.run(ADD, {})

    async def record_usage(self, records: Sequence[UsageRecord]) -> None:
        prices, now_us = self._prices(), microseconds(self._now())
        await self.copy([original(record, prices, now_us) for record in records])

    async def copy(self, rows: Sequence[LedgerRow]) -> None:
        """Keep rows of the ledger as they are, corrections too; again is harmless."""
        for start in range(0, len(rows), BATCH_ROWS):
            lines = (msgspec.json.encode(_document(row)) for row in rows[start : start + BATCH_ROWS])
            await self._clickhouse.run(_INSERT, {}, b"\n".join(lines))

    async def get_usage(self, org_id: str, period: Period, *, after: str = "", limit: int = 500) -> list[LedgerRow]:
        parameters = {**_bounds(period), "org": org_id, "after": after, "limit": str(limit)}
        rows = await self._rows(_PAGE, parameters)
        return [msgspec.convert({**row, "cost_pusd": int(row["cost_pusd"])}, LedgerRow, strict=False) for row in rows]

    async def get_cost(self, org_id: str, period: Period) -> Cost:
        statement = f"{_SUMS} AND org_id = {{org:String}} GROUP BY org_id"
        rows = await self._rows(statement, {**_bounds(period), "org": org_id})
        return _cost(rows[0]) if rows else Cost(org_id, 0, 0, 0)

    async def aggregate_usage(self, period: Period) -> dict[str, Cost]:
        rows = await self._rows(f"{_SUMS} GROUP BY org_id", _bounds(period))
        return {row["org_id"]: _cost(row) for row in rows}

    async def _rows(self, statement: str, parameters: Mapping[str, str]) -> list[dict[str, Any]]:
        answer = await self._clickhouse.run(statement, parameters)
        return [msgspec.json.decode(line) for line in answer.splitlines() if line]


def _document(row: LedgerRow) -> dict[str, Any]:
    fields = {name: getattr(row, name) for name in _FIELDS}
    fields["cost_pusd"] = str(row.cost_pusd)
    return fields


def _bounds(period: Period) -> dict[str, str]:
    return {"start": str(microseconds(period.start)), "end": str(microseconds(period.end))}


def _cost(row: Mapping[str, str]) -> Cost:
    return Cost(row["org_id"], int(row["tokens"]), int(row["requests"]), int(row["cost"]))
