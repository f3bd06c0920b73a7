"""The Redis limiter when workers die and when Redis forgets, stalls, or goes away: on servers of its own."""

import asyncio
import os
import sys
import time
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import uvloop

from crosslogic.kernel.clock import SystemClock
from crosslogic.limits.model import NO_DEMAND, Admitted, Demand, Layer, Limits, Rejected, Scope
from crosslogic.limits.redis import RedisLimiter
from crosslogic.net.redis import RedisConnection
from tests.contract.limits_rig import OwnRedis, Wire, eventually

PREFIX = "{limits-test}:"


async def worker(stack: AsyncExitStack, url: str, **options: object) -> RedisLimiter:
    connection = await RedisConnection.connect(url, answer_timeout_s=1.0)
    stack.push_async_callback(connection.close)
    settings = {"prefix": PREFIX, "wait_s": 1.0, "heartbeat_s": 0.1, "dead_after_s": 0.6, "grace_s": 0.3, **options}
    limiter = RedisLimiter(connection, SystemClock(), **settings)  # type: ignore[arg-type]
    stack.push_async_callback(limiter.close)
    return limiter


def scope(name: str = "org", **ceilings: int) -> tuple[Scope, ...]:
    return (Scope(Layer.ORG, name, Limits(**ceilings)),)


async def taken(limiter: RedisLimiter, scopes: tuple[Scope, ...], most: int, tokens: int = 0) -> list[Admitted]:
    """Ask until refused."""
    found: list[Admitted] = []
    while len(found) < most and isinstance(answer := await limiter.admit(scopes, Demand(tokens, 0)), Admitted):
        found.append(answer)
    return found


async def acquainted(*limiters: RedisLimiter) -> None:
    """Wait until every worker knows of the others."""
    await eventually(lambda: all(limiter.workers == len(limiters) for limiter in limiters))


async def test_all_that_is_asked_in_one_turn_is_one_call(server: OwnRedis, stack: AsyncExitStack) -> None:
    limiter = await worker(stack, server.url, heartbeat_s=60.0)
    await limiter.admit(scope(concurrency=100), NO_DEMAND)
    before = await server.calls("evalsha")
    answers = await asyncio.gather(*(limiter.admit(scope(concurrency=100), NO_DEMAND) for _ in range(50)))
    assert await server.calls("evalsha") == before + 1
    for answer in answers:
        assert isinstance(answer, Admitted)
        limiter.settle(answer, NO_DEMAND)
    await limiter.admit(scope(concurrency=100), NO_DEMAND)
    assert await server.calls("evalsha") == before + 2  # the settlements travelled with it


PROCESS = """
import asyncio, sys
from crosslogic.kernel.clock import SystemClock
from crosslogic.limits.model import Admitted, Demand
from crosslogic.limits.redis import RedisLimiter
from crosslogic.net.redis import RedisConnection
from tests.contract.test_limits_redis import scope

async def main(url, prefix):
    connection = await RedisConnection.connect(url)
    limiter = RedisLimiter(connection, SystemClock(), prefix=prefix, wait_s=10.0)
    print("ready", flush=True)
    sys.stdin.readline()
    answers = await asyncio.gather(*(limiter.admit(scope(tokens_per_day=3700), Demand(100, 0)) for _ in range(50)))
    print(sum(isinstance(answer, Admitted) for answer in answers), limiter.decided_alone, flush=True)
    await limiter.close()
    await connection.close()

asyncio.run(main(sys.argv[1], sys.argv[2]))
"""


async def test_four_processes_asking_at_once_share_one_budget_exactly(redis_url: str, redis_prefix: str) -> None:
    here = Path(__file__).parents[2]
    processes = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", PROCESS, redis_url, f"{{{redis_prefix}}}"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=here,
            env={**os.environ, "PYTHONPATH": f"{here}{os.pathsep}{here / 'src'}"},
        )
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
    outputs = await asyncio.gather(*(process.communicate(b"go\n") for process in processes))
    counts = [tuple(map(int, output.split())) for output, _ in outputs]
    assert sum(passed for passed, _ in counts) == 37
    assert all(alone == 0 for _, alone in counts)


