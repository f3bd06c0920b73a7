"""The most that a replica completes, from its step time alone (planner notes §4).

Pure. It is where a search for a rate within targets ends, and says nothing of them.
"""

from __future__ import annotations

import numpy as np

from crosslogic.compass.capacity.step_model import StepModel


def greatest_rate(model: StepModel, most_running: int, prompt: float, output: float) -> float:
    """Requests a second that a replica completes whose places, `most_running` of them, are never empty.

    `prompt` and `output` are mean tokens of a request.
    """
    n = np.arange(1, max(1, most_running) + 1)
    return float(np.max(_service_rates(model, n, prompt, output)))


def _service_rates(
    model: StepModel, running: np.ndarray[tuple[int], np.dtype[np.int64]], prompt: float, output: float
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    time = model.step_time
    kv = running * (prompt + output / 2)
    fixed = time.a_s + time.b_s * running
    if time.bends:
        at, beyond_s = np.array(time.bends).T
        fixed = fixed + np.interp(running, at, beyond_s)
    step = fixed + time.c_s * kv + time.d_s * running * prompt / output
    whole: np.ndarray[tuple[int], np.dtype[np.float64]] = running / (time.d_s * prompt + np.maximum(1.0, output) * step)
    return whole
