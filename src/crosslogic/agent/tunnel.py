"""The agent's side of tunnels: it dials gateways, and relays what comes over those connections to its engine.

One *line* to each worker of each gateway stands all the time; over it the worker asks for *pipes*. A pipe becomes a
connection to the engine when the first bytes of a request come over it.

Invariants: nothing listens; a gateway whose certificate is not of the CA that the join token named gets nothing; a line
that is silent is given up, with its pipes, and dialled again after growing, jittered pauses.
"""

import asyncio
import logging
import random
import socket
import ssl
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from crosslogic.agent import backoff
from crosslogic.agent.papers import Papers
from crosslogic.agent.tunnel_ends import Address, EnginePipe, Line, Welcomed
from crosslogic.kernel.errors import ConfigurationError
from crosslogic.tunnel.wire import GATEWAY_NAME, SILENCE_S, BadTunnel, Hello, Kind

CONNECT_TIMEOUT_S = 10.0
STEADY_S = 10.0  # a line that stood this long is dialled again almost at once

W = TypeVar("W", bound=Welcomed)

_log = logging.getLogger(__name__)


class Tunnel:
    """`papers` gives those of this moment: they are renewed. `on_change` is called when `connected` changes."""

    def __init__(
        self,
        papers: Callable[[], Papers],
        gateways: Sequence[Address],
        engine_url: str,
        on_change: Callable[[], None],
        *,
        silence_s: float = SILENCE_S,
    ) -> None:
        self._papers = papers
        self._gateways = gateways
        self._engine = urlsplit(engine_url)
        self._on_change = on_change
        self._silence_s = silence_s
        self._context: tuple[str, ssl.SSLContext] | None = None
        self._standing = 0
        self._pipes: set[EnginePipe] = set()

    @property
    def connected(self) -> bool:
        """Whether any gateway can reach the engine."""
        return self._standing > 0

    async def run(self) -> None:
        """Until cancelled; what is being relayed then is cut."""
        try:
            async with asyncio.TaskGroup() as group:
                for gateway in self._gateways:
                    group.create_task(self._keep_gateway(gateway))
        finally:
            for pipe in list(self._pipes):
                pipe.abort()

    async def _keep_gateway(self, gateway: Address) -> None:
        """A line to each of its workers; the first says how many there are."""
        lines: dict[int, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as group:

            def learned(workers: int) -> None:
                for worker in range(workers):
                    if worker not in lines or lines[worker].done():
                        lines[worker] = group.create_task(self._keep_line(gateway, worker, learned))

            learned(1)

    async def _keep_line(self, gateway: Address, worker: int, learned: Callable[[int], None]) -> None:
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            began_s = loop.time()
            try:
                hello = Hello(Kind.LINE, worker)
                line = await self._dial(gateway, hello, lambda: Line(self.open_pipe, gateway, worker))
                if line.welcome is None or line.welcome.worker != worker:
                    line.abort()
                    return  # there are fewer workers than there were
                learned(line.welcome.workers)
                _log.info("tunnel to worker %d of %s:%d stands", worker, *gateway)
                await self._hold(line)
                _log.warning("tunnel to worker %d of %s:%d is lost", worker, *gateway)
            except (OSError, TimeoutError, BadTunnel) as error:
                if failures == 0:
                    _log.warning("no tunnel to %s:%d (%s); trying on", *gateway, error)
            failures = 1 if loop.time() - began_s >= STEADY_S else failures + 1
            await asyncio.sleep(backoff.pause_s(failures, random.random()))

    async def _hold(self, line: Line) -> None:
        self._count(1)
        try:
            while not line.ended.done():
                await asyncio.wait([line.ended], timeout=1.0)
                if not line.ended.done() and line.silent_s > self._silence_s:
                    _log.warning("worker %d of %s:%d is silent", line.worker, *line.gateway)
                    self._cut(line)
        finally:
            line.abort()
            self._count(-1)

    def _cut(self, line: Line) -> None:
        """A line that is dead has dead pipes."""
        line.abort()
        for pipe in [one for one in self._pipes if (one.gateway, one.worker) == (line.gateway, line.worker)]:
            pipe.abort()

    def _count(self, change: int) -> None:
        before, self._standing = self._standing, self._standing + change
        if (before > 0) != self.connected:
            self._on_change()

    async def open_pipe(self, gateway: Address, worker: int) -> None:
        """One pipe more; a failure is the line's to notice."""
        try:
            pipe = await self._dial(
                gateway, Hello(Kind.PIPE, worker), lambda: EnginePipe(self._engine, gateway, worker, self._pipes)
            )
        except (OSError, TimeoutError, BadTunnel) as error:
            _log.info("no pipe to %s:%d (%s)", *gateway, error)
            return
        if pipe.welcome is None or pipe.welcome.worker != worker:
            pipe.abort()

    async def _dial(self, gateway: Address, hello: Hello, protocol: Callable[[], W]) -> W:
        """A connection that the gateway has welcomed. Raises OSError, TimeoutError and BadTunnel."""
        loop = asyncio.get_running_loop()
        sock: socket.socket | None = None
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                sock = await _connected(loop, gateway)
                await loop.sock_sendall(sock, hello.encode())
                _, made = await loop.create_connection(
                    protocol, sock=sock, ssl=self._tls(), server_hostname=GATEWAY_NAME
                )
                sock = None  # the transport's now
                try:
                    await made.welcomed
                except BaseException:
                    made.abort()
                    raise
        finally:
            if sock is not None:
                sock.close()
        if made.welcome is not None and made.welcome.kind is not hello.kind:
            made.abort()
            raise BadTunnel("the gateway took this connection for another kind")
        return made

    def _tls(self) -> ssl.SSLContext:
        papers = self._papers()
        if self._context is None or self._context[0] != papers.certificate_pem:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # a CA that is given need not be a root
            context.load_verify_locations(cadata=papers.ca_pem)
            with tempfile.NamedTemporaryFile(mode="w") as file:  # readable by its owner only
                file.write(papers.key_pem + papers.certificate_pem)
                file.flush()
                context.load_cert_chain(Path(file.name))
            self._context = (papers.certificate_pem, context)
        return self._context[1]


def gateway_address(text: str) -> Address:
    """`host:port` as it is configured. Raises ConfigurationError."""
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or not port or parts.path:
        raise ConfigurationError(f"{text!r} is no tunnel port of a gateway; write --tunnel HOST:PORT")
    return host, port


async def _connected(loop: asyncio.AbstractEventLoop, gateway: Address) -> socket.socket:
    """A TCP connection to the first of its addresses that takes one. Raises OSError."""
    failure: OSError | None = None
    for family, kind, protocol, _, address in await loop.getaddrinfo(*gateway, type=socket.SOCK_STREAM):
        sock = socket.socket(family, kind, protocol)
        sock.setblocking(False)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.sock_connect(sock, address)
            return sock
        except OSError as error:
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
    raise failure or OSError("the name has no address")
