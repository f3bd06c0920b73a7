"""Fits the parameters of `capacity/pooling.py`: `python -m bench.planner.levels` prints the two `Levels`.

They maximise the marginal likelihood of some hundreds of rows drawn at random, half of them as whole configurations,
with a weak prior around the ones that are there now; each is positive, so its logarithm is what is sought.
"""

from __future__ import annotations

import sys
from random import Random

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize

from crosslogic.compass.capacity import pooling
from crosslogic.compass.capacity.pooling import Levels, Pool
from crosslogic.compass.capacity.rows import MeasuredRow, packaged_rows

ROWS = 700
SPREAD = 1.5  # of the prior, in logarithms

Array = NDArray[np.float64]


def fitted(start: Levels, column: int, seed: int = 0) -> Levels:
    """The most likely parameters for one of the two figures, sought from these."""
    rows = _drawn(Random(seed))
    pool = Pool(rows)
    points, residuals = pool._points, pool._residuals[:, column]
    middle = np.log(_flat(start))

    def loss(logs: Array) -> float:
        levels = _levels(np.exp(logs))
        inner = pooling._kernel(points, points, levels)
        inner[np.diag_indices_from(inner)] += levels.noise
        factor, lower = cho_factor(inner, lower=True, check_finite=False)
        fit = residuals @ cho_solve((factor, lower), residuals, check_finite=False)
        prior = (((logs - middle) / SPREAD) ** 2).sum()
        return float(fit / 2 + np.log(np.diag(factor)).sum() + prior / 2)

    found = minimize(loss, middle, method="L-BFGS-B", bounds=[(-9.0, 3.0)] * len(middle), options={"maxiter": 40})
    sys.stderr.write(f"{found.nit} steps, {loss(middle):.1f} -> {found.fun:.1f}\n")
    return _levels(np.round(np.exp(found.x), 4))


def _drawn(rng: Random) -> list[MeasuredRow]:
    """Whole configurations and single rows: what one has alone shows in the first, else in the second."""
    rows = list(packaged_rows())
    names = sorted({row.configuration for row in rows})
    rng.shuffle(names)
    rng.shuffle(rows)
    found: dict[MeasuredRow, None] = {}
    for name in names:
        if len(found) >= ROWS // 2:
            break
        found.update(dict.fromkeys(row for row in rows if row.configuration == name))
    found.update(dict.fromkeys(rows[: ROWS - len(found)]))
    return list(found)


def _flat(levels: Levels) -> Array:
    found: list[float] = []
    for value in msgspec.structs.astuple(levels):
        found.extend(value if isinstance(value, tuple) else (value,))
    return np.array(found)


def _levels(values: Array) -> Levels:
    each = [float(value) for value in values]
    return Levels(tuple(each[:5]), each[5], tuple(each[6:9]), tuple(each[9:12]), *each[12:])  # type: ignore[arg-type]


def main() -> int:
    for name, start, column in (("ITL", pooling.ITL, 0), ("TTFT", pooling.TTFT, 1)):
        print(name, "=", fitted(start, column), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
