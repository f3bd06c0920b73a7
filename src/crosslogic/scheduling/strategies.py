"""How one of the eligible candidates is picked; the affinity strategy has a file of its own.

Every strategy answers `pick(candidates, ask, rng)` with one of `candidates`, or None when there is none. Up to
`FEW` candidates are all looked at. Beyond that a random sample is, so that a pick costs the same over ten nodes
and over ten thousand: the better of two random nodes is within log log n of the least loaded one (Mitzenmacher,
"The power of two choices", 2001), and gateways that do not know of each other do not all run to the same node.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import Protocol

from crosslogic.scheduling.model import Ask, Candidate, Rng

FEW = 8

_BUSY_S = 4.0
_PRICES_TRIED = 16
_ORDERS_KEPT = 256


class Strategy(Protocol):
    def pick(self, candidates: Sequence[Candidate], ask: Ask, rng: Rng) -> Candidate | None:
        """One of `candidates`; None only when there are none."""
        ...


def least_loaded(candidates: Sequence[Candidate], rng: Rng) -> Candidate | None:
    """The least loaded of a few, chance deciding between equals; of many, the better of two random ones."""
    count = len(candidates)
    if count <= FEW:
        best: Candidate | None = None
        best_s = 0.0
        equals = 0.0
        for candidate in candidates:
            load_s = candidate.ledger.load_s
            if best is None or load_s < best_s:
                best, best_s, equals = candidate, load_s, candidate.weight
            elif load_s == best_s:
                # Reservoir of one: each of the equals is kept with the same probability, a degraded one with less.
                equals += candidate.weight
                if rng.random() * equals < candidate.weight:
                    best = candidate
        return best
    first = int(rng.random() * count)
    second = int(rng.random() * (count - 1))
    if second >= first:
        second += 1
    one, other = candidates[first], candidates[second]
    if one.ledger.load_s == other.ledger.load_s:
        return one if one.weight >= other.weight else other
    return one if one.ledger.load_s < other.ledger.load_s else other


def sample(candidates: Sequence[Candidate], rng: Rng) -> Sequence[Candidate]:
    """All of a few; of many, `FEW` at random (with repetition, which is rare and harmless)."""
    count = len(candidates)
    if count <= FEW:
        return candidates
    return [candidates[int(rng.random() * count)] for _ in range(FEW)]


def weighted(candidates: Sequence[Candidate], weights: Sequence[float], rng: Rng) -> Candidate:
    """One of `candidates` with probability proportional to its weight; evenly when all weights are zero."""
    total = sum(weights)
    if total <= 0.0:
        return candidates[int(rng.random() * len(candidates))]
    point = rng.random() * total
    for candidate, weight in zip(candidates, weights, strict=True):
        point -= weight
        if point < 0.0:
            return candidate
    return max(zip(weights, range(len(candidates)), candidates, strict=True))[2]  # rounding left a crumb


class LeastLoaded:
    """Tokens in flight over capacity, least first (§26.1, §26.3): the default."""

    def pick(self, candidates: Sequence[Candidate], ask: Ask, rng: Rng) -> Candidate | None:
        return least_loaded(candidates, rng)


class RoundRobin:
    """Each in turn, for each model apart."""

    def __init__(self) -> None:
        self._turns: dict[str, int] = {}

    def pick(self, candidates: Sequence[Candidate], ask: Ask, rng: Rng) -> Candidate | None:
        if not candidates:
            return None
        turn = self._turns.get(ask.model)
        if turn is None:
            turn = int(rng.random() * len(candidates))  # gateways that start together do not march in step
        self._turns[ask.model] = turn + 1
        return candidates[turn % len(candidates)]


class RandomPick:
    """Any, evenly."""

    def pick(self, candidates: Sequence[Candidate], ask: Ask, rng: Rng) -> Candidate | None:
        return candidates[int(rng.random() * len(candidates))] if candidates else None


class WeightedHealth:
    """In proportion to the health score that monitor and control give each node (0..1)."""

    def pick(self, candidates: Sequence[Candidate], ask: Ask, rng: Rng) -> Candidate | None:
        if not candidates:
            return None
        few = sample(candidates, rng)
        return weighted(few, [max(0.0, candidate.health_score) for candidate in few], rng)


class WeightedLatency:
    """In inverse proportion to the time to the first token; a node not measured yet counts as the fastest known."""

    def pick(self, candidates: Sequence[Candidate], ask: Ask, rng: Rng) -> Candidate | None:
        if not candidates:
            return None
        few = sample(candidates, rng)
        known = [c.latency_ewma_ms for c in few if c.latency_ewma_ms is not None]
        fastest_ms = max(min(known), 0.1) if known else 1.0
        weights = [1.0 / max(c.latency_ewma_ms if c.latency_ewma_ms is not None else fastest_ms, 0.1) for c in few]
        return weighted(few, weights, rng)


class CostOptimised:
    """The cheapest node for each token that is not busy; when all that are looked at are, the least loaded.

    A node without a price costs nothing more when used (own hardware). Busy is `busy_s` seconds of load.
    """

    def __init__(self, busy_s: float = _BUSY_S) -> None:
        self._busy_s = busy_s
        self._orders: dict[int, tuple[Sequence[Candidate], list[list[Candidate]]]] = {}

    def pick(self, candidates: Sequence[Candidate], ask: Ask, rng: Rng) -> Candidate | None:
        for equals in self._by_cost(candidates)[:_PRICES_TRIED]:
            cheapest = least_loaded(equals, rng)
            if cheapest is not None and cheapest.ledger.load_s < self._busy_s:
                return cheapest
        return least_loaded(candidates, rng)

    def _by_cost(self, candidates: Sequence[Candidate]) -> list[list[Candidate]]:
        if not isinstance(candidates, tuple):
            return _grouped_by_cost(candidates)
        # Keeping the tuple beside what was computed of it keeps its id from being given to another.
        kept = self._orders.get(id(candidates))
        if kept is None:
            if len(self._orders) >= _ORDERS_KEPT:
                self._orders.clear()
            kept = self._orders[id(candidates)] = (candidates, _grouped_by_cost(candidates))
        return kept[1]


def _cost(candidate: Candidate) -> float:
    """Price of an hour over tokens in a second: proportional to the price of a token."""
    return (candidate.node.spot_price_usd_per_hour or 0.0) * candidate.ledger.seconds_per_token


def _grouped_by_cost(candidates: Sequence[Candidate]) -> list[list[Candidate]]:
    return [list(equals) for _, equals in groupby(sorted(candidates, key=_cost), key=_cost)]
