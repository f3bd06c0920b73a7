"""Windows and episodes in the database.

Invariant: a window's figures and what they did to episodes are written together or not at all, under names that two
processes that judge the same window share. Raises `store.engine.DATABASE_ERRORS`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import RowMapping, and_, case, delete, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from crosslogic.insight.anomalies.episodes import notice_of
from crosslogic.insight.anomalies.model import WINDOW, Anomaly, AnomalyType, Window
from crosslogic.insight.notices.model import ChannelKind, Severity
from crosslogic.insight.notices.outbox import raise_in
from crosslogic.kernel.ids import first_request_id
from crosslogic.metering.model import NODES_FAULT, Evidence, Outcome
from crosslogic.store.engine import reading
from crosslogic.store.tables import anomalies, service_windows, usage_records

KEPT = timedelta(days=14)  # of windows; episodes stay
_GENERATING = ("chat/completions", "completions", "responses", "messages")
_CUT = ("length", "max_tokens", "max_output_tokens", "incomplete")


class AnomaliesSql:
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def judged_until(self) -> datetime | None:
        async with reading(self._engine) as conn:
            latest = (await conn.execute(select(func.max(service_windows.c.at)))).scalar_one()
        return None if latest is None else latest + WINDOW

    async def measured(self, at: datetime) -> list[Window]:
        """The window from `at` on, of every model and region with traffic: one query over its rows alone."""
        t = usage_records.c
        ran = and_(t.evidence != Evidence.CACHED.value, t.endpoint.in_(_GENERATING))
        answered = and_(t.outcome == Outcome.COMPLETED.value, ran)
        odd = and_(answered, (t.completion_tokens == 0) | t.finish_reason.in_(_CUT))
        paced = and_(answered, t.first_token_ms.is_not(None), t.completion_tokens > 1)
        failed = t.outcome.in_([each.value for each in NODES_FAULT])
        query = (
            select(
                t.model,
                t.region,
                func.count().label("requests"),
                func.sum(case((failed, 1), else_=0)).label("failed"),
                func.sum(case((answered, 1), else_=0)).label("answered"),
                func.sum(case((odd, 1), else_=0)).label("odd"),
                func.avg(case((answered, t.first_token_ms))).label("first_token_ms"),
                func.sum(case((paced, t.latency_ms - t.first_token_ms))).label("paced_ms"),
                func.sum(case((paced, t.completion_tokens - 1))).label("paced_tokens"),
            )
            .where(t.request_id >= _first(at), t.request_id < _first(at + WINDOW), t.n == 0)
            .group_by(t.model, t.region)
        )
        async with reading(self._engine) as conn:
            return [_window(at, row) for row in (await conn.execute(query)).mappings()]

    async def before(self, at: datetime) -> dict[tuple[str, str], list[Window]]:
        """Windows of the last two weeks by model and region."""
        t = service_windows.c
        found: dict[tuple[str, str], list[Window]] = defaultdict(list)
        async with reading(self._engine) as conn:
            rows = await conn.execute(select(service_windows).where(t.at >= at - KEPT, t.at < at).order_by(t.at))
            for row in rows.mappings():
                found[row["model"], row["region"]].append(Window(**row))
        return found

    async def standing(self) -> list[Anomaly]:
        """Episodes that are not over."""
        query = select(anomalies).where(anomalies.c.ended_at.is_(None)).order_by(anomalies.c.id)
        async with reading(self._engine) as conn:
            return [_anomaly(row) for row in (await conn.execute(query)).mappings()]

    async def write(
        self, windows: Sequence[Window], changed: Iterable[Anomaly], now: datetime, channels: Sequence[ChannelKind]
    ) -> int:
        """How many episodes are new; each of them is a notice."""
        new = 0
        async with self._engine.begin() as conn:
            for window in windows:
                await _put(conn, service_windows, msgspec.structs.asdict(window), ("at", "model", "region"))
            for anomaly in changed:
                await _put(conn, anomalies, _columns(anomaly), ("kind", "model", "region", "started_at"))
                if anomaly.ended_at is None:
                    new += await raise_in(conn, notice_of(anomaly, now), kinds=channels)
            await conn.execute(delete(service_windows).where(service_windows.c.at < now - KEPT))
        return new

    async def page(
        self,
        *,
        kind: AnomalyType | None,
        since: datetime | None,
        until: datetime | None,
        after: str | None,
        limit: int,
    ) -> list[Anomaly]:
        """Newest first: episodes of which some part lies between `since` and `until`."""
        t = anomalies.c
        query = select(anomalies).order_by(t.id.desc()).limit(limit)
        if kind is not None:
            query = query.where(t.kind == kind.value)
        if since is not None:
            query = query.where(t.seen_at >= since)
        if until is not None:
            query = query.where(t.started_at < until)
        if after is not None:
            query = query.where(t.id < after)
        async with reading(self._engine) as conn:
            return [_anomaly(row) for row in (await conn.execute(query)).mappings()]


async def _put(conn: AsyncConnection, table: Any, row: dict[str, Any], key: tuple[str, ...]) -> None:
    into = postgresql.insert if conn.dialect.name == "postgresql" else sqlite.insert
    statement = into(table).values(row)
    changing = {name: statement.excluded[name] for name in row if name not in (*key, "id")}
    await conn.execute(statement.on_conflict_do_update(index_elements=list(key), set_=changing))


def _first(at: datetime) -> str:
    return first_request_id(int(at.timestamp() * 1000))


def _window(at: datetime, row: RowMapping) -> Window:
    tokens = int(row["paced_tokens"] or 0)
    first = row["first_token_ms"]
    return Window(
        at=at,
        model=row["model"],
        region=row["region"],
        requests=int(row["requests"]),
        failed=int(row["failed"]),
        answered=int(row["answered"]),
        odd=int(row["odd"]),
        first_token_ms=None if first is None else float(first),
        token_ms=float(row["paced_ms"]) / tokens if tokens else None,
    )


def _columns(anomaly: Anomaly) -> dict[str, Any]:
    columns: dict[str, Any] = msgspec.structs.asdict(anomaly)
    return columns | {"kind": anomaly.kind.value, "severity": anomaly.severity.value}


def _anomaly(row: RowMapping) -> Anomaly:
    return Anomaly(**{**row, "kind": AnomalyType(row["kind"]), "severity": Severity(row["severity"])})
