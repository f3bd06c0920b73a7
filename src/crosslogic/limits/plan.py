"""A request's scopes, compiled once into flat tuples that the bucket loops run over, and the book that keeps them.

Invariant: all plans that name a scope share its one `Counter`, and a counter leaves memory only when it is
worth nothing: no plan refers to it, nothing runs under it, and all its buckets are full. Each plan that is
added looks at two old plans and two old counters, so memory follows the active keys and no request ever pays
for a sweep.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from crosslogic.limits.model import RATES, Dimension, Layer, Rate, Scope, Unit

# (times at which the counter's buckets are full, place in RATES, seconds a unit, burst in seconds, limit)
Gate = tuple[list[float], int, float, float, int]

_FORBIDDEN_S = 1e15  # the price of a unit under a ceiling of 0: more than any bucket holds
_STEPS = 2


class Counter:
    """The state of one scope: its buckets, one time each, and how many requests run under it."""

    __slots__ = ("full_at_s", "in_flight", "plans")

    def __init__(self, scope: Scope) -> None:
        self.full_at_s = [0.0] * len(RATES)
        self.in_flight = 0
        self.plans = 0

    def governed_by(self, scope: Scope) -> None:
        """The newest limits of the scope, for counters that pass them on."""

    def idle(self, now_s: float) -> bool:
        """Forgetting this counter changes no answer."""
        return self.plans == 0 and self.in_flight == 0 and max(self.full_at_s) <= now_s


C_co = TypeVar("C_co", bound=Counter, covariant=True)
C = TypeVar("C", bound=Counter)


class Plan(Generic[C_co]):
    """Scopes ready to be counted; `workers` > 1 makes the gates this worker's share of the limits."""

    __slots__ = (
        "alone",
        "counters",
        "rank",
        "request_gates",
        "request_owners",
        "scopes",
        "slot_gates",
        "slot_owners",
        "source",
        "token_gates",
        "token_owners",
        "used_s",
        "workers",
    )

    def __init__(self, scopes: tuple[Scope, ...], counters: tuple[C_co, ...], workers: int = 1, rank: int = 0) -> None:
        pairs = list(zip(scopes, counters, strict=True))
        self.scopes = scopes
        self.source = scopes  # what the caller passed: the book finds the plan by its identity
        self.counters: Sequence[C_co] = counters
        self.workers = workers
        self.rank = rank
        self.alone: Plan[C_co] | None = None  # the same scopes as one worker's share, for the Redis adapter
        self.used_s = 0.0
        self.request_gates, self.request_owners = _gates(pairs, Unit.REQUESTS, workers)
        self.token_gates, self.token_owners = _gates(pairs, Unit.TOKENS, workers)
        limited = [(s, c, s.limits.concurrency) for s, c in pairs if s.limits.concurrency is not None]
        self.slot_gates = tuple((c, share_of_slots(slots, workers, rank)) for _, c, slots in limited)
        self.slot_owners = tuple(s for s, _, _ in limited)


def unit_and_capacity_s(rate: Rate, limit: int, burst_share: float, workers: int = 1) -> tuple[float, float]:
    """Seconds that one unit costs, and how many seconds may be spent at once, for one of `workers` equal shares."""
    unit_s = rate.period_s / limit * workers if limit > 0 else _FORBIDDEN_S
    capacity_s = rate.period_s * burst_share
    return unit_s, max(capacity_s, unit_s) if limit > 0 else capacity_s


def share_of_slots(slots: int, workers: int, rank: int) -> int:
    """The slots of worker number `rank` of `workers`: the shares of all add up to `slots` exactly."""
    return slots * (rank + 1) // workers - slots * rank // workers


def _gates(
    pairs: Sequence[tuple[Scope, Counter]], unit: Unit, workers: int
) -> tuple[tuple[Gate, ...], tuple[tuple[Scope, Dimension], ...]]:
    gates: list[Gate] = []
    owners: list[tuple[Scope, Dimension]] = []
    for scope, counter in pairs:
        for place, rate in enumerate(RATES):
            limit = scope.limits.ceiling(rate.dimension)
            if rate.unit is unit and limit is not None:
                unit_s, capacity_s = unit_and_capacity_s(rate, limit, scope.limits.burst_share, workers)
                gates.append((counter.full_at_s, place, unit_s, capacity_s, limit))
                owners.append((scope, rate.dimension))
    return tuple(gates), tuple(owners)


class PlanBook(Generic[C]):
    """Finds the plan of a tuple of scopes by identity: a Principal keeps the same tuple for all its requests."""

    def __init__(self, new_counter: Callable[[Scope], C], idle_s: float = 60.0) -> None:
        self._new_counter = new_counter
        self._idle_s = idle_s
        self._plans: dict[int, Plan[C]] = {}
        self._counters: dict[tuple[Layer, str], C] = {}
        self._nothing: Plan[C] = Plan((), ())
        self._lists: dict[tuple[Scope, ...], tuple[Scope, ...]] = {}
        self._old_plans: deque[int] = deque()
        self._old_counters: deque[tuple[Layer, str]] = deque()

    def __len__(self) -> int:
        """Counters in memory."""
        return len(self._counters)

    def counters(self) -> list[C]:
        """All counters in memory."""
        return list(self._counters.values())

    def plan(self, scopes: Sequence[Scope], now_s: float) -> Plan[C]:
        """The plan of these scopes; scopes without any ceiling are left out of it."""
        plan = self._plans.get(id(scopes))
        if plan is not None:  # the plan keeps its source alive, so nothing else can have this id
            plan.used_s = now_s
            return plan
        return self._add(scopes, now_s) if scopes else self._nothing

    def _add(self, scopes: Sequence[Scope], now_s: float) -> Plan[C]:
        if not isinstance(scopes, tuple):  # a list may change under us: one tuple stands for all equal lists
            scopes = self._lists.setdefault(tuple(scopes), tuple(scopes))
            known = self._plans.get(id(scopes))
            if known is not None:
                known.used_s = now_s
                return known
        self._forget_idle(now_s)
        limited = tuple(scope for scope in scopes if not scope.limits.unlimited)
        plan = Plan(limited, tuple(self._counter(scope) for scope in limited))
        plan.used_s = now_s
        plan.source = scopes
        for counter in plan.counters:
            counter.plans += 1
        self._plans[id(scopes)] = plan
        self._old_plans.append(id(scopes))
        return plan

    def _counter(self, scope: Scope) -> C:
        name = (scope.layer, scope.id)
        counter = self._counters.get(name)
        if counter is None:
            counter = self._counters[name] = self._new_counter(scope)
            self._old_counters.append(name)
        counter.governed_by(scope)
        return counter

    def _forget_idle(self, now_s: float) -> None:
        for _ in range(min(_STEPS, len(self._old_plans))):
            key = self._old_plans.popleft()
            plan = self._plans[key]
            if now_s - plan.used_s < self._idle_s:
                self._old_plans.append(key)
                continue
            del self._plans[key]
            if self._lists.get(plan.source) is plan.source:
                del self._lists[plan.source]
            for counter in plan.counters:
                counter.plans -= 1
        for _ in range(min(_STEPS * 4, len(self._old_counters))):
            name = self._old_counters.popleft()
            counter = self._counters[name]
            if counter.idle(now_s):
                del self._counters[name]
            else:
                self._old_counters.append(name)
