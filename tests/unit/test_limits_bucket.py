"""What the pure bucket decides: exact waits, all or nothing, debt, bursts, shares of workers."""

import pytest

from crosslogic.limits import bucket
from crosslogic.limits.model import NO_DEMAND, Admitted, Demand, Dimension, Layer, Limits, Rejected, Scope
from crosslogic.limits.plan import Counter, Plan, share_of_slots


def plan_of(*limits: Limits, workers: int = 1, rank: int = 0) -> Plan[Counter]:
    layers = (Layer.GLOBAL, Layer.ORG, Layer.ENV, Layer.KEY)
    scopes = tuple(Scope(layer, f"{layer}-1", limit) for layer, limit in zip(layers, limits, strict=False))
    return Plan(scopes, tuple(Counter(scope) for scope in scopes), workers, rank)


def admitted(plan: Plan[Counter], now_s: float, tokens: int = 0) -> Admitted:
    answer = bucket.reserve(plan, now_s, Demand(tokens, 0))
    assert isinstance(answer, Admitted), answer
    return answer


def rejected(plan: Plan[Counter], now_s: float, tokens: int = 0) -> Rejected:
    answer = bucket.reserve(plan, now_s, Demand(tokens, 0))
    assert isinstance(answer, Rejected), answer
    return answer


@pytest.mark.parametrize("limit", [1, 3, 7, 60, 997])
def test_a_full_bucket_admits_exactly_its_limit_at_one_instant(limit: int) -> None:
    plan = plan_of(Limits(requests_per_minute=limit))
    for _ in range(limit):
        admitted(plan, 5.0)
    refusal = rejected(plan, 5.0)
    assert refusal.dimension is Dimension.REQUESTS_PER_MINUTE
    assert refusal.retry_after_s == pytest.approx(60 / limit)


def test_retry_after_is_exact_to_the_microsecond() -> None:
    plan = plan_of(Limits(tokens_per_minute=600))
    admitted(plan, 0.0, 550)
    wait_s = rejected(plan, 0.0, 100).retry_after_s
    assert wait_s == pytest.approx(5.0)
    rejected(plan, wait_s - 0.001, 100)
    admitted(plan, wait_s, 100)


def test_the_longest_wait_is_reported_and_its_owner_named() -> None:
    plan = plan_of(Limits(requests_per_minute=60), Limits(requests_per_minute=2), Limits(requests_per_minute=60))
    admitted(plan, 0.0)
    admitted(plan, 0.0)
    refusal = rejected(plan, 0.0)
    assert (refusal.layer, refusal.retry_after_s) == (Layer.ORG, pytest.approx(30.0))


def test_a_refusal_takes_nothing_from_the_layers_that_had_room() -> None:
    plan = plan_of(Limits(requests_per_minute=100, concurrency=9), Limits(tokens_per_minute=100, concurrency=9))
    admitted(plan, 0.0, 80)
    before = [list(counter.full_at_s) for counter in plan.counters]
    for _ in range(50):
        rejected(plan, 0.0, 80)
    assert [list(counter.full_at_s) for counter in plan.counters] == before
    assert [counter.in_flight for counter in plan.counters] == [1, 1]


def test_settling_gives_back_what_was_not_used() -> None:
    plan = plan_of(Limits(tokens_per_minute=1000))
    answer = admitted(plan, 0.0, 1000)
    rejected(plan, 0.0, 600)
    bucket.settle(answer, 0.0, Demand(400, 0))
    admitted(plan, 0.0, 600)
    rejected(plan, 0.0, 1)


def test_a_late_refund_never_lifts_a_bucket_above_full() -> None:
    plan = plan_of(Limits(tokens_per_minute=1000))
    answer = admitted(plan, 0.0, 1000)
    bucket.settle(answer, 60.0, NO_DEMAND)
    admitted(plan, 60.0, 1000)
    rejected(plan, 60.0, 1)


def test_using_more_than_reserved_is_a_debt_that_is_waited_out() -> None:
    plan = plan_of(Limits(tokens_per_minute=600))
    answer = admitted(plan, 0.0, 100)
    bucket.settle(answer, 0.0, Demand(900, 0))
    refusal = rejected(plan, 0.0, 60)
    assert refusal.retry_after_s == pytest.approx(36.0)
    assert refusal.tokens is not None
    assert refusal.tokens.remaining == 0


