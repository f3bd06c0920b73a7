"""From predicted hours and from nodes to how many nodes it takes, when there are too few, and what to do. Pure.

Invariant: a node that serves several models is counted once in all: each has the part of it that its demand has.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from math import ceil

from crosslogic.catalog.gpus import find_gpu
from crosslogic.compass.ranking.scaling import ScalingAction, Urgency
from crosslogic.fleet.model import Node, NodeStatus
from crosslogic.insight.forecast.model import Hour, Kind, Need, Range, ScalingRecommendation, Supply
from crosslogic.insight.forecast.predict import Predicted
from crosslogic.insight.forecast.sql import Series

WITHIN_HOUR = 1.33  # the busiest ten minutes over their hour's mean, in nine hours of ten of the ServeGen traces
ROOM_TO_SCALE_IN = 0.8
_COUNTED = (NodeStatus.ACTIVE, NodeStatus.STARTING)
_HOUR = timedelta(hours=1)


def kind_of(node: Node) -> Kind:
    gpu = None if node.gpu_type is None else find_gpu(node.gpu_type)
    return Kind(node.gpu_type or "" if gpu is None else gpu.id, max(1, node.gpu_count))


def serving(nodes: Iterable[Node], model: str, region: str) -> list[Node]:
    """Those that all may use; an org's own nodes are its own affair."""
    return [
        node
        for node in nodes
        if node.status in _COUNTED and node.org_id is None and node.region == region and model in node.models
    ]


def kind_for(nodes: Sequence[Node]) -> Kind | None:
    """The most frequent; of several the first by name."""
    counts = Counter(kind_of(node) for node in nodes)
    return min(counts, key=lambda kind: (-counts[kind], kind)) if counts else None


def parts(nodes: Iterable[Node], demand: Mapping[tuple[str, str], float]) -> dict[tuple[str, str], float]:
    """How many nodes each model has in each region; a node of several models is shared out by their demand."""
    found: dict[tuple[str, str], float] = dict.fromkeys(demand, 0.0)
    for node in nodes:
        if node.status not in _COUNTED or node.org_id is not None:
            continue
        here = {model: demand[model, node.region] for model in set(node.models) if (model, node.region) in demand}
        whole = sum(here.values())
        for model, wanted in here.items():
            found[model, node.region] += wanted / whole if whole > 0 else 1 / len(here)
    return found


def need_of(series: Series, predicted: Predicted, start: datetime, supply: Supply) -> Need:
    """What one model takes in one region, in the hours from `start` on."""
    hours = tuple(
        Hour(start + index * _HOUR, Range(*map(float, each)))
        for index, each in enumerate(zip(predicted.value, predicted.low, predicted.high, strict=True))
    )
    tokens = series.prompt_tokens + series.output_tokens
    carried = supply.nodes * supply.per_node
    busiest = max(hours, key=lambda hour: hour.requests.high)
    return Need(
        model=series.model,
        region=series.region,
        hours=hours,
        requests=Range(predicted.total, predicted.total_low, predicted.total_high),
        tokens=Range(predicted.total * tokens, predicted.total_low * tokens, predicted.total_high * tokens),
        prompt_tokens=series.prompt_tokens,
        output_tokens=series.output_tokens,
        supply=supply,
        nodes=_nodes(busiest.requests.high, supply.per_node),
        nodes_expected=_nodes(max(hour.requests.value for hour in hours), supply.per_node),
        busiest_at=busiest.at,
        exceeded_at=next((hour.at for hour in hours if peak(hour.requests.high) > carried), None),
        surely_exceeded_at=next((hour.at for hour in hours if peak(hour.requests.value) > carried), None),
        now_requests_per_s=float(series.counts[-1]) / 3600 if len(series.counts) else 0.0,
        error=predicted.error,
        coverage=predicted.coverage,
        history_hours=len(series.counts),
    )


def peak(requests_an_hour: float) -> float:
    """Requests a second in the busiest minutes of such an hour."""
    return requests_an_hour / 3600 * WITHIN_HOUR


def scaling_of(need: Need, now: datetime) -> ScalingRecommendation:
    """How many nodes, and how soon. Fewer only where a day's upper bound leaves room with one less."""
    supply = need.supply
    carried = supply.nodes * supply.per_node
    having = ceil(supply.nodes - 1e-9)
    asked_now = need.now_requests_per_s * WITHIN_HOUR
    carries = f"{supply.nodes:.3g} nodes carry {carried:.3g} requests/s ({supply.basis})"
    if asked_now > carried or need.exceeded_at is not None:
        first = now if asked_now > carried else need.exceeded_at
        assert first is not None
        urgency = _urgency(need, asked_now > carried, now)
        target = max(need.nodes, having + 1)
        when = "are asked for now" if asked_now > carried else f"may be asked for from {first:%a %d %b %H:00} UTC on"
        most = peak(max(hour.requests.high for hour in need.hours))
        reason = f"up to {most:.3g} requests/s {when}; {carries}"
        return ScalingRecommendation(
            need.model, need.region, ScalingAction.SCALE_UP, supply.nodes, target, urgency, reason
        )
    day = [hour.requests.high for hour in need.hours[:24]]
    enough = max(1, ceil(peak(max(day)) / (supply.per_node * ROOM_TO_SCALE_IN))) if supply.per_node > 0 else having
    if having > enough:
        reason = f"at most {peak(max(day)):.3g} requests/s are to be expected within a day; {carries}"
        return ScalingRecommendation(
            need.model, need.region, ScalingAction.SCALE_DOWN, supply.nodes, enough, Urgency.LOW, reason
        )
    return ScalingRecommendation(
        need.model, need.region, ScalingAction.MAINTAIN, supply.nodes, having, Urgency.LOW, carries
    )


def _urgency(need: Need, already: bool, now: datetime) -> Urgency:
    if already:
        return Urgency.CRITICAL
    surely = need.surely_exceeded_at
    if surely is not None and surely - now <= 6 * _HOUR:
        return Urgency.HIGH
    if need.exceeded_at is not None and need.exceeded_at - now <= 24 * _HOUR:
        return Urgency.MEDIUM
    return Urgency.LOW


def _nodes(requests_an_hour: float, per_node: float) -> int:
    return max(1, ceil(peak(requests_an_hour) / per_node)) if per_node > 0 else 1
