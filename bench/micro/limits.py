"""What admitting and settling one request costs this process: `python -m bench.micro.limits [redis-url]`.

CPU is that of this process alone (Redis has its own); four layers, each limiting requests and tokens a minute and
concurrency. `--rate 2000` offers Redis that many admissions and settlements a second instead, in an open loop, from
one process and from two that share the rate, and prints how long the admissions took; `--every-kind` adds input,
output and money ceilings, a month's budget, a region and a guarantee to the scopes of each request.
"""

import argparse
import asyncio
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable

import redis.asyncio
import uvloop

from crosslogic.kernel.clock import SystemClock
from crosslogic.limits.headers import header_block
from crosslogic.limits.memory import MemoryLimiter
from crosslogic.limits.model import Admitted, Demand, Layer, Limits, Rejected, Scope
from crosslogic.limits.ports import Limiter
from crosslogic.limits.redis import RedisLimiter
from crosslogic.limits.scopes import scopes_of
from crosslogic.net.redis import RedisConnection

WIDE = Limits(requests_per_minute=10**9, tokens_per_minute=10**13, concurrency=10**6)
EVERY_KIND = Limits(
    requests_per_minute=10**9,
    tokens_per_minute=10**13,
    concurrency=10**6,
    input_tokens_per_minute=10**13,
    output_tokens_per_minute=10**13,
    spend_per_hour_pusd=10**18,
    spend_per_month_pusd=10**18,
)
GUARANTEE = Scope(Layer.RESERVED, "promise", Limits(tokens_per_second=10**5, burst_share=10.0), guarantee=True)
KEYS = 50


def all_scopes(every_kind: bool = False) -> list[tuple[Scope, ...]]:
    if every_kind:
        here = Scope(Layer.REGION, "here", EVERY_KIND)
        return [(*of[:1], here, GUARANTEE, *of[1:]) for of in _scopes_of_keys(EVERY_KIND)]
    return _scopes_of_keys(WIDE)


def _scopes_of_keys(limits: Limits) -> list[tuple[Scope, ...]]:
    return [
        scopes_of(
            limits,
            org_id=f"org_{number % 5}",
            org_limits=limits,
            env_id=f"env_{number % 10}",
            env_limits=limits,
            key_id=f"key_{number}",
            key_limits=limits,
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


def admit_and_settle(limiter: Limiter, scopes: list[tuple[Scope, ...]]) -> Callable[[int], Awaitable[object]]:
    async def one(number: int) -> Admitted | Rejected:
        answer = await limiter.admit(scopes[number % KEYS], Demand(200, 800, 10**8))
        if isinstance(answer, Admitted):
            limiter.settle(answer, Demand(200, 100, 2 * 10**7))
        return answer

    return one


async def measure_open(
    name: str, per_s: int, seconds: float, one: Callable[[int], Awaitable[object]], *, shown: bool = True
) -> None:
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
    if shown:
        print(f"{name:34} {per_s}/s {cpu_us:7.1f} µs CPU {'':12}   p50 {p50:7.0f} µs  p99 {p99:7.0f} µs")


async def at_rate(url: str, per_s: int, seconds: float, prefix: str, every_kind: bool) -> None:
    """One worker's part of `--rate`; prints the percentiles of its admissions, 1 s after it began to warm up."""
    connection = await RedisConnection.connect(url)
    limiter = RedisLimiter(connection, SystemClock(), prefix=prefix)
    one = admit_and_settle(limiter, all_scopes(every_kind))
    await measure_open("warming up", per_s, 1.0, one, shown=False)
    await measure_open(f"redis, pid {os.getpid()}", per_s, seconds, one)
    if limiter.decided_alone:
        print(f"  of these, {limiter.decided_alone} without Redis")
    await limiter.close()
    await connection.close()


def at_rate_from(workers: int, asked: argparse.Namespace) -> None:
    """`workers` processes that share one rate and one set of counters."""
    load, _, _ = os.getloadavg()
    print(f"{asked.rate}/s from {workers} process{'es' * (workers > 1)}; {os.cpu_count()} cores, load {load:.1f}")
    options = ["--rate", str(asked.rate // workers), "--seconds", str(asked.seconds), "--prefix"]
    options += [f"{{bench:{secrets.token_hex(4)}}}:", *["--every-kind"] * asked.every_kind, asked.url]
    command = [sys.executable, "-m", "bench.micro.limits", *options]
    processes = [subprocess.Popen(command) for _ in range(workers)]
    for process in processes:
        process.wait()


async def main(url: str) -> None:
    clock = SystemClock()
    await measure("memory: admit + settle", 1, 50_000, admit_and_settle(MemoryLimiter(clock), all_scopes()))
    every_kind = admit_and_settle(MemoryLimiter(clock), all_scopes(every_kind=True))
    await measure("memory: every kind of ceiling", 1, 50_000, every_kind)

    answer = await MemoryLimiter(clock).admit(all_scopes()[0], Demand(1000, 0))

    async def headers(_: int) -> bytes:
        return header_block(answer)

    await measure("headers", 1, 50_000, headers)

    connection = await RedisConnection.connect(url)
    limiter = RedisLimiter(connection, clock, prefix=f"{{bench:{secrets.token_hex(4)}}}:")
    for at_once in (1, 32, 256):
        await measure(
            "redis: admit + settle", at_once, 20_000 if at_once > 1 else 3_000, admit_and_settle(limiter, all_scopes())
        )
    await measure_open("redis: admit + settle, open loop", 2000, 3.0, admit_and_settle(limiter, all_scopes()))
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


def asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("url", nargs="?", default="redis://127.0.0.1:6379")
    parser.add_argument("--rate", type=int, help="admissions and settlements a second, in an open loop")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--every-kind", action="store_true", help="of ceiling, layer and scope")
    parser.add_argument("--prefix", help="of the keys: this process is one of several that share them")
    return parser.parse_args()


if __name__ == "__main__":
    options = asked()
    if options.rate is None:
        uvloop.run(main(options.url))
    elif options.prefix is None:
        for workers in (1, 2):
            at_rate_from(workers, options)
    else:
        uvloop.run(at_rate(options.url, options.rate, options.seconds, options.prefix, options.every_kind))
