"""One HTTP exchange as its handler sees it: a whole request, and the means to answer it.

Invariant: exactly one of `respond`, `end`, `abort` closes an exchange; after that, or after the client
left (`closed`), every write is ignored, so that no handler must guard against a race with the network.
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from crosslogic.net.server import ServerConnection

STATUS_LINES = {s.value: f"HTTP/1.1 {s.value} {s.phrase}\r\n".encode() for s in HTTPStatus}
LAST_CHUNK = b"0\r\n\r\n"


class Exchange:
    """Request: `method`, `path`, `query`, `headers` (names in lower case), `body`, `client_ip`. Then the answer."""

    __slots__ = (
        "_bodiless",
        "_by_name",
        "_chunked",
        "_connection",
        "_keep_alive",
        "_knows_chunks",
        "_until_close",
        "body",
        "client_ip",
        "closed",
        "ended",
        "headers",
        "method",
        "on_closed",
        "on_pause",
        "on_resume",
        "path",
        "paused",
        "query",
        "started",
    )

    def __init__(
        self,
        connection: ServerConnection,
        method: bytes,
        path: bytes,
        query: bytes,
        headers: list[tuple[bytes, bytes]],
        body: bytes,
        keep_alive: bool,
        client_ip: str,
        *,
        knows_chunks: bool = True,
    ) -> None:
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        self.body = body
        self.client_ip = client_ip
        self.started = False
        self.ended = False
        self.closed = False
        self.on_closed: Callable[[], None] | None = None
        self.paused = False  # the client reads more slowly than it is written to
        self.on_pause: Callable[[], None] | None = None
        self.on_resume: Callable[[], None] | None = None
        self._by_name: dict[bytes, bytes] | None = None
        self._connection = connection
        self._keep_alive = keep_alive
        self._chunked = False
        self._knows_chunks = knows_chunks  # False: HTTP/1.0
        self._until_close = False
        self._bodiless = method == b"HEAD"

    def header(self, name: bytes) -> bytes | None:
        """The first header of this name (given in lower case), or None."""
        by_name = self._by_name
        if by_name is None:
            by_name = self._by_name = dict(reversed(self.headers))
        return by_name.get(name)

    @property
    def alive(self) -> bool:
        """Whether an answer can still reach the client."""
        return not (self.closed or self.ended)

    def start(self, status: int, header_lines: bytes, length: int | None = None) -> None:
        """Send status and headers. `header_lines` are complete lines (`name: value\\r\\n`).

        Without `length` (bytes) the body goes out in chunks, or to the end of the connection for an HTTP/1.0 client.
        """
        if not self.alive:
            return
        self.started = True
        if length is not None:
            framing = b"content-length: %d\r\n" % length
        elif self._knows_chunks:
            self._chunked = True
            framing = b"transfer-encoding: chunked\r\n"
        else:
            self._until_close = True
            self._keep_alive = False
            framing = b""
        self._connection.send(self._head(status, header_lines, framing))

    def write(self, data: bytes) -> None:
        """Send a piece of the body."""
        if self.closed or self.ended or not data or self._bodiless:
            return
        self._connection.send(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def end(self, data: bytes = b"") -> None:
        """Send the last piece, if any, and finish the answer in the same packet."""
        if not self.alive:
            return
        if self._chunked and not self._bodiless:
            data = b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data) if data else LAST_CHUNK
        if data and not self._bodiless:
            self._connection.send(data)
        self._finish()

    def respond(self, status: int, header_lines: bytes, body: bytes) -> None:
        """Send a whole answer in one packet."""
        if not self.alive:
            return
        self.started = True
        head = self._head(status, header_lines, b"content-length: %d\r\n" % len(body))
        self._connection.send(head if self._bodiless else head + body)
        self._finish()

    def abort(self, *, reset: bool = False) -> None:
        """Cut the connection without finishing the answer: the client must see that it is not whole."""
        if self.alive:
            self.ended = True
            # Where the end of the connection is the end of the answer, only a reset tells that it is none.
            self._connection.cut(reset=reset or self._until_close)

    def _head(self, status: int, header_lines: bytes, framing: bytes) -> bytes:
        if self._connection.draining:
            self._keep_alive = False
        ending = b"\r\n" if self._keep_alive else b"connection: close\r\n\r\n"
        return b"".join((STATUS_LINES[status], self._connection.date_line(), header_lines, framing, ending))

    def _finish(self) -> None:
        self.ended = True
        self._connection.exchange_ended(self._keep_alive)

    def lost(self) -> None:
        """Called by the connection when the client has left before the answer was finished."""
        self.closed = True
        if not self.ended and self.on_closed is not None:
            self.on_closed()
