"""All connections of one node with one worker: its lines, and its pipes until they are given out and after.

Invariants: a pipe is given to one request after the other, never to two; who waits longest gets the next one; there
are never more than `MAX_IDLE` that nobody uses.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable

from crosslogic.fleet.identity import NodeIdentity
from crosslogic.net.client import UpstreamConnection
from crosslogic.tunnel.wire import BadTunnel, Frame, FrameReader, FrameType, pipes_to_open

MAX_IDLE = 256  # pipes of one node
SPARE = 4
ORDER_S = 5.0  # a pipe that was asked for and has not come after this is asked for again
RETURN_S = 5.0  # a node whose line is gone gets so long to come back before requests are told at once

_log = logging.getLogger(__name__)


class Held:
    """A connection with the certificate that it came with."""

    __slots__ = ("address", "certificate", "connection", "expires_s", "transport")

    def __init__(self, transport: asyncio.Transport, certificate: bytes, address: str, expires_s: float) -> None:
        self.transport = transport
        self.certificate = certificate
        self.address = address
        self.expires_s = expires_s
        self.connection: UpstreamConnection | None = None  # once it was given out


class Peer:
    """All connections of one node with this worker."""

    def __init__(self, identity: NodeIdentity, spare: int) -> None:
        self._identity = identity
        self._spare = spare
        self._loop = asyncio.get_running_loop()
        self._idle: deque[Held] = deque()
        self._used: list[Held] = []
        self._waiting: deque[asyncio.Future[Held]] = deque()
        self._ordered_s: deque[float] = deque()  # when
        self._gone_s = self._loop.time()
        self.lines: list[_Line] = []

    async def take(self, protocol: Callable[[], UpstreamConnection]) -> UpstreamConnection:
        """An idle pipe, else the next one that comes. Raises ConnectionError when none can come."""
        held = self._next_idle()
        if held is None:
            if not self.lines and self._loop.time() - self._gone_s > RETURN_S:
                raise ConnectionError(f"node {self._identity.node_id} has no tunnel to here")
            waiting: asyncio.Future[Held] = self._loop.create_future()
            self._waiting.append(waiting)
            self._order()
            try:
                held = await waiting
            except asyncio.CancelledError:
                if waiting.done() and not waiting.cancelled():
                    self._offer(waiting.result())
                else:
                    self._waiting.remove(waiting)
                raise
        self._order()
        connection = protocol()
        held.transport.set_protocol(connection)
        connection.connection_made(held.transport)
        held.connection = connection
        self._used.append(held)
        return connection

    def add_line(self, held: Held) -> None:
        line = _Line(self, held)
        held.transport.set_protocol(line)
        self.lines.append(line)
        self._ordered_s.clear()  # what another line was asked for may never come
        if len(self.lines) == 1:
            _log.info("node %s has a tunnel to here", self._identity.node_id)
        self._order()

    def add_pipe(self, held: Held) -> None:
        if self._ordered_s:
            self._ordered_s.popleft()
        if len(self._idle) >= MAX_IDLE:
            held.transport.abort()
            return
        held.transport.set_protocol(_Idle(self, held))
        self._offer(held)

    def lost_line(self, line: "_Line") -> None:
        if line in self.lines:
            self.lines.remove(line)
        if not self.lines:
            self._gone_s = self._loop.time()
            _log.info("node %s has no tunnel to here any more", self._identity.node_id)

    def lost_idle(self, held: Held) -> None:
        with contextlib.suppress(ValueError):  # it was given out this very moment
            self._idle.remove(held)
        self._order()

    def ping(self, now_s: float, interval_s: float, silence_s: float) -> None:
        self._used = [held for held in self._used if held.connection is not None and held.connection.usable]
        for line in list(self.lines):
            if now_s - line.heard_s > silence_s:
                _log.warning("the tunnel of node %s is silent; closing it", self._identity.node_id)
                line.held.transport.abort()
                if self.lines == [line]:
                    self.abort()
            elif now_s - line.pinged_s >= interval_s:
                line.pinged_s = now_s
                line.send(Frame(FrameType.PING))
        if self.lines:
            self._order()

    def certificates(self) -> dict[bytes, tuple[str, float]]:
        everything = [line.held for line in self.lines] + list(self._idle) + self._used
        return {held.certificate: (held.address, held.expires_s) for held in everything}

    def retire(self, certificate: bytes) -> None:
        """What came with this one may end its answers, and carries nothing new."""
        for held in self._used:
            if held.certificate == certificate and held.connection is not None:
                held.connection.retire()
        self._abort_unused(certificate)

    def abort(self, certificate: bytes | None = None) -> None:
        """Cut what came with this certificate, or everything."""
        for held in self._used:
            if certificate is None or held.certificate == certificate:
                held.transport.abort()
        self._abort_unused(certificate)

    def _abort_unused(self, certificate: bytes | None) -> None:
        for held in [line.held for line in self.lines] + list(self._idle):
            if certificate is None or held.certificate == certificate:
                held.transport.abort()

    def _next_idle(self) -> Held | None:
        while self._idle:
            held = self._idle.pop()
            if not held.transport.is_closing():
                return held
        return None

    def _offer(self, held: Held) -> None:
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_result(held)
                return
        self._idle.append(held)

    def _order(self) -> None:
        """Ask the agent for as many pipes as are wanting."""
        if not self.lines:
            return
        now_s = self._loop.time()
        while self._ordered_s and now_s - self._ordered_s[0] > ORDER_S:
            self._ordered_s.popleft()
        count = pipes_to_open(
            idle=len(self._idle), waiting=len(self._waiting), ordered=len(self._ordered_s), spare=self._spare
        )
        if count:
            self._ordered_s.extend([now_s] * count)
            self.lines[-1].send(Frame(FrameType.OPEN, count))


class _Idle(asyncio.Protocol):
    """A pipe that carries nothing; an engine has nothing to say before it is asked."""

    def __init__(self, peer: Peer, held: Held) -> None:
        self._peer = peer
        self._held = held

    def data_received(self, data: bytes) -> None:
        self._held.transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self._peer.lost_idle(self._held)


class _Line(asyncio.Protocol):
    def __init__(self, peer: Peer, held: Held) -> None:
        self._peer = peer
        self._frames = FrameReader()
        self.held = held
        self.heard_s = self.pinged_s = asyncio.get_running_loop().time()

    def send(self, frame: Frame) -> None:
        if not self.held.transport.is_closing():
            self.held.transport.write(frame.encode())

    def data_received(self, data: bytes) -> None:
        try:
            self._frames.feed(data)
        except BadTunnel:
            self.held.transport.abort()
            return
        self.heard_s = asyncio.get_running_loop().time()

    def connection_lost(self, error: Exception | None) -> None:
        self._peer.lost_line(self)
