"""How many deviations a 90% interval reaches, by how well founded a figure is: split-conformal, from held-out rows.

The packaged numbers are written by `make bench-planner`: the 90th percentile of |log error| / deviation over rows that
the pool had not seen, by point for configurations with rows, by whole configuration for those without.
"""

from functools import cache
from importlib import resources

import msgspec

from crosslogic.compass.capacity.step_model import Evidence


class Quantiles(msgspec.Struct, frozen=True):
    itl: float
    ttft: float


@cache
def packaged() -> dict[str, Quantiles]:
    data = resources.files("crosslogic.compass.capacity").joinpath("data/intervals.json").read_bytes()
    return msgspec.json.decode(data, type=dict[str, Quantiles])


def stretch(evidence: Evidence, kind: str) -> float:
    """The factor on the deviation of the logarithm of an ITL or a TTFT."""
    tier = "estimated" if evidence is Evidence.ESTIMATED else "calibrated"
    quantiles = packaged()[tier]
    return quantiles.itl if kind == "itl" else quantiles.ttft
