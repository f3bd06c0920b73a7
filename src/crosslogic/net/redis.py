"""One pipelined Redis connection for the request path, on `asyncio.Protocol` and hiredis.

redis-py's asyncio client awaits a lock, a stream writer and a stream reader for every command:
`python -m bench.micro.limits` measured 50 µs of CPU a command there, and here 12 µs one at a time and 2 µs with 32
in flight. Management code, which does not care, uses redis-py.

Invariants: commands are answered in the order in which they were called; a command is answered exactly once, by
its reply or by an exception; when the connection is lost every waiting command fails with `Unavailable` at once,
and so does every command until the connection is back, which is attempted in the background for as long as the
object is open. Nothing is ever sent twice: whoever called knows what may be repeated. Blocking commands and
subscriptions do not belong here.
"""

import asyncio
import contextlib
import socket
import ssl
from collections import deque
from collections.abc import Callable
from typing import Any, cast

import hiredis

from crosslogic.kernel.errors import Unavailable
from crosslogic.net.redis_address import RedisAddress, parse_url

Argument = str | bytes | int | float
Reply = Any  # what RESP carries: bytes, int, None, a list of these, or an exception
Done = Callable[[Reply], None]

# hiredis declares a tuple of one argument
pack_command: Callable[[tuple[Argument, ...]], bytes] = cast(Any, hiredis.pack_command)

MAX_WAITING = 10_000
FIRST_BACKOFF_S = 0.05
MAX_BACKOFF_S = 1.0


class RedisConnection:
    """A connection that heals itself. `generation` grows with every new one underneath."""

    def __init__(self, address: RedisAddress, connect_timeout_s: float, answer_timeout_s: float) -> None:
        """Use `connect` instead."""
        self._address = address
        self._connect_timeout_s = connect_timeout_s
        self._answer_timeout_s = answer_timeout_s
        self._loop = asyncio.get_running_loop()
        self._wire: _Wire | None = None
        self._healing: asyncio.Task[None] | None = None
        self._closed = False
        self.generation = 0

    @classmethod
    async def connect(
        cls, url: str, *, connect_timeout_s: float = 2.0, answer_timeout_s: float = 5.0, required: bool = True
    ) -> "RedisConnection":
        """Connect and sign in. A connection that answers nothing for `answer_timeout_s` is dropped and renewed.

        Raises ConfigurationError for a malformed URL, Unavailable when Redis does not answer or refuses the sign-in;
        the latter only if it is `required` now: otherwise it is tried on in the background, as after a loss.
        """
        connection = cls(parse_url(url), connect_timeout_s, answer_timeout_s)
        try:
            await connection._open()
        except Unavailable:
            if required:
                raise
            connection._healing = connection._loop.create_task(connection._heal())
        return connection

    @property
    def connected(self) -> bool:
        """Commands called now will be sent."""
        return self._wire is not None

    def call(self, done: Done, *arguments: Argument) -> None:
        """Send one command now; `done` gets the reply, or an exception as a value, and must not raise.

        `done` runs inside the socket's callback (or inside this call when there is no connection), which saves
        a turn of the event loop.
        """
        wire = self._wire
        if wire is None or len(wire.waiting) >= MAX_WAITING:
            done(Unavailable(f"Redis at {self._address} does not answer"))
            return
        wire.waiting.append(done)
        wire.write(pack_command(arguments))

    def execute(self, *arguments: Argument) -> "asyncio.Future[Reply]":
        """Send one command; commands of one turn of the event loop leave in one write.

        The future raises Unavailable, or hiredis.ReplyError when Redis refuses the command.
        """
        future: asyncio.Future[Reply] = self._loop.create_future()

        def done(reply: Reply) -> None:
            if future.done():
                return
            if isinstance(reply, Exception):
                future.set_exception(reply)
            else:
                future.set_result(reply)

        wire = self._wire
        if wire is None or len(wire.waiting) >= MAX_WAITING:
            done(Unavailable(f"Redis at {self._address} does not answer"))
            return future
        wire.waiting.append(done)
        wire.write_later(pack_command(arguments))
        return future

    async def close(self) -> None:
        """Drop the connection; waiting commands fail with Unavailable."""
        self._closed = True
        if self._healing is not None:
            self._healing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._healing
        if self._wire is not None:
            self._wire.abort()
            await asyncio.sleep(0)  # lets the transport report the loss

    async def _open(self) -> None:
        address = self._address
        context = ssl.create_default_context(cafile=address.ca_file) if address.tls else None
        wire = _Wire(self._loop, self._lost, self._answer_timeout_s)
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                if address.socket_path is not None:
                    await self._loop.create_unix_connection(lambda: wire, address.socket_path)
                else:
                    await self._loop.create_connection(lambda: wire, address.host, address.port, ssl=context)
                await self._sign_in(wire)
        except (OSError, TimeoutError, hiredis.HiredisError, Unavailable) as error:
            wire.abort()
            reason = "timed out" if isinstance(error, TimeoutError) else str(error)
            raise Unavailable(f"Redis at {address} does not answer: {reason}") from None
        self.generation += 1
        self._wire = wire

    async def _sign_in(self, wire: "_Wire") -> None:
        address = self._address
        commands: list[tuple[Argument, ...]] = []
        if address.password is not None:
            user = (address.username,) if address.username is not None else ()
            commands.append(("AUTH", *user, address.password))
        if address.database:
            commands.append(("SELECT", address.database))
        commands.append(("PING",))  # accepted is not yet served: a stopped server still accepts
        for command in commands:
            reply = await wire.ask(pack_command(command))
            if isinstance(reply, Exception):
                raise Unavailable(str(reply))
        if not wire.alive:
            raise Unavailable("it closed the connection")

    def _lost(self, wire: "_Wire") -> None:
        if self._wire is wire:
            self._wire = None
        for done in _take_all(wire.waiting):
            done(Unavailable(f"the connection to Redis at {self._address} was lost"))
        if self.generation and not self._closed and (self._healing is None or self._healing.done()):
            self._healing = self._loop.create_task(self._heal())

    async def _heal(self) -> None:
        backoff_s = FIRST_BACKOFF_S
        while not self.connected:
            try:
                await self._open()
            except Unavailable:
                await asyncio.sleep(backoff_s)
                backoff_s = min(2 * backoff_s, MAX_BACKOFF_S)


