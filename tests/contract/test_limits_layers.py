"""Kinds of tokens, money, shadows and guarantees: the same in memory and with any number of workers over Redis."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from crosslogic.limits.headers import header_pairs
from crosslogic.limits.model import NO_DEMAND, Admitted, Demand, Dimension, Layer, Limits, Rejected, Scope
from tests.contract.limits_samples import ADAPTERS, Rig, admit, key, limiters_of, org, refuse

CENT = 10**10  # pico-USD
GUARANTEE = Scope(
    Layer.RESERVED, "org_1/m/here", Limits(tokens_per_second=10, burst_share=10.0), guarantee=True
)  # 100 tokens at once, then 10 a second


@pytest_asyncio.fixture(params=ADAPTERS)
async def rig(request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    async with limiters_of(request) as rig:
        yield rig


@pytest.mark.parametrize(
    ("limits", "demand", "dimension"),
    [
        (Limits(input_tokens_per_minute=3700), Demand(100, 10**6), Dimension.INPUT_TOKENS_PER_MINUTE),
        (Limits(output_tokens_per_day=3700), Demand(10**6, 100), Dimension.OUTPUT_TOKENS_PER_DAY),
        (Limits(input_tokens_per_day=3700), Demand(100, 7), Dimension.INPUT_TOKENS_PER_DAY),
        (Limits(output_tokens_per_minute=3700), Demand(7, 100), Dimension.OUTPUT_TOKENS_PER_MINUTE),
        (Limits(input_tokens_per_hour=3700), Demand(100, 10**6), Dimension.INPUT_TOKENS_PER_HOUR),
        (Limits(output_tokens_per_hour=3700), Demand(7, 100), Dimension.OUTPUT_TOKENS_PER_HOUR),
        (Limits(spend_per_hour_pusd=37 * CENT), Demand(1, 1, CENT), Dimension.SPEND_PER_HOUR),
        (Limits(spend_per_day_pusd=37 * CENT), Demand(1, 1, CENT), Dimension.SPEND_PER_DAY),
        (Limits(spend_per_month_pusd=37 * CENT), Demand(1, 1, CENT), Dimension.SPEND_PER_MONTH),
        (Limits(tokens_per_day=3700, spend_per_month_pusd=10**18), Demand(50, 50, CENT), Dimension.TOKENS_PER_DAY),
    ],
)
async def test_of_two_hundred_at_once_exactly_the_budget_passes(
    rig: Rig, limits: Limits, demand: Demand, dimension: Dimension
) -> None:
    scopes = [(org(limits), key(number % 7, Limits(concurrency=1000))) for number in range(200)]
    answers = await asyncio.gather(*(rig[n].admit(scopes[n], demand) for n in range(200)))
    refusals = [answer for answer in answers if isinstance(answer, Rejected)]
    assert len(answers) - len(refusals) == 37
    assert {(refusal.layer, refusal.dimension) for refusal in refusals} == {(Layer.ORG, dimension)}
    assert {refusal.quota for refusal in refusals} == {dimension.value.endswith(("_day", "_month"))}


@pytest.mark.parametrize("kind", ["tokens", "input_tokens", "output_tokens"])
@pytest.mark.parametrize("window", ["second", "minute", "hour", "day"])
async def test_every_kind_of_token_has_every_window(rig: Rig, kind: str, window: str) -> None:
    dimension = Dimension(f"{kind}_per_{window}")
    limits = org(Limits(**{dimension.value: 1000}))

    def demand(tokens: int) -> Demand:
        return Demand(*{"tokens": (tokens, 0), "input_tokens": (tokens, 9**9), "output_tokens": (9**9, tokens)}[kind])

    first = await admit(rig[0], limits, demand=demand(1000))
    assert first.tokens is not None
    assert (first.tokens.limit, first.tokens.remaining) == (1000, 0)
    refusal = await refuse(rig[1], limits, demand=demand(900))
    period_s = {"second": 1.0, "minute": 60.0, "hour": 3600.0, "day": 86_400.0}[window]
    assert (refusal.dimension, refusal.quota) == (dimension, window == "day")
    assert 0.4 * period_s < refusal.retry_after_s <= 0.9 * period_s + 1e-6
    rig[0].settle(first, demand(100))
    await rig.told()
    await admit(rig[1], limits, demand=demand(900))
    if window == "second":  # who waits just as long as told is admitted
        again = await refuse(rig[2], limits, demand=demand(990))
        await rig.elapse(again.retry_after_s)
        await admit(rig[3], limits, demand=demand(990))


async def test_each_kind_of_token_is_settled_by_itself(rig: Rig) -> None:
    limits = org(Limits(input_tokens_per_day=100, output_tokens_per_day=100, spend_per_day_pusd=100_000))
    first = await admit(rig[0], limits, demand=Demand(60, 100, 100_000))
    rig[0].settle(first, Demand(60, 30, 40_000))
    await rig.told()
    refusal = await refuse(rig[1], limits, demand=Demand(41, 0))
    assert refusal.dimension is Dimension.INPUT_TOKENS_PER_DAY
    refusal = await refuse(rig[1], limits, demand=Demand(0, 71))
    assert refusal.dimension is Dimension.OUTPUT_TOKENS_PER_DAY
    refusal = await refuse(rig[2], limits, demand=Demand(0, 0, 61_000))
    assert refusal.dimension is Dimension.SPEND_PER_DAY
    await admit(rig[3], limits, demand=Demand(40, 70, 60_000))


async def test_the_headers_tell_of_the_tightest_ceiling_of_any_kind_of_token(rig: Rig) -> None:
    limits = org(Limits(tokens_per_day=1000, output_tokens_per_day=100, spend_per_day_pusd=5000))
    answer = await admit(rig[0], limits, demand=Demand(100, 70, 4000))
    assert answer.tokens is not None
    assert (answer.tokens.limit, answer.tokens.remaining) == (100, 30)
    assert answer.requests is None


async def test_the_region_is_a_layer_like_the_others(rig: Rig) -> None:
    here, there = (Scope(Layer.REGION, name, Limits(requests_per_day=1)) for name in ("here", "there"))
    await admit(rig[0], here, org(Limits(requests_per_day=9)))
    refusal = await refuse(rig[1], here, org(Limits(requests_per_day=9)))
    assert refusal.layer is Layer.REGION
    await admit(rig[2], there, org(Limits(requests_per_day=9)))


async def test_a_shadow_refuses_nobody_tells_and_is_not_shown(rig: Rig) -> None:
    shadow = org(Limits(requests_per_day=2, tokens_per_day=1000, concurrency=9, shadow=True))
    for number in range(2):
        answer = await admit(rig[number], shadow, tokens=400)
        assert (answer.shadowed, header_pairs(answer)) == ((), [])
    for number in range(3):
        answer = await admit(rig[number], shadow, key(1, Limits(requests_per_day=99)), tokens=400)
        assert set(answer.shadowed) == {
            (Layer.ORG, Dimension.REQUESTS_PER_DAY),
            (Layer.ORG, Dimension.TOKENS_PER_DAY),
        }
        assert answer.requests is not None
        assert (answer.requests.limit, answer.tokens) == (99, None)


async def test_a_shadow_goes_on_to_tell_what_would_happen_if_it_were_none(rig: Rig) -> None:
    """What it would have refused is not charged to it, and settling that gives it nothing back."""
    shadow = org(Limits(tokens_per_day=1000, concurrency=3, spend_per_month_pusd=10 * CENT, shadow=True))
    held = await admit(rig[0], shadow, demand=Demand(900, 0, 9 * CENT))
    for number in range(3):
        answer = await admit(rig[number], shadow, demand=Demand(200, 0, 2 * CENT))
        assert set(answer.shadowed) == {
            (Layer.ORG, Dimension.TOKENS_PER_DAY),
            (Layer.ORG, Dimension.SPEND_PER_MONTH),
        }
        rig[number].settle(answer, NO_DEMAND)
        await rig.told()
    fits = await admit(rig[0], shadow, demand=Demand(100, 0, CENT))
    assert fits.shadowed == ()
    rig[0].release(held)
    await rig.told()
    assert (await admit(rig[1], shadow, demand=Demand(900, 0, 9 * CENT))).shadowed == ()
    assert (await admit(rig[2], shadow)).shadowed == ()
    assert (await admit(rig[3], shadow)).shadowed == ((Layer.ORG, Dimension.CONCURRENCY),)


async def test_a_ceiling_outside_its_shadow_still_holds(rig: Rig) -> None:
    shadow = Scope(Layer.GLOBAL, "global", Limits(requests_per_day=0, shadow=True))
    await admit(rig[0], shadow, org(Limits(requests_per_day=1)))
    refusal = await refuse(rig[1], shadow, org(Limits(requests_per_day=1)))
    assert refusal.layer is Layer.ORG


async def test_reserved_traffic_passes_the_shared_layers_and_is_charged_there(rig: Rig) -> None:
    shared = Scope(Layer.GLOBAL, "global", Limits(tokens_per_day=100))
    region = Scope(Layer.REGION, "here", Limits(requests_per_day=3))
    other = Scope(Layer.ORG, "org_2", Limits(requests_per_day=99))
    await admit(rig[0], shared, region, other, tokens=100)
    await refuse(rig[1], shared, region, other, tokens=10)
    answer = await admit(rig[2], shared, region, GUARANTEE, tokens=60)
    assert (answer.covered, answer.requests, answer.tokens) == (True, None, None)
    rig[2].settle(answer, Demand(50, 0))
    await rig.told()
    await admit(rig[0], region, other)
    refusal = await refuse(rig[3], region, other)  # the covered request was one of the region's three
    assert refusal.layer is Layer.REGION


async def test_a_guarantee_may_be_overdrawn_once_and_then_all_layers_are_asked(rig: Rig) -> None:
    shared = Scope(Layer.GLOBAL, "global", Limits(requests_per_day=4, concurrency=50))
    assert (await admit(rig[0], shared, GUARANTEE, tokens=70)).covered
    last = await admit(rig[1], shared, GUARANTEE, tokens=80)
    assert last.covered
    uncovered = await admit(rig[2], shared, GUARANTEE, tokens=10**6)
    assert not uncovered.covered
    assert uncovered.requests is not None  # a plain request again, which the shared ceiling binds
    rig[2].settle(uncovered, NO_DEMAND)  # gives nothing to the guarantee
    await rig.told()
    assert not (await admit(rig[3], shared, GUARANTEE, tokens=1)).covered
    refusal = await refuse(rig[0], shared, GUARANTEE, tokens=1)
    assert (refusal.layer, refusal.dimension) == (Layer.GLOBAL, Dimension.REQUESTS_PER_DAY)
    rig[1].settle(last, Demand(10, 0))  # 70 of 80 back
    await rig.told()
    assert (await admit(rig[1], shared, GUARANTEE, tokens=1)).covered


async def test_a_guarantee_refills_at_its_rate(rig: Rig) -> None:
    guarantee = Scope(Layer.RESERVED, "r", Limits(tokens_per_second=1000, burst_share=0.2), guarantee=True)
    shared = Scope(Layer.GLOBAL, "global", Limits(requests_per_day=0))
    assert (await admit(rig[0], shared, guarantee, tokens=500)).covered  # 300 overdrawn
    await refuse(rig[1], shared, guarantee, tokens=1)
    await rig.elapse(0.35)
    assert (await admit(rig[2], shared, guarantee, tokens=1)).covered


async def test_the_callers_own_layers_hold_for_reserved_traffic_too(rig: Rig) -> None:
    shared = Scope(Layer.GLOBAL, "global", Limits(requests_per_day=0))
    mine = org(Limits(requests_per_day=2))
    for number in range(2):
        assert (await admit(rig[number], shared, GUARANTEE, mine, tokens=10)).covered
    refusal = await refuse(rig[2], shared, GUARANTEE, mine, tokens=10)
    assert refusal.layer is Layer.ORG
    assert (await admit(rig[3], shared, GUARANTEE, tokens=79)).covered  # the refusal took nothing from it
    assert (await admit(rig[0], shared, GUARANTEE, tokens=100)).covered
    await refuse(rig[1], shared, GUARANTEE, tokens=1)


async def test_covered_or_not_a_slot_is_one_slot(rig: Rig) -> None:
    shared = Scope(Layer.GLOBAL, "global", Limits(concurrency=2))
    for number in range(10):
        answers = [await admit(rig[number], shared, GUARANTEE, tokens=200 if number == 0 else 1) for _ in range(2)]
        for answer in answers:
            rig[number].release(answer)
        await rig.told()
    held = [await rig[number].admit((shared,), NO_DEMAND) for number in range(3)]
    assert [isinstance(answer, Admitted) for answer in held] == [True, True, False]
