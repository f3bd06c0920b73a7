"""Watches the fleet: buries silent nodes, removes drained and forgotten ones, probes those of the configuration.

Invariants: a node is never buried for a silence that was the monitor's own. After a start, or after the database
was away, every node has the full time to be heard once more. One slow node delays neither the watch nor the
probes of others. Any number of processes may run a monitor on one database; they do the same things.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

import msgspec
from sqlalchemy.exc import SQLAlchemyError

from crosslogic.fleet import lifecycle
from crosslogic.fleet.fetch import Fetch
from crosslogic.fleet.model import Node, NodeStatus
from crosslogic.fleet.probe import PROBE_TIMEOUT_S, probe
from crosslogic.fleet.registry import Registration, Registry
from crosslogic.kernel.clock import Clock
from crosslogic.kernel.errors import NotFound
from crosslogic.kernel.ids import NodeId

_AWAY = (SQLAlchemyError, OSError, TimeoutError)

_log = logging.getLogger(__name__)


class Timing(msgspec.Struct, frozen=True):
    """Seconds; the defaults are the documents' (§22)."""

    watch_interval_s: float = 1.0
    silence_s: float = lifecycle.SILENCE_S
    drain_ttl_s: float = lifecycle.DRAIN_TTL_S
    dead_retention_s: float = lifecycle.DEAD_RETENTION_S
    probe_interval_s: float = lifecycle.HEARTBEAT_INTERVAL_S
    probe_timeout_s: float = PROBE_TIMEOUT_S
    starting_interval_s: float = 0.2  # how soon a starting node is seen to be healthy
    patience_s: float = 60.0  # one that is still starting after that is probed at `probe_interval_s`


class StaticNode(msgspec.Struct, frozen=True):
    """A node of the configuration; one whose registration names no models is asked for them."""

    registration: Registration
    detect_backend: bool = True
    """Find out what kind of server it is, instead of believing `registration.backend`."""


class _Watched:
    """One static node under probe."""

    __slots__ = ("began_s", "discover_models", "kind", "node")

    def __init__(self, node: Node, static: StaticNode, began_s: float) -> None:
        self.node = node
        self.kind = None if static.detect_backend else static.registration.backend
        self.discover_models = not static.registration.models
        self.began_s = began_s


class Monitor:
    def __init__(self, registry: Registry, fetch: Fetch, clock: Clock, timing: Timing | None = None) -> None:
        self._registry = registry
        self._fetch = fetch
        self._clock = clock
        self._timing = timing or Timing()
        self._listening_since_s = clock.monotonic_s()
        self._watched: dict[NodeId, _Watched] = {}
        self._probes: dict[NodeId, asyncio.Task[None]] = {}
        self._running = False
        self._failing = False

    async def declare(self, static_nodes: Sequence[StaticNode]) -> list[Node]:
        """Take over the nodes of the configuration, at start and after a reload.

        Raises InvalidRequest, and what SQLAlchemy raises when the database is away.
        """
        nodes = await self._registry.declare([static.registration for static in static_nodes], self._timing.silence_s)
        began_s = self._clock.monotonic_s()
        self._stop_probes()
        self._watched = {
            node.id: _Watched(node, static, began_s) for node, static in zip(nodes, static_nodes, strict=True)
        }
        if self._running:
            self._start_probes()
        return nodes

    async def run(self) -> None:
        """Watch and probe until cancelled."""
        self._running = True
        self._listening_since_s = self._clock.monotonic_s()
        self._start_probes()
        try:
            while True:
                await self._guarded(self.watch)
                for task in self._probes.values():
                    if task.done() and not task.cancelled():
                        task.result()  # probing ends by a bug only, which should be seen
                await asyncio.sleep(self._timing.watch_interval_s)
        finally:
            self._running = False
            self._stop_probes()

    async def watch(self) -> None:
        """One round over silent, draining and dead nodes."""
        now, now_s = self._clock.now(), self._clock.monotonic_s()
        listened = now_s - self._listening_since_s >= self._timing.silence_s
        doubtful = await self._registry.doubtful(self._timing.silence_s)
        for node in doubtful:
            if listened and lifecycle.is_silent(node, now, self._timing.silence_s):
                await self._bury(node)
            elif lifecycle.is_drained(node, now, self._timing.drain_ttl_s):
                await self._remove(node, "drained")
            elif lifecycle.dated(node, now) is not node:
                await self._registry.date_drain(node.id)
            elif lifecycle.is_forgotten(node, now, self._timing.dead_retention_s):
                await self._remove(node, "dead for long")

    async def probe(self, node_id: NodeId) -> Node:
        """One probe of a static node; returns it as it is now. Raises KeyError for a node that is not declared."""
        watched = self._watched[node_id]
        beat = await probe(
            self._fetch,
            watched.node,
            kind=watched.kind,
            discover_models=watched.discover_models,
            timeout_s=self._timing.probe_timeout_s,
        )
        before = watched.node.status
        if beat is None:
            watched.node = await self._registry.unanswered(node_id)
        else:
            watched.kind = beat.backend
            watched.node = await self._registry.heartbeat(node_id, beat)
            if before is not watched.node.status:
                _log.info("node %s is %s", node_id, watched.node.status.value)
        return watched.node

    async def _bury(self, node: Node) -> None:
        try:
            after = await self._registry.bury(node.id, self._timing.silence_s)
        except NotFound:
            return
        if after.status is NodeStatus.DEAD:
            _log.warning("node %s is dead: not heard of for %.0f s", node.id, self._timing.silence_s)

    async def _remove(self, node: Node, why: str) -> None:
        try:
            await self._registry.deregister(node.id)
        except NotFound:
            return
        _log.info("node %s is removed: %s", node.id, why)

    def _start_probes(self) -> None:
        for node_id in self._watched:
            self._probes[node_id] = asyncio.create_task(self._keep_probing(node_id), name=f"probe {node_id}")

    def _stop_probes(self) -> None:
        for task in self._probes.values():
            task.cancel()
        self._probes.clear()

    async def _keep_probing(self, node_id: NodeId) -> None:
        async def once() -> None:
            await self.probe(node_id)

        while node_id in self._watched:
            await self._guarded(once)
            await asyncio.sleep(self._pause_s(self._watched[node_id]))

    def _pause_s(self, watched: _Watched) -> float:
        if watched.node.status is not NodeStatus.STARTING:
            return self._timing.probe_interval_s
        waited_s = self._clock.monotonic_s() - watched.began_s
        return self._timing.starting_interval_s if waited_s < self._timing.patience_s else self._timing.probe_interval_s

    async def _guarded(self, work: Callable[[], Awaitable[None]]) -> None:
        """The database may be away for a while; that is told once, and is no node's fault."""
        try:
            await work()
        except NotFound:
            return  # removed by another process meanwhile
        except _AWAY as error:
            self._listening_since_s = self._clock.monotonic_s()
            if not self._failing:
                self._failing = True
                # A driver's text may quote connection parameters; its type says enough.
                _log.warning("the node monitor cannot reach the database (%s); trying on", type(error).__name__)
        else:
            if self._failing:
                self._failing = False
                _log.info("the node monitor reaches the database again")
