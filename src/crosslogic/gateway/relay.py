"""One attempt to have one node answer one call: bytes from the node to the caller, as they come.

Everything here happens in callbacks of the two connections; the pipeline awaits only `done`. Invariants:
- nothing reaches the caller before the node has given a sign of success, so that a failed attempt can be repeated;
- the end of a stream is never sent from here: it waits until the usage record is durable;
- a stream that is whole ends well, whatever its node does after that.
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
from crosslogic.queueing.model import Turn

MAX_ANSWER_BYTES = 256 * 1024 * 1024
LAST_WORDS_S = 0.5  # how long an answer that is whole waits for its usage and its end


class Ending(Enum):
    """How an attempt ended."""

    WHOLE = auto()  # a complete HTTP answer that was not streamed, of any status
    STREAMED = auto()  # a stream that ended; the reader says whether the answer is whole
    FAILED = auto()  # the node broke off, or never answered
    TIMEOUT = auto()
    CLIENT_CLOSED = auto()
    PUT_BACK = auto()  # its place is wanted by a higher request, and the caller has seen nothing of it


# A stream's progress is marked once it is so much ahead of its last mark; the watchdog looks every 0.1 s.
MARK_TOKENS = 64
MARK_S = 0.9


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
        "_kept_chars",
        "_left",
        "_loop",
        "_marked_s",
        "_marked_tokens",
        "_packets",
        "_packets_seen",
        "_paused",
        "_pieces",
        "_size",
        "_tap",
        "_total_deadline_s",
        "_turn",
        "_watchdog",
        "content_type",
        "done",
        "failure",
        "first_byte_s",
        "mark",
        "on_begin",
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
        turn: Turn | None = None,
        *,
        kept_chars: int = 0,
    ) -> None:
        """`tap` hears what the caller is sent of a stream; `turn` learns when the first of it is; `kept_chars` of its
        text are kept by the reader."""
        self._tap = tap
        self._turn = turn
        self._loop = asyncio.get_running_loop()
        self.done: asyncio.Future[Ending] = self._loop.create_future()
        self.reader = reader
        self.status = 0
        self.content_type = b""
        self.retry_after = b""
        self.streaming = False
        self.failure: Failure | None = None
        self.on_begin: Callable[[], None] | None = None  # hears it before the caller does
        self.mark: Callable[[StreamReader], None] | None = None  # writes down how far the stream has come
        self.passed = False  # the caller has seen something of this answer
        self.first_byte_s: float | None = None  # loop time
        self._exchange = exchange
        self._head = head
        self._connection: UpstreamConnection | None = None
        self._pieces: list[bytes] = []
        self._size = 0
        self._paused = False
        self._left = False  # the caller, who had seen the end, but not its usage
        self._packets = 0
        self._packets_seen = 0
        self._watchdog = watchdog
        self._idle_s = timeouts.idle_s
        self._kept_chars = kept_chars
        self._total_deadline_s = total_deadline_s
        first_token_s = timeouts.first_token_s if reader is not None else timeouts.total_s
        self.started_s = self._loop.time()
        self._marked_s = self.started_s
        self._marked_tokens = 0
        self._deadline_s = self.started_s + first_token_s

    def start(self, connection: UpstreamConnection, request: bytes) -> asyncio.Future[Ending]:
        """Send the request; from now on a caller that leaves cancels it at once."""
        self._connection = connection
        self._listen()
        self._watchdog.add(self)
        connection.send(self, request)
        if self._exchange.paused:
            self._pause()
        return self.done

    def listen_again(self) -> None:
        """Another attempt for the same caller has ended, and listens to it no more."""
        if self.done.done():
            return
        self._listen()
        if not self._exchange.alive:
            self._client_closed()
        elif self._exchange.paused != self._paused:
            (self._pause if self._exchange.paused else self._resume)()

    def _listen(self) -> None:
        exchange = self._exchange
        exchange.on_closed = self._client_closed
        exchange.on_pause = self._pause
        exchange.on_resume = self._resume

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
            if not self.passed:
                self._begin()
            self.say(passed)
        if self._left and reader.usage is not None:
            self._client_closed()
        elif reader.failed and self._connection is not None:
            self._connection.cancel()  # nothing more will be let through

    def say(self, data: bytes) -> None:
        """To the caller, and to whoever listens."""
        self._exchange.write(data)
        if self._tap is not None:
            self._tap(data)

    def on_end(self) -> None:
        self._finish(Ending.STREAMED if self.streaming else Ending.WHOLE)

    def on_failure(self, failure: Failure) -> None:
        self.failure = failure
        reader = self.reader
        if self.streaming and reader is not None and (reader.complete or (reader.ended and not reader.failed)):
            self._finish(Ending.STREAMED)  # all of the answer had come; how the connection ended does not matter
        else:
            self._finish(Ending.FAILED)

    def _begin(self) -> None:
        """The caller is about to see the first of this answer: from now on it is this one or none."""
        self.passed = True
        if self.on_begin is not None:
            self.on_begin()
            self._listen()
        if self._turn is not None:
            self._turn.sent = True
        if not self._exchange.started:
            self._exchange.start(200, self._head)

    # --- other ends

    def put_back(self) -> None:
        """Give the answer up, unless the caller has seen something of it or it has ended."""
        if not self.passed and not self.done.done():
            self._finish(Ending.PUT_BACK)
            if self._connection is not None:
                self._connection.cancel()

    def _pause(self) -> None:
        """The caller reads more slowly than its node writes: that is no idleness of the node."""
        self._paused = True
        if self._connection is not None:
            self._connection.pause()

    def _resume(self) -> None:
        self._paused = False
        self._packets += 1  # its time begins anew
        if self._connection is not None:
            self._connection.resume()

    def _client_closed(self) -> None:
        reader = self.reader
        if self.streaming and reader is not None and reader.complete and reader.usage is None and not self._left:
            # It has read why the answer ended, and hangs up as many programs do: the usage is on its way.
            self._left = True
            self._resume()
            return
        self._finish(Ending.CLIENT_CLOSED)
        if self._connection is not None:
            self._connection.cancel()

    def check(self, now_s: float) -> None:
        """Called by the watchdog a few times a second: has a deadline passed, is it time for a mark?"""
        if self.mark is not None and self.passed and self.reader is not None:
            self._mark(self.mark, self.reader, now_s)
        whole = self.streaming and self.reader is not None and self.reader.complete
        if self._packets != self._packets_seen:
            self._packets_seen = self._packets
            self._deadline_s = now_s + (LAST_WORDS_S if whole else self._idle_s)
            if self.reader is not None:
                self.reader.bound(self._kept_chars)
        late = now_s >= self._deadline_s and not self._paused
        if late or now_s >= self._total_deadline_s:
            self._finish(Ending.STREAMED if whole else Ending.TIMEOUT)
            if self._connection is not None:
                self._connection.cancel()

    def _mark(self, mark: Callable[[StreamReader], None], reader: StreamReader, now_s: float) -> None:
        tokens = reader.tokens_delivered
        fresh = tokens - self._marked_tokens
        if fresh >= MARK_TOKENS or (fresh > 0 and now_s - self._marked_s >= MARK_S):
            self._marked_tokens, self._marked_s = tokens, now_s
            mark(reader)

    def _finish(self, ending: Ending) -> None:
        if not self.done.done():
            if self._left:
                ending = Ending.CLIENT_CLOSED
            self._watchdog.remove(self)
            exchange = self._exchange
            if exchange.on_closed == self._client_closed:  # else another attempt listens
                exchange.on_closed = exchange.on_pause = exchange.on_resume = None
            self.done.set_result(ending)
