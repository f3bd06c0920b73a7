"""The queue before simulated engines under overload, in virtual time: fair, weighted, without starvation, reserved.

Two nodes of the calibrated Llama-3.1-8B on H100; lengths vary by half about their mean, arrivals are Poisson.
"""

import statistics

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from crosslogic.queueing.lanes import Lane
from crosslogic.queueing.model import Bounds, ShedReason, TrafficClass
from tests.queueing_fleet import Fleet, Tenant, jain, percentile

REQUESTS_PER_S = 42.0  # what two nodes with 16 places each complete of 300 + 100 tokens
PLACES = 16


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("habit", [None, 4096], ids=["asks for what it uses", "asks for the maximum"])
def test_a_tenant_that_floods_ten_fold_gets_no_more_than_its_equals(seed: int, habit: int | None) -> None:
    """Eight equal tenants, each asking for a little more than its share, and one of them for ten times that."""
    each_per_s = 1.3 * REQUESTS_PER_S / 8
    tenants = [Tenant(f"t{i}", each_per_s) for i in range(7)]
    tenants.append(Tenant("flood", 10 * each_per_s, declared_tokens=habit))
    fleet = Fleet(seed=seed, bounds=Bounds(2000, 200))
    fleet.run(tenants, 60.0, measure_from_s=12.0)
    shares = [fleet.served[tenant.name] for tenant in tenants]
    assert jain(shares) >= 0.98
    assert fleet.served["flood"] <= 1.05 * statistics.mean(shares)


def test_without_fairness_the_same_flood_takes_nearly_everything() -> None:
    """So that the test above is known to measure something."""
    each_per_s = 1.3 * REQUESTS_PER_S / 8
    tenants = [*(Tenant(f"t{i}", each_per_s) for i in range(7)), Tenant("flood", 10 * each_per_s)]
    fleet = Fleet(order="fifo", seed=1)
    fleet.run(tenants, 60.0, measure_from_s=15.0)
    assert jain([fleet.served.get(tenant.name, 0.0) for tenant in tenants]) < 0.7


def test_a_tenant_that_was_away_gets_its_share_and_no_arrears() -> None:
    fleet = Fleet(seed=5, bounds=Bounds(2000, 200))
    steady = [Tenant("a", REQUESTS_PER_S), Tenant("b", REQUESTS_PER_S)]
    late = Tenant("late", REQUESTS_PER_S)
    fleet.run([*steady, late], 40.0, measure_from_s=10.0, absent={"late": 20.0})
    before = fleet.served_between(0.0, 20.0)
    after = fleet.served_between(20.0, 40.0)
    assert before.get("late", 0.0) == 0.0
    assert jain([after[name] for name in ("a", "b", "late")]) >= 0.98


@settings(max_examples=4, deadline=None)
@given(weights=st.lists(st.sampled_from([1.0, 2.0, 3.0, 5.0, 8.0]), min_size=2, max_size=5), seed=st.integers(0, 999))
def test_weights_are_honoured_within_five_percent(weights: list[float], seed: int) -> None:
    tenants = [
        Tenant(f"t{i}", REQUESTS_PER_S, prompt_tokens=100 + 100 * i, output_tokens=140 - 20 * i, weight=weight)
        for i, weight in enumerate(weights)
    ]
    fleet = Fleet(seed=seed, bounds=Bounds(2000, 300))
    fleet.run(tenants, 70.0, measure_from_s=12.0)
    total = sum(fleet.served.values())
    for tenant, weight in zip(tenants, weights, strict=True):
        assert fleet.served[tenant.name] / total == pytest.approx(weight / sum(weights), rel=0.05)


@settings(max_examples=12, deadline=None)
@given(
    order=st.sampled_from(["fifo", "priority", "weighted-fair"]),
    load=st.floats(0.5, 6.0),
    patience_s=st.floats(0.2, 15.0),
    waiting=st.integers(1, 300),
    seed=st.integers(0, 999),
)
def test_every_request_is_served_or_refused_by_its_deadline(
    order: str, load: float, patience_s: float, waiting: int, seed: int
) -> None:
    """And no place stays free while somebody waits."""
    per_s = load * REQUESTS_PER_S / 3
    tenants = [
        Tenant("low", per_s, priority=1, patience_s=patience_s, traffic=TrafficClass.FREE),
        Tenant("high", per_s, priority=9, patience_s=patience_s, weight=20.0),
        Tenant("reserved", per_s, traffic=TrafficClass.RESERVED, patience_s=patience_s),
    ]
    fleet = Fleet(order=order, seed=seed, bounds=Bounds(waiting, waiting), lane=Lane(8, 2))
    fleet.run(tenants, 8.0, drain=True)
    assert len(fleet.desk.queue) == 0
    assert fleet.free("") == fleet.total("")
    for request in fleet.requests:
        if request.shed is None:
            assert request.started_s is not None
            assert request.started_s < request.ask.deadline_s
            assert request.sequence.finished_s is not None
        else:
            assert request.started_s is None
            assert request.shed_s is not None
            assert request.shed_s <= request.ask.deadline_s
        assert request.shed is None or request.tenant.name != "reserved" or request.shed is not ShedReason.DISPLACED


