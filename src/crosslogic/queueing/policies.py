"""The orders by the names that a configuration uses, and one lane in which each request may have an order of its own.

The documents give the tiers their policies ("FIFO for free, priority for paid, preemptive for enterprise"): a plan may
name one (`tenancy.model.Plan.policy`), all others go by `scheduling.policy`.

Between policies turns are dealt by priority with ageing, as if all waited in that order; who of a policy uses the turn
that falls to it, its own order says. So a policy gains nothing by its order, and nobody starves.
"""

from bisect import bisect_left, insort
from collections.abc import Iterator

from crosslogic.kernel.errors import ConfigurationError
from crosslogic.queueing.counters import Counters, SharedCounters
from crosslogic.queueing.model import Turn, TurnAsk
from crosslogic.queueing.orders import AGEING_S, Fifo, NewOrder, Order, PriorityAgeing
from crosslogic.queueing.weighted_fair import WeightedFair

DEFAULT_POLICY = "weighted-fair"
PREEMPTIVE = "preemptive"  # ordered as `priority`; what waits may put back a lower request
POLICIES = ("fifo", PREEMPTIVE, "priority", DEFAULT_POLICY)

_Claim = tuple[float, int]


def orders(default: str = DEFAULT_POLICY, *, shared: bool = False) -> NewOrder:
    """Makes lanes whose requests go by their own policy, or by `default`. `shared`: counters are told to others.

    Raises ConfigurationError for a name that no policy has.
    """
    _new_order(default, shared)
    return lambda: ByPolicy(default, shared)


def _new_order(name: str, shared: bool) -> Order:
    if name == DEFAULT_POLICY:
        return WeightedFair(SharedCounters() if shared else Counters())
    if name == "fifo":
        return Fifo()
    if name in ("priority", PREEMPTIVE):
        return PriorityAgeing()
    raise ConfigurationError(f"there is no queue policy {name!r}; use one of {', '.join(POLICIES)}")


class _Group:
    """Those of one policy, in its order, and their claims to turns of the lane. Each has one claim, never shared."""

    __slots__ = ("_claim_of", "_owner", "claims", "order")

    def __init__(self, order: Order) -> None:
        self.order = order
        self.claims: list[_Claim] = []  # sorted
        self._owner: dict[_Claim, TurnAsk] = {}
        self._claim_of: dict[int, _Claim] = {}

    def add(self, ask: TurnAsk, claim: _Claim) -> None:
        self.order.add(ask)
        insort(self.claims, claim)
        self._owner[claim] = ask
        self._claim_of[ask.sequence] = claim

    def remove(self, ask: TurnAsk) -> None:
        self.order.remove(ask)
        claim = self._claim_of.pop(ask.sequence)
        del self._owner[claim]
        del self.claims[bisect_left(self.claims, claim)]

    def uses_first_claim(self, ask: TurnAsk) -> None:
        """`ask` starts: the turn that falls to its policy is used up, and whose claim that was gets its own."""
        own, first = self._claim_of[ask.sequence], self.claims[0]
        if own != first:
            other = self._owner[first]
            self._owner[first], self._owner[own] = ask, other
            self._claim_of[ask.sequence], self._claim_of[other.sequence] = first, own


class ByPolicy:
    """An `Order` of one lane out of an order for each policy that its requests name."""

    def __init__(self, default: str = DEFAULT_POLICY, shared: bool = False) -> None:
        self._default = default
        self._shared = shared
        self._groups: dict[str, _Group] = {}
        self._waiting = 0
        self._number = 0

    def __len__(self) -> int:
        return self._waiting

    def fair(self) -> Iterator[WeightedFair]:
        """Its orders that count tokens served."""
        return (each.order for each in self._groups.values() if isinstance(each.order, WeightedFair))

    def add(self, ask: TurnAsk) -> None:
        self._number += 1
        self._group(ask.policy).add(ask, ((ask.enqueued_s or 0.0) - ask.priority * AGEING_S, self._number))
        self._waiting += 1

    def first(self) -> TurnAsk | None:
        best: _Group | None = None
        for group in self._groups.values():
            if group.claims and (best is None or group.claims[0] < best.claims[0]):
                best = group
        return None if best is None else best.order.first()

    def remove(self, ask: TurnAsk) -> None:
        self._group(ask.policy).remove(ask)
        self._waiting -= 1

    def position(self, ask: TurnAsk) -> int:
        own = self._group(ask.policy)
        place = own.order.position(ask)
        if len(own.claims) == self._waiting:
            return place
        turn = own.claims[place - 1]
        return place + sum(bisect_left(each.claims, turn) for each in self._groups.values() if each is not own)

    def wait_s(self, ask: TurnAsk, per_s: float) -> float:
        return max(self._group(ask.policy).order.wait_s(ask, per_s), self.position(ask) / per_s)

    def charge(self, ask: TurnAsk, now_s: float) -> float:
        group = self._group(ask.policy)
        if ask.waiting:
            group.uses_first_claim(ask)
        return group.order.charge(ask, now_s)

    def settle(self, turn: Turn, cost: float) -> None:
        self._group(turn.ask.policy).order.settle(turn, cost)

    def _group(self, name: str) -> _Group:
        group = self._groups.get(name or self._default)
        if group is None:
            name = name or self._default
            group = self._groups[name] = _Group(_new_order(name, self._shared))
        return group
