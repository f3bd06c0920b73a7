"""The birth-death chain of one replica: mean wait and a lower bound of replicas, in microseconds (planner notes §4).

Pure. Only means are taken from it: service is not exponential and batching couples requests, so no percentile is.
"""

from __future__ import annotations

from math import ceil, inf

import msgspec
import numpy as np

from crosslogic.compass.capacity.step_model import StepModel


class Queue(msgspec.Struct, frozen=True):
    """In the long run, under Poisson arrivals."""

    utilization: float  # offered rate over the greatest
    mean_running: float
    mean_wait_s: float
    refused: float  # share of requests that find the system full


def greatest_rate(model: StepModel, most_running: int, prompt: float, output: float) -> float:
    """Requests a second that a full replica completes."""
    n = np.arange(1, max(1, most_running) + 1)
    return float(np.max(_service_rates(model, n, prompt, output)))


def birth_death(
    model: StepModel, rate: float, most_running: int, prompt: float, output: float, bound: int = 2048
) -> Queue:
    """The chain with service rate μ(n), up to `bound` requests in the system."""
    n = np.arange(1, bound + 1)
    rates = _service_rates(model, np.minimum(n, most_running), prompt, output)
    logs = np.concatenate([[0.0], np.cumsum(np.log(rate) - np.log(rates))])
    share = np.exp(logs - logs.max())
    share /= share.sum()
    states = np.arange(bound + 1)
    waiting = float((np.maximum(states - most_running, 0) * share).sum())
    accepted = rate * (1 - float(share[-1]))
    return Queue(
        utilization=rate / float(rates.max()),
        mean_running=float((np.minimum(states, most_running) * share).sum()),
        mean_wait_s=waiting / accepted if accepted else inf,
        refused=float(share[-1]),
    )


def least_replicas(model: StepModel, rate: float, most_running: int, prompt: float, output: float) -> int:
    """No fewer can keep up, whatever the targets."""
    return max(1, ceil(rate / greatest_rate(model, most_running, prompt, output)))


def running_within(model: StepModel, itl_s: float, prompt: float, output: float, most: int = 4096) -> int:
    """How many run at once where the mean time between tokens is still within this; 0: not even one."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        if model.itl_s(middle, prompt, output) <= itl_s:
            low = middle
        else:
            high = middle - 1
    return low


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
