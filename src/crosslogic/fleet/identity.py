"""Who a node is, as its certificate says it: one URI in the subject's alternative names. Pure.

    spiffe://crosslogic/org/<org id>/node/<node id>     of one org, and good for nothing of any other
    spiffe://crosslogic/platform/node/<node id>         shared

Invariant: a certificate with no such URI, with two, or with a name of any other kind beside it is nobody's.
(Architecture document §44.1: "each enterprise node gets org-scoped certificate; node can only act for its org".)
"""

from collections.abc import Sequence

import msgspec

from crosslogic.kernel.ids import NodeId, OrgId

TRUST_DOMAIN = "spiffe://crosslogic/"
MAX_NODE_ID_CHARS = 128


class NodeIdentity(msgspec.Struct, frozen=True):
    """A node and whose it is; `org_id` None: the platform's."""

    node_id: NodeId
    org_id: OrgId | None = None

    @property
    def uri(self) -> str:
        owner = "platform" if self.org_id is None else f"org/{self.org_id}"
        return f"{TRUST_DOMAIN}{owner}/node/{self.node_id}"


def is_node_id(text: str) -> bool:
    """Whether `text` can be a node's id: it stands in URLs, file names and certificates."""
    return 0 < len(text) <= MAX_NODE_ID_CHARS and all(
        char.isascii() and (char.isalnum() or char in "-_.") for char in text
    )


def identity_of(names: Sequence[str]) -> NodeIdentity | None:
    """The identity in a certificate's names; None where there is not exactly one."""
    if len(names) != 1 or not names[0].startswith(TRUST_DOMAIN):
        return None
    match names[0].removeprefix(TRUST_DOMAIN).split("/"):
        case ["platform", "node", node_id] if is_node_id(node_id):
            return NodeIdentity(NodeId(node_id))
        case ["org", org_id, "node", node_id] if is_node_id(org_id) and is_node_id(node_id):
            return NodeIdentity(NodeId(node_id), OrgId(org_id))
    return None
