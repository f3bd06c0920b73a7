"""Replicas under load in virtual time: the simulator's own engine, so many of them behind a least-loaded router.

Pure. The engine leaps over iterations in which nothing happens, so a request costs some tens of microseconds.
Percentiles are of requests that came after the warm-up; ITL is each request's mean time between tokens, as load
generators report it.
"""

from __future__ import annotations

from math import ceil, inf

import msgspec
import numpy as np
from numpy.typing import NDArray

from crosslogic.compass.capacity.load import Requests
from crosslogic.compass.capacity.step_model import StepModel
from crosslogic.simulator.engine import Engine
from crosslogic.simulator.model import EngineConfig, Sequence

Array = NDArray[np.float64]

WARM_UP = 0.15  # share of the requests
_QUEUE = 10**6


class ReplicaLimits(msgspec.Struct, frozen=True):
    """vLLM's limits of one replica."""

    kv_tokens: int
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 8192

    def engine_config(self) -> EngineConfig:
        return EngineConfig(
            max_num_seqs=self.max_num_seqs,
            max_num_batched_tokens=self.max_num_batched_tokens,
            kv_blocks=max(1, self.kv_tokens // 16),
            block_tokens=16,
            max_queue=_QUEUE,
        )


class Observed(msgspec.Struct, frozen=True):
    """What the requests after the warm-up saw."""

    ttft_p95_ms: float
    itl_p95_ms: float  # of each request's mean time between tokens; 0 where every answer is one token
    e2e_p95_ms: float
    refused: int
    e2e_late: float  # share of requests over a target in proportion to their length; 0 without one


class Samples(msgspec.Struct, frozen=True):
    """Each request after the warm-up."""

    arrived_s: Array
    ttft_s: Array
    itl_s: Array  # NaN for answers of one token
    e2e_s: Array
    output: Array
    refused: int
    mean_running: float  # in the system, over time, of one replica


def simulate(model: StepModel, limits: ReplicaLimits, load: Requests, rate: float, replicas: int = 1) -> Samples:
    """Run all requests at this rate, in requests a second for all replicas together, to their end."""
    config = limits.engine_config()
    engines = [Engine(config, model.step_time) for _ in range(replicas)]
    now = [0.0] * replicas
    sequences: list[Sequence] = []
    refused = 0
    at = (load.at / rate).tolist()
    shapes = zip(load.prompt.tolist(), load.output.tolist(), load.cached.tolist(), strict=True)
    running = np.zeros(len(at))
    for index, (arrival_s, (prompt, output, cached)) in enumerate(zip(at, shapes, strict=True)):
        best, least = 0, inf
        for number, engine in enumerate(engines):
            if now[number] < arrival_s:
                now[number] = _advance(engine, now[number], arrival_s)
            busy = engine.running + engine.waiting
            if busy < least:
                best, least = number, busy
        running[index] = least
        sequence = Sequence(prompt, output, cached_tokens=cached)
        if engines[best].submit(sequence, arrival_s) is None:
            sequences.append(sequence)
        else:
            refused += 1
            running[index] = np.nan
    for number, engine in enumerate(engines):
        _advance(engine, now[number], inf)
    return _samples(model, sequences, running[~np.isnan(running)], replicas, refused)


def observe(samples: Samples, e2e_limit_s: Array | None = None) -> Observed:
    """Percentiles of what was simulated; `e2e_limit_s` is each request's own limit."""
    between = samples.itl_s[~np.isnan(samples.itl_s)]
    late = 0.0 if e2e_limit_s is None else float(np.mean(samples.e2e_s > e2e_limit_s))
    return Observed(
        ttft_p95_ms=_p95_ms(samples.ttft_s),
        itl_p95_ms=_p95_ms(between),
        e2e_p95_ms=_p95_ms(samples.e2e_s),
        refused=samples.refused,
        e2e_late=late,
    )


def _advance(engine: Engine, now_s: float, until_s: float) -> float:
    while now_s < until_s:
        if engine.idle:
            return until_s if until_s != inf else now_s
        now_s = engine.leap(now_s, until_s)
        if now_s < until_s:
            now_s += engine.step(now_s).duration_s
    return now_s


def _samples(model: StepModel, sequences: list[Sequence], running: Array, replicas: int, refused: int) -> Samples:
    skip = ceil(len(sequences) * WARM_UP)
    arrived = np.array([s.submitted_s for s in sequences])
    first = np.array([s.first_token_s for s in sequences], dtype=float)
    ended = np.array([s.finished_s for s in sequences], dtype=float)
    output = np.array([s.output_tokens for s in sequences], dtype=float)
    with np.errstate(invalid="ignore", divide="ignore"):
        between = np.where(output > 1, (ended - first) / (output - 1), np.nan)
    front = model.front_s(running + 1)
    ttft = first - arrived + front
    e2e = ended - arrived + front
    mean_running = _mean_in_system(arrived[skip:], (ended - arrived)[skip:]) / replicas
    return Samples(arrived[skip:], ttft[skip:], between[skip:], e2e[skip:], output[skip:], refused, mean_running)


def _mean_in_system(arrived: Array, stay: Array) -> float:
    """Counted over time from arrivals and departures, not by Little's law, which a test holds it against."""
    if len(arrived) < 2:
        return 0.0
    start, end = arrived[0], arrived[-1]
    overlap = np.minimum(arrived + stay, end) - arrived
    return float(overlap.sum() / (end - start))


def _p95_ms(values_s: Array) -> float:
    return float(np.quantile(values_s, 0.95)) * 1e3 if len(values_s) else 0.0
