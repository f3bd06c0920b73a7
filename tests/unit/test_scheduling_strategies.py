"""What each strategy prefers, and what the scheduler answers when there is nothing to prefer."""

import random
import time
from collections import Counter
from datetime import UTC, datetime

import pytest

from crosslogic.fleet.model import Node, NodeHealth, NodeStatus, Symptom, Verdict
from crosslogic.kernel.clock import ManualClock
from crosslogic.kernel.errors import ConfigurationError
from crosslogic.kernel.ids import NodeId, OrgId
from crosslogic.scheduling.affinity import PrefixAffinity
from crosslogic.scheduling.model import Ask, Candidate, NoNode, NoNodeReason
from crosslogic.scheduling.pool import Pool
from crosslogic.scheduling.registry import STRATEGIES, new_strategy
from crosslogic.scheduling.scheduler import Scheduler
from crosslogic.scheduling.strategies import CostOptimised

ORG = OrgId("org_acme")
ASK = Ask(model="m", org_id=ORG, tokens=100)


def node(name: str, **changes: object) -> Node:
    fields: dict[str, object] = {
        "id": NodeId(name),
        "endpoint_url": f"http://{name}:8000",
        "models": ("m",),
        "status": NodeStatus.ACTIVE,
        "created_at": datetime(2026, 1, 1, tzinfo=UTC),
    }
    return Node(**{**fields, **changes})  # type: ignore[arg-type]


def candidates_of(*nodes: Node) -> tuple[Candidate, ...]:
    pool = Pool()
    pool.update(nodes)
    found = pool.candidates(ASK, 0.0)
    assert isinstance(found, tuple)
    return found


def many(count: int) -> tuple[Candidate, ...]:
    return candidates_of(*(node(f"node_{index:04d}") for index in range(count)))


def shares(name: str, candidates: tuple[Candidate, ...], picks: int) -> dict[str, float]:
    strategy, rng = new_strategy(name), random.Random(7)
    counts = Counter(
        picked.node_id for _ in range(picks) if (picked := strategy.pick(candidates, ASK, rng)) is not None
    )
    return {candidate.node_id: counts[candidate.node_id] / picks for candidate in candidates}


def within_sampling_error(share: float, expected: float, picks: int) -> bool:
    return abs(share - expected) < 4.5 * (expected * (1 - expected) / picks) ** 0.5


DEGRADED = NodeHealth(Verdict.DEGRADED, Symptom.LATENCY, "slow")


def test_of_idle_nodes_a_degraded_one_gets_a_quarter_of_what_another_gets() -> None:
    picks = 20_000
    for name in ("least_loaded", "weighted_health"):
        found = shares(name, candidates_of(node("a"), node("b", health=DEGRADED), node("c")), picks)
        assert within_sampling_error(found["b"], 1 / 9, picks), name
        assert within_sampling_error(found["a"], 4 / 9, picks), name


def test_of_many_idle_nodes_the_degraded_get_what_meets_no_healthy_one() -> None:
    nodes = [node(f"node_{index:02d}", health=DEGRADED if index < 5 else NodeHealth()) for index in range(50)]
    found = shares("least_loaded", candidates_of(*nodes), 20_000)
    degraded = sum(found[f"node_{index:02d}"] for index in range(5))
    assert within_sampling_error(degraded, 5 / 50 * 4 / 49, 20_000)


def test_a_degraded_nodes_work_weighs_four_times_as_much_and_again_as_much_when_it_is_well() -> None:
    pool = Pool()
    pool.update([node("a"), node("b", health=DEGRADED)])
    a, b = pool.candidates(ASK, 0.0)
    a.ledger.add(1000)
    b.ledger.add(1000)
    assert b.ledger.load_s == pytest.approx(4 * a.ledger.load_s)
    pool.update([node("a"), node("b")])
    assert b.ledger.load_s == a.ledger.load_s
    assert b.health_score == 1.0


def test_round_robin_gives_each_its_turn_for_each_model_apart() -> None:
    strategy, rng = new_strategy("round_robin"), random.Random(1)
    candidates = many(5)
    for _ in range(3):
        picked = [strategy.pick(candidates, ASK, rng) for _ in range(5)]
        assert {c.node_id for c in picked if c} == {c.node_id for c in candidates}
        strategy.pick(candidates, Ask(model="other", org_id=ORG), rng)


def test_equals_are_picked_evenly_by_least_loaded_and_random() -> None:
    for name in ("least_loaded", "random"):
        for share in shares(name, many(5), 20_000).values():
            assert within_sampling_error(share, 0.2, 20_000), name


