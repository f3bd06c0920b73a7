"""How soon a slot of a full concurrency ceiling becomes free: pure, and watched only where somebody was refused one.

Nothing is measured of scopes that are never full. From its first refusal on, a scope's ends are watched: the mean time
between two of them is how long the next slot takes. While none has ended since, it takes at least as long again as it
has taken so far; so callers of long answers come back ever more seldom.

Of a ceiling that several workers share each sees its own ends. A full ceiling's slots end alike wherever they run, so
this worker's share of the slots is its share of the ends.
"""

SHORTEST_S = 1.0
LONGEST_S = 60.0
_WEIGHT = 0.2  # of the newest measurement
_FORGET_S = 900.0  # without a refusal: longer than answers take


class Turnover:
    """Of one scope. Make it at a refusal; `ended` says when nobody needs it any more."""

    __slots__ = ("_ended_s", "_gap_s", "_refused_s", "_told_s")

    def __init__(self, now_s: float) -> None:
        self._ended_s = now_s  # the last end, or since when there has been none
        self._gap_s: float | None = None
        self._refused_s = now_s
        self._told_s = SHORTEST_S

    def refused(self, now_s: float, share: float = 1.0) -> float:
        """The next slot becomes free in about so many seconds. `share` of the slots run in this process."""
        if now_s - self._refused_s > 2.0 * self._told_s + SHORTEST_S:
            self._ended_s = max(self._ended_s, now_s)  # nobody came meanwhile: slots may well have been free
        self._refused_s = now_s
        known_s = 0.0 if self._gap_s is None else self._gap_s
        self._told_s = min(LONGEST_S, max(SHORTEST_S, max(known_s, now_s - self._ended_s) * share))
        return self._told_s

    def ended(self, now_s: float) -> bool:
        """A slot became free. Returns whether the watch is over."""
        gap_s = now_s - self._ended_s
        known_s = self._gap_s
        self._gap_s = gap_s if known_s is None else known_s + _WEIGHT * (gap_s - known_s)
        self._ended_s = now_s
        return now_s - self._refused_s > _FORGET_S
