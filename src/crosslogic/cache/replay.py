"""Gives a recorded answer again: a whole one whole, a stream as a stream, packet by packet, as fast as it is taken.

Invariant: what the caller gets is the recording's bytes in its order; no more is buffered than the caller's
connection allows plus one packet.
"""

import asyncio

from crosslogic.cache.model import Recording
from crosslogic.net.exchange import Exchange

_STREAM_LINES = b"cache-control: no-cache\r\nx-accel-buffering: no\r\n"


async def replay(recording: Recording, exchange: Exchange, header_lines: bytes) -> None:
    """Answer the exchange. `header_lines` are all but those that tell the kind of content."""
    head = header_lines + b"content-type: %b\r\n" % recording.content_type
    if not recording.streamed:
        exchange.respond(recording.status, head, b"".join(recording.pieces))
        return
    taking = asyncio.Event()
    taking.set()
    exchange.on_pause, exchange.on_resume, exchange.on_closed = taking.clear, taking.set, taking.set
    exchange.start(recording.status, head + _STREAM_LINES)
    try:
        for piece in recording.pieces[:-1]:
            if not taking.is_set():
                await taking.wait()
            if not exchange.alive:
                return
            exchange.write(piece)
    finally:
        exchange.on_pause = exchange.on_resume = exchange.on_closed = None
    exchange.end(recording.pieces[-1] if recording.pieces else b"")
