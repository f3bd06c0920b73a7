"""An HTTP/1.1 server as one asyncio.Protocol over httptools: the least Python between a client and a node.

It parses strictly (httptools refuses conflicting framing), buffers the whole request body within a bound, and
calls its handler synchronously with an `Exchange`. Everything a peer can make it hold or wait for has a limit.
Why our own: an ASGI server costs about as much again per request as all that the gateway does with it
(docs/decisions/0001-own-http-edge.md).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
import time
from collections import deque
from collections.abc import Callable
from email.utils import formatdate
from typing import Any, cast

import httptools
import msgspec

from crosslogic.net.exchange import STATUS_LINES, Exchange
from crosslogic.net.forwarded import Trusts, client_address

Handler = Callable[[Exchange], None]

SWEEP_INTERVAL_S = 1.0
CLOSE_TIMEOUT_S = 5.0  # a peer that does not take what was written before a close is cut off after this
MAX_PIPELINED = 8


class ServerLimits(msgspec.Struct, frozen=True):
    """What one peer may make the server hold or wait for."""

    max_body_bytes: int = 32 * 1024 * 1024
    max_head_bytes: int = 64 * 1024
    max_headers: int = 128
    request_timeout_s: float = 60.0  # from the first byte of a request to its last
    idle_timeout_s: float = 120.0  # between requests
    max_connections: int = 20_000


class ServerConnection(asyncio.Protocol):
    """One client connection: parses requests, runs them one after the other."""

    __slots__ = (
        "_active",
        "_body",
        "_client_ip",
        "_expects_continue",
        "_head_bytes",
        "_headers",
        "_hosts",
        "_parser",
        "_queue",
        "_server",
        "_since_s",
        "_target",
        "_transport",
        "_writable",
    )

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._active: Exchange | None = None
        self._queue: deque[Exchange] | None = None
        self._client_ip = ""
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []
        self._head_bytes = 0
        self._expects_continue = False
        self._hosts = 0
        self._since_s = 0.0  # when waiting for the present request, for the next one, or for the close began
        self._writable = True

    # --- asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclasses of it
        self._since_s = time.monotonic()
        peer = transport.get_extra_info("peername")
        self._client_ip = peer[0] if isinstance(peer, tuple) else ""
        if not self._server.adopt(self):
            self._refuse(503, b"too many connections")

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.forget(self)
        self._transport = None
        active, queue = self._active, self._queue
        self._active = self._queue = None
        if active is not None:
            active.lost()
        for waiting in queue or ():
            waiting.lost()

    def data_received(self, data: bytes) -> None:
        if self._head_bytes >= 0:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            return  # already answered as the plain request that it also is: see on_message_complete
        except httptools.HttpParserError:
            self._refuse(400, b"this is not valid HTTP/1.1")
        else:
            if self._head_bytes > self._server.limits.max_head_bytes:
                self._refuse(431, b"the request head is too large")

    def eof_received(self) -> bool:
        return False  # a half-closed client cannot be told from one that left; close, so that its work is cancelled

    def pause_writing(self) -> None:
        self._writable = False
        active = self._active
        if active is not None:
            active.paused = True
            if active.on_pause is not None:
                active.on_pause()

    def resume_writing(self) -> None:
        self._writable = True
        active = self._active
        if active is not None:
            active.paused = False
            if active.on_resume is not None:
                active.on_resume()

    # --- httptools

    def on_message_begin(self) -> None:
        self._target = b""
        self._headers = []
        self._body = []
        self._expects_continue = False
        self._hosts = 0
        self._since_s = time.monotonic()

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        self._headers.append((name, value))
        if name == b"expect":
            self._expects_continue = value.lower() == b"100-continue"
        elif name == b"content-length" and int(value) > self._server.limits.max_body_bytes:
            self._refuse(413, b"the request body is too large")
        elif name == b"host":
            self._hosts += 1

    def on_headers_complete(self) -> None:
        limits = self._server.limits
        if len(self._headers) > limits.max_headers:
            self._refuse(431, b"the request has too many headers")
        elif (
            self._head_bytes > limits.max_head_bytes and _head_size(self._target, self._headers) > limits.max_head_bytes
        ):
            self._refuse(431, b"the request head is too large")  # it came whole, in one packet
        elif self._hosts != 1 and (self._hosts or self._parser.get_http_version() == "1.1"):
            self._refuse(400, b"a request names its host, once")  # RFC 9112 3.2: proxies before us may differ on it
        self._head_bytes = -1  # from here on it is body
        if self._expects_continue and self._transport is not None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._body.append(body)
        if len(self._body) > 1 and sum(map(len, self._body)) > self._server.limits.max_body_bytes:
            self._refuse(413, b"the request body is too large")
        elif len(self._body) >= 64:  # keeps the sum above cheap for bodies that arrive in small pieces
            self._body = [b"".join(self._body)]

    def on_message_complete(self) -> None:
        self._head_bytes = 0
        if self._transport is None or self._transport.is_closing():
            return
        path, _, query = _origin_form(self._target).partition(b"?")
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        exchange = Exchange(
            self,
            self._parser.get_method(),
            path,
            query,
            self._headers,
            body,
            # An upgrade is an offer (RFC 9110 §7.8): the request is answered as it is, and is the connection's last.
            self._parser.should_keep_alive() and not self._parser.should_upgrade(),
            self._client_ip
            if self._server.trusts is None
            else client_address(self._client_ip, self._headers, self._server.trusts),
            knows_chunks=self._parser.get_http_version() != "1.0",
        )
        self._headers, self._body = [], []
        if self._active is None:
            self._begin(exchange)
        else:
            self._enqueue(exchange)

    # --- exchanges

    def _begin(self, exchange: Exchange) -> None:
        self._active = exchange
        self._server.handler(exchange)

    def _enqueue(self, exchange: Exchange) -> None:
        """A pipelined request waits; no more of them are read meanwhile."""
        if self._queue is None:
            self._queue = deque()
        if len(self._queue) >= MAX_PIPELINED:
            self.cut()
            return
        self._queue.append(exchange)
        if self._transport is not None:
            self._transport.pause_reading()

    def exchange_ended(self, keep_alive: bool) -> None:
        self._active = None
        self._since_s = time.monotonic()
        if self._transport is None:
            return
        if not keep_alive or self.draining:
            self._close()
        elif self._queue:
            following = self._queue.popleft()
            if not self._queue:
                self._transport.resume_reading()
            # Not at once: a handler that answers synchronously would otherwise recurse once per pipelined request.
            asyncio.get_running_loop().call_soon(self._begin, following)

    def send(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def cut(self, *, reset: bool = False) -> None:
        """Close in the middle of an answer; with `reset`, so that the peer gets a TCP RST."""
        if self._transport is None:
            return
        if reset:
            sock = self._transport.get_extra_info("socket")
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()
        else:
            self._close()

    def _close(self) -> None:
        """Close once the peer has taken what was written; `sweep` sees to it that this ends."""
        if self._transport is not None and not self._transport.is_closing():
            self._since_s = time.monotonic()
            self._transport.close()

    @property
    def draining(self) -> bool:
        return self._server.draining

    @property
    def busy(self) -> bool:
        """Whether an answer is under way, or its end has not left yet."""
        return self._active is not None or (self._transport is not None and self._transport.get_write_buffer_size() > 0)

    def date_line(self) -> bytes:
        return self._server.date_line

    def _refuse(self, status: int, reason: bytes) -> None:
        """Answer a request that never became an exchange, and close."""
        if self._transport is None or self._transport.is_closing():
            return
        if self._active is None:
            body = b'{"error":{"message":"%b","type":"invalid_request_error","code":"%b","param":null}}' % (
                reason,
                b"request_too_large" if status == 413 else b"bad_request",
            )
            self._transport.write(
                STATUS_LINES[status]
                + b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
                + body
            )
        self._close()

    def sweep(self, now_s: float) -> None:
        """Close a connection that is idle, whose request does not arrive, or that does not close, for too long."""
        if self._transport is None:
            return
        waiting_s = now_s - self._since_s
        if self._transport.is_closing():
            if waiting_s > CLOSE_TIMEOUT_S:
                self._transport.abort()
        elif self._active is not None:
            return
        elif self._head_bytes != 0 and waiting_s > self._server.limits.request_timeout_s:
            self._refuse(408, b"the request did not arrive in time")
        elif waiting_s > self._server.limits.idle_timeout_s:
            self._close()


class HttpServer:
    """Listens, and keeps the set of connections. `handler` is called once for each request, in the loop's thread."""

    def __init__(self, handler: Handler, limits: ServerLimits | None = None, trusts: Trusts | None = None) -> None:
        """`trusts` tells which peers are proxies that say truly for whom they ask; None: nobody."""
        self.handler = handler
        self.limits = limits or ServerLimits()
        self.trusts = trusts
        self.draining = False
        self.date_line = _date_line()
        self._connections: set[ServerConnection] = set()
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.Task[None] | None = None

    async def listen(
        self,
        host: str | None = None,
        port: int | None = None,
        *,
        sock: socket.socket | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> int:
        """Start to accept on host and port, or on a socket that is bound already. Returns the port.

        Raises OSError when the address cannot be had.
        """
        loop = asyncio.get_running_loop()
        options: dict[str, Any] = {"sock": sock} if sock is not None else {"host": host, "port": port}
        self._server = await loop.create_server(lambda: ServerConnection(self), ssl=tls, backlog=4096, **options)
        self._sweeper = asyncio.create_task(self._sweep_forever())
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    def adopt(self, connection: ServerConnection) -> bool:
        self._connections.add(connection)
        return len(self._connections) <= self.limits.max_connections

    def forget(self, connection: ServerConnection) -> None:
        self._connections.discard(connection)

    @property
    def busy_connections(self) -> int:
        return sum(connection.busy for connection in self._connections)

    async def close(self, drain_s: float) -> None:
        """Accept nothing new, let what runs finish for at most `drain_s` seconds, then cut."""
        self.draining = True
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            if not connection.busy:
                connection.cut()
        deadline_s = time.monotonic() + drain_s
        while self.busy_connections and time.monotonic() < deadline_s:
            await asyncio.sleep(0.02)
        for connection in list(self._connections):
            connection.cut()
        if self._sweeper is not None:
            self._sweeper.cancel()
        await asyncio.sleep(0)

    async def _sweep_forever(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_INTERVAL_S)
            self.date_line = _date_line()
            now_s = time.monotonic()
            for connection in list(self._connections):
                connection.sweep(now_s)


def _date_line() -> bytes:
    return b"date: %b\r\n" % formatdate(usegmt=True).encode()


def _head_size(target: bytes, headers: list[tuple[bytes, bytes]]) -> int:
    return len(target) + sum(len(name) + len(value) for name, value in headers)


def _origin_form(target: bytes) -> bytes:
    """A target that names its host, as proxies send it (RFC 9112 §3.2.2), without it."""
    if target[:1] == b"/":
        return target
    _, found, rest = target.partition(b"://")
    return b"/" + rest.partition(b"/")[2] if found else target
