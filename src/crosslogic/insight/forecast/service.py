"""CapacityPlanner (interface document, phase 4): forecast, scaling, allocation.

How many requests a node carries is, in this order: what the planner says of the model on the node's GPUs within the
targets, what was measured on the nodes, what the configuration says of a GPU. The answer says which of them it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta

import msgspec
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.catalog.cards import find_card
from crosslogic.catalog.gpus import find_gpu
from crosslogic.compass.ranking.model import Option
from crosslogic.compass.ranking.offers import HOURS_PER_MONTH
from crosslogic.compass.ranking.service import PlanningService
from crosslogic.compass.specification.lengths import Lengths
from crosslogic.compass.specification.model import (
    ExperienceClass,
    Priority,
    QualityTier,
    Slo,
    Specification,
    TrafficProfile,
    UseCase,
    Wishes,
)
from crosslogic.fleet import sql as fleet_sql
from crosslogic.fleet.model import Node
from crosslogic.insight.finops.node_prices import usd_per_hour
from crosslogic.insight.finops.sql import HOUR, hour_of
from crosslogic.insight.forecast.model import (
    AllocationPlan,
    CapacityForecast,
    Kind,
    Need,
    Placement,
    Range,
    ScalingRecommendation,
    Supply,
)
from crosslogic.insight.forecast.needs import kind_for, need_of, parts, peak, scaling_of, serving
from crosslogic.insight.forecast.predict import CONFIDENCE, Predicted, PredictionModel, predict
from crosslogic.insight.forecast.sql import Series, series_of
from crosslogic.kernel.clock import Clock
from crosslogic.kernel.errors import CrossLogicError, InvalidRequest
from crosslogic.kernel.money import PUSD_PER_USD

HISTORY = timedelta(days=35)
MOST_DAYS = 14
_TAIL = 2.0  # 95th percentile of lengths over their mean, where only the mean is in the roll-ups
_USED = 0.7  # of a node's measured throughput, so that answers are still in time


class Question(msgspec.Struct, frozen=True):
    """Which part of what is served, how far ahead, and within which 95th percentiles."""

    days: int = 3
    model: str | None = None
    region: str | None = None
    ttft_p95_ms: float = 1000.0
    itl_p95_ms: float = 50.0


class CapacityPlanner:
    def __init__(
        self,
        engine: AsyncEngine,
        planning: PlanningService,
        clock: Clock,
        usd_per_gpu_hour: Mapping[str, float],
        tokens_per_s_per_gpu: float,
        prediction_model: Callable[[], PredictionModel] = lambda: PredictionModel.LINEAR,
    ) -> None:
        self._engine = engine
        self._planning = planning
        self._clock = clock
        self._usd_per_gpu_hour = usd_per_gpu_hour
        self._tokens_per_s_per_gpu = tokens_per_s_per_gpu
        self._prediction_model = prediction_model

    async def predict_capacity(self, question: Question) -> CapacityForecast:
        """Of models that were used in the last weeks. Raises InvalidRequest for days that cannot be foreseen."""
        if not 1 <= question.days <= MOST_DAYS:
            raise InvalidRequest(f"between 1 and {MOST_DAYS} days can be foreseen", param="days")
        start = hour_of(self._clock.now())
        known = await series_of(self._engine, start - HISTORY, start, model=question.model, region=question.region)
        ahead = 24 * question.days
        predicted = [(each, predict(each.counts, ahead, self._prediction_model())) for each in known]
        nodes = await fleet_sql.fetch(self._engine)
        supplies = await self._supplies(predicted, nodes, question)
        needs = tuple(need_of(series, what, start, supplies[series.model, series.region]) for series, what in predicted)
        return CapacityForecast(
            start=start,
            end=start + ahead * HOUR,
            predicted_requests=_sum([need.requests for need in needs]),
            predicted_tokens=_sum([need.tokens for need in needs]),
            required_gpus=sum(need.gpus for need in needs),
            confidence=CONFIDENCE,
            needs=needs,
        )

    async def recommend_scaling(self, question: Question) -> list[ScalingRecommendation]:
        now = self._clock.now()
        return [scaling_of(need, now) for need in (await self.predict_capacity(question)).needs]

    async def optimize_allocation(self, question: Question) -> AllocationPlan:
        """For each model and region the cheapest kind that carries the busiest hour's upper bound, beside today's."""
        placements = [await self._placement(need, question) for need in (await self.predict_capacity(question)).needs]
        today = [each.usd_per_month_today for each in placements]
        return AllocationPlan(
            tuple(placements),
            None if None in today else sum(each for each in today if each is not None),
            sum(each.usd_per_month or each.usd_per_month_today or 0.0 for each in placements),
        )

    async def _supplies(
        self, predicted: list[tuple[Series, Predicted]], nodes: list[Node], question: Question
    ) -> dict[tuple[str, str], Supply]:
        demand = {
            (series.model, series.region): float(what.value.max()) * (series.prompt_tokens + series.output_tokens)
            for series, what in predicted
        }
        shared = parts(nodes, demand)
        found = {}
        for series, what in predicted:
            here = serving(nodes, series.model, series.region)
            kind = kind_for(here)
            per_node, basis = await self._per_node(series, here, kind, float(what.high.max()), question)
            prices = [usd_per_hour(node, self._usd_per_gpu_hour) for node in here]
            priced = [price for price in prices if price is not None]
            found[series.model, series.region] = Supply(
                kind=kind,
                nodes=shared[series.model, series.region],
                per_node=per_node,
                usd_per_hour=sum(priced) / len(priced) if priced and len(priced) == len(prices) else None,
                basis=basis,
            )
        return found

    async def _per_node(
        self, series: Series, here: list[Node], kind: Kind | None, busiest: float, question: Question
    ) -> tuple[float, str]:
        """Requests a second, and where that is from."""
        if kind is not None and kind.gpu_type and find_card(series.model) is not None:
            wishes = Wishes(
                preferred_models=(series.model,), preferred_gpus=(kind.gpu_type,), tensor_parallel=kind.gpu_count
            )
            best = await self._best(series.prompt_tokens, series.output_tokens, busiest, wishes, question)
            if best is not None:
                evidence = best.forecast.itl_p95.evidence.value
                return best.sizing.rate_per_replica, f"the planner: {best.candidate.id}, {evidence}"
        tokens = max(1.0, series.prompt_tokens + series.output_tokens)
        measured = [node.throughput_tokens_per_s for node in here if node.throughput_tokens_per_s]
        if measured:
            return _USED * sum(measured) / len(measured) / tokens, "measured throughput of its nodes"
        gpus = 1 if kind is None else kind.gpu_count
        return self._tokens_per_s_per_gpu * gpus / tokens, "capacity.tokens_per_s_per_gpu: nothing better is known"

    async def _placement(self, need: Need, question: Question) -> Placement:
        supply = need.supply
        usual = None if supply.usd_per_hour is None else supply.usd_per_hour * supply.nodes * HOURS_PER_MONTH
        busiest = max(hour.requests.high for hour in need.hours)
        best = None
        if find_card(need.model) is not None:
            wishes = Wishes(preferred_models=(need.model,))
            best = await self._best(need.prompt_tokens, need.output_tokens, busiest, wishes, question)
        if best is None:
            return Placement(
                need.model, need.region, supply.kind, supply.nodes, usual, None, need.nodes, None, "",
                "the planner knows no option for it; it stays as it is",
            )  # fmt: skip
        kind, cost = Kind(best.candidate.gpu, best.candidate.tp), best.cost.per_month_pusd / PUSD_PER_USD
        where = " ".join(filter(None, (best.cost.cloud, best.cost.region, best.cost.instance_type)))
        gpu = find_gpu(kind.gpu_type)
        name = kind.gpu_type if gpu is None else gpu.name
        said = f"{best.sizing.replicas} nodes of {kind.gpu_count} x {name} for {cost:,.0f} USD a month"
        if usual is not None:
            said += f", {abs(usual - cost):,.0f} {'less' if cost < usual else 'more'} than today"
        return Placement(
            need.model, need.region, supply.kind, supply.nodes, usual, kind, best.sizing.replicas, cost, where, said
        )

    async def _best(
        self, prompt: float, output: float, busiest: float, wishes: Wishes, question: Question
    ) -> Option | None:
        """None where nothing meets the targets, or the question makes no sense to the planner."""
        mean = busiest / 3600
        prompt, output = max(1.0, prompt), max(2.0, output)
        traffic = TrafficProfile(
            prompt_tokens=Lengths(prompt, prompt * _TAIL),
            output_tokens=Lengths(output, output * _TAIL),
            mean_qps=max(1e-3, mean),
            peak_qps=max(1e-3, peak(busiest)),
        )
        spec = Specification(
            use_case=UseCase.CHATBOT_CONVERSATIONAL,
            experience=ExperienceClass.INTERACTIVE,
            traffic=traffic,
            slo=Slo(question.ttft_p95_ms, question.itl_p95_ms),
            priority=Priority.COST,
            quality=QualityTier.BASIC,
            wishes=wishes,
        )
        try:
            return (await self._planning.at_a_glance(spec)).best
        except CrossLogicError:
            return None


def _sum(ranges: list[Range]) -> Range:
    """Bounds of sums as if all erred the same way: wider than they are, never narrower."""
    return Range(*(sum(getattr(each, name) for each in ranges) for name in ("value", "low", "high")))
