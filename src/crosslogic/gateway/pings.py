"""How far away regions are: the time that a new connection to one of their nodes takes (architecture document §27.1).

Invariant: a region is asked once in `INTERVAL_S`, whatever the number of its nodes; one that does not answer in time
counts as that far away, and never holds up the others.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from urllib.parse import urlsplit

from crosslogic.fleet.endpoint import is_tunnel
from crosslogic.fleet.model import Node, NodeStatus

INTERVAL_S = 10.0
TIMEOUT_S = 2.0

Observe = Callable[[str, float], None]  # region, milliseconds


async def keep_pinging(nodes: Callable[[], Iterable[Node]], observe: Observe, interval_s: float = INTERVAL_S) -> None:
    """Measure one active node of each region again and again, until cancelled."""
    while True:
        chosen = {
            node.region: node
            for node in nodes()
            if node.status is NodeStatus.ACTIVE and not is_tunnel(node.endpoint_url)
        }
        await asyncio.gather(*(_ping(node, observe) for node in chosen.values()))
        await asyncio.sleep(interval_s)


async def _ping(node: Node, observe: Observe) -> None:
    address = urlsplit(node.endpoint_url)
    began_s = time.perf_counter()
    try:
        async with asyncio.timeout(TIMEOUT_S):
            port = address.port or (443 if address.scheme == "https" else 80)
            _, writer = await asyncio.open_connection(address.hostname, port)
        writer.close()
    except OSError:  # a timeout is one, too
        observe(node.region, TIMEOUT_S * 1000.0)
        return
    observe(node.region, (time.perf_counter() - began_s) * 1000.0)
