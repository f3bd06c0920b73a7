"""What every limiter keeps: the memory adapter, and the Redis adapter with one, two and four workers."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from crosslogic.limits.model import NO_DEMAND, Admitted, Demand, Dimension, Layer, Limits, Rejected, Scope
from tests.contract.limits_samples import ADAPTERS, Rig, admit, key, limiters_of, org, refuse


@pytest_asyncio.fixture(params=ADAPTERS)
async def rig(request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    async with limiters_of(request) as rig:
        yield rig


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
    answers = await asyncio.gather(*(rig[n].admit(scopes[n], Demand(tokens, 0)) for n in range(200)))
    refusals = [answer for answer in answers if isinstance(answer, Rejected)]
    assert len(answers) - len(refusals) == 37
    assert {(refusal.layer, refusal.dimension) for refusal in refusals} == {(Layer.ORG, dimension)}


async def test_what_was_not_used_may_be_used_by_another_worker(rig: Rig) -> None:
    limits = org(Limits(tokens_per_day=1000))
    first = await admit(rig[0], limits, tokens=1000)
    await refuse(rig[1], limits, tokens=600)
    rig[0].settle(first, Demand(400, 0))
    rig[0].settle(first, NO_DEMAND)  # a second settlement changes nothing
    await rig.told()
    await admit(rig[1], limits, tokens=600)
    await refuse(rig[2], limits, tokens=5)


async def test_a_worker_sees_its_own_settlement_at_once(rig: Rig) -> None:
    limits = org(Limits(tokens_per_day=1000, concurrency=1))
    for _ in range(20):
        answer = await admit(rig[0], limits, tokens=1000)
        rig[0].settle(answer, NO_DEMAND)


async def test_release_gives_back_requests_tokens_and_slot(rig: Rig) -> None:
    limits = org(Limits(requests_per_day=1, tokens_per_day=10, concurrency=1))
    for number in range(4):
        answer = await admit(rig[number], limits, tokens=10)
        await refuse(rig[number + 1], limits, tokens=10)
        rig[number].release(answer)
        rig[number].settle(answer, Demand(10, 0))
        await rig.told()


async def test_use_beyond_the_reservation_is_charged_to_those_who_come_later(rig: Rig) -> None:
    limits = org(Limits(tokens_per_hour=3600))
    answer = await admit(rig[0], limits, tokens=10)
    rig[0].settle(answer, Demand(3700, 0))
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
        rig[number].settle(answer, Demand(10**9, 0))
    assert isinstance(await rig[0].admit((), Demand(5, 0)), Admitted)


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
            answer = await rig[number].admit(limits, Demand(10, 0))
            if isinstance(answer, Rejected):
                await asyncio.sleep(0.001)
                continue
            running += 1
            served += 1
            most = max(most, running)
            await asyncio.sleep(0.001 * (turn % 3))
            running -= 1
            (rig[number].settle if turn % 2 else rig[number].release)(answer, *([Demand(5, 0)] if turn % 2 else []))

    await asyncio.gather(*(client(number) for number in range(40)))
    assert most == 7
    assert served > 100
    await rig.told()
    for number in range(7):
        await admit(rig[number], *limits)
    await refuse(rig[0], *limits)


async def test_steady_load_gets_all_of_the_limit_and_no_window_more_than_burst_and_refill(rig: Rig) -> None:
    per_s, burst = 200, 100
    used = 0.0
    for attempt in range(3):  # a machine that stands still for longer than the burst lasts wastes what it refills
        used = max(used, await used_under_steady_load(rig, key(attempt, per_second(per_s, burst)), per_s, burst))
        if used >= 0.99:
            break
    assert used >= 0.99


def per_second(per_s: int, burst: int) -> Limits:
    return Limits(requests_per_second=per_s, burst_share=burst / per_s)


async def used_under_steady_load(rig: Rig, scope: Scope, per_s: int, burst: int) -> float:
    """The share of the limit that passes. In no window may more pass than burst and refill."""
    limits = (scope,)
    passes: list[tuple[float, float]] = []
    while isinstance(await rig[0].admit(limits, NO_DEMAND), Admitted):
        pass
    began_s = rig.now_s()

    async def caller(number: int) -> None:
        while rig.now_s() - began_s < 2.0:
            asked_s = rig.now_s()
            if isinstance(await rig[number].admit(limits, NO_DEMAND), Admitted):
                passes.append((asked_s, rig.now_s()))
            await rig.elapse(0.002)

    await asyncio.gather(*(caller(number) for number in range(8)))
    lasted_s = rig.now_s() - began_s
    for first in range(0, len(passes), 10):
        for last in range(first, len(passes), 10):
            window_s = passes[last][1] - passes[first][0]
            assert last - first + 1 <= burst + per_s * window_s + 1
    assert len(passes) <= per_s * lasted_s + 2  # the burst was spent before
    return (len(passes) + 2) / (per_s * lasted_s)


async def test_use_under_a_ceiling_of_zero_leaves_the_counter_readable(rig: Rig) -> None:
    limits = org(Limits(tokens_per_day=0, requests_per_day=2))
    rig[0].settle(await admit(rig[0], limits), Demand(10**6, 10**6))
    await rig.told()
    await admit(rig[1], limits)
    assert (await refuse(rig[2], limits)).dimension is Dimension.REQUESTS_PER_DAY
