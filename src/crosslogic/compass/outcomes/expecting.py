"""What a configuration should show at the load that a window had: forecasts of the peak say nothing of quiet hours.

Pure. Read off the surface, with the step model scaled by what was learnt.
"""

from __future__ import annotations

from crosslogic.compass.capacity.load import thinned_cv
from crosslogic.compass.capacity.step_model import StepModel
from crosslogic.compass.capacity.surface import Traffic, at_rate, curve
from crosslogic.compass.capacity.virtual import ReplicaLimits
from crosslogic.compass.outcomes.bias import factors, interval
from crosslogic.compass.outcomes.model import ConfigurationBias, Observation, WindowForecast

_TAIL = 1.95  # 95th percentile over mean of answers' lengths, where only the mean was seen


def expecting(
    model: StepModel,
    limits: ReplicaLimits,
    seen: Observation,
    bias: ConfigurationBias,
    *,
    burstiness_cv: float = 2.0,
    output_p95: float | None = None,
) -> WindowForecast:
    """The forecast for this window's rate and lengths."""
    known = factors(bias)
    traffic = Traffic(
        prompt_tokens=seen.prompt_tokens,
        prefill_tokens=seen.prompt_tokens,
        output_tokens=seen.output_tokens,
        output_p95=output_p95 or seen.output_tokens * _TAIL,
        cv=thinned_cv(burstiness_cv, seen.replicas),
    )
    line = curve(model.scaled(known.itl, known.ttft), limits, traffic)
    rate = min(seen.rate / seen.replicas, float(line.rates[-1]))  # above it only the queue grows
    return WindowForecast(
        ttft_p95_ms=interval(at_rate(line.ttft_p95, line, rate) * 1e3, bias.ttft),
        itl_p95_ms=interval(at_rate(line.itl_p95, line, rate) * 1e3, bias.itl),
        e2e_p95_ms=interval(at_rate(line.e2e_p95, line, rate) * 1e3, bias.itl),
    )
