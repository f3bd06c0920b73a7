"""Whether a rollout goes on, waits, or goes back. Pure.

A new deployment is judged against the old one in the same time and under the same load. Its errors count as worse only
when chance does not explain them: when a deployment that fails as often as the old one, and by as much more as the
rules allow, would have had so many in less than one of forty cases (the exact binomial tail). So a canary with one
failure in three requests is watched, not condemned.
"""

from datetime import datetime
from math import exp, lgamma, log

import msgspec

from crosslogic.orchestration.model import WHOLE, Deployment, DeploymentStatus, Observed, Rollout, RolloutKind

_CHANCE = 0.025
_LATENCIES = 20  # fewer say nothing of a 95th percentile


class Hold(msgspec.Struct, frozen=True):
    """Nothing to do yet."""

    why: str


class Advance(msgspec.Struct, frozen=True):
    """Give the new deployment this share, as step number `step`."""

    step: int
    share: int


class RollBack(msgspec.Struct, frozen=True):
    """All to the old deployment; the new one is drained."""

    reason: str


class Finish(msgspec.Struct, frozen=True):
    """All to the new deployment; the old one is drained."""


Decision = Hold | Advance | RollBack | Finish


def steps_of(rollout: Rollout) -> tuple[int, ...]:
    """Shares of the new deployment, one after the other."""
    return (WHOLE,) if rollout.kind is RolloutKind.BLUE_GREEN else rollout.rules.steps


def decide(rollout: Rollout, new_deployment: Deployment, old: Observed, new: Observed, now: datetime) -> Decision:
    """What to do with a running rollout, by what was observed since its present step began."""
    if new_deployment.status in (DeploymentStatus.FAILED, DeploymentStatus.RETIRED, DeploymentStatus.DRAINING):
        return RollBack(f"the new deployment is {new_deployment.status.value}")
    steps = steps_of(rollout)
    if rollout.step < 0:
        if new_deployment.status is not DeploymentStatus.READY:
            return Hold("the new deployment is not ready")
        return Advance(0, steps[0])
    worse = worse_than(old, new, rollout)
    if worse is not None:
        return RollBack(worse)
    waited_s = (now - rollout.step_since).total_seconds()
    if rollout.kind is RolloutKind.AB:
        return Hold("an A/B test runs until somebody ends it")
    if waited_s < rollout.rules.step_s:
        return Hold(f"step {rollout.step + 1} of {len(steps)} has run {waited_s:.0f} of {rollout.rules.step_s:.0f} s")
    if new.requests < rollout.rules.min_requests and rollout.kind is RolloutKind.CANARY:
        return Hold(f"{new.requests} of {rollout.rules.min_requests} requests have been seen")
    if rollout.step + 1 < len(steps):
        return Advance(rollout.step + 1, steps[rollout.step + 1])
    return Finish()


def worse_than(old: Observed, new: Observed, rollout: Rollout) -> str | None:
    """Why the new deployment is worse than the old one, or None."""
    rules = rollout.rules
    old_ratio = old.failures / old.requests if old.requests else 0.0
    if chance_of(new.failures, new.requests, old_ratio + rules.worse_error_ratio) < _CHANCE:
        return f"{new.failures} of {new.requests} requests failed on the new deployment, {old_ratio:.1%} on the old one"
    old_ms, new_ms = p95(old.first_tokens_ms), p95(new.first_tokens_ms)
    if old_ms is None or new_ms is None or new_ms <= old_ms * rules.worse_latency_factor:
        return None
    return f"p95 to the first token is {new_ms:.0f} ms on the new deployment, {old_ms:.0f} ms on the old one"


def chance_of(failures: int, requests: int, ratio: float) -> float:
    """The probability of at least so many failures where each request fails with probability `ratio`."""
    if failures <= 0 or ratio >= 1.0:
        return 1.0
    if ratio <= 0.0:
        return 0.0
    fewer = 0.0
    for count in range(failures):
        ways = lgamma(requests + 1) - lgamma(count + 1) - lgamma(requests - count + 1)
        fewer += exp(ways + count * log(ratio) + (requests - count) * log(1.0 - ratio))
    return max(0.0, 1.0 - fewer)


def p95(values_ms: tuple[int, ...]) -> float | None:
    """The 95th percentile, nearest rank; None of fewer than twenty values."""
    if len(values_ms) < _LATENCIES:
        return None
    return float(sorted(values_ms)[-(-95 * len(values_ms) // 100) - 1])
