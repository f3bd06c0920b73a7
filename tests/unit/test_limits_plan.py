"""Scopes are compiled once, share their counters, and leave memory when they are worth nothing."""

import gc

from crosslogic.kernel.clock import ManualClock
from crosslogic.limits.memory import MemoryLimiter
from crosslogic.limits.model import NO_DEMAND, NO_LIMITS, Admitted, Demand, Layer, Limits, Rejected, Scope
from crosslogic.limits.null import NullLimiter
from crosslogic.limits.scopes import reservable_tokens, scopes_of


def key_scopes(key: str, limits: Limits) -> tuple[Scope, ...]:
    return scopes_of(
        NO_LIMITS, org_id="org", org_limits=limits, env_id="env", env_limits=NO_LIMITS, key_id=key, key_limits=limits
    )


def test_layers_without_ceilings_are_left_out_and_the_order_is_outermost_first() -> None:
    scopes = key_scopes("k", Limits(concurrency=1))
    assert [(scope.layer, scope.id) for scope in scopes] == [(Layer.ORG, "org"), (Layer.KEY, "k")]
    assert key_scopes("k", Limits(burst_share=0.5)) == ()


def test_the_smallest_token_ceiling_bounds_what_may_be_reserved() -> None:
    assert reservable_tokens(key_scopes("k", Limits(requests_per_minute=1))) is None
    assert reservable_tokens(key_scopes("k", Limits(tokens_per_minute=997, tokens_per_day=5000))) == 997
    assert reservable_tokens(key_scopes("k", Limits(tokens_per_minute=1000, burst_share=0.25))) == 250


async def test_two_keys_of_one_org_share_its_counter() -> None:
    limiter = MemoryLimiter(ManualClock())
    limits = Limits(requests_per_minute=2)
    one, two = key_scopes("one", limits), key_scopes("two", limits)
    assert isinstance(await limiter.admit(one, NO_DEMAND), Admitted)
    assert isinstance(await limiter.admit(two, NO_DEMAND), Admitted)
    refusal = await limiter.admit(two, NO_DEMAND)
    assert isinstance(refusal, Rejected)
    assert refusal.layer is Layer.ORG


async def test_equal_scopes_in_other_objects_count_together() -> None:
    limiter = MemoryLimiter(ManualClock())
    for _ in range(3):
        assert isinstance(await limiter.admit(list(key_scopes("k", Limits(concurrency=3))), NO_DEMAND), Admitted)
    assert isinstance(await limiter.admit(key_scopes("k", Limits(concurrency=3)), NO_DEMAND), Rejected)


async def test_memory_follows_the_active_keys_and_not_all_that_ever_came() -> None:
    clock = ManualClock()
    limiter = MemoryLimiter(clock)
    limits = Limits(requests_per_minute=6)
    for number in range(5000):
        answer = await limiter.admit(key_scopes(f"key-{number}", limits), NO_DEMAND)
        if isinstance(answer, Admitted):
            limiter.settle(answer, NO_DEMAND)
        clock.advance(10.0)
    assert limiter.counters < 100
    gc.collect()


async def test_a_counter_in_use_or_in_debt_outlives_its_plans() -> None:
    clock = ManualClock()
    limiter = MemoryLimiter(clock)
    held = await limiter.admit(key_scopes("held", Limits(concurrency=1)), NO_DEMAND)
    spent = await limiter.admit(key_scopes("spent", Limits(requests_per_day=1)), NO_DEMAND)
    assert isinstance(held, Admitted)
    assert isinstance(spent, Admitted)
    for number in range(500):
        clock.advance(30.0)
        await limiter.admit((Scope(Layer.KEY, f"other-{number}", Limits(requests_per_minute=60)),), NO_DEMAND)
    assert isinstance(await limiter.admit((Scope(Layer.KEY, "held", Limits(concurrency=1)),), NO_DEMAND), Rejected)
    assert isinstance(
        await limiter.admit((Scope(Layer.KEY, "spent", Limits(requests_per_day=1)),), NO_DEMAND), Rejected
    )
    limiter.settle(held, NO_DEMAND)
    assert isinstance(await limiter.admit((Scope(Layer.KEY, "held", Limits(concurrency=1)),), NO_DEMAND), Admitted)


async def test_switched_off_limits_admit_everything() -> None:
    limiter = NullLimiter()
    for _ in range(10):
        answer = await limiter.admit(key_scopes("k", Limits(concurrency=1, requests_per_minute=1)), Demand(10**9, 0))
        limiter.settle(answer, NO_DEMAND)
    assert answer.requests is None
    await limiter.close()
