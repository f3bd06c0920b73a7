"""What node agents ask of control, whichever way they come: gRPC or HTTP (architecture document §21 to §23, §29, §45).

Invariants: an agent acts for the node and org of its certificate and for nothing else, whatever its messages say; a
spot notice or a shutdown is in the node's status before it is answered.
"""

import logging
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import insert, update
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.fleet import beats_sql
from crosslogic.fleet.beats_sql import AGENT_CHANGED
from crosslogic.fleet.heartbeats import Heartbeats
from crosslogic.fleet.identity import NodeIdentity
from crosslogic.fleet.lifecycle import HEARTBEAT_INTERVAL_S, Heartbeat
from crosslogic.fleet.model import Node
from crosslogic.fleet.registry import Registration, Registry
from crosslogic.fleet.trust_sql import Trail
from crosslogic.fleet.witness import generated_tokens, write_witness
from crosslogic.kernel.clock import Clock
from crosslogic.kernel.errors import Conflict, NotFound
from crosslogic.kernel.ids import NodeId
from crosslogic.store.changes import Change, append_change
from crosslogic.store.tables import node_agents
from crosslogic.telemetry.redaction import redacted

LOG_LINES_KEPT = 1_000  # of each node
LOG_NODES_KEPT = 10_000
MAX_LINE_CHARS = 4_096
WITNESS_INTERVAL = timedelta(minutes=1)

_log = logging.getLogger(__name__)


class NodeState(msgspec.Struct, frozen=True):
    """What an agent is told: what its node is held to be, and the version that it should become, if another."""

    node: Node
    wanted_version: str | None = None


class LogLine(msgspec.Struct, frozen=True):
    at: str  # RFC 3339, by the node's clock
    source: str  # agent or engine
    text: str


