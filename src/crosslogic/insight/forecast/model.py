"""Values of the capacity forecast (interface document, phase 4: CapacityPlanner). Rates are of whole hours.

Invariant: every figure of the future has a lower and an upper bound, of which it is said how often the truth was
between them when the same was asked of the past.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from crosslogic.compass.ranking.scaling import ScalingAction, Urgency


class Range(msgspec.Struct, frozen=True):
    """What is expected, and between which bounds it was to be in nine of ten cases."""

    value: float
    low: float
    high: float


class Hour(msgspec.Struct, frozen=True):
    at: datetime  # its beginning
    requests: Range


class Kind(msgspec.Struct, frozen=True, order=True):
    """Nodes that are alike for planning. An empty `gpu_type`: they do not say what they are."""

    gpu_type: str
    gpu_count: int


class Supply(msgspec.Struct, frozen=True):
    """What serves a model in a region today: all its nodes together."""

    kind: Kind | None  # the most frequent; None: nothing serves it
    nodes: float  # where one serves several models, its part
    per_node: float  # requests a second that a node carries at these lengths
    usd_per_hour: float | None  # of one node
    basis: str  # where `per_node` is from


class Need(msgspec.Struct, frozen=True):
    """What the next days take of one model in one region."""

    model: str
    region: str
    hours: tuple[Hour, ...]
    requests: Range  # in all
    tokens: Range
    prompt_tokens: float  # of a request, mean
    output_tokens: float
    supply: Supply
    nodes: int  # that the upper bound of the busiest hour takes
    nodes_expected: int  # that the expected busiest hour takes
    busiest_at: datetime
    exceeded_at: datetime | None  # when the upper bound passes what there is; None: never
    surely_exceeded_at: datetime | None  # when what is expected does
    now_requests_per_s: float
    error: float | None  # median relative error of an hour when the same was asked of the past
    coverage: float | None  # how often the past was within the bounds
    history_hours: int

    @property
    def gpus(self) -> int:
        return self.nodes * (1 if self.supply.kind is None else self.supply.kind.gpu_count)

    @property
    def extra_usd_per_hour(self) -> float | None:
        """What more or fewer nodes than today cost."""
        if self.supply.usd_per_hour is None:
            return None
        return (self.nodes - self.supply.nodes) * self.supply.usd_per_hour


class CapacityForecast(msgspec.Struct, frozen=True):
    start: datetime
    end: datetime
    predicted_requests: Range
    predicted_tokens: Range
    required_gpus: int
    confidence: float
    needs: tuple[Need, ...]


class ScalingRecommendation(msgspec.Struct, frozen=True):
    model: str
    region: str
    action: ScalingAction
    nodes: float  # now
    target_nodes: int
    urgency: Urgency
    reason: str


class Placement(msgspec.Struct, frozen=True):
    """What would serve a model in a region at the least cost, beside what does."""

    model: str
    region: str
    today: Kind | None
    nodes_today: float
    usd_per_month_today: float | None
    kind: Kind | None  # None: nothing that is known serves it within the targets
    nodes: int
    usd_per_month: float | None
    where: str
    sentence: str


class AllocationPlan(msgspec.Struct, frozen=True):
    placements: tuple[Placement, ...]
    usd_per_month_today: float | None  # None where some node has no price
    usd_per_month: float
