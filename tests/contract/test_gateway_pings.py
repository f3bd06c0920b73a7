"""How far away regions are, measured over real sockets."""

import asyncio
from datetime import UTC, datetime

from crosslogic.fleet.model import Node, NodeStatus
from crosslogic.gateway.pings import TIMEOUT_S, keep_pinging
from crosslogic.kernel.ids import NodeId


async def test_each_region_is_measured_once_a_round_and_one_that_is_gone_counts_as_far() -> None:
    accepted = []
    server = await asyncio.start_server(lambda reader, writer: accepted.append(writer.close()), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    nodes = [
        node("a", "near", port),
        node("b", "near", port),
        node("c", "gone", 1),
        node("d", "dead", port, NodeStatus.DEAD),
    ]
    seen: dict[str, list[float]] = {}
    task = asyncio.create_task(
        keep_pinging(lambda: nodes, lambda region, ms: seen.setdefault(region, []).append(ms), interval_s=0.01)
    )
    try:
        async with asyncio.timeout(10):
            while len(seen.get("near", ())) < 3:
                await asyncio.sleep(0.01)
    finally:
        task.cancel()
        server.close()
    assert set(seen) == {"near", "gone"}
    assert all(0 < latency_ms < TIMEOUT_S * 1000 for latency_ms in seen["near"])
    assert set(seen["gone"]) == {TIMEOUT_S * 1000}


def node(name: str, region: str, port: int, status: NodeStatus = NodeStatus.ACTIVE) -> Node:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return Node(NodeId(name), f"http://127.0.0.1:{port}", ("m",), status, now, region=region)
