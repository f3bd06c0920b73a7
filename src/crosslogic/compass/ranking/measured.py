"""Benchmarks of exactly the traffic that is asked for: what was measured goes before what follows from a model. Pure.

Invariant: a point counts only where it carried at least the rate that is asked of one replica, so what it saw is no
better than what will be seen.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from crosslogic.compass.capacity.step_model import Evidence
from crosslogic.compass.knowledge.model import Benchmark
from crosslogic.compass.ranking.model import Candidate, Figure, Forecast
from crosslogic.compass.specification.model import Slo, TrafficProfile

Key = tuple[str, str, int, str, str, int, int]


def by_traffic(points: Iterable[Benchmark]) -> dict[Key, list[Benchmark]]:
    """By set-up and exact (prompt, output) tokens, the slowest rate first."""
    found: dict[Key, list[Benchmark]] = {}
    for point in points:
        setup = point.setup
        key = (
            setup.model,
            setup.gpu,
            setup.gpu_count,
            setup.precision,
            setup.backend,
            point.prompt_tokens,
            point.output_tokens,
        )
        found.setdefault(key, []).append(point)
    for those in found.values():
        those.sort(key=lambda each: each.requests_per_second or 0.0)
    return found


def quoted(
    measured: dict[Key, list[Benchmark]], candidate: Candidate, traffic: TrafficProfile, rate: float
) -> Benchmark | None:
    """The point nearest above this rate of one replica, for this traffic exactly; None where there is none."""
    prompt, output = traffic.prompt_tokens.mean, traffic.output_tokens.mean
    if prompt != round(prompt) or output != round(output):
        return None
    key = (
        candidate.model,
        candidate.gpu,
        candidate.tp,
        candidate.precision,
        candidate.backend,
        round(prompt),
        round(output),
    )
    return next((each for each in measured.get(key, []) if (each.requests_per_second or 0.0) >= rate), None)


def missed(point: Benchmark, slo: Slo) -> tuple[str, float] | None:
    """Which target it missed, in words with numbers, and how many times over."""
    for name, value, target in (
        ("TTFT", point.ttft_p95_ms, slo.ttft_p95_ms),
        ("ITL", point.itl_p95_ms, slo.itl_p95_ms),
    ):
        if value is not None and target is not None and value > target:
            at = f"at {point.requests_per_second:.3g} requests/s"
            return f"p95 {name} {value:.4g} ms > {target:.4g} ms {at}, measured", value / target
    return None


def as_forecast(point: Benchmark, forecast: Forecast) -> Forecast:
    """The forecast with what was measured in place of what was calculated."""

    def figure(value: float | None, otherwise: Figure) -> Figure:
        return otherwise if value is None else Figure(value, value, value, Evidence.MEASURED)

    return msgspec.structs.replace(
        forecast,
        ttft_p95=figure(point.ttft_p95_ms, forecast.ttft_p95),
        itl_p95=figure(point.itl_p95_ms, forecast.itl_p95),
        e2e_p95=figure(point.e2e_p95_ms, forecast.e2e_p95),
    )
