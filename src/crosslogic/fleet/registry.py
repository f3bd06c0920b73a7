"""The source of truth for nodes (architecture document §21): who is there, said by the nodes and by operators.

Invariants: an address belongs to one node; a node belongs to one owner from its first registration on; a change
that matters to gateways is in the change feed with the same commit, and one that does not (a heartbeat that says
the same) is not, so that a large fleet does not keep every gateway reloading.
"""

from collections.abc import Awaitable, Callable, Sequence

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from crosslogic.fleet import lifecycle, sql
from crosslogic.fleet.backends.answers import MAX_MODEL_NAME_CHARS, MAX_MODELS
from crosslogic.fleet.endpoint import checked_endpoint
from crosslogic.fleet.lifecycle import Heartbeat
from crosslogic.fleet.model import BackendKind, Node, NodeHealth, NodeStatus
from crosslogic.fleet.sql import NodeFilter
from crosslogic.kernel.clock import Clock
from crosslogic.kernel.errors import Conflict, InvalidRequest, NotFound
from crosslogic.kernel.ids import NodeId, OrgId, new_node_id

# Writes down in the caller's transaction what was done to which node: action, node before, node after.
Record = Callable[[AsyncConnection, str, Node | None, Node | None], Awaitable[None]]

MAX_PAGE = 500
_MAX_ID_CHARS = 128


class Registration(msgspec.Struct, frozen=True):
    """What a node says of itself when it registers; without `node_id` it is known by its address."""

    endpoint_url: str
    models: tuple[str, ...]
    node_id: NodeId | None = None
    status: NodeStatus = NodeStatus.ACTIVE
    backend: BackendKind = BackendKind.OPENAI
    region: str = "local"
    cloud: str = "local"
    spot: bool = False
    gpu_type: str | None = None
    gpu_count: int = 1
    vram_total_mb: int | None = None
    vram_free_mb: int | None = None
    throughput_tokens_per_s: float | None = None
    spot_price_usd_per_hour: float | None = None
    tailnet_ip: str | None = None
    org_id: OrgId | None = None
    api_key: str | None = None
    deployment_id: str | None = None

    def __repr__(self) -> str:
        # Not the generated one, which would show the key; nor the URL, which is not checked yet.
        return f"Registration({self.node_id} models={list(self.models)})"