async def test_a_worker_that_falls_silent_loses_its_slots_and_one_that_lives_keeps_them(
    server: OwnRedis, stack: AsyncExitStack
) -> None:
    lives, dies = await worker(stack, server.url), await worker(stack, server.url)
    assert len(await taken(lives, scope(concurrency=5), 2)) == 2
    assert len(await taken(dies, scope(concurrency=5), 9)) == 3
    await dies._talk._connection.close()
    assert isinstance(await lives.admit(scope(concurrency=5), NO_DEMAND), Rejected)
    began_s = time.monotonic()
    await eventually(lambda: _admits(lives, scope(concurrency=5)), 3.0)
    assert time.monotonic() - began_s > 0.3
    assert len(await taken(lives, scope(concurrency=5), 9)) == 2  # with the one just taken, all three


async def _admits(limiter: RedisLimiter, scopes: tuple[Scope, ...]) -> bool:
    return isinstance(await limiter.admit(scopes, NO_DEMAND), Admitted)


async def test_a_worker_that_closes_gives_its_slots_back_at_once(server: OwnRedis, stack: AsyncExitStack) -> None:
    lives, leaves = await worker(stack, server.url, dead_after_s=60.0), await worker(stack, server.url)
    assert len(await taken(leaves, scope(concurrency=3), 9)) == 3
    await leaves.close()
    assert len(await taken(lives, scope(concurrency=3), 9)) == 3


async def test_dropped_scripts_are_loaded_again(server: OwnRedis, stack: AsyncExitStack) -> None:
    limiter = await worker(stack, server.url)
    for _ in range(3):
        await server.say("SCRIPT", "FLUSH")
        assert len(await taken(limiter, scope(requests_per_day=1000), 2)) == 2
    assert limiter.decided_alone == 0


async def test_every_key_carries_the_hash_tag_and_expires(server: OwnRedis, stack: AsyncExitStack) -> None:
    limiter = await worker(stack, server.url)
    await limiter.admit((*scope(requests_per_day=5), Scope(Layer.KEY, "k", Limits(concurrency=2))), NO_DEMAND)
    keys = await server.say("KEYS", "*")
    assert isinstance(keys, list)
    assert len(keys) == 4
    for name in keys:
        assert name.startswith(PREFIX.encode())
        lasts_ms = await server.say("PTTL", name)
        assert isinstance(lasts_ms, int)
        assert 0 < lasts_ms <= 90_000_000


async def test_slots_are_not_given_twice_when_redis_loses_its_memory(server: OwnRedis, stack: AsyncExitStack) -> None:
    one, two = await worker(stack, server.url), await worker(stack, server.url)
    await acquainted(one, two)
    running = len(await taken(one, scope(concurrency=10), 5)) + len(await taken(two, scope(concurrency=10), 5))
    assert running == 10
    for _ in range(3):
        await server.say("FLUSHALL")
        ends_s = time.monotonic() + 0.6  # twice the grace
        while time.monotonic() < ends_s:
            assert isinstance(await one.admit(scope(concurrency=10), NO_DEMAND), Rejected)
            assert isinstance(await two.admit(scope(concurrency=10), NO_DEMAND), Rejected)
            await asyncio.sleep(0.01)
    assert one.decided_alone == two.decided_alone == 0


async def test_a_killed_redis_comes_back_empty_and_slots_are_exact_again(
    server: OwnRedis, stack: AsyncExitStack
) -> None:
    one, two = await worker(stack, server.url), await worker(stack, server.url)
    await acquainted(one, two)
    held = [*await taken(one, scope(concurrency=10), 5), *await taken(two, scope(concurrency=10), 5)]
    server.kill()
    await eventually(lambda: one.degraded and two.degraded)
    assert isinstance(await one.admit(scope(concurrency=10), NO_DEMAND), Rejected)  # its share is in use
    one.settle(held[0], NO_DEMAND)
    await server.start()
    await eventually(lambda: not one.degraded and not two.degraded)
    await asyncio.sleep(0.5)
    assert len(await taken(two, scope(concurrency=10), 9)) == 1
    assert await taken(one, scope(concurrency=10), 9) == []


async def test_with_redis_gone_each_worker_enforces_its_share_at_once(server: OwnRedis, stack: AsyncExitStack) -> None:
    reports: list[bool] = []
    workers = [await worker(stack, server.url, on_degraded=reports.append) for _ in range(4)]
    await acquainted(*workers)
    server.kill()
    await eventually(lambda: all(limiter.degraded for limiter in workers))
    assert reports == [True] * 4
    began_s = time.monotonic()
    passed = [len(await taken(limiter, scope(requests_per_day=100, concurrency=43), 200)) for limiter in workers]
    assert sorted(passed) == [10, 11, 11, 11]
    more = [len(await taken(limiter, scope("other", requests_per_day=100), 200)) for limiter in workers]
    assert more == [25] * 4
    assert time.monotonic() - began_s < 10.0  # nobody waited: each would for a second