class Agents:
    """One for each control process. Raises what SQLAlchemy raises when the database is away."""

    def __init__(
        self,
        engine: AsyncEngine,
        registry: Registry,
        heartbeats: Heartbeats,
        clock: Clock,
        heartbeat_interval_s: float = HEARTBEAT_INTERVAL_S,
    ) -> None:
        self._engine = engine
        self._registry = registry
        self._heartbeats = heartbeats
        self._clock = clock
        self._reports: dict[NodeId, dict[str, Any]] = {}
        self._unwritten: set[NodeId] = set()
        self._counters: dict[NodeId, int] = {}  # of their engines, not written yet
        self._counted_at: datetime | None = None
        self._wanted: dict[str, str] = {}
        self._logs: dict[NodeId, deque[LogLine]] = {}
        self.heartbeat_interval_s = heartbeat_interval_s

    async def load(self) -> None:
        """What agents are wanted to be, as the feed's follower."""
        self._wanted = await beats_sql.wanted_versions(self._engine)

    async def apply(self, changes: Sequence[Change]) -> None:
        if any(change.kind == AGENT_CHANGED for change in changes):
            await self.load()

    async def register(self, who: NodeIdentity, said: Registration, facts: Mapping[str, Any]) -> NodeState:
        """Raises InvalidRequest, and Conflict for an address that is another node's."""
        node = await self._registry.register(msgspec.structs.replace(said, node_id=who.node_id, org_id=who.org_id))
        self._heartbeats.learned(node)
        self._report(who.node_id, {"facts": dict(facts)})
        _log.info("node %s registered at %s", node.id, node.endpoint_url)
        return self._state(node)

    async def heartbeat(self, who: NodeIdentity, beat: Heartbeat) -> NodeState:
        """Raises NotFound: the agent must register anew."""
        return self._state(await self._heartbeats.heartbeat(who.node_id, beat))

    def metrics(self, who: NodeIdentity, metrics: Mapping[str, Any]) -> None:
        self._report(who.node_id, {"metrics": dict(metrics)})
        generated = generated_tokens(metrics.get("engine") or {})
        if generated is not None:
            self._counters[who.node_id] = generated

    async def spot_eviction(
        self, node_id: NodeId, by: Trail, *, cloud: str, action: str, at: str = "", org_id: str | None = None
    ) -> NodeState:
        """The cloud takes the machine away: nothing new from now on (§23.1). Raises NotFound."""
        notice = {"cloud": cloud, "action": action, "at": at}
        node = await self._drain(node_id)
        async with self._engine.begin() as conn:
            await by.append(conn, "node.spot_notice", node_id, org_id=org_id, before=None, after=notice)
        self._report(node_id, {"spot_notice": {**notice, "heard_at": self._clock.now().isoformat()}})
        _log.warning("node %s gets a spot notice (%s, %s); draining", node_id, cloud, action)
        return self._state(node)

    async def shutdown(self, who: NodeIdentity, reason: str, *, finished: bool) -> NodeState:
        """The agent leaves: the node drains, and is removed once that is `finished`. Raises NotFound."""
        node = await self._drain(who.node_id)
        if finished and not node.static:
            await self._registry.deregister(who.node_id)
            self._heartbeats.forget(who.node_id)
            _log.info("node %s left: %s", who.node_id, reason)
        return self._state(node)

    def logs(self, who: NodeIdentity, lines: Iterable[LogLine], dropped: int = 0) -> None:
        """Keep the last lines of the node, and hand all on to our own log."""
        if who.node_id not in self._logs and len(self._logs) >= LOG_NODES_KEPT:
            self._logs.pop(next(iter(self._logs)))
        kept = self._logs.setdefault(who.node_id, deque(maxlen=LOG_LINES_KEPT))
        for line in lines:
            clean = redacted(line.text[:MAX_LINE_CHARS].encode("utf-8", "replace")).decode("utf-8", "replace")
            kept.append(LogLine(line.at[:40], line.source[:16], clean))
            _log.debug("node %s %s: %s", who.node_id, line.source[:16], clean)
        if dropped:
            kept.append(LogLine(self._clock.now().isoformat(), "control", f"{dropped} lines were dropped by the agent"))

    def last_logs(self, node_id: NodeId, limit: int) -> Sequence[LogLine]:
        """The newest lines, oldest first, of nodes whose agents stream to this very process."""
        return list(self._logs.get(node_id, ()))[-limit:]

    async def report(self, node_id: NodeId) -> dict[str, Any]:
        """Facts, metrics and spot notice as the agent said them last. Raises NotFound."""
        await self.flush()
        stored = await beats_sql.report(self._engine, node_id)
        if stored is None:
            raise NotFound("no agent has reported for this node")
        return stored

    async def want_version(self, by: Trail, node_id: NodeId, version: str) -> None:
        """Ask the node's agent to become this version. Raises NotFound."""
        node = await self._registry.node(node_id)
        async with self._engine.begin() as conn:
            changed = await conn.execute(
                update(node_agents).where(node_agents.c.node_id == node_id).values(wanted_version=version)
            )
            if not changed.rowcount:
                row = {"node_id": node_id, "report": {}, "wanted_version": version, "updated_at": self._clock.now()}
                await conn.execute(insert(node_agents).values(row))
            shown = {"wanted_version": version}
            await by.append(conn, "node.upgrade", node_id, org_id=node.org_id, before=None, after=shown)
            await append_change(conn, AGENT_CHANGED, node_id)
        self._wanted[node_id] = version

    async def flush(self) -> None:
        """Write the reports that have come since the last time and, each minute, what the engines count."""
        await self._flush_reports()
        now = self._clock.now()
        if self._counters and (self._counted_at is None or now - self._counted_at >= WITNESS_INTERVAL):
            # What is lost here with the process, or here refused, is in the counters' next report: they only grow.
            counters, self._counters, self._counted_at = self._counters, {}, now
            async with self._engine.begin() as conn:
                await write_witness(conn, counters, now)

    async def _flush_reports(self) -> None:
        ids, self._unwritten = self._unwritten, set()
        if not ids:
            return
        try:
            async with self._engine.begin() as conn:
                await beats_sql.write_reports(conn, {one: self._reports[one] for one in ids}, self._clock.now())
        except BaseException:
            self._unwritten |= ids
            raise

    async def _drain(self, node_id: NodeId) -> Node:
        try:
            node = await self._registry.drain(node_id)
        except Conflict:  # it counts as dead already: that is no less than drained
            node = await self._registry.node(node_id)
        self._heartbeats.learned(node)
        return node

    def _report(self, node_id: NodeId, part: Mapping[str, Any]) -> None:
        self._reports[node_id] = {**self._reports.get(node_id, {}), **part}
        self._unwritten.add(node_id)

    def _state(self, node: Node) -> NodeState:
        return NodeState(node, self._wanted.get(node.id))
