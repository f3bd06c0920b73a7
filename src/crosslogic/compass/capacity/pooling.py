"""Step times of configurations, measured or not, from all measured rows: hierarchical pooling by a Gaussian process.

The logarithm of measured over kernel times is a sum of levels: what all configurations have in common, what similar
ones have (same model, GPU, precision, backend, layout; near in tensor parallelism), and what one configuration has
alone, the last two once constant and once changing with load. So a configuration with rows is drawn to its rows, one
without to its relatives, and each figure knows how sure it is. Only the most related rows are solved for, so that a
query takes milliseconds and rows of one's own may be added at any time.

Invariant: a prediction depends on the rows given and the query alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log

import msgspec
import numpy as np
from numpy.typing import NDArray

from crosslogic.compass.capacity.kernels import Kernels
from crosslogic.compass.capacity.rows import Load, MeasuredRow, architecture, layout_of, usable
from crosslogic.kernel.errors import InvalidRequest
from crosslogic.simulator.fit import Configuration

Array = NDArray[np.float64]

NEIGHBOURS = 200


class Levels(msgspec.Struct, frozen=True):
    """The kernel's parameters; `mismatch` is what a differing property costs, exponents are per squared logarithm.

    `python -m bench.planner.levels` finds those of greatest marginal likelihood, with a weak prior. Errors have heavier
    tails than the normal distribution, which takes them for noise: the noise was lowered to a third (ITL) and a half,
    and what a configuration has alone raised, for smaller held-out errors of measured ones at the same of unseen ones.
    """

    mismatch: tuple[float, float, float, float, float]  # model, GPU, precision, backend, layout
    tp: float
    related_load: tuple[float, float, float]  # running, prompt, output
    own_load: tuple[float, float, float]
    related: float
    related_by_load: float
    own: float
    own_by_load: float
    by_load: float
    noise: float


ITL = Levels(
    mismatch=(1.8602, 0.2121, 0.4792, 0.8572, 0.8647),
    tp=0.0312,
    related_load=(0.0443, 0.0398, 0.0621),
    own_load=(0.3491, 0.0322, 0.0124),
    related=0.0224,
    related_by_load=0.0716,
    own=0.006,
    own_by_load=0.01,
    by_load=0.0033,
    noise=0.003,
)
TTFT = Levels(
    mismatch=(1.3132, 0.2234, 0.7521, 1.8202, 1.0865),
    tp=0.0914,
    related_load=(0.2746, 0.263, 0.0617),
    own_load=(0.0333, 0.1193, 0.0535),
    related=0.2443,
    related_by_load=0.1806,
    own=0.008,
    own_by_load=0.012,
    by_load=0.0404,
    noise=0.017,
)


class Predicted(msgspec.Struct, frozen=True):
    """Of one load. Deviations are of the logarithm."""

    itl_s: float
    ttft_s: float
    itl_deviation: float
    ttft_deviation: float


class _Points(msgspec.Struct):
    """Properties of points as columns: names as numbers that are equal where the names are, sizes as logarithms."""

    words: NDArray[np.intp]  # points x 5: model, GPU, precision, backend, layout
    configuration: NDArray[np.intp]
    tp: Array
    load: Array  # points x 3
    prior: Array  # points x 2: logarithms of ITL and TTFT by the kernels

    def take(self, index: NDArray[np.intp]) -> _Points:
        return _Points(
            self.words[index], self.configuration[index], self.tp[index], self.load[index], self.prior[index]
        )


class Pool:
    """All measured rows, ready to be asked."""

    def __init__(self, rows: Sequence[MeasuredRow]) -> None:
        """Raises InvalidRequest where there is not one row."""
        if not rows:
            raise InvalidRequest("there are no measured rows to plan with; import some")
        self.rows = tuple(rows)
        self._numbers: dict[tuple[str, ...], int] = {}
        self._points = _points([(row.configuration, row.load) for row in rows], self._numbers)
        measured = np.log(np.array([[row.itl_s, row.ttft_s] for row in rows]))
        self._residuals = measured - self._points.prior

    def predict(self, configuration: Configuration, loads: Sequence[Load]) -> list[Predicted]:
        """ITL and TTFT in a closed loop under each of these loads."""
        asked = _points([(configuration, load) for load in loads], self._numbers)
        means, deviations = [], []
        for column, levels in enumerate((ITL, TTFT)):
            affinity = _kernel(asked, self._points, levels)
            index = _most(affinity.mean(axis=0), NEIGHBOURS)
            near = self._points.take(index)
            inner = _kernel(near, near, levels)
            inner[np.diag_indices_from(inner)] += levels.noise
            across = affinity[:, index]
            weights = np.linalg.solve(inner, across.T)
            mean = asked.prior[:, column] + self._residuals[index, column] @ weights
            alone = _prior_variance(levels)
            variance = alone + levels.noise - np.einsum("ij,ji->i", across, weights)
            means.append(np.exp(mean))
            deviations.append(np.sqrt(np.maximum(variance, levels.noise)))
        return [
            Predicted(float(itl), float(ttft), float(itl_sd), float(ttft_sd))
            for itl, ttft, itl_sd, ttft_sd in zip(*means, *deviations, strict=True)
        ]

    def rows_of(self, configuration: Configuration) -> list[MeasuredRow]:
        """Those of the same configuration; checkpoints of one architecture are the same."""
        number = _points([(configuration, Load(1, 1, 1))], self._numbers).configuration[0]
        return [self.rows[index] for index in np.flatnonzero(self._points.configuration == number)]


def _points(pairs: Sequence[tuple[Configuration, Load]], numbers: dict[tuple[str, ...], int]) -> _Points:
    words, names, tps = [], [], []
    places: dict[Configuration, list[int]] = {}

    def number(*name: str) -> int:
        return numbers.setdefault(name, len(numbers))

    for place, (configuration, _) in enumerate(pairs):
        places.setdefault(configuration, []).append(place)
    loads = np.log(np.array([[load.running, load.prompt_tokens, load.output_tokens] for _, load in pairs], dtype=float))
    priors = np.empty((len(pairs), 2))
    said: dict[Configuration, tuple[list[int], int]] = {}
    for configuration, those in places.items():
        known = usable(configuration)
        if known is None:
            raise InvalidRequest(f"{configuration.model} or {configuration.gpu} is not in the catalogue")
        card, gpu = known
        kernels = Kernels(card, gpu, configuration.precision, layout_of(configuration))
        priors[those] = np.log(kernels.seconds(*np.exp(loads[those].T))).T
        parallel = f"dp {'dp' in configuration.layout}, ep {'ep' in configuration.layout}"
        word = (architecture(card).key, configuration.gpu, configuration.precision, configuration.backend, parallel)
        said[configuration] = (
            [number(str(column), name) for column, name in enumerate(word)],
            number(*word, str(configuration.tp), configuration.layout),
        )
    for configuration, _ in pairs:
        word_numbers, name = said[configuration]
        words.append(word_numbers)
        names.append(name)
        tps.append(log(configuration.tp))
    return _Points(np.array(words), np.array(names), np.array(tps), loads, priors)


def _kernel(one: _Points, other: _Points, levels: Levels) -> Array:
    distance = levels.tp * (one.tp[:, None] - other.tp[None, :]) ** 2
    for column, cost in enumerate(levels.mismatch):
        distance = distance + cost * (one.words[:, column, None] != other.words[None, :, column])
    apart = [(one.load[:, axis, None] - other.load[None, :, axis]) ** 2 for axis in range(3)]
    near: Array = np.exp(-_weighted(apart, levels.related_load))
    same = one.configuration[:, None] == other.configuration[None, :]
    own = same * np.exp(-_weighted(apart, levels.own_load))
    related: Array = np.exp(-distance)
    found: Array = (
        1.0
        + related * (levels.related + levels.related_by_load * near)
        + levels.own * same
        + levels.own_by_load * own
        + levels.by_load * near
    )
    return found


def _weighted(apart: list[Array], exponents: tuple[float, float, float]) -> Array:
    found: Array = apart[0] * exponents[0] + apart[1] * exponents[1] + apart[2] * exponents[2]
    return found


def _prior_variance(levels: Levels) -> float:
    return 1.0 + levels.related + levels.related_by_load + levels.own + levels.own_by_load + levels.by_load


def _most(affinity: Array, count: int) -> NDArray[np.intp]:
    if len(affinity) <= count:
        return np.arange(len(affinity))
    return np.sort(np.argpartition(-affinity, count)[:count])
