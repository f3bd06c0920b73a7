"""Which of the options is best, by priority, and which are beaten by none in everything. Pure.

Invariant: an option that another beats in cost, latency and quality is never on the front, and never scores higher.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log

import msgspec

from crosslogic.compass.ranking.model import Option
from crosslogic.compass.specification.model import TIERS, Priority

# Weights of quality, latency and cost.
WEIGHTS = {
    Priority.ACCURACY: (0.7, 0.1, 0.2),
    Priority.LATENCY: (0.15, 0.65, 0.2),
    Priority.COST: (0.1, 0.1, 0.8),
    Priority.BALANCED: (0.35, 0.2, 0.45),
}


def ranked(options: Sequence[Option], priority: Priority) -> list[Option]:
    """Best first, with score (0 to 100) and place on the front."""
    if not options:
        return []
    front = pareto(options)
    weights = WEIGHTS[priority]
    axes = [
        [float(TIERS.index(option.quality)) for option in options],
        [-log(max(1e-3, latency_ms(option))) for option in options],
        [-log(max(1, option.cost.per_month_pusd)) for option in options],
    ]
    scored = []
    for index, option in enumerate(options):
        score = sum(weight * _share(axis, index) for weight, axis in zip(weights, axes, strict=True))
        scored.append(msgspec.structs.replace(option, score=round(100 * score, 1), pareto=index in front))
    return sorted(scored, key=lambda each: (-each.score, each.cost.per_month_pusd, each.candidate))


def pareto(options: Sequence[Option]) -> set[int]:
    """Those for which no other is at least as good in all three and better in one."""
    points = [(-TIERS.index(o.quality), latency_ms(o), o.cost.per_month_pusd) for o in options]
    return {
        index
        for index, point in enumerate(points)
        if not any(_beats(other, point) for place, other in enumerate(points) if place != index)
    }


def latency_ms(option: Option) -> float:
    """What the front and the score go by: the end of the answer, which first token and pace both decide."""
    return option.forecast.e2e_p95.value


def _beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True)) and one != other


def _share(axis: Sequence[float], index: int) -> float:
    low, high = min(axis), max(axis)
    return 1.0 if high == low else (axis[index] - low) / (high - low)
