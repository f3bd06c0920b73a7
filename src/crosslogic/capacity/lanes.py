"""How many places of a line are kept for reserved requests, in this process. Pure.

By Little's law a rate of R tokens/s takes R / p places where one running request makes p tokens/s. This process keeps
its share of them; all but a few (`ready_share`) are lent while they are idle (`queueing/lanes.py`).
"""

from collections.abc import Callable
from math import ceil

import msgspec

from crosslogic.capacity.guarantees import Guarantees
from crosslogic.capacity.model import Terms
from crosslogic.capacity.promises import node_units
from crosslogic.kernel.ids import OrgId
from crosslogic.queueing.lanes import NO_LANE, Lane, kept_places
from crosslogic.scheduling.places import Places, split_line

_WEIGHT = 0.05
_FRESH_S = 0.5  # a lane is computed anew that often


class _Pace(msgspec.Struct):
    """Moving averages; their ratio is the pace, so that long requests count for their length."""

    tokens: float
    seconds: float

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.seconds


class Paces:
    """Tokens a second of one running request, by line: as measured of reserved requests, else of all."""

    def __init__(self, default_tokens_per_s: float) -> None:
        self._default_tokens_per_s = default_tokens_per_s
        self._measured: dict[tuple[str, bool], _Pace] = {}

    def observe(self, line: str, reserved: bool, tokens: int, seconds: float) -> None:
        """A request held a place for so long, and made so many tokens of prompt and answer."""
        if tokens <= 0 or seconds <= 0.0:
            return
        pace = self._measured.get((line, reserved))
        if pace is None:
            self._measured[line, reserved] = _Pace(float(tokens), seconds)
        else:
            pace.tokens += _WEIGHT * (tokens - pace.tokens)
            pace.seconds += _WEIGHT * (seconds - pace.seconds)

    def tokens_per_s(self, line: str) -> float:
        pace = self._measured.get((line, True)) or self._measured.get((line, False))
        return self._default_tokens_per_s if pace is None else pace.tokens_per_s


class _Computed(msgspec.Struct, frozen=True):
    lane: Lane
    version: int
    until_s: float


class ReservedLanes:
    """`queueing.desk.LaneOf`. `workers` is how many processes share the lines; `now_s` of the monotonic clock."""

    def __init__(
        self,
        guarantees: Guarantees,
        places: Places,
        paces: Paces,
        now_s: Callable[[], float],
        terms: Terms,
        *,
        workers: Callable[[], int],
        ready_share: float,
    ) -> None:
        self.paces = paces
        self.workers = workers
        self._guarantees = guarantees
        self._places = places
        self._now_s = now_s
        self._ready_share = ready_share
        self._terms = terms
        self._computed: dict[str, _Computed] = {}

    def lane_of(self, line: str) -> Lane:
        guarantees = self._guarantees
        if not guarantees:
            return NO_LANE
        computed, now_s = self._computed.get(line), self._now_s()
        if computed is None or computed.until_s <= now_s or computed.version != guarantees.version:
            computed = self._computed[line] = _Computed(self._compute(line), guarantees.version, now_s + _FRESH_S)
        return computed.lane

    def tokens_per_s(self, line: str) -> int:
        """All that is guaranteed on the line: what its owner's nodes carry, or what nobody's own nodes do."""
        model, owner = split_line(line)
        if owner is not None:
            return self._split(model, owner)[0]
        return sum(self._split(model, org_id)[1] for org_id in self._guarantees.orgs(model))

    def _split(self, model: str, org_id: OrgId) -> tuple[int, int]:
        """What is guaranteed to the org, on its own nodes as far as they go and on shared ones."""
        units = self._guarantees.tokens_per_s(model, org_id)
        own = min(units, sum(node_units(node, self._terms) for node in self._places.own_nodes(model, org_id)))
        return own, units - own

    def _compute(self, line: str) -> Lane:
        share = self.tokens_per_s(line) / max(1, self.workers())
        total = self._places.total(line)
        kept = kept_places(share, self.paces.tokens_per_s(line), total)
        if not kept:
            return NO_LANE
        # One place at least is lent while all are idle: what is reserved must not close a small fleet to others.
        return Lane(kept, min(ceil(kept * self._ready_share), total - 1))
