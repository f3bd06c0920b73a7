"""The Redis limiter gives the same answers as the memory limiter, whatever is asked in whatever order.

Ceilings are of a day or a month, and bursts are no whole numbers of tokens, so that the milliseconds between the two
decide nothing.
"""

import asyncio
import secrets
import time
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crosslogic.kernel.clock import ManualClock, SystemClock
from crosslogic.limits.budget import month_at
from crosslogic.limits.memory import MemoryLimiter
from crosslogic.limits.model import NO_DEMAND, Admitted, Demand, Layer, Limits, Rejected, Room, Scope
from crosslogic.limits.ports import Limiter
from crosslogic.limits.redis import RedisLimiter
from crosslogic.net.redis import RedisConnection

limits = st.builds(
    Limits,
    requests_per_day=st.sampled_from([None, None, None, 7, 0]),
    tokens_per_day=st.sampled_from([None, None, 211]),
    input_tokens_per_day=st.sampled_from([None, None, 97]),
    output_tokens_per_day=st.sampled_from([None, None, 103]),
    spend_per_day_pusd=st.sampled_from([None, 33_000]),
    spend_per_month_pusd=st.sampled_from([None, 23_500]),
    concurrency=st.sampled_from([None, None, None, 3]),
    shadow=st.booleans(),
    burst_share=st.sampled_from([1.0, 1.0, 0.5]),
)
promises = st.builds(Limits, tokens_per_second=st.integers(0, 3), burst_share=st.sampled_from([1.37, 20.37]))
demands = st.builds(Demand, st.integers(0, 30), st.integers(0, 30), st.integers(2_000, 9_000))


@dataclass(frozen=True)
class Admit:
    caller: int
    demand: Demand


@dataclass(frozen=True)
class Settle:
    which: int
    used: Demand | None  # None: release


@dataclass(frozen=True)
class Look:
    caller: int


@dataclass(frozen=True)
class Spent:
    layer: Layer
    pusd: int


steps = st.lists(
    st.one_of(
        st.builds(Admit, st.integers(0, 2), demands),
        st.builds(Admit, st.integers(0, 2), demands),
        st.builds(Admit, st.integers(0, 2), demands),
        st.builds(Look, st.integers(0, 2)),
        st.builds(Settle, st.integers(0, 99), st.one_of(st.none(), demands)),
        st.builds(Spent, st.sampled_from([Layer.ORG, Layer.KEY]), st.integers(0, 12_000)),
    ),
    min_size=10,
    max_size=40,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(limits, min_size=4, max_size=4), promises, steps)
def test_memory_and_redis_answer_alike(
    redis_url: str, ceilings: list[Limits], promise: Limits, steps: list[object]
) -> None:
    world, region, org, key = (
        Scope(layer, layer.value, limits)
        for layer, limits in zip((Layer.GLOBAL, Layer.REGION, Layer.ORG, Layer.KEY), ceilings, strict=True)
    )
    reserved = Scope(Layer.RESERVED, "r", promise, guarantee=True)
    callers = ((world, region, org, key), (world, reserved, org), (region, key))
    asyncio.run(compare(redis_url, callers, steps))


async def compare(url: str, callers: tuple[tuple[Scope, ...], ...], steps: list[object]) -> None:
    clock = ManualClock()
    connection = await RedisConnection.connect(url)
    prefix = f"{{limits-alike-{secrets.token_hex(6)}}}"
    memory, redis = MemoryLimiter(clock), RedisLimiter(connection, SystemClock(), prefix=prefix, wait_s=10.0)
    running: list[tuple[Admitted, Admitted]] = []
    began_s = time.monotonic()
    try:
        for step in steps:
            clock.advance(time.monotonic() - began_s - clock.monotonic_s())
            if isinstance(step, Admit):
                ours = await memory.admit(callers[step.caller], step.demand)
                theirs = await redis.admit(callers[step.caller], step.demand)
                assert_alike(ours, theirs)
                if isinstance(ours, Admitted) and isinstance(theirs, Admitted):
                    running.append((ours, theirs))
            elif isinstance(step, Look):
                rooms = [await limiter.look(callers[step.caller]) for limiter in (memory, redis)]
                assert_same_room(*rooms)
            elif isinstance(step, Settle) and running:
                pair = running.pop(step.which % len(running))
                for limiter, admitted in zip((memory, redis), pair, strict=True):
                    give_back(limiter, admitted, step.used)
            elif isinstance(step, Spent):
                # What was settled is told first, as it is in life: the ledger has it seconds later. Untold, it would
                # be counted once more beside the ledger's figure, which errs on the side of the cap.
                for caller in callers:
                    told = [await limiter.admit(caller, NO_DEMAND) for limiter in (memory, redis)]
                    assert_alike(*told)
                    for limiter, answer in zip((memory, redis), told, strict=True):
                        if isinstance(answer, Admitted):
                            limiter.release(answer)
                memory.spent(step.layer, step.layer.value, month_at(clock.now()).number, step.pusd)
                redis.spent(step.layer, step.layer.value, month_at(SystemClock().now()).number, step.pusd)
        assert redis.decided_alone == 0
    finally:
        await redis.close()
        await connection.close()


def give_back(limiter: Limiter, admitted: Admitted, used: Demand | None) -> None:
    if used is None:
        limiter.release(admitted)
    else:
        limiter.settle(admitted, used)


def assert_alike(ours: Admitted | Rejected, theirs: Admitted | Rejected) -> None:
    assert type(ours) is type(theirs), (ours, theirs)
    assert_same_room(ours, theirs)
    if isinstance(ours, Admitted) and isinstance(theirs, Admitted):
        assert (ours.covered, set(ours.shadowed)) == (theirs.covered, set(theirs.shadowed))
    if isinstance(ours, Rejected) and isinstance(theirs, Rejected):
        assert ours.too_large == theirs.too_large
        if "month" not in ours.dimension + theirs.dimension:  # the clocks show different months
            assert theirs.retry_after_s == pytest.approx(ours.retry_after_s, rel=1e-3, abs=5.0)
            if ours.dimension != theirs.dimension:  # two that wait equally long
                assert ours.retry_after_s == pytest.approx(theirs.retry_after_s, abs=5.0)


def assert_same_room(ours: Admitted | Rejected | Room, theirs: Admitted | Rejected | Room) -> None:
    for mine, other in ((ours.requests, theirs.requests), (ours.tokens, theirs.tokens)):
        assert (mine is None) == (other is None)
        if mine is not None and other is not None:
            assert mine.remaining == other.remaining
            assert other.reset_s == pytest.approx(mine.reset_s, abs=5.0) or mine.limit != other.limit
