"""Values of the knowledge base (planner document, Model Benchmarks). Milliseconds, and requests a second.

Invariant: percentiles are of successful requests alone; a figure that was not measured is None, never made up.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from math import isfinite

import msgspec

from crosslogic.compass.capacity.rows import Load, MeasuredRow
from crosslogic.kernel.errors import InvalidRequest
from crosslogic.simulator.fit import Configuration

SATURATED_BELOW = 0.9  # achieved over offered: below it the queue only grew, and latency says how long the run was
MOST_FAILED = 0.05
_MOST_MS = 3_600_000.0


class Setup(msgspec.Struct, frozen=True):
    """What ran: model, GPUs of one engine, and the engine."""

    model: str
    gpu: str
    gpu_count: int = 1
    precision: str = "bf16"
    backend: str = "vllm"
    backend_version: str | None = None


class Benchmark(msgspec.Struct, frozen=True, kw_only=True):
    """One point of a sweep: one load on one set-up. `prompt_tokens` and `output_tokens` are matched exactly."""

    setup: Setup
    prompt_tokens: int
    output_tokens: int
    ttft_p95_ms: float | None = None
    itl_p95_ms: float | None = None
    e2e_p95_ms: float | None = None
    ttft_mean_ms: float | None = None
    itl_mean_ms: float | None = None
    e2e_mean_ms: float | None = None
    requests_per_second: float | None = None  # achieved
    offered_per_second: float | None = None  # None: a closed loop, or as fast as possible
    concurrency: float | None = None  # closed loop: clients; else the mean that was seen
    mean_input_tokens: float | None = None
    mean_output_tokens: float | None = None
    requests: int | None = None  # successful ones
    failed: int = 0
    source: str = ""
    measured_at: datetime | None = None
    stale: bool = False  # of unknown date or licence: to be fetched or measured again

    @property
    def digest(self) -> str:
        """The same for the same point of the same run, so that an import may be repeated."""
        named = (self.setup, self.prompt_tokens, self.output_tokens, self.offered_per_second, self.concurrency)
        figures = (self.ttft_mean_ms, self.itl_mean_ms, self.ttft_p95_ms, self.itl_p95_ms, self.requests_per_second)
        return hashlib.sha256(msgspec.json.encode([named, figures, self.source])).hexdigest()[:40]


def doubt(point: Benchmark) -> str | None:
    """Why a point must not be learnt from, or None."""
    total = (point.requests or 0) + point.failed
    if point.requests is not None and point.requests < 1:
        return "no request succeeded"
    if total and point.failed > MOST_FAILED * total:
        return f"{point.failed} of {total} requests failed"
    offered, achieved = point.offered_per_second, point.requests_per_second
    if offered and achieved is not None and achieved < SATURATED_BELOW * offered:
        return f"over-saturated: {achieved:.3g} of {offered:.3g} requests/s were served"
    return None


def checked(point: Benchmark) -> Benchmark:
    """Raises InvalidRequest for figures that nobody can have measured: negative times, no tokens, not a number."""
    if point.prompt_tokens < 1 or point.output_tokens < 1 or point.setup.gpu_count < 1:
        raise InvalidRequest("a benchmark has at least one prompt token, one output token and one GPU")
    for name in ("ttft_p95_ms", "itl_p95_ms", "e2e_p95_ms", "ttft_mean_ms", "itl_mean_ms", "e2e_mean_ms"):
        value = getattr(point, name)
        if value is not None and not (isfinite(value) and 0 <= value <= _MOST_MS):
            raise InvalidRequest(f"{name} is {value!r}; times are from 0 ms to an hour", param=name)
    for name in ("requests_per_second", "offered_per_second", "concurrency"):
        value = getattr(point, name)
        if value is not None and not (isfinite(value) and 0 <= value <= 1e9):
            raise InvalidRequest(f"{name} is {value!r}, which no load is", param=name)
    if point.ttft_mean_ms is None and point.ttft_p95_ms is None:
        raise InvalidRequest("a benchmark needs a time to the first token", param="ttft_p95_ms")
    return point


def measured_row(point: Benchmark) -> MeasuredRow | None:
    """As the step-time model learns from it: means under a known number of requests at once."""
    if not (point.ttft_mean_ms and point.itl_mean_ms) or doubt(point) is not None:
        return None
    running = point.concurrency
    if running is None and point.requests_per_second and point.e2e_mean_ms:
        running = point.requests_per_second * point.e2e_mean_ms / 1e3  # Little's law
    if not running or running < 0.5 or point.output_tokens < 2:
        return None
    setup = point.setup
    return MeasuredRow(
        Configuration(setup.model, setup.gpu, setup.precision, setup.backend, setup.gpu_count, layout=""),
        Load(
            max(1.0, running),
            point.mean_input_tokens or float(point.prompt_tokens),
            max(2.0, point.mean_output_tokens or float(point.output_tokens)),
        ),
        point.ttft_mean_ms / 1e3,
        point.itl_mean_ms / 1e3,
    )
