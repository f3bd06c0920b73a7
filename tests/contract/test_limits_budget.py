"""The month's budget in money: reserved before, settled after, never exceeded, found again when counters are lost."""

import asyncio
import random
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from crosslogic.kernel.clock import ManualClock, SystemClock
from crosslogic.limits.budget import month_at
from crosslogic.limits.memory import MemoryLimiter
from crosslogic.limits.model import NO_DEMAND, Admitted, Demand, Dimension, Layer, Limits, Rejected
from tests.contract.limits_samples import ADAPTERS, Rig, admit, key, limiters_of, org, refuse

CENT = 10**10  # pico-USD
DOLLAR = 10**12


@pytest_asyncio.fixture(params=ADAPTERS)
async def rig(request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    async with limiters_of(request) as rig:
        yield rig


def month_of(rig: Rig) -> int:
    return month_at((SystemClock() if rig.real else ManualClock()).now()).number


def costing(pusd: int) -> Demand:
    return Demand(10, 10, pusd)


async def test_money_is_reserved_settled_and_released(rig: Rig) -> None:
    limits = org(Limits(spend_per_month_pusd=DOLLAR))
    used, dropped = (admit(rig[n], limits, demand=costing(40 * CENT)) for n in (0, 1))
    used, dropped = [await asked for asked in (used, dropped)]
    await refuse(rig[2], limits, demand=costing(21 * CENT))
    rig[0].settle(used, costing(10 * CENT))
    rig[1].release(dropped)
    await rig.told()
    await refuse(rig[3], limits, demand=costing(90 * CENT + 1000))
    await admit(rig[3], limits, demand=costing(90 * CENT))
    await refuse(rig[0], limits, demand=costing(1))  # not even a pico-dollar more


async def test_a_spent_budget_is_a_quota_until_the_next_month(rig: Rig) -> None:
    limits = org(Limits(spend_per_month_pusd=DOLLAR))
    await admit(rig[0], limits, demand=costing(DOLLAR))
    refusal = await refuse(rig[1], limits, demand=costing(CENT))
    assert (refusal.layer, refusal.dimension, refusal.quota) == (Layer.ORG, Dimension.SPEND_PER_MONTH, True)
    clock = SystemClock() if rig.real else ManualClock()
    assert refusal.retry_after_s == pytest.approx(month_at(clock.now()).left_s, abs=60.0)
    assert not refusal.too_large
    refusal = await refuse(rig[2], limits, demand=costing(DOLLAR + 1))
    assert refusal.too_large


async def test_more_than_reserved_is_spent_all_the_same(rig: Rig) -> None:
    limits = org(Limits(spend_per_month_pusd=DOLLAR))
    answer = await admit(rig[0], limits, demand=costing(CENT))
    rig[0].settle(answer, costing(2 * DOLLAR))
    await rig.told()
    await refuse(rig[1], limits)


async def test_what_the_ledger_knows_counts_and_what_is_held_counts_on_top(rig: Rig) -> None:
    limits = org(Limits(spend_per_month_pusd=DOLLAR))
    await admit(rig[0], limits, demand=costing(20 * CENT))
    for limiter in rig.limiters:
        limiter.spent(Layer.ORG, "org_1", month_of(rig), 50 * CENT)
        limiter.spent(Layer.ORG, "org_1", month_of(rig), 10 * CENT)  # an older figure changes nothing
        limiter.spent(Layer.ORG, "org_1", month_of(rig) - 1, 99 * DOLLAR)  # nor does another month's
        limiter.spent(Layer.ORG, "org_2", month_of(rig), 99 * DOLLAR)  # nor another org's
    refusal = await refuse(rig[1], limits, demand=costing(31 * CENT))
    assert not refusal.too_large
    await admit(rig[2], limits, demand=costing(30 * CENT))
    await refuse(rig[3], limits, demand=costing(1000))


async def test_a_figure_of_the_ledger_waits_for_a_scope_that_is_not_known_yet(rig: Rig) -> None:
    for limiter in rig.limiters:
        limiter.spent(Layer.ORG, "org_1", month_of(rig), 99 * CENT)
    limits = org(Limits(spend_per_month_pusd=DOLLAR))
    await refuse(rig[0], limits, demand=costing(2 * CENT))
    await admit(rig[1], limits, demand=costing(CENT))


async def test_the_tightest_budget_of_all_layers_holds(rig: Rig) -> None:
    wide, narrow = org(Limits(spend_per_month_pusd=10 * DOLLAR)), key(1, Limits(spend_per_month_pusd=DOLLAR))
    await admit(rig[0], wide, narrow, demand=costing(DOLLAR))
    for number in range(5):
        assert (await refuse(rig[number], wide, narrow, demand=costing(CENT))).layer is Layer.KEY
    await admit(rig[1], wide, demand=costing(9 * DOLLAR))  # the refusals took nothing
    assert (await refuse(rig[2], wide, demand=costing(CENT))).layer is Layer.ORG


async def test_a_budget_of_millions_is_kept_to_the_nano_dollar(rig: Rig) -> None:
    budget = 9 * 10**18
    limits = org(Limits(spend_per_month_pusd=budget))
    await admit(rig[0], limits, demand=costing(budget - 3000))
    for number in range(3):
        await admit(rig[number], limits, demand=costing(1))  # each is rounded up to a nano-dollar
    await refuse(rig[3], limits, demand=costing(1))


async def test_no_pattern_of_use_spends_beyond_the_budget(rig: Rig) -> None:
    chance = random.Random(7)
    budget = 3 * DOLLAR
    limits = (org(Limits(spend_per_month_pusd=budget)), key(1, Limits(concurrency=30)))
    spent = held = most = 0

    async def client(number: int) -> None:
        nonlocal spent, held, most
        for _ in range(20):
            reserved = chance.randrange(1, 5 * CENT)
            answer = await rig[number].admit(limits, costing(reserved))
            if isinstance(answer, Rejected):
                await asyncio.sleep(0.001)
                continue
            held += reserved
            most = max(most, spent + held)
            await asyncio.sleep(0.001 * chance.randrange(3))
            held -= reserved
            if chance.random() < 0.2:
                rig[number].release(answer)
            else:
                used = chance.randrange(reserved + 1)
                spent += used
                rig[number].settle(answer, costing(used))

    await asyncio.gather(*(client(number) for number in range(24)))
    assert most <= budget
    await rig.told()
    left = budget - spent
    assert isinstance(await rig[0].admit(limits[:1], costing(left - 10**9)), Admitted)  # roundings: 480 nano-dollars
    assert isinstance(await rig[1].admit(limits[:1], costing(10**9 + 1)), Rejected)


async def test_a_new_month_begins_with_nothing_spent_and_old_requests_do_not_touch_it() -> None:
    clock = ManualClock()  # the first of January
    limiter = MemoryLimiter(clock)
    limits = org(Limits(spend_per_month_pusd=DOLLAR))
    old = await admit(limiter, limits, demand=costing(DOLLAR))
    refusal = await refuse(limiter, limits, demand=costing(CENT))
    assert refusal.retry_after_s == 31 * 86_400
    clock.advance(refusal.retry_after_s)
    new = await admit(limiter, limits, demand=costing(DOLLAR))
    limiter.settle(old, costing(DOLLAR))
    await refuse(limiter, limits, demand=costing(1))
    limiter.settle(new, NO_DEMAND)
    await admit(limiter, limits, demand=costing(DOLLAR))


async def test_what_was_spent_outlives_the_counter() -> None:
    clock = ManualClock()
    limiter = MemoryLimiter(clock)
    limits = org(Limits(spend_per_month_pusd=DOLLAR))
    limiter.settle(await admit(limiter, limits, demand=costing(DOLLAR)), costing(DOLLAR))
    for number in range(500):
        clock.advance(30.0)
        limiter.settle(await admit(limiter, key(number, Limits(requests_per_minute=60))), NO_DEMAND)
    assert limiter.counters < 20
    await refuse(limiter, org(Limits(spend_per_month_pusd=DOLLAR)), demand=costing(CENT))
