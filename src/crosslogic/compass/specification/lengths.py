"""How long prompts and answers are: a mean and a 95th percentile, or a histogram where one was measured. Pure.

Invariant: `quantile` never falls as its share rises, and never leaves what a request can be: at least one token.
Without a histogram lengths are log-normal, or all the same where mean and 95th percentile are.
"""

from collections.abc import Iterable
from itertools import pairwise
from math import exp, log, sqrt
from statistics import NormalDist

import msgspec

from crosslogic.kernel.errors import InvalidRequest

_Z95 = NormalDist().inv_cdf(0.95)
_STANDARD = NormalDist()


class Bin(msgspec.Struct, frozen=True):
    """Lengths of `low` tokens or more and less than `high`."""

    low: int
    high: int
    probability: float


class Lengths(msgspec.Struct, frozen=True):
    """Tokens of a prompt, or of an answer."""

    mean: float
    p95: float
    histogram: tuple[Bin, ...] = ()  # ascending, without overlap, probabilities adding up to 1

    def quantile(self, share: float) -> float:
        """The length that this share of the requests stays below or at."""
        share = min(max(share, 0.0), 1.0)
        if self.histogram:
            return _histogram_quantile(self.histogram, share)
        sigma = self.sigma
        if not sigma:
            return max(1.0, self.mean)
        z = _STANDARD.inv_cdf(min(max(share, 1e-9), 1 - 1e-9))
        return max(1.0, exp(log(self.mean) - sigma**2 / 2 + sigma * z))

    @property
    def sigma(self) -> float:
        """Spread of the logarithm that makes a log-normal of this mean and 95th percentile; 0: all the same.

        p95 / mean has a greatest value, exp(1.645² / 2) = 3.87; what is asked beyond it gets that shape.
        """
        ratio = self.p95 / self.mean if self.mean > 0 else 1.0
        if ratio <= 1.0:
            return 0.0
        return _Z95 - sqrt(max(0.0, _Z95**2 - 2 * log(ratio)))


def fixed(tokens: float) -> Lengths:
    """All of one length, as benchmarks have it."""
    return Lengths(mean=tokens, p95=tokens)


def lengths_of(histogram: Iterable[Bin]) -> Lengths:
    """With mean and 95th percentile of the histogram. Raises InvalidRequest for what is none."""
    bins = tuple(each for each in histogram if each.probability > 0)
    total = sum(each.probability for each in bins)
    if not bins or total <= 0:
        raise InvalidRequest("a histogram of lengths needs a bin with a probability")
    if any(each.low < 0 or each.high <= each.low for each in bins):
        raise InvalidRequest("a bin of a histogram of lengths reaches from low to a higher high, both not negative")
    if any(one.high > other.low for one, other in pairwise(bins)):
        raise InvalidRequest("the bins of a histogram of lengths ascend and do not overlap")
    bins = tuple(msgspec.structs.replace(each, probability=each.probability / total) for each in bins)
    mean = sum(each.probability * (each.low + each.high - 1) / 2 for each in bins)
    return Lengths(mean=max(1.0, mean), p95=_histogram_quantile(bins, 0.95), histogram=bins)


def scaled(lengths: Lengths, mean: float) -> Lengths:
    """The same shape with another mean."""
    factor = mean / lengths.mean
    bins = []
    reached = 0
    for each in lengths.histogram:
        low = max(reached, round(each.low * factor))
        high = max(low + 1, round(each.high * factor))
        bins.append(Bin(low, high, each.probability))
        reached = high
    return Lengths(mean=mean, p95=lengths.p95 * factor, histogram=tuple(bins))


def _histogram_quantile(bins: tuple[Bin, ...], share: float) -> float:
    """Linear within a bin."""
    below = 0.0
    for each in bins:
        if below + each.probability >= share:
            within = (share - below) / each.probability if each.probability else 0.0
            return max(1.0, each.low + within * (each.high - 1 - each.low))
        below += each.probability
    return max(1.0, float(bins[-1].high - 1))
