"""What every limiter keeps: the memory adapter, and the Redis adapter with one, two and four workers."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import pytest
import pytest_asyncio

from crosslogic.kernel.clock import ManualClock, SystemClock
from crosslogic.limits.memory import MemoryLimiter
from crosslogic.limits.model import Admitted, Dimension, Layer, Limits, Rejected, Scope
from crosslogic.limits.ports import Limiter
from crosslogic.limits.redis import RedisLimiter
from crosslogic.net.redis import RedisConnection


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


@pytest_asyncio.fixture(params=["memory", "redis-1", "redis-2", "redis-4"])
async def rig(request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
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


async def admit(limiter: Limiter, *scopes: Scope, tokens: int = 0) -> Admitted:
    answer = await limiter.admit(scopes, tokens)
    assert isinstance(answer, Admitted), answer
    return answer


async def refuse(limiter: Limiter, *scopes: Scope, tokens: int = 0) -> Rejected:
    answer = await limiter.admit(scopes, tokens)
    assert isinstance(answer, Rejected), answer
    return answer


@pytest.mark.parametrize(
    ("limits", "tokens", "dimension"),
    [
        (Limits(requests_per_day=37), 0, Dimension.REQUESTS_PER_DAY),
        (Limits(tokens_per_hour=3700, requests_per_day=5000), 100, Dimension.TOKENS_PER_HOUR),
        (Limits(concurrency=37, tokens_per_day=100_000), 100, Dimension.CONCURRENCY),
    ],
)
async def test_of_two_hundred_at_once_exactly_the_budget_passes(
    rig: Rig, limits: Limits, tokens: int, dimension: Dimension
) -> None:
    scopes = [(org(limits), key(number % 7, Limits(concurrency=1000))) for number in range(200)]
    answers = await asyncio.gather(*(rig[n].admit(scopes[n], tokens) for n in range(200)))
    refusals = [answer for answer in answers if isinstance(answer, Rejected)]
    assert len(answers) - len(refusals) == 37
    assert {(refusal.layer, refusal.dimension) for refusal in refusals} == {(Layer.ORG, dimension)}


async def test_what_was_not_used_may_be_used_by_another_worker(rig: Rig) -> None:
    limits = org(Limits(tokens_per_day=1000))
    first = await admit(rig[0], limits, tokens=1000)
    await refuse(rig[1], limits, tokens=600)
    rig[0].settle(first, 400)
    rig[0].settle(first, 0)  # a second settlement changes nothing
    await rig.told()
    await admit(rig[1], limits, tokens=600)
    await refuse(rig[2], limits, tokens=5)


async def test_a_worker_sees_its_own_settlement_at_once(rig: Rig) -> None:
    limits = org(Limits(tokens_per_day=1000, concurrency=1))
    for _ in range(20):
        answer = await admit(rig[0], limits, tokens=1000)
        rig[0].settle(answer, 0)


async def test_release_gives_back_requests_tokens_and_slot(rig: Rig) -> None:
    limits = org(Limits(requests_per_day=1, tokens_per_day=10, concurrency=1))
    for number in range(4):
        answer = await admit(rig[number], limits, tokens=10)
        await refuse(rig[number + 1], limits, tokens=10)
        rig[number].release(answer)
        rig[number].settle(answer, 10)
        await rig.told()


async def test_use_beyond_the_reservation_is_charged_to_those_who_come_later(rig: Rig) -> None:
    limits = org(Limits(tokens_per_hour=3600))
    answer = await admit(rig[0], limits, tokens=10)
    rig[0].settle(answer, 3700)
    await rig.told()
    refusal = await refuse(rig[1], limits, tokens=100)
    assert refusal.retry_after_s == pytest.approx(200.0, abs=3.0)
    assert refusal.tokens is not None
    assert refusal.tokens.remaining == 0


async def test_a_refusal_by_one_layer_takes_nothing_from_another(rig: Rig) -> None:
    outer, closed = org(Limits(requests_per_day=5, tokens_per_day=50, concurrency=5)), key(1, Limits(concurrency=0))
    for number in range(12):
        await refuse(rig[number], outer, closed, tokens=10)
    for number in range(5):
        await admit(rig[number], outer, tokens=10)
    await refuse(rig[0], outer, tokens=10)


async def test_who_waits_just_as_long_as_told_is_admitted_and_not_before(rig: Rig) -> None:
    limits = org(Limits(tokens_per_second=100))
    await admit(rig[0], limits, tokens=100)
    refusal = await refuse(rig[1], limits, tokens=90)
    assert 0.5 < refusal.retry_after_s <= 0.9 + 1e-6
    await rig.elapse(refusal.retry_after_s / 3)
    again = await refuse(rig[2], limits, tokens=90)
    await rig.elapse(again.retry_after_s)
    await admit(rig[3], limits, tokens=90)


async def test_a_request_that_can_never_pass_says_so(rig: Rig) -> None:
    limits = org(Limits(tokens_per_minute=100, requests_per_day=1))
    await admit(rig[0], limits, tokens=1)
    refusal = await refuse(rig[1], limits, tokens=101)
    assert (refusal.too_large, refusal.dimension) == (True, Dimension.TOKENS_PER_MINUTE)


async def test_headroom_is_that_of_the_tightest_layer(rig: Rig) -> None:
    wide, narrow = org(Limits(requests_per_day=100, tokens_per_day=50)), key(1, Limits(requests_per_day=10))
    answer = await admit(rig[0], wide, narrow, tokens=20)
    answer = await admit(rig[1], wide, narrow, tokens=20)
    assert answer.requests is not None
    assert answer.tokens is not None
    assert (answer.requests.limit, answer.requests.remaining) == (10, 8)
    assert (answer.tokens.limit, answer.tokens.remaining) == (50, 10)
    assert answer.tokens.reset_s == pytest.approx(86_400 * 0.8, rel=0.01)
    refusal = await refuse(rig[2], wide, narrow, tokens=20)
    assert refusal.tokens is not None
    assert refusal.tokens.remaining == 10


async def test_without_ceilings_everything_passes(rig: Rig) -> None:
    for number in range(10):
        answer = await admit(rig[number], org(Limits()), tokens=10**9)
        assert (answer.requests, answer.tokens) == (None, None)
        rig[number].settle(answer, 10**9)
    assert isinstance(await rig[0].admit((), 5), Admitted)


async def test_a_changed_ceiling_holds_from_the_next_request_on(rig: Rig) -> None:
    for _ in range(3):
        await admit(rig[0], org(Limits(requests_per_day=4)))
    await admit(rig[0], org(Limits(requests_per_day=400)))
    await refuse(rig[0], org(Limits(requests_per_day=2)))


async def test_concurrency_is_never_exceeded_and_never_leaks(rig: Rig) -> None:
    limits = (org(Limits(concurrency=7)), key(1, Limits(concurrency=9)))
    running = most = served = 0

    async def client(number: int) -> None:
        nonlocal running, most, served
        for turn in range(25):
            answer = await rig[number].admit(limits, 10)
            if isinstance(answer, Rejected):
                await asyncio.sleep(0.001)
                continue
            running += 1
            served += 1
            most = max(most, running)
            await asyncio.sleep(0.001 * (turn % 3))
            running -= 1
            (rig[number].settle if turn % 2 else rig[number].release)(answer, *([5] if turn % 2 else []))

    await asyncio.gather(*(client(number) for number in range(40)))
    assert most == 7
    assert served > 100
    await rig.told()
    for number in range(7):
        await admit(rig[number], *limits)
    await refuse(rig[0], *limits)


async def test_steady_load_gets_all_of_the_limit_and_no_window_more_than_burst_and_refill(rig: Rig) -> None:
    per_s, burst = 200, 100
    limits = (org(Limits(requests_per_second=per_s, burst_share=burst / per_s)),)
    passes: list[tuple[float, float]] = []
    while isinstance(await rig[0].admit(limits, 0), Admitted):
        pass
    began_s = rig.now_s()

    async def caller(number: int) -> None:
        while rig.now_s() - began_s < 2.0:
            asked_s = rig.now_s()
            if isinstance(await rig[number].admit(limits, 0), Admitted):
                passes.append((asked_s, rig.now_s()))
            await rig.elapse(0.002)

    await asyncio.gather(*(caller(number) for number in range(8)))
    lasted_s = rig.now_s() - began_s
    assert len(passes) >= 0.99 * per_s * lasted_s - 2
    for first in range(0, len(passes), 10):
        for last in range(first, len(passes), 10):
            window_s = passes[last][1] - passes[first][0]
            assert last - first + 1 <= burst + per_s * window_s + 1
    assert len(passes) <= per_s * lasted_s + 2  # the burst was spent before
