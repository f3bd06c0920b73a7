"""The agent's ends of a tunnel's connections: what it does with the bytes.

Invariant: a pipe whose gateway leaves cuts its connection to the engine at once, so that the engine stops generating;
one whose engine leaves passes on what the engine still said first.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, cast
from urllib.parse import SplitResult

from crosslogic.net.pipe import Pipe
from crosslogic.tunnel.wire import (
    WELCOME_BYTES,
    BadTunnel,
    Frame,
    FrameReader,
    FrameType,
    Welcome,
    read_welcome,
)

ENGINE_TIMEOUT_S = 5.0
MAX_DIALLING = 64  # pipes of one line at once; more wait

Address = tuple[str, int]
OpenPipe = Callable[[Address, int], Coroutine[Any, Any, None]]


class Welcomed(asyncio.Protocol):
    """The first bytes of a connection are the gateway's Welcome."""

    def __init__(self) -> None:
        self.welcome: Welcome | None = None
        self.welcomed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._begun = b""

    def abort(self) -> None:
        raise NotImplementedError

    def _past_welcome(self, data: bytes) -> bytes:
        """What of `data` comes after it."""
        if self.welcome is not None:
            return data
        self._begun += data
        if len(self._begun) < WELCOME_BYTES:
            return b""
        try:
            self.welcome = read_welcome(self._begun[:WELCOME_BYTES])
        except BadTunnel as error:
            self._refused(error)
            self.abort()
            return b""
        if not self.welcomed.done():
            self.welcomed.set_result(None)
        return self._begun[WELCOME_BYTES:]

    def _refused(self, error: Exception | None) -> None:
        if not self.welcomed.done():
            self.welcomed.set_exception(error or ConnectionResetError("the gateway closed the connection"))
            self.welcomed.exception()  # whoever waited may have given up


class Line(Welcomed):
    def __init__(self, open_pipe: OpenPipe, gateway: Address, worker: int) -> None:
        super().__init__()
        self.gateway, self.worker = gateway, worker
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._open_pipe = open_pipe
        self._frames = FrameReader()
        self._heard_s = asyncio.get_running_loop().time()
        self._transport: asyncio.Transport | None = None
        self._wanted = 0
        self._dialling: set[asyncio.Task[None]] = set()

    @property
    def silent_s(self) -> float:
        return asyncio.get_running_loop().time() - self._heard_s

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._heard_s = asyncio.get_running_loop().time()
        try:
            frames = self._frames.feed(self._past_welcome(data))
        except BadTunnel:
            self.abort()
            return
        for frame in frames:
            if frame.type is FrameType.PING and self._transport is not None:
                self._transport.write(Frame(FrameType.PONG).encode())
            elif frame.type is FrameType.OPEN:
                self._wanted += frame.count
                self._open_wanted()

    def connection_lost(self, error: Exception | None) -> None:
        self._refused(error)
        self._wanted = 0
        if not self.ended.done():
            self.ended.set_result(None)

    def _open_wanted(self) -> None:
        while self._wanted > 0 and len(self._dialling) < MAX_DIALLING:
            self._wanted -= 1
            task = asyncio.ensure_future(self._open_pipe(self.gateway, self.worker))
            self._dialling.add(task)
            task.add_done_callback(self._dialled)

    def _dialled(self, task: asyncio.Task[None]) -> None:
        self._dialling.discard(task)
        self._open_wanted()


class EnginePipe(Welcomed, Pipe):
    """The gateway's end; the engine's is made when the first bytes of a request come."""

    def __init__(self, engine: SplitResult, gateway: Address, worker: int, register: "set[EnginePipe]") -> None:
        Welcomed.__init__(self)
        Pipe.__init__(self)
        self.gateway, self.worker = gateway, worker
        self._engine = engine
        self._register = register
        self._connecting: asyncio.Task[None] | None = None

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._register.add(self)

    def data_received(self, data: bytes) -> None:
        rest = self._past_welcome(data)
        if not rest:
            return
        if self._connecting is None and self.transport is not None:
            self.transport.pause_reading()
            self._connecting = asyncio.ensure_future(self._connect(self.transport))
        super().data_received(rest)

    def connection_lost(self, error: Exception | None) -> None:
        self._register.discard(self)
        self._refused(error)
        super().connection_lost(error)
        if self._out is not None:
            self._out.abort()

    async def _connect(self, transport: asyncio.Transport) -> None:
        loop = asyncio.get_running_loop()
        engine = self._engine
        tls = engine.scheme == "https"
        try:
            async with asyncio.timeout(ENGINE_TIMEOUT_S):
                made, inner = await loop.create_connection(
                    Pipe, engine.hostname or "", engine.port or (443 if tls else 80), ssl=tls or None
                )
        except (OSError, TimeoutError):
            self.abort()
            return
        if self.ended.done():
            made.abort()
            return
        inner.join(self, transport)
        self.join(inner, made)
        transport.resume_reading()
