"""When a running deployment wants more or fewer replicas (control-plane interfaces, phase 4: CapacityPlanner). Pure.

Invariant: it scales out at the rate that leaves room for what may come while a replica starts, and in only where one
fewer would be below that with room to spare, so that it never goes back and forth.
"""

from __future__ import annotations

from enum import StrEnum
from math import ceil

import msgspec

from crosslogic.compass.ranking.model import Sizing

ROOM_TO_SCALE_IN = 0.8  # of the rate at which it scales out


class ScalingAction(StrEnum):
    SCALE_UP = "scale_up"
    SCALE_DOWN = "scale_down"
    MAINTAIN = "maintain"


class Urgency(StrEnum):
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


class ScalingRecommendation(msgspec.Struct, frozen=True):
    action: ScalingAction
    target_replicas: int
    urgency: Urgency
    reason: str


def recommend_scaling(sizing: Sizing, rate: float, ready: int) -> ScalingRecommendation:
    """What to do at this rate, in requests a second for all, with so many replicas that serve."""
    busy = max(1, ceil(rate / sizing.scale_out_at))
    target = busy + sizing.spare
    each = rate / max(1, ready)
    at = f"{rate:.3g} requests/s on {ready} replicas are {each:.3g} each"
    carries = f"a replica carries {sizing.rate_per_replica:.3g} and starts in {sizing.startup_s:.0f} s"
    if ready < target:
        if not ready or each > sizing.rate_per_replica:
            urgency = Urgency.CRITICAL
        elif each > sizing.scale_out_at:
            urgency = Urgency.HIGH
        else:  # what runs is enough; the spare is missing
            urgency = Urgency.MEDIUM
        return ScalingRecommendation(ScalingAction.SCALE_UP, target, urgency, f"{at}; {carries}")
    fewer = max(1, ceil(rate / (sizing.scale_out_at * ROOM_TO_SCALE_IN))) + sizing.spare
    if ready > fewer:
        return ScalingRecommendation(ScalingAction.SCALE_DOWN, fewer, Urgency.LOW, f"{at}; {fewer} are enough")
    return ScalingRecommendation(ScalingAction.MAINTAIN, ready, Urgency.LOW, f"{at}; {carries}")
