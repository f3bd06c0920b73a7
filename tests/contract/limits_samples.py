"""Limiters that share their counters: in memory, and over Redis with one, two and four workers."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from crosslogic.kernel.clock import ManualClock, SystemClock
from crosslogic.limits.memory import MemoryLimiter
from crosslogic.limits.model import Admitted, Demand, Layer, Limits, Rejected, Scope
from crosslogic.limits.ports import Limiter
from crosslogic.limits.redis import RedisLimiter
from crosslogic.net.redis import RedisConnection

ADAPTERS = ["memory", "redis-1", "redis-2", "redis-4"]


class Rig:
    """Limiters that share their counters, and a way to let time pass."""

    def __init__(
        self,
        limiters: Sequence[Limiter],
        now_s: Callable[[], float],
        elapse: Callable[[float], Awaitable[None]],
        real: bool,
    ) -> None:
        self.limiters = limiters
        self.now_s = now_s
        self.elapse = elapse
        self.real = real

    def __getitem__(self, number: int) -> Limiter:
        return self.limiters[number % len(self.limiters)]

    async def told(self) -> None:
        """Let settlements reach the other workers."""
        if self.real:
            await asyncio.sleep(0.1)


@asynccontextmanager
async def limiters_of(request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    """The rig of one of ADAPTERS, with nothing counted yet."""
    if request.param == "memory":
        clock = ManualClock()

        async def advance(seconds: float) -> None:
            clock.advance(seconds)
            await asyncio.sleep(0)

        yield Rig([MemoryLimiter(clock)], clock.monotonic_s, advance, False)
        return
    url, prefix = request.getfixturevalue("redis_url"), request.getfixturevalue("redis_prefix")
    connections = [await RedisConnection.connect(url) for _ in range(int(request.param[-1]))]
    # A generous wait: other programs on the machine must not turn a test of exactness into one of outages.
    limiters = [RedisLimiter(c, SystemClock(), prefix=f"{{{prefix}}}", wait_s=5.0) for c in connections]
    yield Rig(limiters, time.monotonic, asyncio.sleep, True)
    assert all(limiter.decided_alone == 0 for limiter in limiters)
    for limiter, connection in zip(limiters, connections, strict=True):
        await limiter.close()
        await connection.close()


def org(limits: Limits) -> Scope:
    return Scope(Layer.ORG, "org_1", limits)


def key(number: int, limits: Limits) -> Scope:
    return Scope(Layer.KEY, f"key_{number}", limits)


async def admit(limiter: Limiter, *scopes: Scope, tokens: int = 0, demand: Demand | None = None) -> Admitted:
    answer = await limiter.admit(scopes, demand or Demand(tokens, 0))
    assert isinstance(answer, Admitted), answer
    return answer


async def refuse(limiter: Limiter, *scopes: Scope, tokens: int = 0, demand: Demand | None = None) -> Rejected:
    answer = await limiter.admit(scopes, demand or Demand(tokens, 0))
    assert isinstance(answer, Rejected), answer
    return answer