async def test_a_stalled_redis_delays_nobody_longer_than_the_bound(server: OwnRedis, stack: AsyncExitStack) -> None:
    reports: list[bool] = []
    limiter = await worker(stack, server.url, wait_s=0.05, on_degraded=reports.append)
    await taken(limiter, scope(requests_per_day=100), 1)
    server.pause()
    slowest_s = 0.0
    for _ in range(60):
        began_s = time.monotonic()
        assert isinstance(await limiter.admit(scope(requests_per_day=100), NO_DEMAND), Admitted)
        slowest_s = max(slowest_s, time.monotonic() - began_s)
    assert slowest_s < 3.0  # the bound, on a machine that does other things too
    assert reports == [True]
    server.resume()
    await eventually(lambda: not limiter.degraded)
    assert reports == [True, False]


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_pause_of_this_process_is_not_taken_for_one_of_redis(
    run: Callable[[Coroutine[None, None, int]], int], redis_url: str, redis_prefix: str
) -> None:
    async def pausing() -> int:
        connection = await RedisConnection.connect(redis_url)
        limiter = RedisLimiter(connection, SystemClock(), prefix=f"{{{redis_prefix}}}", wait_s=0.15)
        await limiter.admit(scope(requests_per_day=100), NO_DEMAND)
        for turns in (0, 1, 2, 3):  # the pause comes before, while and after the call is sent
            asking = asyncio.create_task(limiter.admit(scope(requests_per_day=100), NO_DEMAND))
            for _ in range(turns):
                await asyncio.sleep(0)
            time.sleep(0.3)  # noqa: ASYNC251 - that is the point
            await asking
        await limiter.close()
        await connection.close()
        return limiter.decided_alone

    assert run(pausing()) == 0


async def test_an_unreadable_counter_stops_only_the_batch_that_meets_it(
    server: OwnRedis, stack: AsyncExitStack
) -> None:
    limiter = await worker(stack, server.url)
    await taken(limiter, scope(requests_per_day=10), 1)
    await server.say("SET", f"{PREFIX}org:spoilt", "no MessagePack \xff")
    assert isinstance(await limiter.admit(scope("spoilt", requests_per_day=10), NO_DEMAND), Admitted)
    assert limiter.degraded
    await eventually(lambda: not limiter.degraded)
    assert len(await taken(limiter, scope(requests_per_day=10), 20)) == 9


async def test_what_passed_alone_is_charged_when_redis_is_back(server: OwnRedis, stack: AsyncExitStack) -> None:
    one, two = await worker(stack, server.url, wait_s=0.1), await worker(stack, server.url, wait_s=0.1)
    await acquainted(one, two)
    assert len(await taken(one, scope(tokens_per_day=1000), 4, tokens=100)) == 4
    server.pause()
    alone = [
        *await taken(one, scope(tokens_per_day=1000), 9, 100),
        *await taken(two, scope(tokens_per_day=1000), 9, 100),
    ]
    assert len(alone) == 10  # each its half, 500 tokens
    server.resume()
    await eventually(lambda: not one.degraded and not two.degraded)
    await asyncio.sleep(0.1)
    for answer in alone[:2]:
        one.settle(answer, NO_DEMAND)
    await asyncio.sleep(0.1)
    # 400 before, 1000 alone, 200 given back: a debt of 200 remains
    refusal = await two.admit(scope(tokens_per_day=1000), Demand(100, 0))
    assert isinstance(refusal, Rejected)
    assert refusal.retry_after_s == pytest.approx(86_400 * 0.3, rel=0.01)


async def test_settlements_of_an_outage_arrive_after_it_once(server: OwnRedis, stack: AsyncExitStack) -> None:
    limiter = await worker(stack, server.url)
    held = await taken(limiter, scope(tokens_per_day=1000, concurrency=10), 10, tokens=100)
    server.pause()
    for answer in held[:6]:
        limiter.settle(answer, Demand(50, 0))
    await asyncio.sleep(0.3)
    server.resume()
    await eventually(lambda: not limiter.degraded and not limiter.undelivered)
    assert len(await taken(limiter, scope(tokens_per_day=1000), 99, tokens=10)) == 30
    assert len(await taken(limiter, scope(concurrency=10), 99)) == 0  # thirty run, on the same counter
    assert limiter.decided_alone == 0


