"""Chooses the limits' adapter: Redis when one is configured, this process's memory otherwise, nothing when off."""

from collections.abc import Callable

from crosslogic.kernel.clock import SystemClock
from crosslogic.limits.memory import MemoryLimiter
from crosslogic.limits.null import NullLimiter
from crosslogic.limits.ports import Limiter
from crosslogic.limits.redis import RedisLimiter
from crosslogic.net.redis import RedisConnection
from crosslogic.settings.model import Settings


def new_limiter(settings: Settings, redis: RedisConnection | None, on_degraded: Callable[[bool], None]) -> Limiter:
    if not settings.enable_rate_limit and not settings.enable_queuing:  # the queue asks what reserved capacity covers
        return NullLimiter()
    if redis is None:
        return MemoryLimiter(SystemClock())
    return RedisLimiter(redis, SystemClock(), wait_s=settings.redis.timeout_ms / 1000, on_degraded=on_degraded)
