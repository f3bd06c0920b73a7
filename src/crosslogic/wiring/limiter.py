"""Chooses the limits' adapter: Redis when one is configured, this process's memory otherwise, nothing when off."""

from collections.abc import Callable
from contextlib import AsyncExitStack

from crosslogic.gateway.operations import Check
from crosslogic.kernel.clock import SystemClock
from crosslogic.limits.memory import MemoryLimiter
from crosslogic.limits.null import NullLimiter
from crosslogic.limits.ports import Limiter
from crosslogic.limits.redis import RedisLimiter
from crosslogic.net.redis import RedisConnection
from crosslogic.settings.model import Settings


async def new_limiter(
    settings: Settings, stack: AsyncExitStack, checks: dict[str, Check], on_degraded: Callable[[bool], None]
) -> Limiter:
    """The limiter of this process. `stack` gets the end of what it needs, `checks` what `/ready` must ask."""
    if not settings.enable_rate_limit:
        return NullLimiter()
    url = settings.redis.address()
    if url is None:
        return MemoryLimiter(SystemClock())
    # A worker that is started again while Redis is away serves all the same: its limiter decides alone meanwhile.
    connection = await RedisConnection.connect(url, required=False)
    stack.push_async_callback(connection.close)

    async def redis_check() -> None:
        await connection.execute("PING")

    checks["redis"] = redis_check
    return RedisLimiter(connection, SystemClock(), wait_s=settings.redis.timeout_ms / 1000, on_degraded=on_degraded)
