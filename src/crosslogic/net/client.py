"""A pooled HTTP/1.1 client for one upstream server: bytes come back through callbacks, as they arrive.

Invariant: a connection returns to the pool only after a whole answer that allows keep-alive; a connection on
which anything else happened is closed. Cancelling closes at once, so that the server sees its client leave.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Awaitable, Callable
from enum import Enum, auto
from typing import Protocol, cast
from urllib.parse import urlsplit

import httptools

from crosslogic.kernel.errors import ConfigurationError


class Failure(Enum):
    """Why there is no (whole) answer."""

    CONNECT = auto()  # no connection within the connect timeout
    STALE = auto()  # a reused connection had been closed by the server; nothing was processed
    RESET = auto()  # closed or reset before any byte of the answer
    CUT = auto()  # closed or reset in the middle of the answer
    PROTOCOL = auto()  # not HTTP
    CANCELLED = auto()  # by us


class Sink(Protocol):
    """Receives one answer: `on_head`, any number of `on_data`, then exactly one of `on_end`, `on_failure`."""

    def on_head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None: ...
    def on_data(self, data: bytes) -> None: ...
    def on_end(self) -> None: ...
    def on_failure(self, failure: Failure) -> None: ...


class ConnectFailed(Exception):
    """No connection could be made in time."""


class UpstreamConnection(asyncio.Protocol):
    """One connection; carries one exchange at a time."""

    __slots__ = (
        "_answered",
        "_complete",
        "_headers",
        "_keep_alive",
        "_origin",
        "_parser",
        "_pieces",
        "_retired",
        "_reused",
        "_sink",
        "_status_known",
        "_transport",
        "_until_close",
    )

    def __init__(self, origin: Origin) -> None:
        self._origin = origin
        self._transport: asyncio.Transport | None = None
        self._sink: Sink | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._headers: list[tuple[bytes, bytes]] = []
        self._pieces: list[bytes] = []
        self._reused = False
        self._retired = False
        self._answered = False
        self._status_known = False
        self._complete = False
        self._keep_alive = False
        self._until_close = False

    def send(self, sink: Sink, request: bytes) -> None:
        """Send one whole request; the answer goes to `sink`."""
        self._sink = sink
        self._parser = httptools.HttpResponseParser(self)
        self._headers = []
        self._answered = self._status_known = self._complete = False
        transport = self._transport
        if transport is None or transport.is_closing():
            self._fail(Failure.STALE if self._reused else Failure.RESET)
        else:
            transport.write(request)

    def cancel(self) -> None:
        """Close at once; the sink hears `CANCELLED`."""
        self._fail(Failure.CANCELLED)

    def pause(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    @property
    def usable(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def mark_reused(self) -> None:
        self._reused = True

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def retire(self) -> None:
        """Carry nothing new: close now, or when the answer that it carries has ended."""
        self._retired = True
        if self._sink is None:
            self.close()

    # --- asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclasses of it

    def data_received(self, data: bytes) -> None:
        sink = self._sink
        if sink is None or self._parser is None:
            self.close()  # an answer that nobody asked for
            return
        self._answered = True
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail(Failure.PROTOCOL)
            return
        self._flush(sink)
        if self._complete:
            self._finish()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._origin.forget(self)
        if self._sink is None:
            return
        if exc is None and self._status_known and self._until_close:
            self._keep_alive = False
            self._finish()
        elif self._answered:
            self._fail(Failure.CUT)
        else:
            self._fail(Failure.STALE if self._reused else Failure.RESET)

    # --- httptools

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        assert self._parser is not None
        status = self._parser.get_status_code()
        headers, self._headers = self._headers, []
        if status < 200:
            return  # 100 Continue, 103 Early Hints: the real answer follows
        self._status_known = True
        self._keep_alive = self._parser.should_keep_alive()
        names = {name for name, _ in headers}
        self._until_close = b"content-length" not in names and b"transfer-encoding" not in names
        if self._sink is not None:
            self._sink.on_head(status, headers)

    def on_body(self, body: bytes) -> None:
        self._pieces.append(body)

    def on_message_complete(self) -> None:
        self._complete = self._status_known

    # --- ends

    def _flush(self, sink: Sink) -> None:
        """One `on_data` for each packet, however many HTTP chunks it holds."""
        pieces = self._pieces
        if pieces:
            self._pieces = []
            sink.on_data(pieces[0] if len(pieces) == 1 else b"".join(pieces))

    def _finish(self) -> None:
        sink, self._sink, self._parser = self._sink, None, None
        if self._keep_alive and not self._retired and self.usable:
            self._origin.put_back(self)
        else:
            self.close()
        if sink is not None:
            sink.on_end()

    def _fail(self, failure: Failure) -> None:
        sink, self._sink, self._parser = self._sink, None, None
        self.close()
        if sink is not None:
            sink.on_failure(failure)


Dial = Callable[[Callable[[], UpstreamConnection]], Awaitable[UpstreamConnection]]
"""Opens a connection for a protocol some other way than by its address. Raises OSError; may be cancelled."""


class Origin:
    """One upstream server (scheme, host, port) and its idle connections."""

    def __init__(
        self, url: str, *, connect_timeout_s: float = 2.0, max_idle: int = 256, dial: Dial | None = None
    ) -> None:
        """With `dial` new connections come from there, and the URL says path and `Host` only."""
        parts = urlsplit(url)
        if dial is None and (parts.scheme not in ("http", "https") or not parts.hostname):
            raise ConfigurationError(f"{url!r} is no http:// or https:// address of a server")
        self.url = url
        self.host = parts.hostname or ""
        self.port = parts.port or (443 if parts.scheme == "https" else 80)
        self.base_path = parts.path.rstrip("/").encode()
        self.host_line = b"host: %b\r\n" % parts.netloc.rpartition("@")[2].encode()
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._dial = dial or self._dial_address
        self._connect_timeout_s = connect_timeout_s
        self._max_idle = max_idle
        self._idle: deque[UpstreamConnection] = deque()
        self._closed = False

    async def connect(self, *, fresh: bool = False) -> UpstreamConnection:
        """An idle connection, or a new one (always a new one with `fresh`). Raises ConnectFailed."""
        idle = self._idle
        while idle and not fresh:
            connection = idle.pop()  # the most recently used is the least likely to be stale
            if connection.usable:
                connection.mark_reused()
                return connection
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                return await self._dial(lambda: UpstreamConnection(self))
        except (OSError, TimeoutError) as error:
            raise ConnectFailed(str(error)) from error

    async def _dial_address(self, protocol: Callable[[], UpstreamConnection]) -> UpstreamConnection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(protocol, self.host, self.port, ssl=self._tls)
        return connection

    def put_back(self, connection: UpstreamConnection) -> None:
        if self._closed or len(self._idle) >= self._max_idle:
            connection.close()
        else:
            self._idle.append(connection)

    def forget(self, connection: UpstreamConnection) -> None:
        if self._idle and not connection.usable:
            try:
                self._idle.remove(connection)
            except ValueError:
                return  # it was carrying an exchange

    def close(self) -> None:
        """Close the idle connections; those in use close when their answers end."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()
