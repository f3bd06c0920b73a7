"""Nodes as the scheduler is to see them: those that a reservation dedicates are its org's own. Pure.

Invariant: a node that stays the same, dedicated to the same org, is the same object as before, which is how the pool
knows that nothing changed.
"""

from collections.abc import Iterable, Mapping

import msgspec

from crosslogic.fleet.model import Node
from crosslogic.kernel.ids import NodeId, OrgId


class Dedication:
    def __init__(self) -> None:
        self._given: dict[NodeId, tuple[Node, Node]] = {}  # as it is, as it is seen

    def seen(self, nodes: Iterable[Node], dedicated: Mapping[NodeId, OrgId]) -> list[Node]:
        """`nodes`, the dedicated ones owned by the org that has them to itself. A node of another owner stays its."""
        before, self._given = self._given, {}
        return [self._seen(node, dedicated.get(node.id), before) for node in nodes]

    def _seen(self, node: Node, org_id: OrgId | None, before: Mapping[NodeId, tuple[Node, Node]]) -> Node:
        if org_id is None or node.org_id is not None:
            return node
        source, shown = before.get(node.id, (None, None))
        if shown is None or source is not node or shown.org_id != org_id:
            shown = msgspec.structs.replace(node, org_id=org_id)
        self._given[node.id] = (node, shown)
        return shown
