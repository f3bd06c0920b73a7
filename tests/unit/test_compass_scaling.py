"""When to start and stop replicas, by what one carries and how long its start takes."""

import pytest

from crosslogic.compass.ranking.model import Sizing
from crosslogic.compass.ranking.scaling import ScalingAction, Urgency, recommend_scaling

SIZING = Sizing(4, 3, 1, 2, 10.0, 8.0, 120.0, "itl", 400_000, 256, 40.0, simulated=True)


@pytest.mark.parametrize(
    ("rate", "ready", "action", "target", "urgency"),
    [
        (24.0, 4, ScalingAction.MAINTAIN, 4, Urgency.LOW),
        (24.0, 3, ScalingAction.SCALE_UP, 4, Urgency.MEDIUM),  # its spare is missing
        (33.0, 4, ScalingAction.SCALE_UP, 6, Urgency.HIGH),  # room for what comes while one starts is used up
        (45.0, 4, ScalingAction.SCALE_UP, 7, Urgency.CRITICAL),
        (5.0, 0, ScalingAction.SCALE_UP, 2, Urgency.CRITICAL),
        (12.0, 4, ScalingAction.SCALE_DOWN, 3, Urgency.LOW),
        (0.0, 2, ScalingAction.MAINTAIN, 2, Urgency.LOW),
    ],
)
def test_replicas_follow_the_rate(
    rate: float, ready: int, action: ScalingAction, target: int, urgency: Urgency
) -> None:
    found = recommend_scaling(SIZING, rate, ready)
    assert (found.action, found.target_replicas, found.urgency) == (action, target, urgency)
    assert "requests/s on" in found.reason


def test_it_never_goes_back_and_forth() -> None:
    for tenths in range(800):
        rate = tenths / 10
        after = recommend_scaling(SIZING, rate, recommend_scaling(SIZING, rate, 5).target_replicas)
        assert after.action is ScalingAction.MAINTAIN
