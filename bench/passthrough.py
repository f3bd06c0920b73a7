"""The yardstick: a pass-through proxy in plain Python that does nothing but relay.

It parses HTTP on both sides with httptools (it must know where a request and an answer end to reuse connections) and
passes bytes on as they came. It has no keys, limits, scheduling, metering, timeouts or error handling worth the name,
and so is what a Python gateway costs before it does anything. `python -m bench --guard` divides our cost by this one's,
both measured in the same run, because seconds differ between machines and the ratio hardly does.

    python -m bench.passthrough --port 8000 --upstream 9001 --upstream 9002
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import signal
from collections.abc import Iterator
from typing import cast

import httptools
import uvloop


class Upstream(asyncio.Protocol):
    """A connection to an upstream; lent to one client at a time."""

    def __init__(self, pool: list[Upstream]) -> None:
        self.pool = pool
        self.client: Client | None = None
        self.open = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        if self.client is not None:
            self.client.transport.close()

    def send(self, client: Client, data: bytes) -> None:
        """Sends a whole request for that client, who gets the answer's bytes."""
        self.client = client
        self.parser = httptools.HttpResponseParser(self)
        self.transport.write(data)

    def data_received(self, data: bytes) -> None:
        client = self.client
        if client is None:
            self.transport.close()
            return
        client.transport.write(data)
        self.parser.feed_data(data)

    def on_message_complete(self) -> None:
        self.client, client = None, self.client
        self.pool.append(self)
        if client is not None:
            client.upstream = None


class Client(asyncio.Protocol):
    """A connection from a client."""

    def __init__(self, pools: Iterator[tuple[int, list[Upstream]]]) -> None:
        self.pools = pools
        self.parser = httptools.HttpRequestParser(self)
        self.received: list[bytes] = []
        self.whole = False
        self.upstream: Upstream | None = None
        self.connecting: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.upstream is not None:
            self.upstream.client = None
            self.upstream.transport.close()

    def on_message_complete(self) -> None:
        self.whole = True

    def data_received(self, data: bytes) -> None:
        self.received.append(data)
        self.parser.feed_data(data)
        if not self.whole:
            return
        self.whole = False
        request = self.received[0] if len(self.received) == 1 else b"".join(self.received)
        self.received.clear()
        port, pool = next(self.pools)
        while pool:
            upstream = pool.pop()
            if upstream.open:
                self._forward(upstream, request)
                return
        self.connecting = asyncio.create_task(self._connect(port, pool, request))

    def _forward(self, upstream: Upstream, request: bytes) -> None:
        self.upstream = upstream
        upstream.send(self, request)

    async def _connect(self, port: int, pool: list[Upstream], request: bytes) -> None:
        loop = asyncio.get_running_loop()
        try:
            _, upstream = await loop.create_connection(lambda: Upstream(pool), "127.0.0.1", port)
        except OSError:
            self.transport.close()
            return
        self._forward(upstream, request)


async def serve(port: int, upstreams: list[int]) -> None:
    """Relays to the upstream ports in turn until SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    pools: Iterator[tuple[int, list[Upstream]]] = itertools.cycle([(number, []) for number in upstreams])
    await loop.create_server(lambda: Client(pools), "127.0.0.1", port, backlog=4096)
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    await stopped.wait()


def main() -> None:
    """Reads the command line and serves."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--upstream", type=int, action="append", required=True)
    options = parser.parse_args()
    uvloop.run(serve(options.port, options.upstream))


if __name__ == "__main__":
    main()
