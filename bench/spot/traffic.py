"""Who asks what, and when: a day of requests. Pure, given a source of chance.

Requests come in bursts (gaps drawn from a gamma distribution with a coefficient of variation of 2, as ServeGen measured
for large services) and follow the day of each region.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from crosslogic.scheduling.model import Journey

DAY_S = 86_400.0
SWING = 0.5  # the busiest hour has so much more than the mean
PEAK_H = {"in": 9.0, "eu": 13.0, "us": 19.0}  # UTC
BURSTINESS = 2.0
MEAN_PROMPT, MEAN_OUTPUT = 600, 250
LONGEST_PROMPT, LONGEST_OUTPUT = 4_000, 1_500


class Chance(Protocol):
    """What is needed of `random.Random`."""

    def gammavariate(self, alpha: float, beta: float) -> float: ...

    def lognormvariate(self, mu: float, sigma: float) -> float: ...


@dataclass
class Request:
    """One request on its way; `made` tokens of its answer have reached the caller."""

    arrived_s: float
    region: str
    prompt: int
    output: int
    made: int = 0
    tries: int = 0  # before the first token
    breaks: int = 0
    excluded: tuple[str, ...] = ()
    journey: Journey = field(default_factory=Journey)


def arrivals(region: str, per_s: float, until_s: float, rng: Chance) -> Iterator[Request]:
    """A region's requests, in order; `per_s` is the mean of the day."""
    now_s = 0.0
    shape = 1 / BURSTINESS**2
    while True:
        hour = now_s / 3600.0
        rate = per_s * (1 + SWING * math.cos((hour - PEAK_H[region]) * math.tau / 24))
        now_s += rng.gammavariate(shape, 1 / shape) / rate
        if now_s >= until_s:
            return
        yield Request(
            now_s,
            region,
            _length(MEAN_PROMPT, LONGEST_PROMPT, rng),
            _length(MEAN_OUTPUT, LONGEST_OUTPUT, rng),
        )


def _length(mean: int, longest: int, rng: Chance) -> int:
    """Lognormal, as lengths are; sigma 0.8."""
    return max(1, min(longest, round(rng.lognormvariate(math.log(mean) - 0.32, 0.8))))
