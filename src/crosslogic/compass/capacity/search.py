"""The largest rate that one replica carries within its targets, by bisection in virtual time (planner notes §4).

Pure. Every rate sees the same requests, only closer together, so more load is never better by luck.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from crosslogic.compass.capacity.load import Requests
from crosslogic.compass.capacity.queueing import greatest_rate
from crosslogic.compass.capacity.step_model import StepModel
from crosslogic.compass.capacity.virtual import Observed, ReplicaLimits, Samples, observe, simulate
from crosslogic.compass.specification.model import Slo

LEAST_REQUESTS = 2000
_PRECISION = 0.03


class Verdict(msgspec.Struct, frozen=True):
    """Whether targets are met, and by which they are missed: `ttft`, `itl`, `e2e`."""

    missed: tuple[str, ...]

    @property
    def met(self) -> bool:
        return not self.missed


class Capacity(msgspec.Struct, frozen=True):
    """`rate` is 0 where even a single request misses a target; `binding` is what is missed just above it."""

    rate: float
    low: float  # with every percentile at the upper end of its bootstrap interval, and at the lower
    high: float
    binding: str
    observed: Observed | None  # at `rate`, or of a lone request where that is 0


def judge(observed: Observed, slo: Slo, side: str = "value") -> Verdict:
    """Hold what was observed against the targets; `side` takes an end of the bootstrap intervals."""
    missed = []
    figures = (("ttft", observed.ttft_ms, slo.ttft_p95_ms), ("itl", observed.itl_ms, slo.itl_p95_ms))
    for name, figure, target in figures:
        if target is not None and getattr(figure, side) > target:
            missed.append(name)
    if slo.e2e_p95_ms is not None:
        late = observed.e2e_late > 0.05 if slo.e2e_output_tokens else getattr(observed.e2e_ms, side) > slo.e2e_p95_ms
        if late:
            missed.append("e2e")
    if observed.refused:
        missed.append("refused")
    return Verdict(tuple(missed))


def e2e_limits_s(samples: Samples, slo: Slo) -> NDArray[np.float64] | None:
    """Each request's own end-to-end target, where it goes with the length of the answer."""
    if slo.e2e_p95_ms is None or slo.e2e_output_tokens is None:
        return None
    first_ms = slo.ttft_p95_ms or 0.0
    steps = max(1.0, slo.e2e_output_tokens - 1)
    return np.asarray(
        (first_ms + max(0.0, slo.e2e_p95_ms - first_ms) * np.maximum(0, samples.output - 1) / steps) / 1e3
    )


def at_rate(
    model: StepModel, limits: ReplicaLimits, load: Requests, rate: float, slo: Slo, replicas: int = 1
) -> Observed:
    """What requests see at this rate."""
    samples = simulate(model, limits, load, rate, replicas)
    return observe(samples, e2e_limits_s(samples, slo))


def largest_rate(
    model: StepModel, limits: ReplicaLimits, load: Requests, slo: Slo, *, precision: float = _PRECISION
) -> Capacity:
    """Bisect the offered rate of one replica."""
    prompt, output = float(load.prompt.mean()), float(load.output.mean())
    most = max(1, min(limits.max_num_seqs, int(limits.kv_tokens / (prompt + output / 2))))
    high = greatest_rate(model, most, max(1.0, prompt - float(load.cached.mean())), output) * 1.05
    low = high / 500
    best = at_rate(model, limits, load, low, slo)
    verdict = judge(best, slo)
    if not verdict.met:
        return Capacity(0.0, 0.0, 0.0, verdict.missed[0], best)
    binding = "throughput"
    top = high
    while high / low > 1 + precision:
        middle = (low * high) ** 0.5 if high / low > 4 else (low + high) / 2
        observed = at_rate(model, limits, load, middle, slo)
        verdict = judge(observed, slo)
        if verdict.met:
            low, best = middle, observed
        else:
            high = middle
            binding = verdict.missed[0]
    spread = _spread(best, slo)
    return Capacity(low, low / spread, min(top, low * spread), binding, best)


def _spread(observed: Observed, slo: Slo) -> float:
    """By how much the rate may differ for want of requests: the width of the percentile that is nearest its target."""
    pairs = ((observed.ttft_ms, slo.ttft_p95_ms), (observed.itl_ms, slo.itl_p95_ms), (observed.e2e_ms, slo.e2e_p95_ms))
    near = [(figure.value / target, figure) for figure, target in pairs if target]
    if not near:
        return 1.0 + _PRECISION
    figure = max(near, key=lambda pair: pair[0])[1]
    return float(1 + min(0.5, max(_PRECISION, (figure.high - figure.low) / (2 * figure.value) if figure.value else 0)))