def test_low_priority_is_served_in_the_end_because_it_ages() -> None:
    high = Tenant("high", 1.5 * REQUESTS_PER_S, priority=3, patience_s=60.0)
    low = Tenant("low", 2.0, priority=1, patience_s=60.0)
    fleet = Fleet(order="priority", seed=7, bounds=Bounds(20_000, 20_000))
    fleet.run([high, low], 60.0)
    early = [request for request in fleet.of("low") if request.arrived_s < 20.0]
    assert early
    assert all(request.started_s is not None for request in early)


@pytest.mark.parametrize("order", ["fifo", "priority", "weighted-fair"])
@pytest.mark.parametrize("load", [1.1, 2.0])
def test_the_wait_that_is_told_is_within_thirty_percent(order: str, load: float) -> None:
    per_s = load * REQUESTS_PER_S / 5
    tenants = [
        Tenant(
            f"t{i}",
            per_s,
            prompt_tokens=100 + 100 * i,
            output_tokens=60 + 20 * i,
            declared_tokens=(i % 2) * 2048 or None,
        )
        for i in range(5)
    ]
    fleet = Fleet(order=order, seed=11, bounds=Bounds(400, 80))
    fleet.run(tenants, 60.0, measure_from_s=10.0)
    errors = [
        abs(request.told_wait_s - (request.started_s - request.arrived_s)) / (request.started_s - request.arrived_s)
        for request in fleet.requests
        if request.arrived_s > 10.0 and request.told_wait_s is not None and request.started_s is not None
    ]
    assert len(errors) > 500
    assert statistics.median(errors) <= 0.30


def reserved_run(overload: float, lane: Lane) -> Fleet:
    """A reserved org within its rate, and four serverless ones that ask for `overload` times what the fleet can do."""
    tenants = [Tenant("reserved", 6.0, prompt_tokens=800, traffic=TrafficClass.RESERVED)]
    if overload:
        tenants += [Tenant(f"s{i}", overload * REQUESTS_PER_S / 4, patience_s=20.0) for i in range(4)]
    fleet = Fleet(places=PLACES, lane=lane, seed=3, bounds=Bounds(500, 100))
    fleet.run(tenants, 120.0, measure_from_s=10.0, drain=True)
    return fleet


def first_tokens_s(fleet: Fleet) -> list[float]:
    return [request.first_token_s for request in fleet.of("reserved") if request.first_token_s is not None]


def test_reserved_capacity_holds_under_four_fold_overload() -> None:
    lane = Lane(kept=12, ready=4)
    calm, stormy = reserved_run(0.0, lane), reserved_run(4.0, lane)
    asked = stormy.of("reserved")
    done = [r for r in asked if r.sequence.finished_s is not None and r.sequence.finished_s - r.arrived_s < 10.0]
    tokens_asked = sum(r.sequence.prompt_tokens + r.sequence.output_tokens for r in asked)
    tokens_done = sum(r.sequence.prompt_tokens + r.sequence.output_tokens for r in done)
    assert len(asked) > 600
    assert tokens_done >= 0.99 * tokens_asked
    assert percentile(first_tokens_s(stormy), 0.95) <= 1.2 * percentile(first_tokens_s(calm), 0.95)
    # The overload was one: most of it was shed, and what the reserved org left idle was lent.
    serverless = [r for r in stormy.requests if r.tenant.name != "reserved"]
    assert sum(r.shed is not None for r in serverless) > 0.6 * len(serverless)
    assert sum(stormy.served[f"s{i}"] for i in range(4)) > stormy.served["reserved"]


def test_without_a_lane_the_same_org_waits() -> None:
    calm = reserved_run(0.0, Lane())
    stormy = reserved_run(4.0, Lane())
    assert percentile(first_tokens_s(stormy), 0.95) > 1.2 * percentile(first_tokens_s(calm), 0.95)


def test_idle_reserved_places_are_lent() -> None:
    """Without reserved traffic all but the places kept ready serve everybody else."""
    tenant = [Tenant("s", 3 * REQUESTS_PER_S, patience_s=20.0)]
    done = {}
    for lane in (Lane(), Lane(kept=12, ready=4)):
        fleet = Fleet(lane=lane, seed=2, bounds=Bounds(500, 500))
        fleet.run(tenant, 40.0, measure_from_s=10.0)
        done[lane.kept] = fleet.served["s"]
    assert done[12] > 0.85 * done[0]
