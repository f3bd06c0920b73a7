"""`recommend`: from a specification to ranked deployments with size, cost, forecast, and words for each choice.

Pure but for a cache of step models. Invariant: nothing is chosen that misses a target, the budget or a wish; each
candidate that was looked at is among the options or the rejections.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from math import inf

import msgspec

from crosslogic.catalog.cards import BITS_PER_WEIGHT
from crosslogic.catalog.gpus import GpuType
from crosslogic.catalog.prices import GpuPrice
from crosslogic.compass.capacity.memory import weight_bytes
from crosslogic.compass.capacity.pooling import Pool
from crosslogic.compass.capacity.rows import packaged_rows
from crosslogic.compass.capacity.step_model import StepModel, step_model
from crosslogic.compass.capacity.virtual import ReplicaLimits
from crosslogic.compass.knowledge.model import Benchmark
from crosslogic.compass.ranking import explain, measured, offers
from crosslogic.compass.ranking.candidates import Fitting, fitting
from crosslogic.compass.ranking.model import Candidate, Cost, Option, Recommendation, Rejection
from crosslogic.compass.ranking.scores import ranked
from crosslogic.compass.ranking.sizing import Found, Missed, size, startup_s, surface_targets
from crosslogic.compass.specification.model import DeploymentModel, Market, QualityTier, Specification
from crosslogic.compass.specification.validate import Weight, validate
from crosslogic.kernel.errors import InvalidRequest
from crosslogic.simulator.fit import Configuration

MOST_CANDIDATES = 40
MOST_CONFIRMED = 3
SECONDS_PER_MONTH = offers.HOURS_PER_MONTH * 3600
_CACHED_MODELS = 4096


class Bias(msgspec.Struct, frozen=True):
    """What outcomes taught of a configuration: factors on ITL and TTFT."""

    itl: float = 1.0
    ttft: float = 1.0


class Planner:
    """Measured rows, prices and what was learnt, ready to be asked."""

    def __init__(
        self,
        pool: Pool,
        prices: Sequence[GpuPrice] = (),
        biases: Mapping[str, Bias] | None = None,
        purchase_pusd: Mapping[str, int] | None = None,
        benchmarks: Sequence[Benchmark] = (),
    ) -> None:
        self.pool = pool
        self.prices = tuple(prices) or offers.default_prices()
        self._biases = dict(biases or {})
        self._measured = measured.by_traffic(benchmarks)
        self._purchase = {**offers.PURCHASE_PUSD, **(purchase_pusd or {})}
        self._models: dict[tuple[Configuration, int, int], StepModel] = {}

    def recommend(
        self, spec: Specification, *, most: int = MOST_CANDIDATES, confirm: int = MOST_CONFIRMED
    ) -> Recommendation:
        """Rank what meets the specification. Raises InvalidRequest for one that makes no sense.

        `confirm`: how many of the best are run in the virtual-time scheduler as well.
        """
        spec = checked(spec)
        prices = offers.allowed(self.prices, spec.wishes, spec.market)
        note: tuple[str, ...] = ()
        if not prices and spec.market is not Market.ON_DEMAND:
            prices = offers.allowed(self.prices, spec.wishes, Market.ON_DEMAND)
            note = (f"no {spec.market} price is known, on-demand prices are used; import a price list",)
        hourly = _hourly(prices, spec)
        fits, rejected, considered = fitting(spec, hourly.get, most=most)
        found: list[tuple[Fitting, Option]] = []
        for fit in fits:
            outcome = self._option(spec, fit, prices, simulated=False)
            if isinstance(outcome, Rejection):
                rejected.append(outcome)
            else:
                found.append((fit, outcome))
        options = ranked([option for _, option in found], spec.priority)
        by_id = {option.candidate.id: fit for fit, option in found}
        options, refuted = self._confirm(spec, options, by_id, prices, confirm)
        return Recommendation(
            specification=spec,
            priority=spec.priority,
            deployment_model=spec.deployment_model,
            market=spec.market,
            options=tuple(explain.with_reasons(options, spec)),
            rejections=tuple(
                sorted([*rejected, *refuted], key=lambda each: each.near if each.near is not None else inf)
            ),
            considered=considered,
            advice=(*note, *explain.advice(options, rejected, priced=bool(hourly))),
        )

    def taught(self, biases: Mapping[str, Bias]) -> Planner:
        """The same planner with what outcomes taught; it shares what was computed."""
        other = copy(self)
        other._biases = dict(biases)
        return other

    def model(self, candidate: Candidate, spec: Specification) -> StepModel:
        """The step-time model of a candidate at the specification's lengths, with what was learnt of it."""
        configuration = configuration_of(candidate)
        prompt = round(spec.traffic.prompt_tokens.mean)
        output = max(2, round(spec.traffic.output_tokens.mean))
        key = (configuration, prompt, output)
        if key not in self._models:
            if len(self._models) >= _CACHED_MODELS:
                self._models.clear()
            self._models[key] = step_model(self.pool, configuration, float(prompt), float(output))
        bias = self._biases.get(candidate.id)
        model = self._models[key]
        return model if bias is None else model.scaled(bias.itl, bias.ttft)

    def _confirm(
        self,
        spec: Specification,
        options: list[Option],
        fits: Mapping[str, Fitting],
        prices: Sequence[GpuPrice],
        count: int,
    ) -> tuple[list[Option], list[Rejection]]:
        """The best ones once more in the scheduler, then ranked anew."""
        refuted: list[Rejection] = []
        sure: list[Option] = []
        for option in options:
            if len(sure) + len(refuted) >= count:
                break
            outcome = self._option(spec, fits[option.candidate.id], prices, simulated=True)
            if isinstance(outcome, Rejection):
                refuted.append(outcome)
            else:
                sure.append(outcome)
        rest = options[len(sure) + len(refuted) :]
        return ranked([*sure, *rest], spec.priority), refuted

    def _option(
        self, spec: Specification, fit: Fitting, prices: Sequence[GpuPrice], *, simulated: bool
    ) -> Option | Rejection:
        candidate = fit.candidate
        limits = ReplicaLimits(fit.memory.kv_tokens)
        start = startup_s(weight_bytes(fit.card, candidate.precision), candidate.tp)
        one = offers.cheapest(prices, fit.gpu.id, candidate.tp, 1)
        outcome = size(
            self.model(candidate, spec),
            limits,
            spec,
            startup_s=start,
            simulated=simulated,
            taken_back=offers.SPOT_INTERRUPTED_PER_MONTH if one is None else offers.taken_back_share(one.price),
        )
        if isinstance(outcome, Missed):
            return Rejection(candidate, explain.missed(outcome, spec), outcome.times)
        cost = self._cost(spec, fit, outcome, prices)
        if cost is None:
            return Rejection(candidate, explain.unpriced(fit, spec))
        over = explain.over_budget(spec, outcome.sizing, cost, candidate)
        if over is not None:
            return Rejection(candidate, *over)
        point = measured.quoted(self._measured, candidate, spec.traffic, spec.traffic.peak_qps / outcome.sizing.needed)
        if point is not None:
            against = measured.missed(point, surface_targets(spec.slo, spec.traffic))
            if against is not None:
                return Rejection(candidate, *against)
            outcome = msgspec.structs.replace(outcome, forecast=measured.as_forecast(point, outcome.forecast))
        return _option_of(fit, outcome, cost, self.model(candidate, spec), spec)

    def _cost(self, spec: Specification, fit: Fitting, found: Found, prices: Sequence[GpuPrice]) -> Cost | None:
        tp, gpu, sizing = fit.candidate.tp, fit.gpu, found.sizing
        gpus = sizing.replicas * tp
        traffic = spec.traffic
        tokens = (traffic.prompt_tokens.mean + traffic.output_tokens.mean) * traffic.mean_qps * SECONDS_PER_MONTH
        rented = offers.cheapest(prices, gpu.id, tp, sizing.replicas)
        if spec.deployment_model is DeploymentModel.OWNED_HARDWARE:
            return offers.owned(gpu, gpus, spec.datacenter, tokens)
        if spec.deployment_model is DeploymentModel.PURCHASE:
            return self._purchase_cost(spec, gpu, gpus, rented, tokens)
        at_mean = offers.cheapest(prices, gpu.id, tp, sizing.replicas_at_mean)
        if rented is None or at_mean is None:
            return None
        redo_s = sizing.startup_s + found.forecast.e2e_p95.value / 2e3
        return offers.rental(rented, at_mean, rented.instances * rented.price.gpu_count, tokens, spec.market, redo_s)

    def _purchase_cost(
        self, spec: Specification, gpu: GpuType, gpus: int, rented: offers.Rented | None, tokens: float
    ) -> Cost | None:
        price = spec.datacenter.gpu_pusd or self._purchase.get(gpu.id)
        return None if price is None else offers.purchase(gpu, gpus, price, spec.datacenter, rented, tokens)


