"""Judges the fleet again and again: reads what agents and gateways say of each node, and writes verdicts down.

What agents see (temperature, memory) is in their last report; what gateways see (failures, time to the first token) is
in the latest rows of the ledger, which are found by their ids alone. `fleet/health.py` decides.

Invariant: a round may be killed at any line, and be run by two processes at once: what was not written is found anew,
and gateways are told only of verdicts that changed.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from crosslogic.fleet import beats_sql
from crosslogic.fleet import sql as fleet_sql
from crosslogic.fleet.health import HealthRules, History, Judgement, Observed, judged, said
from crosslogic.fleet.model import Node, NodeHealth, NodeStatus, Symptom, Verdict
from crosslogic.fleet.registry import Registry
from crosslogic.kernel.clock import Clock
from crosslogic.kernel.errors import NotFound
from crosslogic.kernel.ids import NodeId, first_request_id, request_time_ms
from crosslogic.metering.model import NODES_FAULT
from crosslogic.store.engine import reading
from crosslogic.store.tables import node_health, usage_records

REPORT_KEPT_S = 60.0  # four reports of an agent
_ROWS_PER_NODE = 20
_FEWEST_ROWS, _MOST_ROWS = 2_000, 20_000

_log = logging.getLogger(__name__)


class Tried(msgspec.Struct, frozen=True):
    """One row of the ledger, as far as it tells of nodes."""

    request_id: str
    node_id: str
    model: str
    outcome: str
    first_token_ms: int | None
    failed_nodes: str | None  # with spaces between them


class NodeHealthJob:
    """Run as a leased job: of several control processes one acts."""

    def __init__(self, engine: AsyncEngine, registry: Registry, clock: Clock, rules: HealthRules) -> None:
        self._engine = engine
        self._registry = registry
        self._clock = clock
        self._rules = rules

    async def round(self) -> None:
        """Look at every node once."""
        now_s = self._clock.now().timestamp()
        fleet = await fleet_sql.fetch(self._engine)
        histories = await self._histories()
        tried = await self._tried(now_s, sum(node.status is NodeStatus.ACTIVE for node in fleet))
        seen = observed(tried, histories)
        for node_id, hardware in (await self._said(now_s)).items():
            requests = seen.get(node_id, Observed())
            seen[node_id] = msgspec.structs.replace(
                hardware,
                requests=requests.requests,
                failures=requests.failures,
                first_tokens_ms=requests.first_tokens_ms,
            )
        found = judged(fleet, seen, histories, now_s, self._rules)
        await self._remember(found, histories)
        for node in fleet:
            await self._act(node, found[node.id].health)

    async def _act(self, node: Node, health: NodeHealth) -> None:
        if _essence(node.health) == _essence(health):
            return  # the numbers in its detail move all the time; nobody routes by them
        try:
            await self._registry.judge(node.id, health)
        except NotFound:
            return
        if health.verdict is not Verdict.HEALTHY:
            _log.warning(
                "node %s is %s%s: %s", node.id, health.verdict.value, ", ejected" * health.ejected, health.detail
            )
        else:
            _log.info("node %s is healthy again", node.id)

    async def _histories(self) -> dict[NodeId, History]:
        async with reading(self._engine) as conn:
            rows = await conn.execute(select(node_health.c.node_id, node_health.c.history))
            return {NodeId(row.node_id): msgspec.convert(row.history, History) for row in rows}

    async def _said(self, now_s: float) -> dict[NodeId, Observed]:
        since = datetime.fromtimestamp(now_s - REPORT_KEPT_S, UTC)
        reports = await beats_sql.hardware(self._engine, since)
        return {NodeId(node_id): said(metrics) for node_id, metrics in reports.items()}

    async def _tried(self, now_s: float, nodes: int) -> list[Tried]:
        """The latest rows of the window: no more than are enough to judge so many nodes."""
        t = usage_records.c
        query = (
            select(t.request_id, t.node_id, t.model, t.outcome, t.first_token_ms, t.failed_nodes)
            .where(t.n == 0, t.request_id >= first_request_id(int((now_s - self._rules.window_s) * 1000)))
            .order_by(t.request_id.desc())
            .limit(min(_MOST_ROWS, max(_FEWEST_ROWS, _ROWS_PER_NODE * nodes)))
        )
        async with reading(self._engine) as conn:
            return [Tried(*row) for row in await conn.execute(query)]

    async def _remember(self, found: Mapping[NodeId, Judgement], known: Mapping[NodeId, History]) -> None:
        changed = {node_id: one.history for node_id, one in found.items() if known.get(node_id) != one.history}
        gone = known.keys() - found.keys()
        async with self._engine.begin() as conn:
            await beats_sql.write_histories(conn, _as_documents(changed), self._clock.now())
            if gone:
                await _forget(conn, gone)


def observed(tried: Iterable[Tried], histories: Mapping[NodeId, History]) -> dict[NodeId, Observed]:
    """What became of each node's requests. A failure counts also where another node saved the request afterwards."""
    requests: dict[NodeId, int] = defaultdict(int)
    failures: dict[NodeId, int] = defaultdict(int)
    first_tokens_ms: dict[NodeId, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    from_ms = {node_id: history.counted_from_s * 1000.0 for node_id, history in histories.items()}
    for one in tried:
        at_ms = request_time_ms(one.request_id)
        failed = (one.failed_nodes or "").split()
        for node_id in map(NodeId, failed):
            if at_ms >= from_ms.get(node_id, 0.0):
                requests[node_id] += 1
                failures[node_id] += 1
        node_id = NodeId(one.node_id)
        if at_ms < from_ms.get(node_id, 0.0):
            continue
        requests[node_id] += 1
        failures[node_id] += one.outcome in NODES_FAULT
        if one.first_token_ms is not None and not failed:  # else it holds what others took
            first_tokens_ms[node_id][one.model].append(float(one.first_token_ms))
    return {
        node_id: Observed(requests=count, failures=failures[node_id], first_tokens_ms=first_tokens_ms[node_id])
        for node_id, count in requests.items()
    }


def _essence(health: NodeHealth) -> tuple[Verdict, Symptom | None, bool]:
    return health.verdict, health.symptom, health.ejected


def _as_documents(histories: Mapping[NodeId, History]) -> dict[str, dict[str, Any]]:
    return {node_id: msgspec.to_builtins(history) for node_id, history in histories.items()}


async def _forget(conn: AsyncConnection, gone: Iterable[NodeId]) -> None:
    ids: Sequence[NodeId] = list(gone)
    await conn.execute(delete(node_health).where(node_health.c.node_id.in_(ids)))
