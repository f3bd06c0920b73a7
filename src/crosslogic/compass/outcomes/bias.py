"""What is learnt from outcomes: a factor for each configuration, by recursive least squares on logarithms.

Pure. The estimate begins at the forecast itself (factor 1) with the variance of its tier: that is the shrinkage, so a
few windows of a measured configuration move little, and of an estimated one much. Old windows are forgotten slowly.
Each window is held against the forecast that holds what was learnt before it, so what queues make of a factor need
not be linear.

Invariant: the variance never grows above the prior's; a window of too few requests teaches nothing.
"""

from __future__ import annotations

from math import exp, log, sqrt

import msgspec

from crosslogic.compass.capacity.step_model import Evidence
from crosslogic.compass.manifests.model import Expected, PlannedForecast
from crosslogic.compass.outcomes.model import (
    FEWEST_REQUESTS,
    ConfigurationBias,
    Judged,
    Learned,
    Observation,
    WindowForecast,
)
from crosslogic.compass.ranking.planner import Bias

DRIFT_WINDOWS = 3
_Z90 = 1.645
_FORGET = 0.98
_NOISE = 0.06  # deviation of the logarithm of a 95th percentile of some hundred requests
_MOST_STEP = log(2.0)  # that one window may teach: what is beyond is an accident more often than the truth
_MOST = log(10.0)
_DEVIATION = {Evidence.MEASURED: 0.1, Evidence.CALIBRATED: 0.2, Evidence.ESTIMATED: 0.4}


def prior(evidence: Evidence) -> ConfigurationBias:
    """What is known before the first outcome."""
    variance = _DEVIATION[evidence] ** 2
    return ConfigurationBias(Learned(variance=variance), Learned(variance=variance))


def learned(known: Learned, seen: float | None, expected: Expected, requests: int, most_variance: float) -> Learned:
    """After one more window. `expected` holds what `known` says already."""
    if seen is None or seen <= 0 or expected.value <= 0 or requests < FEWEST_REQUESTS:
        return known
    surprise = log(seen / expected.value)
    noise = _NOISE**2 * max(1.0, 400 / requests)
    variance = min(most_variance, known.variance / _FORGET)
    gain = variance / (variance + noise)
    moved = known.log_factor + gain * max(-_MOST_STEP, min(_MOST_STEP, surprise))
    outside = known.outside + 1 if not expected.low <= seen <= expected.high else 0
    return Learned(max(-_MOST, min(_MOST, moved)), (1 - gain) * variance, known.windows + 1, outside)


def after(
    bias: ConfigurationBias, seen: Observation, forecast: WindowForecast, evidence: Evidence
) -> tuple[ConfigurationBias, Judged]:
    """The bias after a window, and the window judged."""
    most = _DEVIATION[evidence] ** 2
    found = ConfigurationBias(
        itl=learned(bias.itl, seen.itl_p95_ms, forecast.itl_p95_ms, seen.requests, most),
        ttft=learned(bias.ttft, seen.ttft_p95_ms, forecast.ttft_p95_ms, seen.requests, most),
    )
    drift = tuple(name for name in ("itl", "ttft") if getattr(found, name).outside >= DRIFT_WINDOWS)
    judged = Judged(
        observation=seen,
        forecast=forecast,
        ttft_error=_error(seen.ttft_p95_ms, forecast.ttft_p95_ms),
        itl_error=_error(seen.itl_p95_ms, forecast.itl_p95_ms),
        e2e_error=_error(seen.e2e_p95_ms, forecast.e2e_p95_ms),
        drift=drift,
    )
    return found, judged


def factors(bias: ConfigurationBias) -> Bias:
    """As the planner takes it."""
    return Bias(itl=exp(bias.itl.log_factor), ttft=exp(bias.ttft.log_factor))


def corrected(forecast: PlannedForecast, bias: ConfigurationBias) -> PlannedForecast:
    """A plan's forecast with what was learnt since. An answer is many tokens, so its time goes with the ITL."""
    return msgspec.structs.replace(
        forecast,
        ttft_p95_ms=_times(forecast.ttft_p95_ms, bias.ttft),
        itl_p95_ms=_times(forecast.itl_p95_ms, bias.itl),
        e2e_p95_ms=_times(forecast.e2e_p95_ms, bias.itl),
    )


def interval(value: float, known: Learned) -> Expected:
    """A figure with the 90% interval that the learnt variance and a window's noise leave."""
    reach = exp(_Z90 * sqrt(known.variance + _NOISE**2))
    return Expected(value, value / reach, value * reach)


def _times(figure: Expected | None, known: Learned) -> Expected | None:
    if figure is None or not known.windows:
        return figure
    return interval(figure.value * exp(known.log_factor), known)


def _error(seen: float | None, expected: Expected) -> float | None:
    return None if seen is None or expected.value <= 0 else seen / expected.value - 1
