"""Between `fleet.model.Node` and the columns of the table `nodes`, in both directions."""

from typing import Any

import msgspec
from sqlalchemy import RowMapping

from crosslogic.fleet.model import BackendKind, Node, NodeHealth, NodeLoad, NodeStatus
from crosslogic.kernel.ids import NodeId, OrgId


def node_columns(node: Node) -> dict[str, Any]:
    columns: dict[str, Any] = msgspec.structs.asdict(node)
    columns["status"] = node.status.value
    columns["backend"] = node.backend.value
    columns["models"] = list(node.models)
    columns["health"] = msgspec.to_builtins(node.health)
    columns["load"] = msgspec.to_builtins(node.load)
    return columns


def to_node(row: RowMapping) -> Node:
    fields = dict(row)
    org_id = fields["org_id"]
    return Node(
        **{
            **fields,
            "id": NodeId(fields["id"]),
            "org_id": None if org_id is None else OrgId(org_id),
            "status": NodeStatus(fields["status"]),
            "backend": BackendKind(fields["backend"]),
            "models": tuple(fields["models"]),
            "health": msgspec.convert(fields["health"], NodeHealth),
            "load": msgspec.convert(fields["load"], NodeLoad, strict=False),
        }
    )
