"""Changes to a specification, and two outcomes side by side. Pure.

Invariant: a change says only what it changes; what it leaves out stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

import msgspec

from crosslogic.catalog.cards import find_card
from crosslogic.catalog.gpus import find_gpu
from crosslogic.compass.ranking.explain import time_text
from crosslogic.compass.ranking.model import Option, Recommendation
from crosslogic.compass.ranking.planner import Planner
from crosslogic.compass.specification.lengths import scaled
from crosslogic.compass.specification.model import (
    TIERS,
    DeploymentModel,
    Market,
    Priority,
    QualityTier,
    Specification,
    TrafficProfile,
)
from crosslogic.kernel.errors import InvalidRequest
from crosslogic.kernel.money import PUSD_PER_USD


class Change(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """None: as it is."""

    model: str | None = None
    gpu: str | None = None
    tensor_parallel: int | None = None
    quantization: str | None = None
    region: str | None = None
    traffic_times: float | None = None  # 2: it doubles
    burstiness_cv: float | None = None
    prompt_tokens: float | None = None  # the mean; the shape stays
    output_tokens: float | None = None
    prefix_hit_rate: float | None = None
    ttft_p95_ms: float | None = None
    itl_p95_ms: float | None = None
    e2e_p95_ms: float | None = None
    priority: Priority | None = None
    quality: QualityTier | None = None
    market: Market | None = None
    deployment_model: DeploymentModel | None = None


class Difference(msgspec.Struct, frozen=True):
    """One line of the comparison: what it is about, both values as text, and in words by how much it differs."""

    name: str
    before: str
    after: str
    difference: str
    better: bool | None  # None: neither


class Comparison(msgspec.Struct, frozen=True):
    before: Recommendation
    after: Recommendation
    differences: tuple[Difference, ...]


def changed(spec: Specification, change: Change) -> Specification:
    """The specification with the change. Raises InvalidRequest for a model or GPU that nobody knows, and nonsense."""
    replace = msgspec.structs.replace
    wishes = spec.wishes
    if change.model is not None:
        card = find_card(change.model)
        if card is None:
            raise InvalidRequest(f"there is no model {change.model!r} in the catalogue", param="model")
        wishes = replace(wishes, preferred_models=(card.id,), excluded_models=())
        if spec.quality is not None and TIERS.index(QualityTier(card.quality)) < TIERS.index(spec.quality):
            spec = replace(spec, quality=QualityTier(card.quality))
    if change.gpu is not None:
        gpu = find_gpu(change.gpu)
        if gpu is None:
            raise InvalidRequest(f"there is no GPU {change.gpu!r} in the catalogue", param="gpu")
        wishes = replace(wishes, preferred_gpus=(gpu.id,), excluded_gpus=())
    if change.tensor_parallel is not None:
        wishes = replace(wishes, tensor_parallel=change.tensor_parallel)
    if change.quantization is not None:
        wishes = replace(wishes, quantizations=(change.quantization,))
    if change.region is not None:
        wishes = replace(wishes, regions=(change.region,))
    slo = replace(
        spec.slo,
        ttft_p95_ms=_or(change.ttft_p95_ms, spec.slo.ttft_p95_ms),
        itl_p95_ms=_or(change.itl_p95_ms, spec.slo.itl_p95_ms),
        e2e_p95_ms=_or(change.e2e_p95_ms, spec.slo.e2e_p95_ms),
    )
    return replace(
        spec,
        wishes=wishes,
        slo=slo,
        traffic=_traffic(spec.traffic, change),
        priority=change.priority or spec.priority,
        quality=change.quality or spec.quality,
        market=change.market or spec.market,
        deployment_model=change.deployment_model or spec.deployment_model,
    )


def what_if(planner: Planner, spec: Specification, change: Change, *, option: Option | None = None) -> Comparison:
    """The best option before and after. With `option`, that deployment is kept but for what the change names."""
    base = spec if option is None else _kept(spec, option)
    before = planner.recommend(base, confirm=0)
    return compare(before, planner.recommend(changed(base, change), confirm=0))


def compare(before: Recommendation, after: Recommendation) -> Comparison:
    """Side by side, line by line."""
    return Comparison(before, after, tuple(_lines(before.best, after.best)))


def _kept(spec: Specification, option: Option) -> Specification:
    candidate = option.candidate
    wishes = msgspec.structs.replace(
        spec.wishes,
        preferred_models=(candidate.model,),
        preferred_gpus=(candidate.gpu,),
        quantizations=(candidate.precision,),
        tensor_parallel=candidate.tp,
    )
    return msgspec.structs.replace(spec, wishes=wishes)


def _traffic(traffic: TrafficProfile, change: Change) -> TrafficProfile:
    replace = msgspec.structs.replace
    for name in ("traffic_times", "prompt_tokens", "output_tokens"):
        value = getattr(change, name)
        if value is not None and not (isfinite(value) and 0 < value <= 1e7):
            raise InvalidRequest(f"{name} is {value!r}; it is a number above 0", param=name)
    times = 1.0 if change.traffic_times is None else change.traffic_times
    traffic = replace(traffic, mean_qps=traffic.mean_qps * times, peak_qps=traffic.peak_qps * times)
    if change.prompt_tokens is not None:
        traffic = replace(traffic, prompt_tokens=scaled(traffic.prompt_tokens, change.prompt_tokens))
    if change.output_tokens is not None:
        traffic = replace(traffic, output_tokens=scaled(traffic.output_tokens, change.output_tokens))
    return replace(
        traffic,
        burstiness_cv=traffic.burstiness_cv if change.burstiness_cv is None else change.burstiness_cv,
        prefix_hit_rate=traffic.prefix_hit_rate if change.prefix_hit_rate is None else change.prefix_hit_rate,
    )


def _lines(before: Option | None, after: Option | None) -> Sequence[Difference]:
    if before is None or after is None:
        was, now = ("nothing meets all targets" if each is None else each.candidate.id for each in (before, after))
        return [Difference("deployment", was, now, "", None if before is after else after is not None)]
    one, other = before, after
    lines = [
        _same("model", one.candidate.model, other.candidate.model),
        _same("GPUs", _gpus(one), _gpus(other)),
        _same("precision", one.candidate.precision, other.candidate.precision),
        _money("cost a month", one.cost.per_month_pusd, other.cost.per_month_pusd),
    ]
    for name in ("ttft", "itl", "e2e"):
        figures = [getattr(each.forecast, f"{name}_p95") for each in (one, other)]
        rise = figures[1].value - figures[0].value
        was, now = (time_text(figure.value) for figure in figures)
        sign = "+" if rise > 0 else "-"
        better = None if was == now else rise < 0
        lines.append(
            Difference(f"{name.upper()} p95", was, now, f"{sign}{time_text(abs(rise))}" if rise else "", better)
        )
    ranks = [TIERS.index(each.quality) for each in (one, other)]
    quality = "" if ranks[0] == ranks[1] else "better" if ranks[1] > ranks[0] else "worse"
    lines.append(Difference("quality", one.quality, other.quality, quality, ranks[1] > ranks[0] if quality else None))
    carried = [each.sizing.rate_per_replica * each.sizing.needed for each in (one, other)]
    rise = carried[1] - carried[0]
    was, now = (f"{value:.3g} requests/s" for value in carried)
    better = None if was == now else rise > 0
    lines.append(Difference("capacity", was, now, f"{rise:+.3g} requests/s" if better is not None else "", better))
    was, now = (f"{each.forecast.likely:.0%}" for each in (one, other))
    surer = None if was == now else other.forecast.likely > one.forecast.likely
    lines.append(Difference("likely to meet all targets", was, now, "", surer))
    return lines


def _same(name: str, before: str, after: str) -> Difference:
    return Difference(name, before, after, "" if before == after else "changed", None)


def _money(name: str, before: int, after: int) -> Difference:
    rise = (after - before) / PUSD_PER_USD
    was, now = (f"${value / PUSD_PER_USD:,.0f}" for value in (before, after))
    said = f"{'+' if rise > 0 else '-'}${abs(rise):,.0f}" if round(rise) else ""
    return Difference(name, was, now, said, rise < 0 if said else None)


def _gpus(option: Option) -> str:
    return f"{option.sizing.replicas} x {option.candidate.tp} {option.candidate.gpu}"


def _or(changed: float | None, was: float | None) -> float | None:
    return was if changed is None else changed
