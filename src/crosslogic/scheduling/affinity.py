"""Prefix affinity: requests that share a prefix meet on one node, whose KV cache then holds it, unless it is busy.

Multi-probe consistent hashing (Appleton and O'Reilly, arXiv 1505.00062): each node is one point on a ring of
64 bits, a prefix throws `_PROBES` darts, and the node that is closest after any dart wins. Twenty-one probes
spread keys to within about 10% of even with one point a node, so a ring of 1,000 nodes is rebuilt in
well under a millisecond when the fleet changes, and only the keys of a node that leaves move.

The load is bounded (Mirrokni et al., arXiv 1608.01350, in spirit): when the winner has more than `over_mean`
times the mean load and `slack_s` seconds of work, waiting there costs more than recomputing the prefix
elsewhere, and the next closest node is asked.
"""

from bisect import bisect_left
from collections.abc import Sequence

from crosslogic.scheduling.model import Ask, Candidate, Rng
from crosslogic.scheduling.strategies import FEW, least_loaded, sample

_RING = 1 << 64
_MASK = _RING - 1
_PROBES = 21
_RINGS_KEPT = 256
_ONE_OFF_LIMIT = 64


class _Ring:
    __slots__ = ("candidates", "points")

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        ordered = sorted(candidates, key=lambda candidate: candidate.seed)
        self.points = [candidate.seed for candidate in ordered]
        self.candidates = ordered

    def nearest(self, key: int) -> list[tuple[int, int]]:
        """(distance, index) of the node after each dart, in the order of the darts."""
        points = self.points
        count = len(points)
        dart = _mixed(key)
        found: list[tuple[int, int]] = []
        for _ in range(_PROBES):
            # Knuth's MMIX step; the low bits of it are poor, but the ring is read from the top.
            dart = (dart * 6364136223846793005 + 1442695040888963407) & _MASK
            index = bisect_left(points, dart)
            if index == count:
                index = 0
            found.append(((points[index] - dart) & _MASK, index))
        return found


class PrefixAffinity:
    """The node that a prefix belongs to, up to a bound of its load; least-loaded for requests without prefix."""

    def __init__(self, *, over_mean: float = 1.25, slack_s: float = 2.0) -> None:
        self._over_mean = over_mean
        self._slack_s = slack_s
        self._rings: dict[int, tuple[Sequence[Candidate], _Ring]] = {}

    def pick(self, candidates: Sequence[Candidate], ask: Ask, rng: Rng) -> Candidate | None:
        key = ask.prefix_hash
        if key is None or len(candidates) < 2:
            return least_loaded(candidates, rng)
        ring = self._ring(candidates)
        if ring is None:
            return least_loaded(candidates, rng)
        found = ring.nearest(key)
        winner = ring.candidates[min(found)[1]]
        load_s = winner.ledger.load_s
        if load_s <= self._slack_s or load_s <= self._bound_s(candidates, rng):
            return winner
        bound_s = max(self._slack_s, self._bound_s(candidates, rng))
        for _, index in sorted(found):
            next_best = ring.candidates[index]
            if next_best.ledger.load_s <= bound_s:
                return next_best
        return least_loaded(candidates, rng)

    def _bound_s(self, candidates: Sequence[Candidate], rng: Rng) -> float:
        few = candidates if len(candidates) <= FEW else sample(candidates, rng)
        return self._over_mean * sum(candidate.ledger.load_s for candidate in few) / len(few)

    def _ring(self, candidates: Sequence[Candidate]) -> _Ring | None:
        if not isinstance(candidates, tuple):
            # A list is what a retry leaves over; of a large fleet its ring is not worth building for one pick.
            return _Ring(candidates) if len(candidates) <= _ONE_OFF_LIMIT else None
        kept = self._rings.get(id(candidates))
        if kept is None:
            if len(self._rings) >= _RINGS_KEPT:
                self._rings.clear()
            kept = self._rings[id(candidates)] = (candidates, _Ring(candidates))
        return kept[1]


def _mixed(key: int) -> int:
    """Spread a key over 64 bits (the finaliser of splitmix64)."""
    key = (key + 0x9E3779B97F4A7C15) & _MASK
    key = ((key ^ (key >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    key = ((key ^ (key >> 27)) * 0x94D049BB133111EB) & _MASK
    return key ^ (key >> 31)
