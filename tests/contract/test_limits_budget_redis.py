"""The month's budget when Redis forgets or goes away, and when workers die: never beyond it, and found again."""

import asyncio
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta

from crosslogic.kernel.clock import SystemClock
from crosslogic.limits.batch import SCRIPT
from crosslogic.limits.budget import month_at
from crosslogic.limits.model import Admitted, Demand, Dimension, Layer, Limits, Rejected, Scope
from crosslogic.limits.redis import RedisLimiter
from tests.contract.limits_rig import OwnRedis, Wire, eventually
from tests.contract.test_limits_redis import acquainted, worker

CENT = 10**10  # pico-USD
BUDGET = (Scope(Layer.ORG, "org", Limits(spend_per_month_pusd=100 * CENT)),)


def cents(amount: int) -> Demand:
    return Demand(1, 1, amount * CENT)


async def reserve(limiter: RedisLimiter, amount: int) -> Admitted:
    answer = await limiter.admit(BUDGET, cents(amount))
    assert isinstance(answer, Admitted), answer
    return answer


async def refuse(limiter: RedisLimiter, amount: int) -> Rejected:
    answer = await limiter.admit(BUDGET, cents(amount))
    assert isinstance(answer, Rejected), answer
    return answer


async def spend(limiter: RedisLimiter, amount: int) -> None:
    limiter.settle(await reserve(limiter, amount), cents(amount))
    await eventually(lambda: not limiter.undelivered)


async def most(limiter: RedisLimiter) -> int:
    """Cents that may be reserved, one at a time; they stay reserved."""
    found = 0
    while isinstance(await limiter.admit(BUDGET, cents(1)), Admitted):
        found += 1
    return found


async def test_a_flushed_redis_hears_again_what_is_spent_and_what_is_held(
    server: OwnRedis, stack: AsyncExitStack
) -> None:
    one, two = await worker(stack, server.url), await worker(stack, server.url)
    await acquainted(one, two)
    await spend(one, 40)
    held = await reserve(two, 30)
    for _ in range(2):
        await server.say("FLUSHALL")
        for _ in range(20):
            assert (await refuse(one, 31)).dimension is Dimension.SPEND_PER_MONTH
            await asyncio.sleep(0.02)
    await asyncio.sleep(0.4)  # the grace
    two.settle(held, cents(10))
    await eventually(lambda: not two.undelivered)
    assert await most(one) == 50
    assert one.decided_alone == two.decided_alone == 0


async def test_without_any_memory_the_ledger_has_the_truth(server: OwnRedis, stack: AsyncExitStack) -> None:
    await spend(await worker(stack, server.url), 40)
    await server.say("FLUSHALL")
    late = await worker(stack, server.url)
    late.spent(Layer.ORG, "org", month_at(SystemClock().now()).number, 38 * CENT)  # not all has arrived there yet
    assert await most(late) == 62


async def test_dropped_scripts_lose_no_money(server: OwnRedis, stack: AsyncExitStack) -> None:
    one, two = await worker(stack, server.url), await worker(stack, server.url)
    for limiter in (one, two, one, two):
        await server.say("SCRIPT", "FLUSH")
        await spend(limiter, 10)
    assert await most(two) == 60


async def test_what_a_dead_worker_held_is_free_again_and_what_it_spent_is_not(
    server: OwnRedis, stack: AsyncExitStack
) -> None:
    lives, dies = await worker(stack, server.url), await worker(stack, server.url)
    await spend(dies, 20)
    await reserve(dies, 70)
    await refuse(lives, 11)
    await dies._talk._connection.close()
    await eventually(lambda: _reserves(lives, 80), 3.0)
    await refuse(lives, 1)


async def _reserves(limiter: RedisLimiter, amount: int) -> bool:
    return isinstance(await limiter.admit(BUDGET, cents(amount)), Admitted)


async def test_alone_all_workers_together_spend_what_was_left_and_redis_hears_of_it(
    server: OwnRedis, stack: AsyncExitStack
) -> None:
    workers = [await worker(stack, server.url) for _ in range(4)]
    await acquainted(*workers)
    for limiter in workers:
        await spend(limiter, 5)
    for limiter in workers:  # so that each has heard of the others' spending
        await spend(limiter, 0)
    server.kill()
    await eventually(lambda: all(limiter.degraded for limiter in workers))
    alone = [[await reserve(limiter, 10), await reserve(limiter, 10)] for limiter in workers]
    for limiter in workers:
        refusal = await refuse(limiter, 1)
        assert refusal.dimension is Dimension.SPEND_PER_MONTH
        assert refusal.retry_after_s < 3600  # not the end of the month: only this worker's share of the rest is gone
        assert (await refuse(limiter, 101)).too_large
    for limiter, (used, dropped) in zip(workers, alone, strict=True):
        limiter.settle(used, cents(7))
        limiter.release(dropped)
    assert await most(workers[0]) == 13
    await server.start()
    await eventually(lambda: not any(limiter.degraded for limiter in workers))
    await asyncio.sleep(0.5)  # the grace
    await eventually(lambda: not any(limiter.undelivered for limiter in workers))
    # 20 before, 4 * 7 alone; 13 are still held by the first worker
    assert await most(workers[1]) == 100 - 20 - 28 - 13


async def test_money_of_a_lost_answer_counts_once(server: OwnRedis, stack: AsyncExitStack) -> None:
    wire = Wire(server.port)
    await wire.start()
    stack.push_async_callback(wire.cut)
    limiter = await worker(stack, wire.url, heartbeat_s=60.0)
    witness = await worker(stack, server.url)
    held = [await reserve(limiter, 10) for _ in range(5)]
    wire.swallow = True
    for answer in held:
        limiter.settle(answer, cents(4))  # 20 spent
    waiting = asyncio.create_task(limiter.admit(BUDGET, cents(15)))
    await eventually(lambda: wire.swallowed > 0)
    await wire.cut()
    assert isinstance(await waiting, Admitted)  # decided alone, since the answer is lost
    wire.swallow = False
    await wire.start()
    await eventually(lambda: not limiter.degraded and not limiter.undelivered)
    assert await most(witness) == 65


async def test_the_script_knows_every_month_and_how_much_of_it_is_left(server: OwnRedis) -> None:
    """Its calendar is run alone, at each end of each month until 2030, a leap year among them."""
    begins, ends = SCRIPT.index("local month, month_left"), SCRIPT.index("local none = {}")
    calendar = f"local budgets, clock = true, ARGV\n{SCRIPT[begins:ends]}"
    script = f"{calendar} return {{month, string.format('%.0f', month_left)}}"
    for months in range(12 * 6):
        first = datetime(2025 + months // 12, months % 12 + 1, 1, tzinfo=UTC)
        for now in (first, first - timedelta(microseconds=1)):
            shown = await server.say("EVAL", script, 0, int(now.timestamp()), now.microsecond)
            month = month_at(now)
            assert shown == [month.number, b"%d" % round(month.left_s * 1e6)]
