"""Keeps a process's picture of the fleet equal to the database: all nodes at start, then what the feed names.

Invariant: `on_nodes` is called in order with the whole fleet; a committed change has reached it within the feed's
interval and one query. While the database is away the last picture stands.
"""

from collections.abc import Callable, Sequence

from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.fleet import sql
from crosslogic.fleet.model import Node
from crosslogic.kernel.ids import NodeId
from crosslogic.store.changes import Change, ChangeFeed

OnNodes = Callable[[list[Node]], None]


class NodeSync:
    """Give it `Pool.update` as `on_nodes`; nodes that did not change are the same objects as before."""

    def __init__(self, engine: AsyncEngine, on_nodes: OnNodes, poll_interval_s: float = 0.25) -> None:
        self._engine = engine
        self._on_nodes = on_nodes
        self._feed = ChangeFeed(engine, poll_interval_s)
        self._nodes: dict[NodeId, Node] = {}

    async def start(self) -> None:
        """Load everything. Raises what SQLAlchemy raises when the database is away."""
        await self._feed.start()
        await self._load()

    async def run(self) -> None:
        """Follow the change feed until cancelled."""
        await self._feed.run(self._apply, on_gap=self._load)

    async def poll(self) -> int:
        """Apply what is new now; returns how many changes there were."""
        return await self._feed.poll(self._apply, on_gap=self._load)

    async def _load(self) -> None:
        self._nodes = {node.id: node for node in await sql.fetch(self._engine)}
        self._on_nodes(list(self._nodes.values()))

    async def _apply(self, changes: Sequence[Change]) -> None:
        ids = list(dict.fromkeys(change.entity_id for change in changes if change.kind == sql.NODE_CHANGED))
        if not ids:
            return
        found = {node.id: node for node in await sql.fetch(self._engine, ids)}
        for node_id in map(NodeId, ids):
            if node_id in found:
                self._nodes[node_id] = found[node_id]
            else:
                self._nodes.pop(node_id, None)
        self._on_nodes(list(self._nodes.values()))