def test_health_weighs_in_proportion() -> None:
    scores = {"a": 1.0, "b": 0.5, "c": 0.25, "d": 0.0}
    candidates = candidates_of(*(node(name, health_score=score) for name, score in scores.items()))
    got = shares("weighted_health", candidates, 20_000)
    for name, score in scores.items():
        assert within_sampling_error(got[name], score / 1.75, 20_000) or got[name] == score == 0.0


def test_latency_weighs_in_inverse_proportion_and_the_unmeasured_are_tried() -> None:
    candidates = candidates_of(*(node(name) for name in "abc"))
    for candidate, latency_ms in zip(candidates, (10.0, 40.0, None), strict=True):
        if latency_ms is not None:
            candidate.observe_first_token(latency_ms)
    got = shares("weighted_latency", candidates, 20_000)
    for candidate, expected in zip(candidates, (4 / 9, 1 / 9, 4 / 9), strict=True):
        assert within_sampling_error(got[candidate.node_id], expected, 20_000)


def test_weights_hold_in_a_large_fleet_too() -> None:
    nodes = [node(f"n{index:03d}", health_score=1.0 if index % 2 else 0.25) for index in range(200)]
    got = shares("weighted_health", candidates_of(*nodes), 20_000)
    healthy = sum(share for name, share in got.items() if int(name[1:]) % 2)
    assert 0.74 < healthy < 0.82  # 0.8 exactly would need to look at all of them


def test_a_node_of_twice_the_speed_gets_twice_the_work() -> None:
    fast, slow = candidates_of(
        node("fast", throughput_tokens_per_s=2000.0), node("slow", throughput_tokens_per_s=1000.0)
    )
    strategy, rng = new_strategy("least_loaded"), random.Random(3)
    for _ in range(300):
        picked = strategy.pick((fast, slow), ASK, rng)
        assert picked is not None
        picked.ledger.add(100)
    assert fast.in_flight_requests == pytest.approx(200, abs=2)
    assert slow.in_flight_requests == pytest.approx(100, abs=2)


def test_two_choices_keep_a_large_fleet_level() -> None:
    candidates = many(1000)
    strategy, rng = new_strategy("least_loaded"), random.Random(5)
    for _ in range(10_000):
        picked = strategy.pick(candidates, ASK, rng)
        assert picked is not None
        picked.ledger.add(100)
    loads = [candidate.in_flight_requests for candidate in candidates]
    assert max(loads) <= 10 + 4  # random picking goes to 22 and more
    assert min(loads) >= 4


def test_the_cheapest_token_wins_until_its_node_is_busy() -> None:
    cheap_hour, cheap_token, dear = candidates_of(
        node("a", spot_price_usd_per_hour=1.0, throughput_tokens_per_s=1000.0),
        node("b", spot_price_usd_per_hour=2.0, throughput_tokens_per_s=4000.0),
        node("c", spot_price_usd_per_hour=9.0, throughput_tokens_per_s=1000.0),
    )
    candidates = (cheap_hour, cheap_token, dear)
    strategy, rng = CostOptimised(busy_s=2.0), random.Random(1)
    assert strategy.pick(candidates, ASK, rng) is cheap_token
    cheap_token.ledger.add(8000)
    assert strategy.pick(candidates, ASK, rng) is cheap_hour
    cheap_hour.ledger.add(2500)
    assert strategy.pick(candidates, ASK, rng) is dear
    dear.ledger.add(9000)
    assert strategy.pick(candidates, ASK, rng) is cheap_token  # all busy: the least loaded


def owners(candidates: tuple[Candidate, ...], keys: range) -> dict[int, str]:
    strategy, rng = PrefixAffinity(), random.Random(1)
    found: dict[int, str] = {}
    for key in keys:
        picked = strategy.pick(candidates, Ask(model="m", org_id=ORG, prefix_hash=key), rng)
        assert picked is not None
        found[key] = picked.node_id
    return found


