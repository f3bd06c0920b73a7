"""What arrives in virtual time: bursty gaps, lengths from distributions or a trace. Pure.

Invariant: the same seed gives the same requests whatever the rate, only closer together: configurations and rates are
compared under common random numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from math import gamma, sqrt
from statistics import NormalDist

import msgspec
import numpy as np
from numpy.typing import NDArray

from crosslogic.compass.specification.lengths import Lengths
from crosslogic.kernel.errors import InvalidRequest

Array = NDArray[np.float64]

_GRID = 512


class Gaps(StrEnum):
    """The family that times between arrivals are of."""

    GAMMA = "gamma"
    WEIBULL = "weibull"


class Requests(msgspec.Struct, frozen=True):
    """In order of arrival. `at` is in units of the mean time between arrivals."""

    at: Array
    prompt: NDArray[np.int64]
    output: NDArray[np.int64]
    cached: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.at)


def requests(
    count: int,
    prompt: Lengths,
    output: Lengths,
    *,
    cv: float = 1.0,
    prefix_hit_rate: float = 0.0,
    gaps: Gaps = Gaps.GAMMA,
    seed: int = 0,
) -> Requests:
    """So many requests with gaps of this coefficient of variation; 1 is Poisson, 0 even. Raises InvalidRequest."""
    if count < 1 or not 0 <= cv <= 20 or not 0 <= prefix_hit_rate < 1:
        raise InvalidRequest("a load has at least one request, burstiness from 0 to 20 and a hit rate below 1")
    rng = np.random.default_rng(seed)
    between = _gaps(rng, count, cv, gaps)
    prompts = _lengths(rng, count, prompt)
    outputs = _lengths(rng, count, output)
    cached = np.minimum((prompts * prefix_hit_rate).astype(np.int64), prompts - 1)
    return Requests(np.cumsum(between / between.mean()), prompts, outputs, cached)


def replayed(trace: Sequence[tuple[float, int, int]]) -> tuple[Requests, float]:
    """The requests `(second, prompt, output)` of a trace, and its mean rate. Raises InvalidRequest."""
    if len(trace) < 2:
        raise InvalidRequest("a trace needs at least two requests")
    rows = np.array(sorted(trace))
    seconds = rows[:, 0] - rows[0, 0]
    rate = (len(rows) - 1) / seconds[-1] if seconds[-1] > 0 else 0.0
    if not rate or rows[:, 1:].min() < 1:
        raise InvalidRequest("a trace spans some time, and each of its requests has prompt and output tokens")
    whole = rows[:, 1:].astype(np.int64)
    return Requests(seconds * rate, whole[:, 0], whole[:, 1], np.zeros(len(rows), dtype=np.int64)), float(rate)


def thinned_cv(cv: float, replicas: int) -> float:
    """Burstiness of what one of so many replicas gets, each request at random: it tends to Poisson."""
    return sqrt(max(0.0, 1 + (cv * cv - 1) / replicas))


def _gaps(rng: np.random.Generator, count: int, cv: float, family: Gaps) -> Array:
    if cv < 1e-3:
        return np.ones(count)
    if family is Gaps.WEIBULL:
        return rng.weibull(_weibull_shape(cv), count) + 1e-12
    return rng.gamma(1 / cv**2, cv**2, count) + 1e-12


def _weibull_shape(cv: float) -> float:
    low, high = 0.05, 50.0
    for _ in range(60):
        shape = sqrt(low * high)
        found = sqrt(max(0.0, gamma(1 + 2 / shape) / gamma(1 + 1 / shape) ** 2 - 1))
        low, high = (shape, high) if found > cv else (low, shape)
    return sqrt(low * high)


def _lengths(rng: np.random.Generator, count: int, lengths: Lengths) -> NDArray[np.int64]:
    """Stratified, so that a few thousand requests have the distribution's tail neither twice nor not at all."""
    shares = (rng.permutation(count) + rng.random(count)) / count
    grid = (np.arange(_GRID) + 0.5) / _GRID
    if lengths.histogram or not lengths.sigma:
        table = np.array([lengths.quantile(float(share)) for share in grid])
        values = np.interp(shares, grid, table)
    else:
        normal = NormalDist()
        z = np.array([normal.inv_cdf(float(share)) for share in shares])
        values = np.exp(np.log(lengths.mean) - lengths.sigma**2 / 2 + lengths.sigma * z)
    whole: NDArray[np.int64] = np.maximum(1, np.rint(values)).astype(np.int64)
    return whole
