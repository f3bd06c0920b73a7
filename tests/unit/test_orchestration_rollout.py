"""A rollout goes on when the new deployment is no worse, waits while nobody can tell, and goes back if it is worse."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from crosslogic.kernel.errors import Conflict
from crosslogic.orchestration.deployment import LEGAL_MOVES, moved, settled
from crosslogic.orchestration.model import (
    Deployment,
    DeploymentId,
    DeploymentStatus,
    Observed,
    Rollout,
    RolloutId,
    RolloutKind,
    RolloutRules,
    RolloutStatus,
)
from crosslogic.orchestration.rollout import Advance, Finish, Hold, RollBack, chance_of, decide, p95

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
RULES = RolloutRules(steps=(50, 500, 1000), step_s=60.0, min_requests=20)
GOOD = Observed(requests=100, failures=1, first_tokens_ms=(100,) * 99)


def deployment(status: DeploymentStatus = DeploymentStatus.READY, replicas: int = 2) -> Deployment:
    return Deployment(DeploymentId("new"), "llama", "2", status, replicas, 0, NOW, NOW)


def rollout(kind: RolloutKind = RolloutKind.CANARY, step: int = -1, since_s: float = 0.0) -> Rollout:
    since = NOW - timedelta(seconds=since_s)
    old, new = DeploymentId("old"), DeploymentId("new")
    return Rollout(RolloutId("r"), "llama", kind, RolloutStatus.RUNNING, old, new, step, since, since, RULES)


def test_it_begins_when_the_new_nodes_are_ready() -> None:
    waiting = decide(rollout(), deployment(DeploymentStatus.DEPLOYING), GOOD, Observed(), NOW)
    assert waiting == Hold("the new deployment is not ready")
    assert decide(rollout(), deployment(), GOOD, Observed(), NOW) == Advance(0, 50)


def test_blue_green_gives_all_at_once_and_then_only_watches() -> None:
    kind = RolloutKind.BLUE_GREEN
    assert decide(rollout(kind), deployment(), GOOD, Observed(), NOW) == Advance(0, 1000)
    assert isinstance(decide(rollout(kind, 0, 30), deployment(), Observed(), GOOD, NOW), Hold)
    assert decide(rollout(kind, 0, 61), deployment(), Observed(), Observed(), NOW) == Finish()


def test_a_canary_goes_step_by_step_and_needs_both_time_and_requests() -> None:
    few = msgspec.structs.replace(GOOD, requests=19, first_tokens_ms=())
    assert isinstance(decide(rollout(step=0, since_s=59), deployment(), GOOD, GOOD, NOW), Hold)
    assert isinstance(decide(rollout(step=0, since_s=61), deployment(), GOOD, few, NOW), Hold)
    assert decide(rollout(step=0, since_s=61), deployment(), GOOD, GOOD, NOW) == Advance(1, 500)
    assert decide(rollout(step=2, since_s=61), deployment(), GOOD, GOOD, NOW) == Finish()


def test_errors_that_chance_does_not_explain_roll_it_back_at_once() -> None:
    failing = Observed(requests=20, failures=6)
    decision = decide(rollout(step=0, since_s=1), deployment(), GOOD, failing, NOW)
    assert isinstance(decision, RollBack)
    assert "6 of 20 requests failed" in decision.reason


def test_one_failure_in_three_is_watched_not_condemned() -> None:
    assert isinstance(decide(rollout(step=0, since_s=1), deployment(), GOOD, Observed(3, 1), NOW), Hold)


def test_a_slower_first_token_rolls_it_back() -> None:
    slow = Observed(requests=40, failures=0, first_tokens_ms=(200,) * 40)
    decision = decide(rollout(step=0, since_s=1), deployment(), GOOD, slow, NOW)
    assert decision == RollBack("p95 to the first token is 200 ms on the new deployment, 100 ms on the old one")


def test_an_ab_test_neither_advances_nor_ends_by_itself_but_rolls_back() -> None:
    kind = RolloutKind.AB
    assert decide(rollout(kind), deployment(), GOOD, Observed(), NOW) == Advance(0, 50)
    assert isinstance(decide(rollout(kind, 0, 1e6), deployment(), GOOD, GOOD, NOW), Hold)
    assert isinstance(decide(rollout(kind, 0, 1e6), deployment(), GOOD, Observed(50, 25), NOW), RollBack)


def test_a_deployment_that_failed_takes_its_rollout_back() -> None:
    assert isinstance(decide(rollout(), deployment(DeploymentStatus.FAILED), GOOD, Observed(), NOW), RollBack)


@given(st.integers(0, 300), st.integers(0, 300), st.floats(0.01, 0.99))
def test_the_chance_is_that_of_scipy(failures: int, others: int, ratio: float) -> None:
    requests = failures + others
    assert chance_of(failures, requests, ratio) == pytest.approx(binom.sf(failures - 1, requests, ratio), abs=1e-9)


def test_percentiles_of_few_values_are_not_told() -> None:
    assert p95((1,) * 19) is None
    assert p95(tuple(range(1, 101))) == 95.0


# the life of a deployment


def test_a_deployment_becomes_ready_with_its_last_node_and_scales_when_it_loses_one() -> None:
    new = deployment(DeploymentStatus.PENDING)
    one = settled(new, 1, 2, NOW, 600)
    assert one.status is DeploymentStatus.DEPLOYING
    ready = settled(one, 2, 2, NOW, 600)
    assert ready.status is DeploymentStatus.READY
    assert settled(ready, 1, 2, NOW, 600).status is DeploymentStatus.SCALING


def test_a_deployment_that_is_not_ready_in_time_fails_and_says_why() -> None:
    late = settled(deployment(DeploymentStatus.DEPLOYING), 1, 1, NOW + timedelta(seconds=601), 600)
    assert late.status is DeploymentStatus.FAILED
    assert late.reason == "1 of 2 nodes were there in time"


def test_a_draining_deployment_is_retired_with_its_last_node() -> None:
    draining = deployment(DeploymentStatus.DRAINING)
    assert settled(draining, 1, 1, NOW, 600) is draining
    assert settled(draining, 0, 0, NOW, 600).status is DeploymentStatus.RETIRED


@given(st.sampled_from(DeploymentStatus), st.integers(1, 4), st.integers(0, 5), st.integers(0, 5), st.integers(0, 1200))
def test_nodes_never_make_a_deployment_move_illegally(
    status: DeploymentStatus, replicas: int, active: int, others: int, age_s: int
) -> None:
    before = deployment(status, replicas)
    after = settled(before, active, active + others, NOW + timedelta(seconds=age_s), 600)
    assert after.status is status or after.status in LEGAL_MOVES[status]


def test_an_illegal_move_is_refused() -> None:
    with pytest.raises(Conflict, match="retired cannot become ready"):
        moved(deployment(DeploymentStatus.RETIRED), DeploymentStatus.READY, NOW)
