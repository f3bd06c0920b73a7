"""Heartbeats of a whole fleet at the price of one transaction a second.

What a heartbeat changes for everybody (a status, the models) goes through the registry at once. What only says how
busy a node is waits in memory and is written together with the others', and gateways are told of all of them by one
row of the change feed.

Invariants: a change of status is never delayed and never overtaken by an older heartbeat; the load in the database is
at most `interval_s` old; a process that is killed loses that much load and nothing else.
"""

import asyncio
import logging

import msgspec
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.fleet import beats_sql, lifecycle
from crosslogic.fleet.beats_sql import LOADS_CHANGED
from crosslogic.fleet.lifecycle import Heartbeat
from crosslogic.fleet.model import Node
from crosslogic.fleet.registry import Registry
from crosslogic.fleet.sync import NodeSync
from crosslogic.kernel.clock import Clock
from crosslogic.kernel.ids import NodeId
from crosslogic.store.changes import append_change
from crosslogic.store.engine import DATABASE_ERRORS

FLUSH_INTERVAL_S = 1.0

_log = logging.getLogger(__name__)


class Heartbeats:
    """Give it every heartbeat of this process; `run` writes them. `sync` has to follow the change feed."""

    def __init__(
        self, registry: Registry, engine: AsyncEngine, clock: Clock, interval_s: float = FLUSH_INTERVAL_S
    ) -> None:
        self._registry = registry
        self._engine = engine
        self._clock = clock
        self._interval_s = interval_s
        self.sync = NodeSync(engine, self._on_nodes, follow_loads=False)
        self._nodes: dict[NodeId, Node] = {}
        self._waiting: dict[NodeId, Node] = {}
        self._told: dict[NodeId, Node] = {}  # as gateways know them
        self._failing = False

    async def run(self) -> None:
        """Write what waits until cancelled; then write the last of it."""
        try:
            while True:
                await asyncio.sleep(self._interval_s)
                await self._flush_guarded()
        finally:
            await self._flush_guarded()

    async def heartbeat(self, node_id: NodeId, beat: Heartbeat) -> Node:
        """Take in what a node says. Raises NotFound: the node must then register anew."""
        known = self._nodes.get(node_id)
        if known is not None:
            node = lifecycle.heard(known, beat, self._clock.now())
            if _only_busier(known, node):
                self._waiting[node_id] = node
                return node
        node = await self._registry.heartbeat(node_id, beat)
        self.learned(node)
        return node

    def learned(self, node: Node) -> None:
        """Take over a node as the registry has just stored it, sooner than the change feed brings it."""
        self._waiting.pop(node.id, None)  # what waits was said before
        self._nodes[node.id] = self._told[node.id] = node

    def forget(self, node_id: NodeId) -> None:
        """The node was removed: its next heartbeat is told so."""
        for picture in (self._waiting, self._nodes, self._told):
            picture.pop(node_id, None)

    async def flush(self) -> int:
        """Write what waits; returns how many nodes. Raises what SQLAlchemy raises when the database is away."""
        batch, self._waiting = self._waiting, {}
        if not batch:
            return 0
        news = [
            node_id
            for node_id, node in batch.items()
            if (told := self._told.get(node_id)) is None or lifecycle.differs_materially(told, node)
        ]
        try:
            async with self._engine.begin() as conn:
                await beats_sql.write_beats(conn, batch.values())
                if news:
                    await append_change(conn, LOADS_CHANGED, ",".join(news))
        except BaseException:
            self._waiting = batch | self._waiting
            raise
        for node_id in news:
            self._told[node_id] = batch[node_id]
        return len(batch)

    async def _flush_guarded(self) -> None:
        try:
            await self.flush()
        except DATABASE_ERRORS as error:
            if not self._failing:
                self._failing = True
                _log.warning("heartbeats cannot be written (%s); they wait", type(error).__name__)
        else:
            self._failing = False

    def _on_nodes(self, nodes: list[Node]) -> None:
        for node in nodes:
            if self._nodes.get(node.id) is not node:
                self._told[node.id] = node
        self._nodes = {node.id: node for node in nodes}
        self._told = {node_id: node for node_id, node in self._told.items() if node_id in self._nodes}
        self._waiting = {node_id: node for node_id, node in self._waiting.items() if node_id in self._nodes}


def _only_busier(before: Node, after: Node) -> bool:
    """Whether nothing but the load, the free memory and the time differs."""
    return before == msgspec.structs.replace(
        after, load=before.load, vram_free_mb=before.vram_free_mb, last_heartbeat_at=before.last_heartbeat_at
    )
