"""Whatever is registered and whoever brings tunnels: a request travels over a connection of a node of its own org, or
of a shared one. Scheduler, node records, `Upstreams` and hub are the real ones; only the sockets are left out."""

import asyncio
import random
import ssl
from datetime import UTC, datetime
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from crosslogic.fleet.endpoint import checked_endpoint
from crosslogic.fleet.identity import NodeIdentity
from crosslogic.fleet.model import Node, NodeStatus
from crosslogic.gateway.upstream import Upstreams
from crosslogic.kernel.clock import ManualClock, SystemClock
from crosslogic.kernel.ids import NodeId, OrgId
from crosslogic.net.client import ConnectFailed
from crosslogic.scheduling.model import Ask, NoNode
from crosslogic.scheduling.pool import Pool
from crosslogic.scheduling.registry import STRATEGIES, new_strategy
from crosslogic.scheduling.scheduler import Scheduler
from crosslogic.tunnel.hub import Hub
from crosslogic.tunnel.peer import Held

ORGS = (OrgId("org_a"), OrgId("org_b"))
IDS = tuple(NodeId(f"node_{index}") for index in range(2))
owners = st.sampled_from([None, *ORGS])
identities = st.builds(NodeIdentity, st.sampled_from(IDS), owners)
fleets = st.dictionaries(st.sampled_from(IDS), owners, min_size=1)
LONG_S = 1e12


class Wire(asyncio.Transport):
    """Bytes that go nowhere."""

    def __init__(self) -> None:
        super().__init__()
        self._closing = False

    def is_closing(self) -> bool:
        return self._closing

    def abort(self) -> None:
        self._closing = True

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        return

    def write(self, data: Any) -> None:
        return


def node_of(node_id: NodeId, org_id: OrgId | None) -> Node:
    return Node(
        id=node_id,
        endpoint_url=checked_endpoint(f"tunnel://{node_id}", node_id),
        models=("m",),
        status=NodeStatus.ACTIVE,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        org_id=org_id,
    )


@given(
    tunnels=st.lists(identities, min_size=2, max_size=8),
    pictures=st.lists(fleets, min_size=2, max_size=3),
    asking=st.lists(st.sampled_from(ORGS), min_size=1, max_size=6),
    strategy=st.sampled_from(sorted(STRATEGIES)),
    seed=st.integers(0, 1000),
)
@settings(max_examples=200, deadline=None)
def test_a_request_travels_over_its_orgs_or_shared_tunnels_only(
    tunnels: list[NodeIdentity],
    pictures: list[dict[NodeId, OrgId | None]],
    asking: list[OrgId],
    strategy: str,
    seed: int,
) -> None:
    async def check() -> None:
        hub = Hub(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), _nobody, SystemClock())
        whose: dict[int, NodeIdentity] = {}
        wires = []
        for identity in tunnels:
            wires.append(Wire())
            whose[id(wires[-1])] = identity
            hub._peer(identity).add_pipe(Held(wires[-1], b"", "", LONG_S))
        upstreams = Upstreams(connect_timeout_s=0.002, tunnels=hub)
        pool = Pool()
        scheduler = Scheduler(pool, new_strategy(strategy), random.Random(seed), ManualClock())
        for picture in pictures:  # nodes may change hands between two of them
            fleet = [node_of(*entry) for entry in picture.items()]
            pool.update(fleet)
            upstreams.update(fleet)
            for org_id in asking:
                picked = scheduler.pick(Ask(model="m", org_id=org_id, region=None, tokens=1, prefix_hash=None))
                if isinstance(picked, NoNode):
                    assert not set(picture.values()) & {None, org_id}
                    continue
                node = picked.node
                try:
                    connection = await upstreams.origin(node).connect()
                except ConnectFailed:
                    continue
                identity = whose[id(connection._transport)]
                assert identity == NodeIdentity(node.id, picture[node.id])
                assert identity.org_id in (None, org_id)
        upstreams.close()

    asyncio.run(check())


async def _nobody(certificate: bytes, address: str) -> NodeIdentity:
    raise AssertionError("nothing was shown")