def _take_all(waiting: deque[Done]) -> list[Done]:
    taken = list(waiting)
    waiting.clear()
    return taken


class _Wire(asyncio.Protocol):
    """One TCP connection: bytes out, replies in, in order."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, lost: "Callable[[_Wire], None]", answer_timeout_s: float
    ) -> None:
        self.waiting: deque[Done] = deque()
        self._loop = loop
        self._lost = lost
        self._reader = hiredis.Reader()
        self._transport: asyncio.Transport | None = None
        self._later: list[bytes] = []
        self._answer_timeout_s = answer_timeout_s
        self._answered = 0
        self._answered_before = -1
        self._watch: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's does not inherit from it
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._watch = self._loop.call_later(self._answer_timeout_s, self._check)

    def data_received(self, data: bytes) -> None:
        reader = self._reader
        try:
            reader.feed(data)
            while (reply := reader.gets()) is not False:
                self._answered += 1
                self.waiting.popleft()(reply)
        except (hiredis.ProtocolError, IndexError):  # not Redis, or a reply that nobody asked for
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._watch is not None:
            self._watch.cancel()
        self._lost(self)

    @property
    def alive(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def ask(self, data: bytes) -> "asyncio.Future[Reply]":
        """Send one command; errors are results. May be cancelled."""
        answer: asyncio.Future[Reply] = self._loop.create_future()
        self.waiting.append(lambda reply: None if answer.done() else answer.set_result(reply))
        self.write(data)
        return answer

    def write(self, data: bytes) -> None:
        if self._later:
            self._later.append(data)
            self._write_buffered()
        elif self._transport is not None:
            self._transport.write(data)

    def write_later(self, data: bytes) -> None:
        if not self._later:
            self._loop.call_soon(self._write_buffered)
        self._later.append(data)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _write_buffered(self) -> None:
        if self._later and self._transport is not None:
            self._transport.write(b"".join(self._later))
        self._later.clear()

    def _check(self) -> None:
        """Without progress since the last look while somebody waits, the other side is gone."""
        if self.waiting and self._answered == self._answered_before:
            self.abort()
            return
        self._answered_before = self._answered if self.waiting else -1
        self._watch = self._loop.call_later(self._answer_timeout_s / 2, self._check)
