"""Two connections joined into one: what comes in at either goes out at the other.

Invariant: at most a transport's own buffer is kept for a reader that is slow; past it, the writer's end is not read
from, so that the pressure goes back to where the bytes come from.
"""

import asyncio
from typing import cast


class Pipe(asyncio.Protocol):
    """One end. What it receives before it is joined is kept, so join it soon or pause it."""

    def __init__(self) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport | None = None
        self._other: Pipe | None = None
        self._out: asyncio.Transport | None = None
        self._early: list[bytes] = []

    def join(self, other: "Pipe", out: asyncio.Transport) -> None:
        """Send what comes in here to `out`, the transport of `other`."""
        self._other, self._out = other, out
        for data in self._early:
            out.write(data)
        self._early.clear()
        if self.ended.done():
            out.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are no subclasses of it

    def data_received(self, data: bytes) -> None:
        if self._out is None:
            self._early.append(data)
        else:
            self._out.write(data)

    def pause_writing(self) -> None:
        if self._other is not None and self._other.transport is not None:
            self._other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self._other is not None and self._other.transport is not None:
            self._other.transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)
        if self._out is not None:
            self._out.close()