def checked(spec: Specification) -> Specification:
    """The specification, where no error is found in it. Raises InvalidRequest with the first one."""
    for finding in validate(spec):
        if finding.weight is Weight.ERROR:
            raise InvalidRequest(finding.sentence, param=finding.field)
    for precision in spec.wishes.quantizations:
        if precision not in BITS_PER_WEIGHT:
            known = ", ".join(BITS_PER_WEIGHT)
            raise InvalidRequest(f"there is no precision {precision[:40]!r}; one of {known}", param="quantizations")
    return spec


def configuration_of(candidate: Candidate) -> Configuration:
    return Configuration(
        candidate.model, candidate.gpu, candidate.precision, candidate.backend, candidate.tp, layout=""
    )


def packaged_planner(prices: Sequence[GpuPrice] = ()) -> Planner:
    """With the rows that come with the product."""
    return Planner(Pool(packaged_rows()), prices)


def recommend(spec: Specification, planner: Planner | None = None) -> Recommendation:
    """The one entry: what to run, where, how many, at what cost, and why. Raises InvalidRequest."""
    return (planner or packaged_planner()).recommend(spec)


def _hourly(prices: Sequence[GpuPrice], spec: Specification) -> dict[str, float]:
    """The cheapest hour of each GPU; owned ones are only counted."""
    found: dict[str, float] = {}
    for price in prices:
        found[price.gpu] = min(found.get(price.gpu, inf), price.per_gpu_hour_usd)
    if spec.deployment_model is DeploymentModel.OWNED_HARDWARE:
        found.update(dict.fromkeys(spec.wishes.preferred_gpus, 1.0))
    return found


def _option_of(fit: Fitting, found: Found, cost: Cost, model: StepModel, spec: Specification) -> Option:
    return Option(
        candidate=fit.candidate,
        quality=QualityTier(fit.card.quality),
        forecast=found.forecast,
        sizing=found.sizing,
        cost=cost,
        score=0.0,
        pareto=False,
        reasons=(),
        caveats=explain.caveats(fit, model, cost, spec),
    )
