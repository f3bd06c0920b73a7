"""What requests see at a rate, run in virtual time and held against the targets (planner notes §4).

Pure. Every rate sees the same requests, only closer together, so more load is never better by luck.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from crosslogic.compass.capacity.load import Requests
from crosslogic.compass.capacity.step_model import StepModel
from crosslogic.compass.capacity.virtual import Observed, ReplicaLimits, Samples, observe, simulate
from crosslogic.compass.specification.model import Slo

LEAST_REQUESTS = 2000


def meets(observed: Observed, slo: Slo) -> bool:
    """Whether nothing was refused and every target that is set was kept."""
    if observed.refused:
        return False
    figures = ((observed.ttft_p95_ms, slo.ttft_p95_ms), (observed.itl_p95_ms, slo.itl_p95_ms))
    if any(target is not None and figure > target for figure, target in figures):
        return False
    if slo.e2e_p95_ms is None:
        return True
    return observed.e2e_late <= 0.05 if slo.e2e_output_tokens else observed.e2e_p95_ms <= slo.e2e_p95_ms


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
    """What requests see at this rate, in requests a second for all replicas together."""
    samples = simulate(model, limits, load, rate, replicas)
    return observe(samples, e2e_limits_s(samples, slo))
