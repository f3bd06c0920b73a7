"""The lane of reserved capacity: a share of a line's places kept for reserved traffic, lent while it is idle.

Reserved traffic takes any free place, and goes before everything else. Shared traffic may use the kept places, too,
except for the last `ready` of them, which stay free so that the next reserved request starts at once. What is lent
is reclaimed at once: from the moment that reserved traffic uses its places, each place that becomes free goes to it,
or stays free until `ready` are free again; nothing more is lent (architecture document §17, §26.2).

Capacity units: 1 CU is one token a second guaranteed to an org on a line.
"""

from math import ceil

import msgspec

_BURST_S = 10.0


class Lane(msgspec.Struct, frozen=True):
    """Places kept for reserved traffic, and how many of these are never lent while they are idle."""

    kept: int = 0
    ready: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.ready <= self.kept:
            raise ValueError("a lane cannot have more places ready than it keeps")

    def shared_may_start(self, free: int, reserved_running: int) -> bool:
        """Whether a request without reservation may take one of `free` places."""
        if free <= 0:
            return False
        owed = self.kept - reserved_running
        return free > (self.ready if owed > self.ready else owed if owed > 0 else 0)


NO_LANE = Lane()


def kept_places(tokens_per_s: float, tokens_per_s_of_a_place: float, total: int) -> int:
    """Places that `tokens_per_s` of reserved capacity need where one running request gets so many; at most all."""
    if tokens_per_s <= 0.0:
        return 0
    return min(total, ceil(tokens_per_s / tokens_per_s_of_a_place))


class Guarantee(msgspec.Struct, frozen=True):
    """What an org has reserved on a line. `expires_at_s` is of the same clock as the `now_s` given to `covers`."""

    tokens_per_s: float
    expires_at_s: float = float("inf")


class GuaranteedRates:
    """Decides which requests of an org that has reserved capacity are within it.

    A bucket for each org and line holds `burst_s` seconds of the guaranteed rate. A request is within the guarantee
    as long as the bucket is not empty, and may overdraw it once: so an org always gets its rate, whatever the sizes
    of its requests, and never more than the rate, the burst and one request.
    """

    def __init__(self, burst_s: float = _BURST_S) -> None:
        self._burst_s = burst_s
        self._guarantees: dict[tuple[str, str], Guarantee] = {}
        self._level_at: dict[tuple[str, str], tuple[float, float]] = {}

    def replace(self, guarantees: dict[tuple[str, str], Guarantee]) -> None:
        """Take over the guarantees in force, by (org, line); those that stay keep their level."""
        self._guarantees = dict(guarantees)
        self._level_at = {key: kept for key, kept in self._level_at.items() if key in guarantees}

    def covers(self, tenant: str, line: str, tokens: int, now_s: float) -> bool:
        """Whether a request of `tokens` is within the guarantee; if so, they are taken from it."""
        key = (tenant, line)
        guarantee = self._guarantees.get(key)
        if guarantee is None or guarantee.expires_at_s <= now_s:
            return False
        level = self._level(key, guarantee, now_s)
        if level <= 0.0:
            return False
        self._level_at[key] = (level - tokens, now_s)
        return True

    def settle(self, tenant: str, line: str, unused_tokens: int, now_s: float) -> None:
        """Give back what a covered request did not use (or, when negative, take what it used beyond)."""
        key = (tenant, line)
        guarantee = self._guarantees.get(key)
        if guarantee is not None:
            level = self._level(key, guarantee, now_s)
            self._level_at[key] = (min(self._full(guarantee), level + unused_tokens), now_s)

    def tokens_per_s(self, line: str, now_s: float) -> float:
        """All that is guaranteed on a line, for `kept_places`."""
        return sum(
            guarantee.tokens_per_s
            for (_, of_line), guarantee in self._guarantees.items()
            if of_line == line and guarantee.expires_at_s > now_s
        )

    def _full(self, guarantee: Guarantee) -> float:
        return guarantee.tokens_per_s * self._burst_s

    def _level(self, key: tuple[str, str], guarantee: Guarantee, now_s: float) -> float:
        level, at_s = self._level_at.get(key, (self._full(guarantee), now_s))
        return min(self._full(guarantee), level + (now_s - at_s) * guarantee.tokens_per_s)
