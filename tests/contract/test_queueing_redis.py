"""The shared queue when Redis stalls, dies, forgets or loses answers, and when workers die: on servers of its own."""

import asyncio
import time
from collections import Counter
from contextlib import AsyncExitStack

import pytest

from crosslogic.kernel.clock import SystemClock
from crosslogic.net.redis import RedisConnection
from crosslogic.queueing.counters import SharedCounters
from crosslogic.queueing.model import Bounds, Shed, ShedReason, Turn
from crosslogic.queueing.policies import ByPolicy
from crosslogic.queueing.redis import RedisQueue
from tests.contract.limits_rig import OwnRedis, Wire, eventually
from tests.contract.queueing_rig import LINE, Places, Worker, ask, desk

now_s = time.monotonic


async def worker(
    stack: AsyncExitStack, url: str, places: int = 1, bounds: Bounds | None = None, dead_after_s: float = 0.5
) -> Worker:
    connection = await RedisConnection.connect(url, answer_timeout_s=1.0)
    stack.push_async_callback(connection.close)
    own = Places(places)
    queue = RedisQueue(
        desk(own, bounds=bounds, shared=True),
        connection,
        SystemClock(),
        prefix="{queue-test}:",
        sync_s=0.01,
        calm_s=0.01,
        heartbeat_s=0.05,
        dead_after_s=dead_after_s,
        wait_s=0.2,
    )
    stack.push_async_callback(queue.close)
    return Worker(queue, own)


def shared(worker: Worker) -> RedisQueue:
    assert isinstance(worker.queue, RedisQueue)
    return worker.queue


def counters(worker: Worker) -> SharedCounters:
    order = shared(worker).desk.queue.line(LINE).shared.order
    assert isinstance(order, ByPolicy)
    (fair,) = order.fair()
    assert isinstance(fair.counters, SharedCounters)
    return fair.counters


async def acquainted(*workers: Worker) -> None:
    await eventually(lambda: all(shared(w).workers == len(workers) for w in workers))


async def waits(worker: Worker, tenant: str) -> "asyncio.Task[Turn | Shed]":
    request = ask(now_s(), tenant)
    task = asyncio.create_task(worker.begin(request))
    await asyncio.sleep(0)
    assert worker.queue.standing(request.id) is not None
    return task


async def run(worker: Worker, tenant: str, tokens: int) -> None:
    assert isinstance(await worker.serve(ask(now_s(), tenant, tokens=tokens)), Turn)


async def test_what_one_worker_served_counts_at_the_others(server: OwnRedis, stack: AsyncExitStack) -> None:
    one, two = await worker(stack, server.url), await worker(stack, server.url)
    await run(one, "a", 500)
    await run(one, "b", 20)
    held = await two.begin(ask(now_s(), "z"))
    assert isinstance(held, Turn)
    await acquainted(one, two)
    tasks = [await waits(two, "a"), await waits(two, "b")]
    await eventually(lambda: counters(two).value("a") == counters(one).value("a"))
    two.end(held)
    await eventually(lambda: len(two.served) == 2)
    assert two.served[1] == "b"
    for task in tasks:
        task.cancel()


async def test_a_dead_worker_waits_for_nobody(server: OwnRedis, stack: AsyncExitStack) -> None:
    lives = await worker(stack, server.url, bounds=Bounds(2, 10))
    dies = await worker(stack, server.url, bounds=Bounds(2, 10))
    await acquainted(lives, dies)
    for each in (lives, dies):
        await each.begin(ask(now_s(), "z"))
    tasks = [await waits(dies, "a"), await waits(dies, "b")]
    await eventually(lambda: shared(lives).desk.queue.elsewhere == 2)
    assert isinstance(await lives.begin(ask(now_s(), "c")), Shed)
    await shared(dies)._connection.close()
    await eventually(lambda: shared(lives).desk.queue.elsewhere == 0)
    tasks.append(await waits(lives, "c"))
    for task in tasks:
        task.cancel()


async def test_without_redis_each_worker_goes_on_fairly_with_its_share(server: OwnRedis, stack: AsyncExitStack) -> None:
    one, two = (
        await worker(stack, server.url, bounds=Bounds(8, 8)),
        await worker(stack, server.url, bounds=Bounds(8, 8)),
    )
    await acquainted(one, two)
    server.kill()
    await eventually(lambda: shared(one).degraded and shared(two).degraded)
    began_s = now_s()
    held = await one.begin(ask(now_s(), "z"))
    assert isinstance(held, Turn)
    calls = [asyncio.create_task(one.serve(ask(now_s(), tenant, tokens=50))) for tenant in "aaab"]
    await asyncio.sleep(0)
    refused = await one.begin(ask(now_s(), "a"))
    assert isinstance(refused, Shed)
    assert refused.reason is ShedReason.QUEUE_FULL  # half of eight wait here already
    one.end(held)
    await asyncio.gather(*calls)
    assert Counter(one.served[1:3]) == {"a": 1, "b": 1}
    assert now_s() - began_s < 5.0
    await server.start()
    await eventually(lambda: not (shared(one).degraded or shared(two).degraded))
    await acquainted(one, two)
    # What was charged alone is told now.
    await eventually(lambda: _knows(server, "a", counters(one).values["a"]))
    assert shared(one).desk.queue.share == 1


