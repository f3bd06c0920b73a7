"""Idempotency keys when Redis hangs, dies, forgets, or answers into the void: on servers of its own."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from crosslogic.cache.idempotency.ports import SlotKey
from crosslogic.cache.idempotency.redis import RedisSlots
from crosslogic.cache.idempotency.service import Claim, Idempotency, Problem
from crosslogic.cache.idempotency.slot import JOIN, RUN, Replay
from crosslogic.cache.model import Recording
from crosslogic.kernel.clock import SystemClock
from crosslogic.kernel.errors import Unavailable
from crosslogic.net.redis import RedisConnection
from tests.cache_samples import ORG, OTHER_ORG, recording
from tests.contract.limits_rig import OwnRedis, Wire, eventually

KEY, OTHER_KEY = SlotKey(ORG, b"k" * 32), SlotKey(OTHER_ORG, b"k" * 32)
BODY = b"b" * 32
PATIENT_S = 5.0


def always() -> bool:
    return True


async def connected(stack: AsyncExitStack, url: str) -> RedisConnection:
    connection = await RedisConnection.connect(url, answer_timeout_s=1.0)
    stack.push_async_callback(connection.close)
    return connection


async def test_without_redis_a_worker_still_runs_each_key_once(server: OwnRedis, stack: AsyncExitStack) -> None:
    slots = RedisSlots(await connected(stack, server.url), SystemClock(), wait_s=0.05)
    server.pause()
    decisions = await asyncio.gather(*(slots.begin(KEY, BODY, f"holder-{n}") for n in range(50)))
    assert decisions.count(RUN) == 1
    assert decisions.count(JOIN) == 49
    holder = f"holder-{decisions.index(RUN)}"
    assert not await slots.complete(KEY, BODY, holder, recording())
    assert await slots.begin(KEY, BODY, "again") == Replay(recording())
    assert slots.decided_alone >= 1
    server.resume()


async def test_where_it_must_not_run_twice_a_missing_redis_refuses(server: OwnRedis, stack: AsyncExitStack) -> None:
    slots = RedisSlots(await connected(stack, server.url), SystemClock(), wait_s=0.05, strict=True)
    service = Idempotency(slots)
    server.kill()
    with pytest.raises(Unavailable):
        await slots.begin(KEY, BODY, "first")
    assert await service.claim(KEY, BODY, "first", always) is Problem.UNSURE
    await service.close()


async def test_an_answer_that_redis_missed_is_delivered_when_it_is_back(
    server: OwnRedis, stack: AsyncExitStack
) -> None:
    slots = RedisSlots(await connected(stack, server.url), SystemClock(), wait_s=0.1, away_s=0.05)
    service = Idempotency(slots, renew_s=0.05)
    claim = await service.claim(KEY, BODY, "first", always)
    assert isinstance(claim, Claim)
    server.kill()
    await service.finish(claim, recording())
    assert service._undelivered_bytes > 0
    await server.start()

    await eventually(lambda: service._undelivered_bytes == 0, 10.0)

    async def told() -> bool:
        elsewhere = RedisSlots(await connected(stack, server.url), SystemClock(), wait_s=PATIENT_S)
        return await elsewhere.begin(KEY, BODY, "second") == Replay(recording())

    await eventually(told)
    await service.close()


async def test_what_waits_for_delivery_is_bounded(server: OwnRedis, stack: AsyncExitStack) -> None:
    slots = RedisSlots(await connected(stack, server.url), SystemClock(), wait_s=0.02)
    service = Idempotency(slots, most_undelivered_bytes=10_000)
    server.kill()
    for number in range(20):
        claim = await service.claim(SlotKey(ORG, b"%032d" % number), BODY, "h", always)
        assert isinstance(claim, Claim)
        await service.finish(claim, recording(b"x" * 2000))
        assert service._undelivered_bytes <= 10_000
    assert len(service._undelivered) == 3
    await service.close()


async def test_of_two_that_begin_while_answers_are_lost_one_runs(server: OwnRedis, stack: AsyncExitStack) -> None:
    """The first takes the slot in Redis, but its answer is lost, so it runs on this worker's word; the second hears."""
    wire = Wire(server.port)
    await wire.start()
    stack.push_async_callback(wire.cut)
    slots = RedisSlots(await connected(stack, wire.url), SystemClock(), wait_s=0.05, away_s=0.01)
    elsewhere = RedisSlots(await connected(stack, server.url), SystemClock(), wait_s=PATIENT_S)
    await elsewhere.begin(OTHER_KEY, BODY, "loads the script")
    wire.swallow = True
    assert await slots.begin(KEY, BODY, "first") == RUN
    wire.swallow = False
    await wire.cut()
    await wire.start()
    assert await elsewhere.begin(KEY, BODY, "second") == JOIN
    assert await slots.begin(KEY, BODY, "third") == JOIN

    async def delivered() -> bool:
        return await slots.complete(KEY, BODY, "first", recording())

    await eventually(delivered)
    assert await elsewhere.begin(KEY, BODY, "second") == Replay(recording())


async def test_who_begins_here_while_redis_is_silent_is_found_by_whom_redis_lets_run(
    server: OwnRedis, stack: AsyncExitStack
) -> None:
    slots = RedisSlots(await connected(stack, server.url), SystemClock(), wait_s=0.5, away_s=5.0)
    await slots.begin(OTHER_KEY, BODY, "loads the script")
    server.pause()
    unlucky = asyncio.create_task(slots.begin(SlotKey(ORG, b"u" * 32), BODY, "unlucky"))
    await asyncio.sleep(0.4)
    second = asyncio.create_task(slots.begin(KEY, BODY, "second"))
    await unlucky  # now Redis is taken for away, but the second still waits for its word
    assert await slots.begin(KEY, BODY, "first") == RUN
    server.resume()
    assert await second == JOIN


async def test_a_holder_that_redis_forgot_yields_to_its_successor(server: OwnRedis, stack: AsyncExitStack) -> None:
    one, two = [RedisSlots(await connected(stack, server.url), SystemClock(), wait_s=PATIENT_S) for _ in range(2)]
    assert await one.begin(KEY, BODY, "first") == RUN
    await server.say("FLUSHALL")
    assert await two.begin(KEY, BODY, "second") == RUN
    assert await one.complete(KEY, BODY, "first", recording(b"first"))
    assert await two.complete(KEY, BODY, "second", recording(b"second"))
    for slots in (one, two):  # whoever asks where, there is one answer
        assert await slots.begin(KEY, BODY, "third") == Replay(recording(b"second"))


async def test_everything_in_redis_ends_by_itself(server: OwnRedis, stack: AsyncExitStack) -> None:
    slots = RedisSlots(await connected(stack, server.url), SystemClock(), wait_s=PATIENT_S, lease_s=0.05, ttl_s=0.1)
    for number in range(10):
        key = SlotKey(ORG, b"%032d" % number)
        await slots.begin(key, BODY, "h")
        if number % 2:
            await slots.complete(key, BODY, "h", Recording("req_1", "m", False, 200, b"", (b"x",), recording().tokens))

    async def empty() -> bool:
        return await server.say("DBSIZE") == 0

    await eventually(empty)
