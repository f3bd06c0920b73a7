"""Waiting within a request, no longer than its caller does."""

import asyncio

from crosslogic.net.exchange import Exchange


async def pause(exchange: Exchange, seconds: float) -> bool:
    """Wait, or until the caller leaves; whether it is still there. Whoever uses `on_closed` sets it anew after that."""
    if not exchange.alive or seconds <= 0:
        return exchange.alive
    left: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    exchange.on_closed = lambda: left.set_result(None)
    try:
        await asyncio.wait((left,), timeout=seconds)
    finally:
        exchange.on_closed = None
    return exchange.alive
