"""The step time of one configuration at one traffic: coefficients, front time, how sure they are, and on what grounds.

Coefficients are fitted (`simulator.fit`) to what the pool of measured rows says of this configuration at these lengths
and around them; what first tokens take beyond prefill and steps is the front time, which goes with load. So
what was measured, what is calibrated and what is estimated go the same way, and the simulator, the queueing
formulas and the closed-loop identities all read the same five numbers.

Invariant: `evidence` is `calibrated` where rows of this configuration were measured, else `estimated`; `measured` are
only rows themselves (`knowledge/`), never what follows from a model.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import msgspec
import numpy as np
from numpy.typing import NDArray

from crosslogic.compass.capacity.pooling import Pool, Predicted
from crosslogic.compass.capacity.rows import Load, MeasuredRow
from crosslogic.simulator.fit import Configuration, Row, fit_step_time
from crosslogic.simulator.model import StepTime

Array = NDArray[np.float64]

_RUNNING = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_BEYOND = (512, 1024)  # for bends and front alone: the coefficients are of what one would run
_AROUND = (4, 32, 128)
_LEAST_ROWS = 8


class Evidence(StrEnum):
    """How well founded a figure is."""

    MEASURED = "measured"
    CALIBRATED = "calibrated"
    ESTIMATED = "estimated"


class StepModel(msgspec.Struct, frozen=True):
    """Of one replica."""

    step_time: StepTime
    front: tuple[tuple[float, float], ...]  # seconds beyond the engine at so many running; linear between them
    evidence: Evidence
    itl_deviation: float  # of the logarithm
    ttft_deviation: float
    basis: str

    def itl_s(self, running: float, prompt: float, output: float) -> float:
        """The mean time between tokens where so many run at once: the closed-loop identity."""
        time = self.step_time
        kv = running * (prompt + output / 2)
        return time.fixed_s(running) + time.c_s * kv + time.d_s * running * prompt / output

    def ttft_s(self, running: float, prompt: float, output: float) -> float:
        """The mean time to the first token, likewise."""
        return float(self.front_s(running)) + _first_s(self.step_time, running, prompt, output)

    def front_s(self, running: float | Array) -> Array:
        """What a first token takes beyond the engine's iterations where so many run, itself among them."""
        if not self.front:
            return np.zeros_like(running, dtype=float)
        at, seconds = np.array(self.front).T
        return np.asarray(np.interp(running, at, seconds))

    def scaled(self, itl: float = 1.0, ttft: float = 1.0) -> StepModel:
        """With decoding and first tokens slower or faster by these factors: what was learnt, or what may be."""
        time = self.step_time
        return msgspec.structs.replace(
            self,
            step_time=StepTime(
                time.a_s * itl,
                time.b_s * itl,
                time.c_s * itl,
                time.d_s * ttft,
                tuple((decodes, beyond_s * itl) for decodes, beyond_s in time.bends),
            ),
            front=tuple((running, seconds * ttft) for running, seconds in self.front),
        )


def step_model(pool: Pool, configuration: Configuration, prompt: float, output: float) -> StepModel:
    """Raises InvalidRequest for a model or a GPU that the catalogue does not know."""
    loads = [Load(n, prompt, output) for n in _RUNNING]
    for lengths in ((prompt * 2, output), (prompt / 2, output), (prompt, output * 2), (prompt, output / 2)):
        loads += [Load(n, *lengths) for n in _AROUND]
    more = [Load(n, prompt, output) for n in _BEYOND]
    *predicted, beyond, furthest = pool.predict(configuration, [*loads, *more])
    rows = [
        Row(
            round(load.running), max(1, round(load.prompt_tokens)), max(2, round(load.output_tokens)), p.ttft_s, p.itl_s
        )
        for load, p in zip(loads, predicted, strict=True)
    ]
    time = fit_step_time(rows)
    if not time.a_s:  # an engine always takes some time for an iteration
        time = msgspec.structs.replace(time, a_s=min(row.itl_s for row in rows) / 4)
    here = predicted[: len(_RUNNING)]
    rising, figures = [*loads[: len(_RUNNING)], *more], [*here, beyond, furthest]
    time = _bent(time, rising, figures)
    front = _front(time, rising, [p.ttft_s for p in figures])
    evidence, basis = _evidence(pool.rows_of(configuration), prompt, output)
    return StepModel(
        step_time=time,
        front=front,
        evidence=evidence,
        itl_deviation=float(np.mean([p.itl_deviation for p in here[:8]])),
        ttft_deviation=float(np.mean([p.ttft_deviation for p in here[:8]])),
        basis=basis,
    )


def _bent(time: StepTime, loads: Sequence[Load], figures: Sequence[Predicted]) -> StepTime:
    """With what the straight line leaves out at the traffic's own lengths; more decodes never make a step shorter."""
    fixed = []
    for load, figure in zip(loads, figures, strict=True):
        n, prompt, output = load.running, load.prompt_tokens, load.output_tokens
        rest_s = time.c_s * n * (prompt + output / 2) + time.d_s * n * prompt / output
        fixed.append(max(figure.itl_s - rest_s, 0.3 * time.fixed_s(n)))
    rising = np.exp(never_falling(np.log(fixed), [each.itl_deviation**-2 for each in figures]))
    bends = tuple((load.running, float(s) - time.fixed_s(load.running)) for load, s in zip(loads, rising, strict=True))
    return msgspec.structs.replace(time, bends=bends)


def never_falling(values: Sequence[float] | Array, weights: Sequence[float]) -> list[float]:
    """The nearest such values, by weighted squares (isotonic regression by pooling adjacent violators, Ayer 1955).

    A running maximum would let one load that is extrapolated too high lift all that were measured behind it.
    """
    blocks: list[tuple[float, float, int]] = []
    for value, weight in zip(values, weights, strict=True):
        block = (float(value), weight, 1)
        while blocks and blocks[-1][0] > block[0]:
            mean, heavy, count = blocks.pop()
            whole = heavy + block[1]
            block = ((mean * heavy + block[0] * block[1]) / whole, whole, count + block[2])
        blocks.append(block)
    return [mean for mean, _, count in blocks for _ in range(count)]


def _front(time: StepTime, loads: Sequence[Load], ttfts_s: Sequence[float]) -> tuple[tuple[float, float], ...]:
    """What first tokens take beyond the engine's iterations at each load, never negative."""
    return tuple(
        (load.running, max(0.0, ttft_s - _first_s(time, load.running, load.prompt_tokens, load.output_tokens)))
        for load, ttft_s in zip(loads, ttfts_s, strict=True)
    )


def _first_s(time: StepTime, running: float, prompt: float, output: float) -> float:
    """A prompt waits for half of the step under way, shares its own, and meets others' prefill on the way."""
    step = time.fixed_s(running) + time.c_s * running * (prompt + output / 2)
    return 1.5 * step + time.d_s * (prompt + 0.5 * running * prompt * prompt / (output * (prompt + output)))


def _evidence(rows: Sequence[MeasuredRow], prompt: float, output: float) -> tuple[Evidence, str]:
    same = sum(r.load.prompt_tokens == prompt and r.load.output_tokens == output for r in rows)
    if len(rows) >= _LEAST_ROWS:
        lengths = f"{same} of them with these lengths" if same else "with other lengths"
        return Evidence.CALIBRATED, f"fitted to {len(rows)} measured rows of this configuration, {lengths}"
    if rows:
        return Evidence.ESTIMATED, f"{len(rows)} measured rows of this configuration, and those of its relatives"
    return Evidence.ESTIMATED, "no row of this configuration; drawn from those of related models, GPUs and layouts"
