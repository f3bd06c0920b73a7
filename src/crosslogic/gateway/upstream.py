"""How a call is written down for a node: the pooled origins, and the request bytes."""

from collections.abc import Iterable

from crosslogic.cache.salt import Salts
from crosslogic.fleet.backends.known import backend_of
from crosslogic.fleet.endpoint import is_tunnel
from crosslogic.fleet.identity import NodeIdentity
from crosslogic.fleet.model import Node
from crosslogic.gateway.request import Call
from crosslogic.kernel.ids import NodeId, OrgId
from crosslogic.net.client import Dial, Origin
from crosslogic.net.exchange import Exchange
from crosslogic.tunnel.hub import Hub, no_tunnels

FORWARDED_HEADERS = (b"anthropic-version", b"anthropic-beta", b"traceparent", b"tracestate")


class Upstreams:
    """One origin for each node. An origin whose node is gone closes its idle connections."""

    def __init__(
        self,
        *,
        connect_timeout_s: float,
        forwarded_headers: Iterable[bytes] = FORWARDED_HEADERS,
        salts: Salts | None = None,
        tunnels: Hub | None = None,
    ) -> None:
        """With `salts`, an org's prompts share an engine's prefix cache with nobody else's. Without `tunnels`, nodes
        that can be reached by them only are out of reach."""
        self._tunnels = tunnels
        self._salts = salts
        self._connect_timeout_s = connect_timeout_s
        self._forwarded = frozenset(forwarded_headers)
        self._origins: dict[NodeId, tuple[Node, Origin]] = {}
        self._heads: dict[tuple[NodeId, str], bytes] = {}

    def update(self, nodes: Iterable[Node]) -> None:
        """Forget nodes that left, and those whose address or key changed."""
        present = {node.id: node for node in nodes}
        for node_id, (known, origin) in list(self._origins.items()):
            node = present.get(node_id)
            if node is None or _address(node) != _address(known):
                origin.close()
                del self._origins[node_id]
                self._heads = {key: head for key, head in self._heads.items() if key[0] != node_id}

    def origin(self, node: Node) -> Origin:
        """Raises ConfigurationError when the node's address is none."""
        entry = self._origins.get(node.id)
        if entry is None:
            origin = Origin(node.endpoint_url, connect_timeout_s=self._connect_timeout_s, dial=self._dial(node))
            entry = self._origins[node.id] = (node, origin)
        return entry[1]

    def request(self, node: Node, call: Call, exchange: Exchange, request_id: str, org_id: OrgId) -> bytes:
        """The whole request for the node. The caller's credentials never go there."""
        head = self._known_head(node, call.endpoint.path)
        forwarded = [
            b"%b: %b\r\n" % (name, value) for name in self._forwarded if (value := exchange.header(name)) is not None
        ]
        body = call.body
        if self._salts is not None and backend_of(node.backend).accepts_cache_salt:
            body = self._salts.salted(body, org_id)
        length = b"content-length: %d\r\n\r\n" % len(body)
        return b"".join((head, b"x-request-id: ", request_id.encode(), b"\r\n", *forwarded, length, body))

    def post(self, node: Node, path: str, body: bytes) -> bytes:
        """A request of our own for the node."""
        return b"%bcontent-length: %d\r\n\r\n%b" % (self._known_head(node, path), len(body), body)

    def close(self) -> None:
        for _, origin in self._origins.values():
            origin.close()
        self._origins.clear()

    def _dial(self, node: Node) -> Dial | None:
        """Through the tunnel of whoever has this node's certificate, and its owner's; None: by the node's address."""
        if not is_tunnel(node.endpoint_url):
            return None
        return no_tunnels if self._tunnels is None else self._tunnels.dial_of(NodeIdentity(node.id, node.org_id))

    def _known_head(self, node: Node, path: str) -> bytes:
        head = self._heads.get((node.id, path))
        if head is None:
            head = self._heads[(node.id, path)] = self._head(node, path)
        return head

    def _head(self, node: Node, path: str) -> bytes:
        origin = self.origin(node)
        # An endpoint address may be given with or without the API's own prefix.
        base = origin.base_path.removesuffix(b"/v1")
        lines = [b"POST %b%b HTTP/1.1\r\n" % (base, path.encode()), origin.host_line]
        lines.append(b"content-type: application/json\r\n")
        if node.api_key:
            lines.append(b"authorization: Bearer %b\r\n" % node.api_key.encode())
        return b"".join(lines)


def _address(node: Node) -> tuple[object, ...]:
    return node.endpoint_url, node.api_key, node.org_id