@pytest.mark.parametrize("count", [2, 5, 20])
def test_affinity_is_steady_even_and_moves_only_the_keys_of_a_node_that_leaves(count: int) -> None:
    keys = range(4000)
    candidates = many(count)
    before = owners(candidates, keys)
    assert owners(candidates, keys) == before
    counts = Counter(before.values())
    assert max(counts.values()) <= 1.4 * len(keys) / count
    leaver = candidates[count // 2].node_id
    after = owners(tuple(c for c in candidates if c.node_id != leaver), keys)
    moved = [key for key in keys if before[key] != after[key]]
    assert all(before[key] == leaver for key in moved)
    assert len(moved) == counts[leaver]


def test_affinity_gives_way_when_its_node_is_far_busier_than_the_rest() -> None:
    candidates = many(4)
    strategy, rng = PrefixAffinity(over_mean=1.25, slack_s=2.0), random.Random(1)
    ask = Ask(model="m", org_id=ORG, prefix_hash=42)
    home = strategy.pick(candidates, ask, rng)
    assert home is not None
    home.ledger.add(1900)
    assert strategy.pick(candidates, ask, rng) is home  # within the slack
    home.ledger.add(2000)
    away = strategy.pick(candidates, ask, rng)
    assert away is not home
    assert strategy.pick(candidates, ask, rng) is away  # to one other node, not to all
    for candidate in candidates:
        if candidate is not home:
            candidate.ledger.add(3900)
    assert strategy.pick(candidates, ask, rng) is home  # as busy as everybody


def test_affinity_without_a_prefix_is_least_loaded() -> None:
    busy, idle = many(2)
    busy.ledger.add(10)
    assert PrefixAffinity().pick((busy, idle), ASK, random.Random(1)) is idle


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_a_pick_over_a_thousand_nodes_costs_less_than_100_us(name: str) -> None:
    candidates, strategy, rng = many(1000), new_strategy(name), random.Random(1)
    strategy.pick(candidates, ASK, rng)
    best_us = float("inf")
    for _ in range(20):  # the best of many rounds: a busy machine must not make it fail
        began = time.process_time()
        for key in range(50):
            strategy.pick(candidates, Ask(model="m", org_id=ORG, prefix_hash=key), rng)
        best_us = min(best_us, (time.process_time() - began) / 50 * 1e6)
    assert best_us < 100


def scheduler_of(*nodes: Node, **options: object) -> Scheduler:
    pool = Pool()
    pool.update(nodes)
    return Scheduler(pool, new_strategy("least_loaded"), random.Random(1), ManualClock(), **options)  # type: ignore[arg-type]


def test_why_there_is_no_node() -> None:
    scheduler = scheduler_of(
        node("a", status=NodeStatus.DRAINING),
        node("b", models=("private",), org_id=OrgId("org_other")),
        node("c", models=("full",)),
        max_requests_per_node=1,
    )
    assert scheduler.pick(ASK) == NoNode(NoNodeReason.NO_HEALTHY_NODE)
    assert scheduler.pick(Ask(model="nonsense", org_id=ORG)) == NoNode(NoNodeReason.UNKNOWN_MODEL)
    assert scheduler.pick(Ask(model="private", org_id=ORG)) == NoNode(NoNodeReason.UNKNOWN_MODEL)
    full = Ask(model="full", org_id=ORG)
    picked = scheduler.pick(full)
    assert isinstance(picked, Candidate)
    scheduler.dispatched(picked, 10)
    assert scheduler.pick(full) == NoNode(NoNodeReason.NO_CAPACITY)
    assert scheduler.pick(Ask(model="full", org_id=ORG, reserved=True)) is picked
    scheduler.finished(picked, 10, ok=True)
    assert scheduler.pick(full) is picked


def test_a_full_node_gives_way_to_a_free_one() -> None:
    scheduler = scheduler_of(
        node("a", throughput_tokens_per_s=1e6), node("b", throughput_tokens_per_s=1.0), max_requests_per_node=2
    )
    picked = []
    for _ in range(4):
        candidate = scheduler.pick(ASK)
        assert isinstance(candidate, Candidate)
        scheduler.dispatched(candidate, 100)
        picked.append(candidate.node_id)
    assert sorted(picked) == ["a", "a", "b", "b"]


def test_the_scheduler_learns_latency_and_rests_failing_nodes() -> None:
    scheduler = scheduler_of(node("a"), node("b"))
    bad = next(c for c in scheduler.pool.candidates(ASK, 0.0) if c.node_id == "a")
    for _ in range(3):
        scheduler.dispatched(bad, 1)
        scheduler.finished(bad, 1, ok=False)
    assert {c.node_id for c in scheduler.pool.candidates(ASK, 0.0)} == {"b"}
    scheduler.finished(bad, 1, ok=None, first_token_ms=30.0)
    assert bad.cooling_until_s is not None
    scheduler.finished(bad, 1, ok=True, first_token_ms=80.0)
    assert bad.cooling_until_s is None
    assert bad.latency_ewma_ms == pytest.approx(40.0)
    assert len(scheduler.pool.candidates(ASK, 0.0)) == 2


def test_strategies_are_known_by_name() -> None:
    assert {type(new_strategy(name)).__name__ for name in STRATEGIES} == {
        "LeastLoaded",
        "RoundRobin",
        "WeightedHealth",
        "WeightedLatency",
        "CostOptimised",
        "PrefixAffinity",
        "RandomPick",
    }
    assert type(new_strategy("least-loaded")) is type(new_strategy("least_loaded"))
    assert type(new_strategy("cost-optimized")) is CostOptimised
    with pytest.raises(ConfigurationError, match="least_loaded"):
        new_strategy("fastest")
