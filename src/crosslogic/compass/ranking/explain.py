"""Words for each choice and each rejection, with the numbers that decide. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import msgspec

from crosslogic.catalog.spot import AS_OF, taken_back
from crosslogic.compass.capacity.step_model import Evidence, StepModel
from crosslogic.compass.ranking.candidates import Fitting
from crosslogic.compass.ranking.model import Candidate, Cost, Figure, Option, Rejection, Sizing
from crosslogic.compass.ranking.sizing import Missed
from crosslogic.compass.specification.model import DeploymentModel, Market, Priority, Specification
from crosslogic.kernel.money import PUSD_PER_USD

_TARGETS = {"ttft": "p95 TTFT", "itl": "p95 ITL", "e2e": "p95 E2E"}
_DOUBTFUL = 0.5


def missed(miss: Missed, spec: Specification) -> str:
    """Why no number of replicas will do: "p95 E2E 5.4 s > 5 s even for a request that is nearly alone"."""
    if miss.target == "replicas":
        return (
            f"more than {miss.limit_ms:.0f} replicas would be needed for {rate_text(spec.traffic.peak_qps)} requests/s"
        )
    name = _TARGETS[miss.target]
    text = f"{name} {_beyond(miss.value_ms, miss.limit_ms)} even for a request that is nearly alone"
    if miss.target == "itl" and spec.slo.e2e_binds(spec.traffic):
        text += f" (the E2E target of {time_text(spec.slo.e2e_p95_ms or 0)} asks for that ITL)"
    return text


def over_budget(spec: Specification, sizing: Sizing, cost: Cost, candidate: Candidate) -> tuple[str, float] | None:
    """The bound of money or of GPUs that is exceeded, and how many times over."""
    budget = spec.budget
    at = f"at {rate_text(spec.traffic.peak_qps)} requests/s on {sizing.replicas} replicas"
    gpus = sizing.replicas * candidate.tp
    if spec.wishes.max_gpus is not None and gpus > spec.wishes.max_gpus:
        return f"{gpus} GPUs > {spec.wishes.max_gpus} {at}", gpus / spec.wishes.max_gpus
    per_1k = None if cost.per_million_tokens_pusd is None else cost.per_million_tokens_pusd // 1000
    for name, value, bound in (
        ("a month", cost.per_month_pusd, budget.per_month_pusd),
        ("an hour", cost.per_hour_pusd, budget.per_hour_pusd),
        ("for 1,000 tokens", per_1k, budget.per_1k_tokens_pusd),
    ):
        if value is not None and bound is not None and value > bound:
            return f"{usd(value)} {name} > {usd(bound)} {at}", value / bound if bound else inf
    return None


def unpriced(fit: Fitting, spec: Specification) -> str:
    """Which price is not known, and who has it."""
    if spec.deployment_model is DeploymentModel.PURCHASE:
        return f"nobody has said what one {fit.gpu.name} costs to buy; set datacenter.gpu_pusd, in pico-USD"
    return f"no price of {fit.gpu.name} in instances of {fit.candidate.tp} GPUs"


def caveats(fit: Fitting, model: StepModel, cost: Cost, spec: Specification) -> tuple[str, ...]:
    """What to keep in mind about an option."""
    said = [f"figures are {model.evidence}: {model.basis}"]
    if fit.candidate.precision != fit.card.dtype:
        said.append(f"weights in {fit.candidate.precision} instead of {fit.card.dtype}: check the quality of answers")
    if cost.stale:
        said.append("its price has no date; import a current price list")
    if cost.interruptions_per_month is not None:
        said.append(_interrupted(cost, cost.interruptions_per_month))
    if spec.market is Market.RESERVED and cost.cloud is not None:
        said.append("reserved machines are paid for all the time, also where the mean needs fewer")
    if fit.card.linear_layers:
        said.append("its linear-attention layers hold a fixed state that is not counted as KV cache")
    if spec.market is Market.SPOT and cost.interruptions_per_month is None:
        said.append("priced on demand: no spot price is known")
    return tuple(said)


def with_reasons(options: Sequence[Option], spec: Specification) -> list[Option]:
    """Each with the sentences that speak for it."""
    return [msgspec.structs.replace(option, reasons=tuple(_reasons(option, options, spec))) for option in options]


def advice(options: Sequence[Option], rejected: Sequence[Rejection], *, priced: bool) -> tuple[str, ...]:
    """Where nothing is left: what would have to give."""
    said = []
    if not priced:
        said.append("no price is known for the wished GPUs, clouds and regions; import a price list or widen them")
    if options:
        best = options[0]
        if best.forecast.likely < _DOUBTFUL:
            said.append(f"only {best.forecast.likely:.0%} likely to meet all targets; measure it before relying on it")
        return tuple(said)
    near = [each for each in rejected if each.near is not None and each.near < inf]
    if near:
        closest = min(near, key=lambda each: each.near or inf)
        said.append(f"nothing meets all targets; nearest is {closest.candidate.id}: {closest.reason}")
    elif rejected:
        said.append(f"nothing fits; for example {rejected[0].candidate.id}: {rejected[0].reason}")
    else:
        said.append(
            "no model of this quality, context and use case runs on these GPUs in this layout; relax one of them"
        )
    return tuple(said)


def rate_text(requests_per_s: float) -> str:
    """Three figures are enough for people, and no powers of ten."""
    return f"{requests_per_s:.3g}" if requests_per_s < 999.5 else f"{requests_per_s:,.0f}"


def time_text(ms: float) -> str:
    return f"{ms / 1e3:.3g} s" if ms >= 1000 else f"{ms:.3g} ms"


def _beyond(ms: float, limit_ms: float) -> str:
    """What is too much beside its limit; where both read the same, by how much."""
    value, limit = time_text(ms), time_text(limit_ms)
    return f"{value} > {limit}" if value != limit else f"a little over {limit}"


def usd(pusd: int) -> str:
    value = pusd / PUSD_PER_USD
    return f"${value:,.0f}" if value >= 100 else f"${value:,.4g}"


def _reasons(option: Option, options: Sequence[Option], spec: Specification) -> list[str]:
    sizing, forecast, slo = option.sizing, option.forecast, spec.slo
    spare = f", {sizing.spare} of them spare" if sizing.spare else ""
    peak = f"{sizing.replicas} replicas{spare}, for {rate_text(spec.traffic.peak_qps)} requests/s at the peak"
    said = [f"{peak}: each carries {sizing.rate_per_replica:.3g} requests/s until {_binding(sizing.binding)}"]
    for figure, target, name in (
        (forecast.ttft_p95, slo.ttft_p95_ms, "TTFT"),
        (forecast.itl_p95, slo.effective_itl_p95_ms(spec.traffic), "ITL"),
    ):
        said.append(f"p95 {name} {_figure(figure)}" + ("" if target is None else f", target {time_text(target)}"))
    said.append(f"{forecast.likely:.0%} likely to meet all targets")
    cost = option.cost
    each = "" if cost.per_million_tokens_pusd is None else f", {usd(cost.per_million_tokens_pusd)} for 1M tokens"
    said.append(f"{usd(cost.per_month_pusd)} a month{each}")
    if cost.break_even_months is not None:
        said.append(f"buying pays off after {cost.break_even_months:.1f} months of renting")
    cheapest = min(options, key=lambda other: other.cost.per_month_pusd)
    if option is cheapest and len(options) > 1:
        said.append("the cheapest that meets all targets")
    elif option.cost.per_month_pusd:
        more = option.cost.per_month_pusd / max(1, cheapest.cost.per_month_pusd)
        said.append(f"{more:.2g} times the cheapest, {cheapest.candidate.id}")
    if option.pareto:
        said.append("no other is better in cost, latency and quality at once")
    if spec.priority is Priority.ACCURACY:
        said.append(f"quality tier {option.quality}")
    return said


def _interrupted(cost: Cost, per_month: float) -> str:
    known = taken_back(cost.cloud or "", cost.region or "", cost.instance_type or "")
    where = (
        "nothing is known of these machines, a fifth is assumed"
        if known is None
        else f"AWS took back {known.label} of its {cost.instance_type} in {cost.region} in a month ({AS_OF})"
    )
    redo = usd(cost.redo_per_month_pusd or 0)
    return f"about {per_month:.1g} spot interruptions a month, which cost {redo} in starts and answers anew: {where}"


def _binding(name: str) -> str:
    return f"{_TARGETS[name]} is missed" if name in _TARGETS else "its throughput is used up"


def _figure(figure: Figure) -> str:
    mark = "" if figure.evidence is Evidence.MEASURED else f", {figure.evidence}"
    return f"{time_text(figure.value)} ({time_text(figure.low)} to {time_text(figure.high)}{mark})"
