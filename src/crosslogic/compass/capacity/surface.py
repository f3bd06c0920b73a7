"""Latency against load, computed beforehand: what-ifs look up here what would take the simulator seconds.

Measured in its own shortest step, a replica has few properties: how many requests it may run, by how much its step
grows until then, how many steps a prompt's prefill costs, how many tokens an answer has, how bursty arrivals are, and
how loaded it is. The virtual-time scheduler was run on a grid of these; everything else lies between, so models,
GPUs, quantisations, lengths and learnt corrections that nobody has thought of are on the surface already.

Invariant: between grid points logarithms are linear; beyond them the nearest edge counts. `python -m
crosslogic.compass.capacity.surface` writes the packaged grid anew.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from functools import cache
from importlib import resources
from io import BytesIO
from math import log
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from crosslogic.compass.capacity.load import Requests, requests
from crosslogic.compass.capacity.queueing import greatest_rate
from crosslogic.compass.capacity.step_model import Evidence, StepModel
from crosslogic.compass.capacity.virtual import ReplicaLimits, Samples, simulate
from crosslogic.compass.specification.lengths import Lengths
from crosslogic.simulator.model import StepTime

Array = NDArray[np.float64]

MOST = (4.0, 16.0, 64.0, 256.0)
GROWTH = (1.1, 2.0, 5.0, 15.0)
PREFILL = (0.2, 1.5, 8.0, 40.0)
OUTPUT = (128.0, 1024.0)
BURSTINESS = (1.0, 2.0, 4.0)
LOADED = (0.02, 0.1, 0.3, 0.5, 0.65, 0.8, 0.9, 0.97)
_AXES = (MOST, GROWTH, PREFILL, OUTPUT, BURSTINESS)
_FIGURES = ("ttft_p95", "itl_p95", "e2e_p95", "ttft_mean", "itl_mean", "running_mean")
_PROMPT = 512.0
_TAIL = 2.2  # 95th percentile over mean of lengths on the grid, about that of real traces
_COUNT = 1200


class Curve(msgspec.Struct, frozen=True):
    """Figures at rising rates of one replica. Seconds."""

    rates: Array
    ttft_p95: Array
    itl_p95: Array
    e2e_p95: Array
    ttft_mean: Array
    itl_mean: Array
    running_mean: Array


class Traffic(msgspec.Struct, frozen=True):
    """What of lengths and arrivals a curve depends on. `prefill_tokens` are those that no prefix cache has."""

    prompt_tokens: float
    prefill_tokens: float
    output_tokens: float
    output_p95: float
    cv: float


def most_running(limits: ReplicaLimits, prompt: float, output: float) -> int:
    """How many requests of mean length the cache and the scheduler let run at once."""
    return max(1, min(limits.max_num_seqs, int(limits.kv_tokens / (prompt + output / 2))))


def curve(model: StepModel, limits: ReplicaLimits, traffic: Traffic) -> Curve:
    """Latency against the rate of one replica, front time included."""
    prompt, output = traffic.prompt_tokens, max(2.0, traffic.output_tokens)
    most = most_running(limits, prompt, output)
    time = model.step_time
    unit = _decode_s(time, 1, prompt, output)
    growth = _decode_s(time, most, prompt, output) / unit
    prefill = time.d_s * max(1.0, traffic.prefill_tokens) / unit
    greatest = greatest_rate(model, most, traffic.prefill_tokens, output)
    at = np.array([[most, growth, prefill, output, max(1.0, traffic.cv), loaded] for loaded in LOADED])
    found = np.exp(_grid()(_inside(at)))
    ttft_p95, itl_p95, e2e_p95, ttft_mean, itl_mean, running = found.T
    if time.bends:  # the grid's step grows in a straight line
        bent = _bend(time, running, most, prompt, output)
        itl_p95, e2e_p95, itl_mean = itl_p95 * bent, e2e_p95 * bent, itl_mean * bent
    front = model.front_s(running + 1)
    return Curve(
        rates=np.array(LOADED) * greatest,
        ttft_p95=np.maximum.accumulate(ttft_p95 * unit + front),
        itl_p95=np.maximum.accumulate(itl_p95 * unit),
        e2e_p95=np.maximum.accumulate(e2e_p95 * unit * traffic.output_p95 + front),
        ttft_mean=np.maximum.accumulate(ttft_mean * unit + front),
        itl_mean=np.maximum.accumulate(itl_mean * unit),
        running_mean=running,
    )


def at_rate(figure: Array, curve: Curve, rate: float) -> float:
    """The figure at this rate; infinite above the last rate of the curve, where the queue only grows."""
    if rate > curve.rates[-1]:
        return float("inf")
    return float(np.interp(rate, curve.rates, figure))


def rate_within(figure: Array, curve: Curve, target_s: float) -> float:
    """The largest rate at which the figure is within its target; 0: none."""
    if figure[0] > target_s:
        return 0.0
    if figure[-1] <= target_s:
        return float(curve.rates[-1])
    above = int(np.argmax(figure > target_s))
    share = (target_s - figure[above - 1]) / (figure[above] - figure[above - 1])
    return float(curve.rates[above - 1] + share * (curve.rates[above] - curve.rates[above - 1]))


class _Grid:
    """Values at the points of a grid, linear between them. (SciPy's is the same; to import it takes a second.)"""

    def __init__(self, axes: Sequence[Array], values: Array) -> None:
        self._axes = axes
        self._flat = values.reshape(-1, values.shape[-1])
        sizes = values.shape[:-1]
        self._strides = np.array([int(np.prod(sizes[place + 1 :])) for place in range(len(sizes))])
        self._corners = np.array(list(itertools.product((0, 1), repeat=len(sizes))))

    def __call__(self, points: Array) -> Array:
        """Of points inside, one a row."""
        below, share = np.empty(points.shape, int), np.empty(points.shape)
        for place, axis in enumerate(self._axes):
            at = np.clip(np.searchsorted(axis, points[:, place], side="right") - 1, 0, len(axis) - 2)
            below[:, place] = at
            share[:, place] = (points[:, place] - axis[at]) / (axis[at + 1] - axis[at])
        corners = self._corners[:, None, :]
        weights = np.where(corners == 1, share, 1.0 - share).prod(axis=2)
        index = (below + corners) @ self._strides
        found: Array = np.einsum("cn,cnf->nf", weights, self._flat[index])
        return found


@cache
def _grid() -> _Grid:
    data = resources.files("crosslogic.compass.capacity").joinpath("data/surface.npz").read_bytes()
    with np.load(BytesIO(data)) as file:
        values = file["values"].astype(float)
    axes = [np.log(np.array(axis)) for axis in (*_AXES, LOADED)]
    return _Grid(axes, values)


def _inside(points: Array) -> Array:
    edges = np.array([[axis[0], axis[-1]] for axis in (*_AXES, LOADED)])
    return np.log(np.clip(points, edges[:, 0], edges[:, 1]))


def _decode_s(time: StepTime, running: float, prompt: float, output: float) -> float:
    return time.fixed_s(running) + time.c_s * running * (prompt + output / 2)


def _bend(time: StepTime, running: Array, most: int, prompt: float, output: float) -> Array:
    """By how much the step is longer than on the straight line from its shortest to its longest, at each mean load."""
    ends = [_decode_s(time, n, prompt, output) for n in (1, most)]
    straight = np.interp(running, (1, max(2, most)), ends)
    return np.array([_decode_s(time, max(1.0, n), prompt, output) for n in running]) / straight


def _run(most: float, growth: float, prefill: float, output: float, cv: float) -> list[list[float]]:
    """All loads of one grid point, in units of its shortest step, which is a second here."""
    slope = (growth - 1) / max(1.0, most - 1)
    time = StepTime(a_s=1 - slope, b_s=slope, c_s=0.0, d_s=prefill / _PROMPT)
    model = StepModel(time, (), Evidence.ESTIMATED, 0.0, 0.0, "grid")
    limits = ReplicaLimits(kv_tokens=10**8, max_num_seqs=int(most), max_num_batched_tokens=8192)
    load = _requests(output, cv)
    greatest = greatest_rate(model, int(most), _PROMPT, output)
    return [_figures(simulate(model, limits, load, greatest * loaded)) for loaded in LOADED]


@cache
def _requests(output: float, cv: float) -> Requests:
    prompts, outputs = (Lengths(mean, mean * _TAIL) for mean in (_PROMPT, output))
    return requests(_COUNT, prompts, outputs, cv=cv, seed=7)


def _figures(samples: Samples) -> list[float]:
    between = samples.itl_s[~np.isnan(samples.itl_s)]
    figures = (
        np.quantile(samples.ttft_s, 0.95),
        np.quantile(between, 0.95),
        np.quantile(samples.e2e_s, 0.95) / np.quantile(samples.output, 0.95),
        samples.ttft_s.mean(),
        between.mean(),
        max(samples.mean_running, 1e-3),
    )
    return [log(max(float(figure), 1e-6)) for figure in figures]


def main(arguments: list[str]) -> int:
    """Write the packaged grid."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m crosslogic.compass.capacity.surface OUT.npz\n")
        return 2
    points = [_run(*point) for point in itertools.product(*_AXES)]
    values = np.array(points).reshape(*(len(axis) for axis in _AXES), len(LOADED), len(_FIGURES))
    buffer = BytesIO()
    np.savez_compressed(buffer, values=values.astype(np.float32))
    Path(arguments[0]).write_bytes(buffer.getvalue())
    sys.stdout.write(f"{values.size // len(_FIGURES)} points\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
