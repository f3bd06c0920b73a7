"""When a caller that found every slot taken should come back: from how fast slots become free."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crosslogic.kernel.clock import ManualClock
from crosslogic.limits.memory import MemoryLimiter
from crosslogic.limits.model import NO_DEMAND, Admitted, Dimension, Layer, Limits, Rejected, Scope
from crosslogic.limits.turnover import LONGEST_S, SHORTEST_S, Turnover


class Caller:
    """Callers under one ceiling, on a clock of their own."""

    def __init__(self, slots: int) -> None:
        self.clock = ManualClock()
        self.limiter = MemoryLimiter(self.clock)
        self.scopes = (Scope(Layer.KEY, "k", Limits(concurrency=slots)),)

    async def admit(self) -> Admitted:
        answer = await self.limiter.admit(self.scopes, NO_DEMAND)
        assert isinstance(answer, Admitted)
        return answer

    async def refuse(self) -> float:
        answer = await self.limiter.admit(self.scopes, NO_DEMAND)
        assert isinstance(answer, Rejected)
        assert answer.dimension is Dimension.CONCURRENCY
        return answer.retry_after_s

    async def run(self, seconds: float) -> None:
        """One request of that length, while others are refused."""
        running = await self.admit()
        await self.refuse()
        self.clock.advance(seconds)
        self.limiter.settle(running, NO_DEMAND)


async def test_at_first_it_is_a_second() -> None:
    caller = Caller(1)
    await caller.admit()
    assert await caller.refuse() == SHORTEST_S


@pytest.mark.parametrize(("seconds", "told_s"), [(0.2, 1.0), (8.0, 8.0), (300.0, 60.0)])
async def test_it_is_how_long_a_slot_takes_to_become_free(seconds: float, told_s: float) -> None:
    caller = Caller(1)
    for _ in range(20):
        await caller.run(seconds)
    await caller.admit()
    assert await caller.refuse() == pytest.approx(told_s)


async def test_of_many_slots_one_is_free_sooner() -> None:
    caller = Caller(10)
    running = [await caller.admit() for _ in range(10)]
    for _ in range(100):  # each runs for 20 s, one ends every two
        await caller.refuse()
        caller.clock.advance(2.0)
        caller.limiter.settle(running.pop(0), NO_DEMAND)
        running.append(await caller.admit())
    assert await caller.refuse() == pytest.approx(2.0)


async def test_while_nothing_ends_callers_come_back_ever_more_seldom() -> None:
    caller = Caller(1)
    await caller.admit()
    told = []
    for _ in range(12):
        told.append(await caller.refuse())
        caller.clock.advance(told[-1])
    assert told[:5] == [1.0, 1.0, 2.0, 4.0, 8.0]
    assert told == sorted(told)
    assert told[-1] == LONGEST_S


async def test_a_refusal_long_ago_says_nothing_of_now() -> None:
    caller = Caller(1)
    running = await caller.admit()
    await caller.refuse()
    caller.clock.advance(40.0)  # the slot may have been free for most of this
    assert await caller.refuse() == SHORTEST_S
    caller.limiter.settle(running, NO_DEMAND)


async def test_nothing_is_watched_where_nobody_is_refused_any_more() -> None:
    caller = Caller(1)
    await caller.run(5.0)
    (counter,) = caller.limiter._book.counters()
    assert counter.turnover is not None
    for _ in range(300):
        running = await caller.admit()
        caller.clock.advance(5.0)
        caller.limiter.settle(running, NO_DEMAND)
    assert counter.turnover is None


async def test_where_a_ceiling_is_zero_there_is_nothing_to_wait_for() -> None:
    caller = Caller(0)
    answer = await caller.limiter.admit(caller.scopes, NO_DEMAND)
    assert isinstance(answer, Rejected)
    assert answer.too_large
    assert [counter.turnover for counter in caller.limiter._book.counters()] == [None]


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 500), st.floats(0.01, 1)), max_size=40))
def test_it_is_between_one_and_sixty_seconds_whatever_happens(steps: list[tuple[bool, float, float]]) -> None:
    now_s = 0.0
    turnover = Turnover(now_s)
    for refused, seconds, share in steps:
        now_s += seconds
        if refused:
            assert SHORTEST_S <= turnover.refused(now_s, share) <= LONGEST_S
        else:
            turnover.ended(now_s)
