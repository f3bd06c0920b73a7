"""Nodes' hours and what was made of them, in the database.

Invariants: a moment of a node is counted once, whatever process counts it how often; an hour that is attributed again
takes the place of what was there, in one transaction.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import delete, func, insert, select, text, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from crosslogic.insight.finops.model import Attribution, Margin, NodeHour, Work
from crosslogic.kernel.errors import InvalidRequest
from crosslogic.kernel.ids import first_request_id
from crosslogic.store.engine import reading
from crosslogic.store.tables import node_clocks, node_hours, node_margins, usage_records
from crosslogic.store.types import exact_sum

HOUR = timedelta(hours=1)
_ORIGIN = {"org": "org_id", "model": "model", "region": "region", "node": "node_id", "spot": "spot"}
GROUPS = tuple(_ORIGIN)
PAGE_NODES = 500  # counted in one transaction
_MARGINS_LOCK = 0x636C_736B_0030


def hour_of(instant: datetime) -> datetime:
    return instant.replace(minute=0, second=0, microsecond=0)


def by_hour(start: datetime, end: datetime) -> Iterator[tuple[datetime, float]]:
    """The hours from `start` to `end`, with how many seconds fall into each. Pure."""
    while start < end:
        upto = min(hour_of(start) + HOUR, end)
        yield hour_of(start), (upto - start).total_seconds()
        start = upto


class FinopsSql:
    """Raises `store.engine.DATABASE_ERRORS`."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def count(self, up: Iterable[NodeHour], now: datetime, most: timedelta) -> None:
        """These nodes are up now: add the time since they were last counted, at most `most`, to the hours that it fell
        in. Of what is given, `hour` and `up_s` do not matter."""
        nodes = sorted(up, key=lambda node: node.node_id)
        for start in range(0, len(nodes), PAGE_NODES):
            async with self._engine.begin() as conn:
                await _count_page(conn, nodes[start : start + PAGE_NODES], now, most)

    async def hours(self, hour: datetime) -> list[NodeHour]:
        """Every node that was up in this hour."""
        columns = [node_hours.c[name] for name in NodeHour.__struct_fields__]
        query = select(*columns).where(node_hours.c.hour == hour).order_by(node_hours.c.node_id)
        async with reading(self._engine) as conn:
            return [NodeHour(*row) for row in await conn.execute(query)]

    async def work(self, hour: datetime) -> dict[str, list[Work]]:
        """What was done in this hour, by node; found by the ids of requests, which hold their time."""
        t = usage_records.c
        start, end = (first_request_id(int(each.timestamp() * 1000)) for each in (hour, hour + HOUR))
        query = (
            select(
                t.node_id,
                t.org_id,
                t.model,
                func.sum(t.prompt_tokens),
                func.sum(t.completion_tokens),
                exact_sum(t.cost_pusd),
            )
            .where(t.request_id >= start, t.request_id < end)
            .group_by(t.node_id, t.org_id, t.model)
            .order_by(t.node_id, t.org_id, t.model)
        )
        done: dict[str, list[Work]] = defaultdict(list)
        async with reading(self._engine) as conn:
            for node_id, org_id, model, prompt, completion, revenue in await conn.execute(query):
                done[node_id].append(Work(node_id, org_id, model, int(prompt), int(completion), int(revenue)))
        return done

    async def put(self, hour: datetime, parts: Sequence[Attribution]) -> None:
        """All of this hour, in the place of what was there."""
        async with self._engine.begin() as conn:
            if conn.dialect.name == "postgresql":  # SQLite has one writer anyway
                await conn.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _MARGINS_LOCK})
            await conn.execute(delete(node_margins).where(node_margins.c.hour == hour))
            if parts:
                await conn.execute(insert(node_margins), [msgspec.structs.asdict(part) for part in parts])

    async def margins(self, group_by: Sequence[str], *, start: datetime | None, end: datetime | None) -> list[Margin]:
        """Sums by org, model, region, node or spot, in order of the groups. Raises InvalidRequest for another."""
        names = list(dict.fromkeys(group_by))
        for name in names:
            if name not in _ORIGIN:
                raise InvalidRequest(f"cannot group by {name!r}; choose of {', '.join(GROUPS)}", param="group_by")
        t = node_margins.c
        groups = [t[_ORIGIN[name]] for name in names]
        query = select(
            *groups,
            func.sum(t.gpu_s),
            func.sum(t.prompt_tokens),
            func.sum(t.completion_tokens),
            exact_sum(t.cost_pusd),
            exact_sum(t.revenue_pusd),
        )
        if start is not None:
            query = query.where(t.hour >= start)
        if end is not None:
            query = query.where(t.hour < end)
        if groups:
            query = query.group_by(*groups).order_by(*groups)
        async with reading(self._engine) as conn:
            rows = (await conn.execute(query)).all()
        return [_margin(names, row) for row in rows if row[-1] is not None]


async def _count_page(conn: AsyncConnection, nodes: Sequence[NodeHour], now: datetime, most: timedelta) -> None:
    """In the order of their ids, so that two processes wait for each other instead of for ever."""
    since = await _moved(conn, [node.node_id for node in nodes], now)
    parts = [
        msgspec.structs.asdict(msgspec.structs.replace(node, hour=hour, up_s=seconds))
        for node in nodes
        if node.node_id in since
        for hour, seconds in by_hour(max(since[node.node_id], now - most), now)
    ]
    if parts:
        await conn.execute(_adding(conn.dialect.name), parts)


async def _moved(conn: AsyncConnection, node_ids: Sequence[str], now: datetime) -> dict[str, datetime]:
    """Until when each is counted; from here on until `now`. The rows are held until the transaction ends.

    One that was never counted is not in it: its time begins now.
    """
    here = node_clocks.c.node_id.in_(node_ids)
    query = select(node_clocks.c.node_id, node_clocks.c.counted_at).where(here)
    rows = await conn.execute(query.order_by(node_clocks.c.node_id).with_for_update())
    since = {row.node_id: row.counted_at for row in rows}
    new = [{"node_id": node_id, "counted_at": now} for node_id in node_ids if node_id not in since]
    if new:
        into = postgresql.insert if conn.dialect.name == "postgresql" else sqlite.insert
        await conn.execute(into(node_clocks).on_conflict_do_nothing(index_elements=["node_id"]), new)
    if since:
        await conn.execute(update(node_clocks).where(here, node_clocks.c.counted_at < now).values(counted_at=now))
    return since


def _adding(dialect: str) -> Any:
    """What adds the time of a `NodeHour` to its row, given as a parameter; a price that is told is kept."""
    adding = (postgresql.insert if dialect == "postgresql" else sqlite.insert)(node_hours)
    said = {"usd_per_hour": func.coalesce(adding.excluded.usd_per_hour, node_hours.c.usd_per_hour)}
    return adding.on_conflict_do_update(
        index_elements=["node_id", "hour"], set_=said | {"up_s": node_hours.c.up_s + adding.excluded.up_s}
    )


def _margin(names: Sequence[str], row: Sequence[Any]) -> Margin:
    gpu_s, prompt, completion, cost, revenue = row[len(names) :]
    group = {name: _word(value) for name, value in zip(names, row, strict=False)}
    return Margin(group, float(gpu_s) / HOUR.total_seconds(), int(prompt), int(completion), int(cost), int(revenue))


def _word(value: Any) -> str:
    return {True: "spot", False: "on-demand"}[value] if isinstance(value, bool) else str(value)
