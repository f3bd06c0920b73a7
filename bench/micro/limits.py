"""What admitting and settling one request costs this process: `python -m bench.micro.limits [redis-url]`.

CPU is that of this process alone (Redis has its own); four layers, each limiting requests and tokens a minute and
concurrency.
"""

import asyncio
import secrets
import sys
import time
from collections.abc import Awaitable, Callable

import redis.asyncio
import uvloop

from crosslogic.kernel.clock import SystemClock
from crosslogic.limits.headers import header_block
from crosslogic.limits.memory import MemoryLimiter
from crosslogic.limits.model import Admitted, Limits, Rejected, Scope
from crosslogic.limits.ports import Limiter
from crosslogic.limits.redis import RedisLimiter
from crosslogic.limits.scopes import scopes_of
from crosslogic.net.redis import RedisConnection

WIDE = Limits(requests_per_minute=10**9, tokens_per_minute=10**13, concurrency=10**6)
KEYS = 50


def all_scopes() -> list[tuple[Scope, ...]]:
    return [
        scopes_of(
            WIDE,
            org_id=f"org_{number % 5}",
            org_limits=WIDE,
            env_id=f"env_{number % 10}",
            env_limits=WIDE,
            key_id=f"key_{number}",
            key_limits=WIDE,
        )
        for number in range(KEYS)
    ]


async def measure(name: str, at_once: int, count: int, one: Callable[[int], Awaitable[object]]) -> None:
    """Run `one` `count` times, `at_once` at a time; print CPU and wall time of each."""
    waits_us: list[float] = []

    async def caller(start: int) -> None:
        for number in range(start, count, at_once):
            began_s = time.perf_counter()
            await one(number)
            waits_us.append((time.perf_counter() - began_s) * 1e6)

    cpu_s, wall_s = time.process_time(), time.perf_counter()
    await asyncio.gather(*(caller(start) for start in range(at_once)))
    cpu_us = (time.process_time() - cpu_s) / count * 1e6
    per_s = count / (time.perf_counter() - wall_s)
    waits_us.sort()
    p50, p99 = waits_us[count // 2], waits_us[count * 99 // 100]
    print(f"{name:34} x{at_once:<4} {cpu_us:7.1f} µs CPU {per_s:9.0f} /s   p50 {p50:7.0f} µs  p99 {p99:7.0f} µs")


def admit_and_settle(limiter: Limiter) -> Callable[[int], Awaitable[object]]:
    scopes = all_scopes()

    async def one(number: int) -> Admitted | Rejected:
        answer = await limiter.admit(scopes[number % KEYS], 1000)
        if isinstance(answer, Admitted):
            limiter.settle(answer, 300)
        return answer

    return one


async def measure_open(name: str, per_s: int, seconds: float, one: Callable[[int], Awaitable[object]]) -> None:
    """Call `one` at a fixed rate, whether or not earlier calls have returned; print how long they took."""
    waits_us: list[float] = []

    async def timed(number: int) -> None:
        began_s = time.perf_counter()
        await one(number)
        waits_us.append((time.perf_counter() - began_s) * 1e6)

    tasks: set[asyncio.Task[None]] = set()
    cpu_s, began_s = time.process_time(), time.perf_counter()
    count = int(per_s * seconds)
    for number in range(count):
        late_s = time.perf_counter() - began_s - number / per_s
        if late_s < 0:
            await asyncio.sleep(-late_s)
        task = asyncio.create_task(timed(number))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
    cpu_us = (time.process_time() - cpu_s) / count * 1e6
    waits_us.sort()
    p50, p99 = waits_us[count // 2], waits_us[count * 99 // 100]
    print(f"{name:34} {per_s}/s {cpu_us:7.1f} µs CPU {'':12}   p50 {p50:7.0f} µs  p99 {p99:7.0f} µs")


async def main(url: str) -> None:
    clock = SystemClock()
    memory = admit_and_settle(MemoryLimiter(clock))
    await measure("memory: admit + settle", 1, 50_000, memory)

    answer = await MemoryLimiter(clock).admit(all_scopes()[0], 1000)

    async def headers(_: int) -> bytes:
        return header_block(answer)

    await measure("headers", 1, 50_000, headers)

    connection = await RedisConnection.connect(url)
    limiter = RedisLimiter(connection, clock, prefix=f"{{bench:{secrets.token_hex(4)}}}:")
    for at_once in (1, 32, 256):
        await measure("redis: admit + settle", at_once, 20_000 if at_once > 1 else 3_000, admit_and_settle(limiter))
    await measure_open("redis: admit + settle, open loop", 2000, 3.0, admit_and_settle(limiter))
    if limiter.decided_alone:
        print(f"  of these, {limiter.decided_alone} without Redis")
    await limiter.close()

    key = f"bench:{secrets.token_hex(4)}"

    async def ours(number: int) -> object:
        return await connection.execute("SET", key, number, "PX", 10_000)

    client = redis.asyncio.from_url(url, max_connections=32)

    async def theirs(number: int) -> object:
        return await client.set(key, number, px=10_000)

    for at_once in (1, 32):
        await measure("one SET, net.redis", at_once, 10_000, ours)
        await measure("one SET, redis-py asyncio", at_once, 3_000, theirs)
    await client.aclose()
    await connection.close()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1] if len(sys.argv) > 1 else "redis://127.0.0.1:6379"))
