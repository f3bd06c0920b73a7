"""One attempt to have one node answer one call: bytes from the node to the caller, as they come.

Everything here happens in callbacks of the two connections; the pipeline awaits only `done`. Invariants:
- nothing reaches the caller before the node has given a sign of success, so that a failed attempt can be repeated;
- the end of a stream is never sent from here: it waits until the usage record is durable.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import Enum, auto

import msgspec

from crosslogic.gateway.stream import StreamReader
from crosslogic.gateway.watchdog import Watchdog
from crosslogic.net.client import Failure, UpstreamConnection
from crosslogic.net.exchange import Exchange

MAX_ANSWER_BYTES = 256 * 1024 * 1024


class Ending(Enum):
    """How an attempt ended."""

    WHOLE = auto()  # a complete HTTP answer that was not streamed, of any status
    STREAMED = auto()  # a stream that ended; the reader says whether the answer is whole
    FAILED = auto()  # the node broke off, or never answered
    TIMEOUT = auto()
    CLIENT_CLOSED = auto()


class Timeouts(msgspec.Struct, frozen=True):
    """Seconds; each bounds one wait of a request."""

    connect_s: float = 2.0
    first_token_s: float = 60.0
    idle_s: float = 30.0
    total_s: float = 600.0


class Relay:
    """Sink of one upstream answer. Await `done`, then read the attributes."""

    __slots__ = (
        "_connection",
        "_deadline_s",
        "_exchange",
        "_head",
        "_idle_s",
        "_loop",
        "_packets",
        "_packets_seen",
        "_pieces",
        "_size",
        "_tap",
        "_total_deadline_s",
        "_watchdog",
        "content_type",
        "done",
        "failure",
        "first_byte_s",
        "passed",
        "reader",
        "retry_after",
        "started_s",
        "status",
        "streaming",
    )

    def __init__(
        self,
        exchange: Exchange,
        head: bytes,
        reader: StreamReader | None,
        watchdog: Watchdog,
        timeouts: Timeouts,
        total_deadline_s: float,
        tap: Callable[[bytes], None] | None = None,
    ) -> None:
        """`tap` hears what the caller is sent of a stream."""
        self._tap = tap
        self._loop = asyncio.get_running_loop()
        self.done: asyncio.Future[Ending] = self._loop.create_future()
        self.reader = reader
        self.status = 0
        self.content_type = b""
        self.retry_after = b""
        self.streaming = False
        self.failure: Failure | None = None
        self.passed = False  # the caller has seen something of this answer
        self.first_byte_s: float | None = None  # loop time
        self._exchange = exchange
        self._head = head
        self._connection: UpstreamConnection | None = None
        self._pieces: list[bytes] = []
        self._size = 0
        self._packets = 0
        self._packets_seen = 0
        self._watchdog = watchdog
        self._idle_s = timeouts.idle_s
        self._total_deadline_s = total_deadline_s
        first_token_s = timeouts.first_token_s if reader is not None else timeouts.total_s
        self.started_s = self._loop.time()
        self._deadline_s = self.started_s + first_token_s

    def start(self, connection: UpstreamConnection, request: bytes) -> asyncio.Future[Ending]:
        """Send the request; from now on a caller that leaves cancels it at once."""
        self._connection = connection
        exchange = self._exchange
        exchange.on_closed = self._client_closed
        exchange.on_pause = connection.pause
        exchange.on_resume = connection.resume
        self._watchdog.add(self)
        connection.send(self, request)
        return self.done

    @property
    def body(self) -> bytes:
        return b"".join(self._pieces)

    # --- Sink

    def on_head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.status = status
        for name, value in headers:
            if name == b"content-type":
                self.content_type = value
            elif name == b"retry-after":
                self.retry_after = value
        self.streaming = (
            status == 200 and self.reader is not None and self.content_type.startswith(b"text/event-stream")
        )

    def on_data(self, data: bytes) -> None:
        self._packets += 1
        if self.first_byte_s is None:
            self.first_byte_s = self._loop.time()
        if not self.streaming:
            self._pieces.append(data)
            self._size += len(data)
            if self._size > MAX_ANSWER_BYTES and self._connection is not None:
                self._connection.cancel()
            return
        reader = self.reader
        assert reader is not None
        passed = reader.feed(data)
        if passed:
            self.passed = True
            if not self._exchange.started:
                self._exchange.start(200, self._head)
            self._exchange.write(passed)
            if self._tap is not None:
                self._tap(passed)
        if reader.failed and self._connection is not None:
            self._connection.cancel()  # nothing more will be let through

    def on_end(self) -> None:
        self._finish(Ending.STREAMED if self.streaming else Ending.WHOLE)

    def on_failure(self, failure: Failure) -> None:
        self.failure = failure
        reader = self.reader
        if self.streaming and reader is not None and reader.ended and not reader.failed:
            self._finish(Ending.STREAMED)  # all of the answer had come; how the connection ended does not matter
        else:
            self._finish(Ending.FAILED)

    # --- other ends

    def _client_closed(self) -> None:
        self._finish(Ending.CLIENT_CLOSED)
        if self._connection is not None:
            self._connection.cancel()

    def check(self, now_s: float) -> None:
        """Called by the watchdog a few times a second: has a deadline passed?"""
        if self._packets != self._packets_seen:
            self._packets_seen = self._packets
            self._deadline_s = now_s + self._idle_s
        if now_s >= self._deadline_s or now_s >= self._total_deadline_s:
            self._finish(Ending.TIMEOUT)
            if self._connection is not None:
                self._connection.cancel()

    def _finish(self, ending: Ending) -> None:
        if not self.done.done():
            self._watchdog.remove(self)
            exchange = self._exchange
            exchange.on_closed = exchange.on_pause = exchange.on_resume = None
            self.done.set_result(ending)