async def _knows(server: OwnRedis, tenant: str, value: float) -> bool:
    stored = await server.say("HGET", f"{{queue-test}}:shared:{LINE}", tenant)
    return isinstance(stored, bytes) and float(stored) == pytest.approx(value)


async def test_a_redis_that_stands_still_delays_nobody(server: OwnRedis, stack: AsyncExitStack) -> None:
    one = await worker(stack, server.url)
    await run(one, "a", 10)
    server.pause()
    began_s = now_s()
    for _ in range(50):
        await run(one, "a", 10)
    assert now_s() - began_s < 2.0  # fifty waits would be longer
    await asyncio.sleep(0.3)
    await eventually(lambda: shared(one).degraded)
    server.resume()
    await eventually(lambda: not shared(one).degraded)
    await eventually(lambda: _knows(server, "a", counters(one).values["a"]))


async def test_dropped_scripts_are_loaded_again(server: OwnRedis, stack: AsyncExitStack) -> None:
    one = await worker(stack, server.url)
    for _ in range(3):
        await server.say("SCRIPT", "FLUSH")
        await run(one, "a", 10)
        await eventually(lambda: _knows(server, "a", counters(one).values["a"]))
    assert not shared(one).degraded


async def test_a_redis_that_forgot_is_told_everything_again(server: OwnRedis, stack: AsyncExitStack) -> None:
    one = await worker(stack, server.url)
    await run(one, "a", 300)
    await run(one, "b", 100)
    await eventually(lambda: _knows(server, "b", counters(one).values["b"]))
    before = dict(counters(one).values)
    await server.say("FLUSHALL")
    for tenant in "ab":
        await eventually(lambda tenant=tenant: _knows(server, tenant, before[tenant]))  # type: ignore[misc]
    assert counters(one).values == before


async def test_who_comes_to_a_worker_that_was_idle_is_lifted_to_the_present_of_all(
    server: OwnRedis, stack: AsyncExitStack
) -> None:
    busy, idle = await worker(stack, server.url), await worker(stack, server.url)
    await run(idle, "late", 10)
    for _ in range(20):
        await run(busy, "a", 500)
    assert counters(busy).virtual > 10_000.0
    await eventually(lambda: counters(idle).virtual == counters(busy).virtual)
    await run(idle, "late", 10)
    assert counters(idle).value("late") >= counters(busy).virtual


async def test_what_was_charged_while_the_connection_was_cut_is_told_later(
    server: OwnRedis, stack: AsyncExitStack
) -> None:
    wire = Wire(server.port)
    await wire.start()
    one = await worker(stack, wire.url)
    await run(one, "a", 100)
    await eventually(lambda: not counters(one).changes and shared(one)._sent is None)
    await wire.cut()
    await eventually(lambda: shared(one).degraded)
    await run(one, "a", 100)
    await asyncio.sleep(0.2)  # some reports have failed meanwhile
    expected = counters(one).values["a"]
    await wire.start()
    await eventually(lambda: not shared(one).degraded)
    await eventually(lambda: _knows(server, "a", expected))
    await wire.cut()


async def test_answers_that_are_lost_count_at_most_twice(server: OwnRedis, stack: AsyncExitStack) -> None:
    wire = Wire(server.port)
    await wire.start()
    one = await worker(stack, wire.url)
    await run(one, "a", 100)
    await eventually(lambda: not counters(one).changes and shared(one)._sent is None)
    known = counters(one).values["a"]
    wire.swallow = True
    await run(one, "a", 100)
    await eventually(lambda: wire.swallowed > 0)
    wire.swallow = False
    await wire.cut()
    await wire.start()
    await eventually(lambda: not shared(one).degraded and not counters(one).changes and shared(one)._sent is None)
    assert known + 200.0 <= counters(one).values["a"] <= known + 400.0
    await wire.cut()


async def test_one_report_is_under_way_at_a_time_and_a_calm_worker_is_quiet(
    server: OwnRedis, stack: AsyncExitStack
) -> None:
    one = await worker(stack, server.url, places=100)
    await acquainted(one)
    before = await server.calls("evalsha")
    for _ in range(200):
        await run(one, "a", 10)
    await asyncio.sleep(0.05)
    assert await server.calls("evalsha") - before < 40
    before = await server.calls("evalsha")
    await asyncio.sleep(0.5)
    assert await server.calls("evalsha") - before <= 12  # heartbeats


async def test_every_key_carries_the_hash_tag_and_expires(server: OwnRedis, stack: AsyncExitStack) -> None:
    one = await worker(stack, server.url)
    await run(one, "a", 10)
    await eventually(lambda: _knows(server, "a", counters(one).values["a"]))
    keys = await server.say("KEYS", "*")
    assert isinstance(keys, list)
    assert len(keys) == 3  # who is alive, what waits, and the one lane that somebody used
    for name in keys:
        assert name.startswith(b"{queue-test}:")
        lasts_ms = await server.say("PTTL", name)
        assert isinstance(lasts_ms, int)
        assert 0 < lasts_ms <= 3_600_000


async def test_a_worker_that_closes_is_forgotten_at_once(server: OwnRedis, stack: AsyncExitStack) -> None:
    stays, leaves = [await worker(stack, server.url, dead_after_s=60.0) for _ in range(2)]
    await acquainted(stays, leaves)
    await leaves.queue.close()
    await acquainted(stays)  # and not when it would be taken for dead
