"""Many heartbeats and reports in one statement each, on both databases.

The rows travel as one JSON parameter: binding thousands of values would cost more than the write itself.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from crosslogic.fleet.model import Node
from crosslogic.store.engine import reading
from crosslogic.store.tables import node_agents

LOADS_CHANGED = "node_loads"
"""A change whose entity is a list of node ids, separated by commas."""
AGENT_CHANGED = "node_agent"

_BEATS = {
    "postgresql": text(
        "UPDATE nodes SET load = d.load, vram_free_mb = d.vram_free_mb, last_heartbeat_at = d.at "
        "FROM jsonb_to_recordset(CAST(:rows AS jsonb)) "
        "AS d(id text, load jsonb, vram_free_mb bigint, at timestamptz) WHERE nodes.id = d.id"
    ),
    "sqlite": text(
        "UPDATE nodes SET load = d.load, vram_free_mb = d.vram_free_mb, last_heartbeat_at = d.at FROM ("
        "SELECT json_extract(value, '$.id') AS id, json_extract(value, '$.load') AS load, "
        "json_extract(value, '$.vram_free_mb') AS vram_free_mb, json_extract(value, '$.at') AS at "
        "FROM json_each(:rows)) AS d WHERE nodes.id = d.id"
    ),
}
_REPORTS = {
    "postgresql": text(
        "INSERT INTO node_agents (node_id, report, updated_at) SELECT d.id, d.report, d.at "
        "FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS d(id text, report jsonb, at timestamptz) "
        "ON CONFLICT (node_id) DO UPDATE SET report = excluded.report, updated_at = excluded.updated_at"
    ),
    "sqlite": text(
        "INSERT INTO node_agents (node_id, report, updated_at) SELECT json_extract(value, '$.id'), "
        "json_extract(value, '$.report'), json_extract(value, '$.at') FROM json_each(:rows) WHERE true "
        "ON CONFLICT (node_id) DO UPDATE SET report = excluded.report, updated_at = excluded.updated_at"
    ),
}

_HISTORIES = {
    "postgresql": text(
        "INSERT INTO node_health (node_id, history, updated_at) SELECT d.id, d.history, d.at "
        "FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS d(id text, history jsonb, at timestamptz) "
        "ON CONFLICT (node_id) DO UPDATE SET history = excluded.history, updated_at = excluded.updated_at"
    ),
    "sqlite": text(
        "INSERT INTO node_health (node_id, history, updated_at) SELECT json_extract(value, '$.id'), "
        "json_extract(value, '$.history'), json_extract(value, '$.at') FROM json_each(:rows) WHERE true "
        "ON CONFLICT (node_id) DO UPDATE SET history = excluded.history, updated_at = excluded.updated_at"
    ),
}


async def write_beats(conn: AsyncConnection, nodes: Iterable[Node]) -> None:
    """Load, free memory and time of the last heartbeat; nodes that are gone meanwhile stay gone."""
    dialect = conn.dialect.name
    rows = [
        {
            "id": node.id,
            "load": node.load,
            "vram_free_mb": node.vram_free_mb,
            "at": None if node.last_heartbeat_at is None else _instant(node.last_heartbeat_at, dialect),
        }
        for node in nodes
    ]
    await conn.execute(_BEATS[dialect], {"rows": msgspec.json.encode(rows).decode()})


async def write_reports(conn: AsyncConnection, reports: Mapping[str, Mapping[str, Any]], at: datetime) -> None:
    """The last report of each node, in the place of the one before."""
    dialect = conn.dialect.name
    instant = _instant(at, dialect)
    rows = [{"id": node_id, "report": report, "at": instant} for node_id, report in reports.items()]
    await conn.execute(_REPORTS[dialect], {"rows": msgspec.json.encode(rows).decode()})


async def write_histories(conn: AsyncConnection, histories: Mapping[str, Mapping[str, Any]], at: datetime) -> None:
    """What is remembered of each of these nodes, in the place of what was."""
    dialect = conn.dialect.name
    instant = _instant(at, dialect)
    rows = [{"id": node_id, "history": history, "at": instant} for node_id, history in histories.items()]
    if rows:
        await conn.execute(_HISTORIES[dialect], {"rows": msgspec.json.encode(rows).decode()})


async def hardware(engine: AsyncEngine, since: datetime) -> dict[str, dict[str, Any]]:
    """What agents said after `since` of their nodes' hardware, by node, without the engines' own samples."""
    metrics = node_agents.c.report["metrics"]
    parts = {
        name: metrics[name] for name in ("gpus", "vram_fragmentation_ratio", "oom_events", "rebalance_recommended")
    }
    query = select(node_agents.c.node_id, *(part.label(name) for name, part in parts.items()))
    async with reading(engine) as conn:
        rows = (await conn.execute(query.where(node_agents.c.updated_at > since))).mappings()
        return {row["node_id"]: {name: row[name] for name in parts} for row in rows}


async def report(engine: AsyncEngine, node_id: str) -> dict[str, Any] | None:
    """What the node's agent said last, and the version that it is wanted to be; None where no agent ever reported."""
    query = select(node_agents).where(node_agents.c.node_id == node_id)
    async with reading(engine) as conn:
        row = (await conn.execute(query)).mappings().first()
    return None if row is None else dict(row)


async def wanted_versions(engine: AsyncEngine) -> dict[str, str]:
    """By node, where a version is wanted at all."""
    query = select(node_agents.c.node_id, node_agents.c.wanted_version).where(node_agents.c.wanted_version.is_not(None))
    async with reading(engine) as conn:
        return {row.node_id: row.wanted_version for row in await conn.execute(query)}


def _instant(at: datetime, dialect: str) -> str:
    # SQLite compares times as text, so it has to be written as `store.types.UtcDateTime` does.
    at = at.astimezone(UTC)
    return f"{at:%Y-%m-%d %H:%M:%S.%f}" if dialect == "sqlite" else at.isoformat()
