"""The gateway's side of tunnels, in one worker: connections that agents opened, kept until a request needs one.

Invariants: whose connection it is, its certificate says and nothing else, and one of another org's node is never
given out for a node; a pipe carries one request at a time and reaches its caller as any other connection does; what
a certificate that counts no more brought is closed within two seconds, and a line that is silent for 12 s with it.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import cast

from crosslogic.fleet.identity import NodeIdentity
from crosslogic.kernel.clock import Clock
from crosslogic.kernel.errors import Unauthenticated, Unavailable
from crosslogic.net.client import Dial, UpstreamConnection
from crosslogic.tunnel.peer import SPARE, Held, Peer
from crosslogic.tunnel.wire import (
    PING_INTERVAL_S,
    SILENCE_S,
    Hello,
    Kind,
    Welcome,
)

HANDSHAKE_TIMEOUT_S = 10.0
MAX_HANDSHAKES = 256  # at once; more wait
TICK_S = 1.0

Verify = Callable[[bytes, str], Awaitable[NodeIdentity]]
"""Whose certificate (DER) it is, from this address. Raises Unauthenticated, and Unavailable when nobody knows."""

_log = logging.getLogger(__name__)


class Hub:
    """`context` must ask for client certificates. `run` has to run."""

    def __init__(
        self,
        context: ssl.SSLContext,
        verify: Verify,
        clock: Clock,
        *,
        worker: int = 0,
        workers: int = 1,
        spare: int = SPARE,
        ping_interval_s: float = PING_INTERVAL_S,
        silence_s: float = SILENCE_S,
    ) -> None:
        self._context = context
        self._verify = verify
        self._clock = clock
        self._worker = worker
        self._workers = workers
        self._spare = spare
        self._ping_interval_s = ping_interval_s
        self._silence_s = silence_s
        self._peers: dict[NodeIdentity, Peer] = {}
        self._free = asyncio.Semaphore(MAX_HANDSHAKES)
        self._welcoming: set[asyncio.Task[None]] = set()

    def dial_of(self, identity: NodeIdentity) -> Dial:
        """How an origin reaches this node."""

        async def dial(protocol: Callable[[], UpstreamConnection]) -> UpstreamConnection:
            return await self._peer(identity).take(protocol)

        return dial

    def connected(self, identity: NodeIdentity) -> bool:
        """Whether the node's agent has a line to this worker."""
        peer = self._peers.get(identity)
        return peer is not None and bool(peer.lines)

    def accept(self, accepted: socket.socket, hello: Hello, address: str) -> None:
        """Take over a connection that said `hello`; one that does not prove to be a node's is closed."""
        task = asyncio.ensure_future(self._welcome(accepted, hello, address))
        self._welcoming.add(task)
        task.add_done_callback(self._welcoming.discard)

    async def run(self) -> None:
        """Pings, silence and certificates, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(min(TICK_S, self._ping_interval_s))
            for identity, peer in list(self._peers.items()):
                peer.ping(loop.time(), self._ping_interval_s, self._silence_s)
                await self._check(identity, peer)

    async def close(self) -> None:
        tasks = list(self._welcoming)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for peer in self._peers.values():
            peer.abort()

    async def _welcome(self, accepted: socket.socket, hello: Hello, address: str) -> None:
        loop = asyncio.get_running_loop()
        async with self._free:
            try:
                accepted.setblocking(False)
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                made, _ = await loop.connect_accepted_socket(
                    _Silent, accepted, ssl=self._context, ssl_handshake_timeout=HANDSHAKE_TIMEOUT_S
                )
            except (OSError, TimeoutError) as error:  # ssl.SSLError is an OSError
                _log.info("a tunnel's handshake from %s failed (%s)", address, type(error).__name__)
                accepted.close()
                return
            except asyncio.CancelledError:
                accepted.close()
                raise
        transport = made
        session = transport.get_extra_info("ssl_object")
        certificate = session.getpeercert(binary_form=True)
        try:
            identity = await self._verify(certificate, address)
        except (Unauthenticated, Unavailable) as error:
            _log.warning("a tunnel from %s is refused: %s", address, error)
            transport.abort()
            return
        if transport.is_closing():
            return
        expires_s = ssl.cert_time_to_seconds(session.getpeercert()["notAfter"])
        held = Held(transport, certificate, address, expires_s)
        transport.write(Welcome(hello.kind, self._worker, self._workers).encode())
        if hello.kind is Kind.LINE:
            self._peer(identity).add_line(held)
        else:
            self._peer(identity).add_pipe(held)

    async def _check(self, identity: NodeIdentity, peer: Peer) -> None:
        """Does each certificate that this node came with still count?"""
        for certificate, (address, expires_s) in peer.certificates().items():
            if self._clock.now().timestamp() >= expires_s:
                peer.retire(certificate)
                continue
            try:
                counts = await self._verify(certificate, address) == identity
            except Unauthenticated:
                counts = False
            except Unavailable:  # it counted when it came; whoever would say otherwise is away
                continue
            if not counts:
                _log.warning("the tunnel of node %s is closed: its certificate counts no more", identity.node_id)
                peer.abort(certificate)

    def _peer(self, identity: NodeIdentity) -> Peer:
        peer = self._peers.get(identity)
        if peer is None:
            peer = self._peers[identity] = Peer(identity, self._spare)
        return peer


class _Silent(asyncio.Protocol):
    """A connection that nobody was welcomed on yet: whoever speaks here already does not know the protocol."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._transport.abort()


async def no_tunnels(_protocol: Callable[[], UpstreamConnection]) -> UpstreamConnection:
    """As `Dial`, of a gateway without a tunnel port. Raises ConnectionError."""
    raise ConnectionError("this gateway has no tunnel port")