class Registry:
    """Raises what SQLAlchemy raises when the database is away."""

    def __init__(
        self, engine: AsyncEngine, clock: Clock, *, allow_link_local: bool = False, record: Record | None = None
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._allow_link_local = allow_link_local
        self._record = record

    def recording(self, record: Record) -> "Registry":
        """The same registry; registrations, changes, drains and removals through it are written down by `record`.

        What nodes say of themselves in heartbeats, and what the monitor does about silence, is no one's action.
        """
        return Registry(self._engine, self._clock, allow_link_local=self._allow_link_local, record=record)

    async def register(self, registration: Registration) -> Node:
        """Store a node, or bring what is stored up to date: saying it twice changes nothing.

        Raises InvalidRequest, and Conflict when the id or the address is another owner's or another living node's.
        """
        new = self._checked(registration)
        async with self._engine.begin() as conn:
            await sql.lock_registrations(conn)
            known = await self._known(conn, registration.node_id, new)
            if known is not None and known.org_id != new.org_id:
                raise Conflict("this node is registered for another owner; deregister it there first")
            node = lifecycle.registered(known, new, self._clock.now())
            announce = known is None or lifecycle.differs_materially(known, node)
            if announce:
                await self._tell(conn, "node.register" if known is None else "node.change", known, node)
            await sql.write(conn, node, known=known is not None, announce=announce)
        return node

    async def declare(self, static: Sequence[Registration], silence_s: float = lifecycle.SILENCE_S) -> list[Node]:
        """Make the static nodes those of the configuration: new ones start, those no longer there are removed.

        Raises InvalidRequest.
        """
        wanted = [self._checked(registration, static=True) for registration in static]
        declared: list[Node] = []
        async with self._engine.begin() as conn:
            await sql.lock_registrations(conn)
            for new in wanted:
                known = await sql.at_endpoint(conn, new.endpoint_url) or await sql.read_for_update(conn, new.id)
                node = lifecycle.declared(known, new, self._clock.now(), silence_s)
                if node != known:
                    await sql.write(conn, node, known=known is not None, announce=True)
                declared.append(node)
        kept = {node.id for node in declared}
        for node in await sql.fetch(self._engine):
            if node.static and node.id not in kept:
                await self._remove(node.id)
        return declared

    async def heartbeat(self, node_id: NodeId, beat: Heartbeat) -> Node:
        """Take in what a node says. Raises NotFound: the node must then register anew."""
        return await self._change(node_id, lambda node: lifecycle.heard(node, beat, self._clock.now()))

    async def unanswered(self, node_id: NodeId) -> Node:
        """A probe got no answer: the health score falls; death comes by silence. Raises NotFound."""
        return await self._change(
            node_id,
            lambda node: msgspec.structs.replace(
                node, health_score=lifecycle.health_after(node.health_score, ok=False)
            ),
        )

    async def drain(self, node_id: NodeId) -> Node:
        """Give the node nothing new. Raises NotFound, and Conflict for a dead one."""
        return await self._change(node_id, lambda node: lifecycle.drained(node, self._clock.now()), "node.drain")

    async def date_drain(self, node_id: NodeId) -> Node:
        """A draining node's TTL begins now, if nobody wrote down when it did. Raises NotFound."""
        return await self._change(node_id, lambda node: lifecycle.dated(node, self._clock.now()))

    async def judge(self, node_id: NodeId, health: NodeHealth) -> Node:
        """Write down how well the node is held to be. Raises NotFound."""
        return await self._change(node_id, lambda node: msgspec.structs.replace(node, health=health))

    async def deregister(self, node_id: NodeId) -> None:
        """Remove the node. Raises NotFound, and Conflict for one of the configuration, which would come back."""
        if (await self.node(node_id)).static:
            raise Conflict("this node stands in the configuration; remove it there, or drain it")
        await self._remove(node_id, "node.remove")

    async def bury(self, node_id: NodeId, silence_s: float = lifecycle.SILENCE_S) -> Node:
        """Mark the node dead if it is silent still. Raises NotFound."""
        now = self._clock.now()
        return await self._change(
            node_id,
            lambda node: (
                lifecycle.moved(node, NodeStatus.DEAD, now) if lifecycle.is_silent(node, now, silence_s) else node
            ),
        )

    async def node(self, node_id: NodeId) -> Node:
        """Raises NotFound."""
        found = await sql.fetch(self._engine, [node_id])
        if not found:
            raise _unknown()
        return found[0]

    async def nodes(
        self, wanted: NodeFilter | None = None, *, after: str | None = None, limit: int = 100
    ) -> list[Node]:
        """A page of nodes in the order of their ids; `after` is the last id of the page before."""
        return await sql.fetch_page(
            self._engine, wanted or NodeFilter(), after=after, limit=max(1, min(limit, MAX_PAGE))
        )

    async def fleet(self) -> list[Node]:
        """All nodes."""
        return await sql.fetch(self._engine)

    async def doubtful(self, silence_s: float) -> list[Node]:
        """Those that the monitor should look at: silent, draining or dead."""
        return await sql.fetch_doubtful(self._engine, heard_before=lifecycle.silent_since(self._clock.now(), silence_s))

    async def _known(self, conn: AsyncConnection, node_id: NodeId | None, new: Node) -> Node | None:
        there = await sql.at_endpoint(conn, new.endpoint_url)
        if node_id is None:
            return there
        if there is not None and there.id != node_id:
            if there.status is not NodeStatus.DEAD or there.static or there.org_id != new.org_id:
                raise Conflict("another node is registered with this endpoint_url; deregister it first")
            await sql.remove(conn, there.id)  # the same machine, come back under a new name
        return await sql.read_for_update(conn, node_id)

    async def _change(self, node_id: NodeId, decide: Callable[[Node], Node], action: str | None = None) -> Node:
        async with self._engine.begin() as conn:
            known = await sql.read_for_update(conn, node_id)
            if known is None:
                raise _unknown()
            node = decide(known)
            if node != known:
                announce = lifecycle.differs_materially(known, node)
                if action is not None:
                    await self._tell(conn, action, known, node)
                # Without the announcement the load is not stored either: small movements would add up unseen.
                await sql.write(conn, node if announce else _quiet(known, node), known=True, announce=announce)
        return node

    async def _remove(self, node_id: NodeId, action: str | None = None) -> None:
        async with self._engine.begin() as conn:
            known = await sql.read_for_update(conn, node_id)
            if known is None:
                raise _unknown()
            if action is not None:
                await self._tell(conn, action, known, None)
            await sql.remove(conn, node_id)

    async def _tell(self, conn: AsyncConnection, action: str, before: Node | None, after: Node | None) -> None:
        """Before the change is announced: everybody locks the audit log first and the change feed last."""
        if self._record is not None:
            await self._record(conn, action, before, after)

    def _checked(self, registration: Registration, *, static: bool = False) -> Node:
        models = tuple(dict.fromkeys(registration.models))
        if not models and not static and registration.status is not NodeStatus.STARTING:
            raise InvalidRequest("a node that serves must name at least one model", param="model_list")
        if len(models) > MAX_MODELS or not all(0 < len(name) <= MAX_MODEL_NAME_CHARS for name in models):
            raise InvalidRequest(
                f"at most {MAX_MODELS} models of 1 to {MAX_MODEL_NAME_CHARS} characters", param="model_list"
            )
        if registration.status in (NodeStatus.DEAD, NodeStatus.DRAINING):
            raise InvalidRequest("a node registers as starting or active", param="status")
        node_id = registration.node_id or new_node_id()
        if not 0 < len(node_id) <= _MAX_ID_CHARS or not all(char.isalnum() or char in "-_." for char in node_id):
            raise InvalidRequest("a node id is of letters, digits, '-', '_' and '.'", param="node_id")
        fields = msgspec.structs.asdict(registration)
        del fields["node_id"]
        fields["models"] = models
        fields["endpoint_url"] = checked_endpoint(
            registration.endpoint_url, registration.node_id, allow_link_local=self._allow_link_local
        )
        return Node(id=node_id, created_at=self._clock.now(), static=static, **fields)


def _unknown() -> NotFound:
    return NotFound("there is no such node")


def _quiet(known: Node, node: Node) -> Node:
    return msgspec.structs.replace(node, load=known.load, health_score=known.health_score)