def test_a_request_larger_than_the_burst_is_refused_for_good_and_says_so() -> None:
    plan = plan_of(Limits(tokens_per_minute=600), Limits(requests_per_minute=1))
    admitted(plan, 0.0)
    refusal = rejected(plan, 0.0, 601)  # the request rate refuses too, but waiting for it would not help
    assert refusal.too_large
    assert refusal.dimension is Dimension.TOKENS_PER_MINUTE
    admitted(plan, 60.0, 600)


@pytest.mark.parametrize("limits", [Limits(requests_per_minute=0), Limits(concurrency=0)])
def test_a_ceiling_of_zero_lets_nothing_through_and_asks_nobody_to_wait(limits: Limits) -> None:
    assert rejected(plan_of(limits), 1e6).too_large


def test_a_smaller_burst_spends_less_at_once_and_no_less_in_the_long_run() -> None:
    plan = plan_of(Limits(requests_per_minute=600, burst_share=0.1))
    at_once = sum(isinstance(bucket.reserve(plan, 0.0, NO_DEMAND), Admitted) for _ in range(200))
    assert at_once == 60
    steadily = sum(isinstance(bucket.reserve(plan, 0.05 * step, NO_DEMAND), Admitted) for step in range(1, 1201))
    assert 0.99 * 600 <= steadily <= 600


def test_limits_of_one_second_one_hour_and_one_day_hold_together() -> None:
    plan = plan_of(Limits(requests_per_second=5, requests_per_day=7, tokens_per_hour=1000, tokens_per_day=1000))
    for _ in range(5):
        admitted(plan, 0.0, 10)
    assert rejected(plan, 0.0, 10).dimension is Dimension.REQUESTS_PER_SECOND
    admitted(plan, 1.0, 10)
    admitted(plan, 1.0, 10)
    assert rejected(plan, 1.0, 10).dimension is Dimension.REQUESTS_PER_DAY


def test_headroom_is_that_of_the_tightest_layer() -> None:
    plan = plan_of(Limits(requests_per_minute=100), Limits(requests_per_minute=10), Limits(tokens_per_minute=50))
    answer = admitted(plan, 0.0, 20)
    assert answer.requests is not None
    assert (answer.requests.limit, answer.requests.remaining) == (10, 9)
    assert answer.requests.reset_s == pytest.approx(6.0)
    assert answer.tokens is not None
    assert (answer.tokens.limit, answer.tokens.remaining) == (50, 30)


def test_release_restores_every_dimension() -> None:
    plan = plan_of(Limits(requests_per_minute=1, tokens_per_minute=10, concurrency=1))
    for _ in range(5):
        answer = admitted(plan, 0.0, 10)
        bucket.settle(answer, 0.0, None)


def test_shares_of_slots_add_up_to_the_limit() -> None:
    for slots in (0, 1, 3, 4, 7, 100):
        for workers in (1, 2, 3, 4, 9):
            assert sum(share_of_slots(slots, workers, rank) for rank in range(workers)) == slots


def test_shares_of_rates_add_up_to_the_limit_at_once_and_steadily() -> None:
    plans = [plan_of(Limits(requests_per_minute=120), workers=4, rank=rank) for rank in range(4)]
    at_once = sum(isinstance(bucket.reserve(plan, 0.0, NO_DEMAND), Admitted) for plan in plans for _ in range(99))
    assert at_once == 120
    later = sum(isinstance(bucket.reserve(plan, 60.0, NO_DEMAND), Admitted) for plan in plans for _ in range(99))
    assert later == 120


def test_a_request_within_the_limit_but_above_the_share_passes_on_a_full_share_and_leaves_a_debt() -> None:
    plan = plan_of(Limits(tokens_per_minute=600), workers=4)
    admitted(plan, 0.0, 300)  # the share holds 150
    refusal = rejected(plan, 0.0, 300)
    assert not refusal.too_large
    assert refusal.retry_after_s == pytest.approx(120.0)  # 300 tokens at 150 a minute
    admitted(plan, 120.0, 300)
    assert rejected(plan, 1e4, 601).too_large
