"""Keeps a process's picture of the fleet equal to the database: all nodes at start, then what the feed names.

Invariant: `on_nodes` is called in order with the whole fleet; a committed change has reached it within the feed's
interval and one query. While the database is away the last picture stands. `store.changes.Following` drives it.
"""

from collections.abc import Callable, Sequence

from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.fleet import sql
from crosslogic.fleet.beats_sql import LOADS_CHANGED
from crosslogic.fleet.model import Node
from crosslogic.kernel.ids import NodeId
from crosslogic.store.changes import Change

OnNodes = Callable[[list[Node]], None]


class NodeSync:
    """Give it `Pool.update` as `on_nodes`; nodes that did not change are the same objects as before."""

    def __init__(self, engine: AsyncEngine, on_nodes: OnNodes, *, follow_loads: bool = True) -> None:
        """`follow_loads` False: changes of the load alone are not read."""
        self._engine = engine
        self._follow_loads = follow_loads
        self._on_nodes = on_nodes
        self._nodes: dict[NodeId, Node] = {}

    async def load(self) -> None:
        self._nodes = {node.id: node for node in await sql.fetch(self._engine)}
        self._on_nodes(list(self._nodes.values()))

    async def apply(self, changes: Sequence[Change]) -> None:
        ids = list(dict.fromkeys(node_id for change in changes for node_id in self._named(change)))
        if not ids:
            return
        found = {node.id: node for node in await sql.fetch(self._engine, ids)}
        for node_id in map(NodeId, ids):
            if node_id in found:
                self._nodes[node_id] = found[node_id]
            else:
                self._nodes.pop(node_id, None)
        self._on_nodes(list(self._nodes.values()))

    def _named(self, change: Change) -> Sequence[str]:
        if change.kind == sql.NODE_CHANGED:
            return (change.entity_id,)
        if change.kind == LOADS_CHANGED and self._follow_loads:
            return change.entity_id.split(",")
        return ()
