"""Counts the hours of nodes, and attributes what they cost to the work that was done.

Invariant: killed at any line, or run twice at once, it counts no moment of a node twice; an hour is attributed anew as
long as rows for it may still come, and each time whole.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from hashlib import blake2b

import msgspec
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.fleet import sql as fleet_sql
from crosslogic.fleet.model import Node, NodeStatus
from crosslogic.insight.finops.attribution import attributed
from crosslogic.insight.finops.model import NodeHour
from crosslogic.insight.finops.node_prices import usd_per_hour
from crosslogic.insight.finops.sql import HOUR, FinopsSql, hour_of
from crosslogic.kernel.clock import Clock

COUNT_EVERY_S = 30.0
LATE_HOURS = 3  # how long rows of an hour may come late and still be seen here; the ledger takes them for ever
_UP = frozenset({NodeStatus.ACTIVE, NodeStatus.DRAINING, NodeStatus.STARTING})


class FinopsJob:
    """Run as a leased job."""

    def __init__(self, engine: AsyncEngine, clock: Clock, usd_per_gpu_hour: Mapping[str, float]) -> None:
        self._engine = engine
        self._finops = FinopsSql(engine)
        self._clock = clock
        self._usd_per_gpu_hour = usd_per_gpu_hour
        self._put: dict[datetime, bytes] = {}  # digests of what we wrote of the last hours
        self._rounded_at: datetime | None = None

    async def round(self) -> None:
        now = self._clock.now()
        up = [self._as_hour(node, now) for node in await fleet_sql.fetch(self._engine) if node.status in _UP]
        # A process that was away for longer does not know whether the nodes were.
        await self._finops.count(up, now, most=timedelta(seconds=4 * COUNT_EVERY_S))
        hours = [hour_of(now) - age * HOUR for age in range(LATE_HOURS + 1)]
        led = self._rounded_at is not None and now - self._rounded_at <= 2 * timedelta(seconds=COUNT_EVERY_S)
        # Whoever did not lead a moment ago does not know what another wrote meanwhile.
        self._put = {hour: digest for hour, digest in self._put.items() if led and hour in hours}
        for hour in hours:
            await self._attribute(hour)
        self._rounded_at = now

    async def _attribute(self, hour: datetime) -> None:
        done = await self._finops.work(hour)
        parts = [
            part for each in await self._finops.hours(hour) for part in attributed(each, done.get(each.node_id, []))
        ]
        digest = blake2b(msgspec.json.encode(parts)).digest()
        if self._put.get(hour) != digest:
            await self._finops.put(hour, parts)
            self._put[hour] = digest

    def _as_hour(self, node: Node, now: datetime) -> NodeHour:
        return NodeHour(
            node_id=node.id,
            hour=hour_of(now),
            up_s=0.0,
            usd_per_hour=usd_per_hour(node, self._usd_per_gpu_hour),
            spot=node.spot,
            gpu_type=node.gpu_type,
            gpu_count=node.gpu_count,
            region=node.region,
        )
