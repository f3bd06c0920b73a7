"""The lane of reserved capacity: a share of a line's places kept for reserved traffic, lent while it is idle.

Reserved traffic takes any free place, and goes before everything else. Shared traffic may use the kept places, too,
except for the last `ready` of them, which stay free so that the next reserved request starts at once. What is lent
is reclaimed at once: from the moment that reserved traffic uses its places, each place that becomes free goes to it,
or stays free until `ready` are free again; nothing more is lent (architecture document §17, §26.2).

Which requests are reserved, and how many places are kept, is said by the room `capacity`.
"""

from math import ceil, sqrt

import msgspec


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


_SPREAD = 1.65
NO_LANE = Lane()


def kept_places(tokens_per_s: float, tokens_per_s_of_a_place: float, total: int) -> int:
    """Places that `tokens_per_s` of reserved capacity need where one running request gets so many; at most all.

    That many run in the mean (Little's law); requests that come at random are more than the mean half of the time, so
    there are some beyond it, by the square-root rule (Halfin and Whitt, 1981): with `_SPREAD` 1.65 of twenty arrivals
    about one finds all of them taken. They are lent while they are idle.
    """
    if tokens_per_s <= 0.0:
        return 0
    running = tokens_per_s / tokens_per_s_of_a_place
    return min(total, ceil(running + _SPREAD * sqrt(running)))