async def test_an_answer_that_was_lost_is_asked_for_again_and_nothing_counts_twice(
    server: OwnRedis, stack: AsyncExitStack
) -> None:
    wire = Wire(server.port)
    await wire.start()
    stack.push_async_callback(wire.cut)
    limiter = await worker(stack, wire.url, heartbeat_s=60.0)
    witness = await worker(stack, server.url)
    held = await taken(limiter, scope(tokens_per_day=1000), 9, tokens=100)
    wire.swallow = True
    for answer in held:
        limiter.settle(answer, Demand(50, 0))  # 450 back
    waiting = asyncio.create_task(limiter.admit(scope(tokens_per_day=1000), Demand(50, 0)))
    await eventually(lambda: wire.swallowed > 0)
    await wire.cut()
    assert isinstance(await waiting, Admitted)  # decided alone, since the answer is lost
    wire.swallow = False
    await wire.start()
    await eventually(lambda: not limiter.degraded and not limiter.undelivered)
    # 1000 - 9 * 50 - the 50 taken alone: once each, and the lost admission not at all
    assert len(await taken(witness, scope(tokens_per_day=1000), 99, tokens=10)) == 50


async def test_a_caller_who_leaves_while_waiting_holds_nothing(server: OwnRedis, stack: AsyncExitStack) -> None:
    limiter = await worker(stack, server.url)
    for pause in range(6):
        asking = [asyncio.create_task(limiter.admit(scope(concurrency=4), NO_DEMAND)) for _ in range(4)]
        for _ in range(pause):
            await asyncio.sleep(0)
        for task in asking:
            task.cancel()
        for answer in await asyncio.gather(*asking, return_exceptions=True):
            if isinstance(answer, Admitted):
                limiter.release(answer)
    await eventually(lambda: not limiter.undelivered)
    assert len(await taken(limiter, scope(concurrency=4), 9)) == 4


async def test_an_outage_is_logged_once_and_not_for_every_request(
    server: OwnRedis, stack: AsyncExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    limiter = await worker(stack, server.url)
    server.kill()
    await eventually(lambda: limiter.degraded)
    await taken(limiter, scope(requests_per_day=5000), 2000)
    assert len(caplog.records) == 1
    assert "deciding alone" in caplog.text
    assert limiter.decided_alone == 2000


async def test_under_load_every_fault_passes_and_nothing_hangs_leaks_or_stays_wrong(
    server: OwnRedis, stack: AsyncExitStack
) -> None:
    workers = [await worker(stack, server.url, wait_s=0.1) for _ in range(2)]
    await acquainted(*workers)
    limits = (Scope(Layer.ORG, "org", Limits(concurrency=8, tokens_per_day=10**9)),)
    running = most = served = 0
    slowest_s = 0.0
    stop = False

    async def client(limiter: RedisLimiter) -> None:
        nonlocal running, most, served, slowest_s
        while not stop:
            began_s = time.monotonic()
            answer = await limiter.admit(limits, Demand(100, 0))
            slowest_s = max(slowest_s, time.monotonic() - began_s)
            if isinstance(answer, Rejected):
                await asyncio.sleep(0.005)
                continue
            running += 1
            served += 1
            most = max(most, running)
            await asyncio.sleep(0.005)
            running -= 1
            limiter.settle(answer, Demand(10, 0))

    clients = [asyncio.create_task(client(workers[number % 2])) for number in range(20)]
    for _ in range(2):
        await asyncio.sleep(0.2)
        await server.say("SCRIPT", "FLUSH")
        await asyncio.sleep(0.2)
        await server.say("FLUSHALL")
        await asyncio.sleep(0.2)
        server.pause()
        await asyncio.sleep(0.4)
        server.resume()
        await eventually(lambda: not any(limiter.degraded for limiter in workers))
        server.kill()
        await asyncio.sleep(0.3)
        await server.start()
        await eventually(lambda: not any(limiter.degraded for limiter in workers))
    stop = True
    await asyncio.gather(*clients)
    assert served > 50
    assert slowest_s < 3.0  # the bound, on a machine that does other things too
    assert most <= 8 + 4  # at most what one worker held beyond its share
    await eventually(lambda: not any(limiter.undelivered for limiter in workers))
    await asyncio.sleep(0.5)  # the grace
    for limiter in workers:
        held = await taken(limiter, limits, 20)
        assert len(held) == 8
        for answer in held:
            limiter.release(answer)
        await eventually(lambda limiter=limiter: not limiter.undelivered)
