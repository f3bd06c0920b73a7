"""How sure a recommendation is: Monte Carlo over traffic and model, and which input the outcome hangs on. Pure.

Each draw multiplies traffic, lengths, ITL and TTFT by log-normal factors of their own uncertainty and reads latency
of the recommended replicas off the surface: "92% likely to meet TTFT". Invariant: the same seed, the same answer.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from crosslogic.compass.capacity.surface import Curve, at_rate, curve
from crosslogic.compass.capacity.virtual import ReplicaLimits
from crosslogic.compass.ranking.model import Option
from crosslogic.compass.ranking.planner import Planner
from crosslogic.compass.ranking.sizing import surface_targets, traffic_of
from crosslogic.compass.scenarios.change import Change, changed
from crosslogic.compass.specification.lengths import scaled
from crosslogic.compass.specification.model import Specification, TrafficProfile
from crosslogic.kernel.errors import InvalidRequest

MOST_DRAWS = 5000
_TRAFFIC_SD = 0.2  # of the logarithm: how far a stated peak is usually off
_LENGTHS_SD = 0.15


class Risk(msgspec.Struct, frozen=True):
    """Shares of draws that meet each target, and all; percentiles (5, 50, 95) of the figures in milliseconds."""

    draws: int
    ttft: float
    itl: float
    e2e: float
    all_targets: float
    ttft_p95_ms: tuple[float, float, float]
    itl_p95_ms: tuple[float, float, float]
    replicas_for_90: int  # with so many, 90% of the draws meet all targets; 0: no number does
    sentence: str


class Sensitivity(msgspec.Struct, frozen=True):
    """What becomes of replicas and cost when one input is half and twice, or a tenth less and more."""

    name: str
    low: str
    high: str
    replicas_low: int | None  # None: nothing meets all targets any more
    replicas_high: int | None
    cost_low_pusd: int | None
    cost_high_pusd: int | None


def monte_carlo(
    planner: Planner,
    spec: Specification,
    option: Option,
    *,
    draws: int = 400,
    seed: int = 0,
    traffic_deviation: float = _TRAFFIC_SD,
) -> Risk:
    """Raises InvalidRequest for an absurd number of draws."""
    if not 10 <= draws <= MOST_DRAWS or not 0 <= traffic_deviation <= 2:
        raise InvalidRequest(f"10 to {MOST_DRAWS} draws, with a deviation of traffic from 0 to 2", param="draws")
    rng = np.random.default_rng(seed)
    normal = rng.standard_normal((draws, 5))
    model = planner.model(option.candidate, spec)
    deviations = (traffic_deviation, _LENGTHS_SD, _LENGTHS_SD, model.itl_deviation, model.ttft_deviation)
    factors = np.exp(normal * np.array(deviations))
    limits = ReplicaLimits(option.sizing.kv_tokens)
    slo = surface_targets(spec.slo, spec.traffic)
    needed = option.sizing.needed
    found, peaks, lines = np.zeros((draws, 3)), [], []
    for index, (volume, prompt, output, itl, ttft) in enumerate(factors):
        traffic = _drawn(spec.traffic, volume, prompt, output)
        line = curve(model.scaled(itl, ttft), limits, traffic_of(traffic, needed))
        lines.append(line)
        peaks.append(traffic.peak_qps)
        found[index] = _read(line, traffic.peak_qps / needed)
    targets = np.array([_or_inf(slo.ttft_p95_ms), _or_inf(slo.itl_p95_ms), _or_inf(slo.e2e_p95_ms)]) / 1e3
    met = found <= targets
    share = float(met.all(axis=1).mean())
    enough = _replicas_for(lines, peaks, targets, needed)
    finite = np.where(np.isfinite(found), found, np.nan)
    percentiles = np.nan_to_num(np.nanquantile(finite, (0.05, 0.5, 0.95), axis=0) * 1e3)
    sentence = f"{met[:, 0].mean():.0%} likely to meet TTFT, {met[:, 1].mean():.0%} ITL, {share:.0%} all targets"
    return Risk(
        draws=draws,
        ttft=float(met[:, 0].mean()),
        itl=float(met[:, 1].mean()),
        e2e=float(met[:, 2].mean()),
        all_targets=share,
        ttft_p95_ms=(float(percentiles[0, 0]), float(percentiles[1, 0]), float(percentiles[2, 0])),
        itl_p95_ms=(float(percentiles[0, 1]), float(percentiles[1, 1]), float(percentiles[2, 1])),
        replicas_for_90=enough,
        sentence=f"{sentence}, on {needed} replicas",
    )


def sensitivities(planner: Planner, spec: Specification, option: Option) -> list[Sensitivity]:
    """The recommended deployment under other inputs, one at a time."""
    kept = msgspec.structs.replace(
        spec,
        wishes=msgspec.structs.replace(
            spec.wishes,
            preferred_models=(option.candidate.model,),
            preferred_gpus=(option.candidate.gpu,),
            quantizations=(option.candidate.precision,),
            tensor_parallel=option.candidate.tp,
        ),
    )
    slo, traffic = spec.slo, spec.traffic
    pairs: list[tuple[str, str, str, Change, Change]] = [
        ("traffic", "half", "twice", Change(traffic_times=0.5), Change(traffic_times=2.0)),
        ("answers", "half as long", "twice as long", *_lengths("output_tokens", traffic.output_tokens.mean)),
        ("prompts", "half as long", "twice as long", *_lengths("prompt_tokens", traffic.prompt_tokens.mean)),
        ("burstiness", "Poisson", "twice", Change(burstiness_cv=1.0), Change(burstiness_cv=2 * traffic.burstiness_cv)),
    ]
    for name, value in (("ttft", slo.ttft_p95_ms), ("itl", slo.itl_p95_ms), ("e2e", slo.e2e_p95_ms)):
        if value is not None:
            field = f"{name}_p95_ms"
            changes = (_with(field, value * 0.75), _with(field, value * 1.5))
            pairs.append((f"{name.upper()} target", "a quarter less", "half more", *changes))
    return [_sensitivity(planner, kept, *pair) for pair in pairs]


def _sensitivity(
    planner: Planner, spec: Specification, name: str, low: str, high: str, less: Change, more: Change
) -> Sensitivity:
    options = [planner.recommend(changed(spec, change), confirm=0).best for change in (less, more)]
    replicas = [None if option is None else option.sizing.replicas for option in options]
    costs = [None if option is None else option.cost.per_month_pusd for option in options]
    return Sensitivity(name, low, high, *replicas, *costs)


def _lengths(field: str, mean: float) -> tuple[Change, Change]:
    return _with(field, max(1.0, mean / 2)), _with(field, mean * 2)


def _with(field: str, value: float) -> Change:
    return msgspec.structs.replace(Change(), **{field: value})


def _drawn(traffic: TrafficProfile, volume: float, prompt: float, output: float) -> TrafficProfile:
    return msgspec.structs.replace(
        traffic,
        peak_qps=traffic.peak_qps * volume,
        prompt_tokens=scaled(traffic.prompt_tokens, traffic.prompt_tokens.mean * prompt),
        output_tokens=scaled(traffic.output_tokens, traffic.output_tokens.mean * output),
    )


def _read(line: Curve, rate: float) -> tuple[float, float, float]:
    return at_rate(line.ttft_p95, line, rate), at_rate(line.itl_p95, line, rate), at_rate(line.e2e_p95, line, rate)


def _replicas_for(
    lines: Sequence[Curve], peaks: Sequence[float], targets: np.ndarray[tuple[int], np.dtype[np.float64]], needed: int
) -> int:
    """The smallest number with which nine in ten draws meet all targets, burstiness taken as with `needed`."""
    for count in range(max(1, needed // 2), needed * 4 + 2):
        met = sum(
            all(value <= target for value, target in zip(_read(line, peak / count), targets, strict=True))
            for line, peak in zip(lines, peaks, strict=True)
        )
        if met >= 0.9 * len(lines):
            return count
    return 0


def _or_inf(target: float | None) -> float:
    return float("inf") if target is None else target
