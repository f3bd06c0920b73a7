"""A request's scopes, compiled once into flat tuples that the bucket loops run over, and the book that keeps them.

Invariant: all plans that name a scope share its one `Counter`, and a counter leaves memory only when it is
worth nothing: no plan refers to it, nothing runs under it, and all its buckets are full (what it spent this
month stays, in a small table). Each plan that is added looks at two old plans and a few old counters, so memory
follows the active keys and no request ever pays for a sweep.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import msgspec

from crosslogic.limits.budget import Spend
from crosslogic.limits.model import RATES, Dimension, Layer, Rate, Scope, Unit
from crosslogic.limits.turnover import Turnover

# (times at which the counter's buckets are full, place in RATES, unit, seconds a unit, burst in seconds, limit)
Gate = tuple[list[float], int, int, float, float, int]

UNITS = tuple(Unit)
REQUESTS, TOKENS, INPUT_TOKENS, OUTPUT_TOKENS, MONEY = range(len(UNITS))
_UNIT_OF = {unit: number for number, unit in enumerate(UNITS)}
_FORBIDDEN_S = 1e15  # the price of a unit under a ceiling of 0: more than any bucket holds
_STEPS = 2


class Counter:
    """The state of one scope: its buckets, one time each, how many requests run under it, and the month's money.

    `turnover` is there from a refusal for a slot on, for as long as there are more of them.
    """

    __slots__ = ("full_at_s", "in_flight", "plans", "spend", "turnover")

    def __init__(self, scope: Scope) -> None:
        self.full_at_s = [0.0] * len(RATES)
        self.in_flight = 0
        self.plans = 0
        self.spend = Spend()
        self.turnover: Turnover | None = None

    def governed_by(self, scope: Scope) -> None:
        """The newest limits of the scope, for counters that pass them on."""

    def slot_refused(self, now_s: float, slots: int) -> float:
        """When a caller that was refused for one of `slots`, all taken, should come back."""
        turnover = self.turnover
        if turnover is None:
            turnover = self.turnover = Turnover(now_s)
        return turnover.refused(now_s, min(1.0, max(1, self.in_flight) / max(1, slots)))

    def idle(self, now_s: float) -> bool:
        """Forgetting this counter changes no answer, as long as `spend.known` is kept."""
        return self.plans == 0 and self.in_flight == 0 and max(self.full_at_s) <= now_s


C_co = TypeVar("C_co", bound=Counter, covariant=True)
C = TypeVar("C", bound=Counter)


class Part(msgspec.Struct, frozen=True):
    """One scope of a plan: what is asked of it."""

    scope: Scope
    counter: Counter
    gates: tuple[Gate, ...]
    slots: int | None
    budget_nusd: int | None
    guarantee: bool
    shadow: bool
    shared: bool


class Plan(Generic[C_co]):
    """Scopes ready to be counted; `workers` > 1 makes the gates this worker's share of the limits.

    Gates, slots and budgets stand here twice: by scope in `parts`, and all together for requests that just pass.
    `special` plans, those with a guarantee or a shadow, go by their parts always.
    """

    __slots__ = (
        "alone",
        "budgets",
        "counters",
        "guarantee",
        "money_gates",
        "parts",
        "rank",
        "request_gates",
        "scopes",
        "slot_gates",
        "source",
        "special",
        "token_gates",
        "used_s",
        "workers",
    )

    def __init__(self, scopes: tuple[Scope, ...], counters: tuple[C_co, ...], workers: int = 1, rank: int = 0) -> None:
        self.scopes = scopes
        self.source = scopes  # what the caller passed: the book finds the plan by its identity
        self.counters: Sequence[C_co] = counters
        self.workers = workers
        self.rank = rank
        self.alone: Plan[C_co] | None = None  # the same scopes as one worker's share, for the Redis adapter
        self.used_s = 0.0
        self.parts = tuple(_part(s, c, workers, rank) for s, c in zip(scopes, counters, strict=True))
        gates = [gate for part in self.parts for gate in part.gates]
        self.request_gates = tuple(gate for gate in gates if gate[2] == REQUESTS)
        self.token_gates = tuple(gate for gate in gates if gate[2] in (TOKENS, INPUT_TOKENS, OUTPUT_TOKENS))
        self.money_gates = tuple(gate for gate in gates if gate[2] == MONEY)
        self.slot_gates = tuple((part.counter, part.slots) for part in self.parts if part.slots is not None)
        self.budgets = tuple((p.counter.spend, p.budget_nusd) for p in self.parts if p.budget_nusd is not None)
        self.guarantee = next((number for number, part in enumerate(self.parts) if part.guarantee), None)
        self.special = any(part.guarantee or part.shadow for part in self.parts)


def unit_and_capacity_s(rate: Rate, limit: int, burst_share: float, workers: int = 1) -> tuple[float, float]:
    """Seconds that one unit costs, and how many seconds may be spent at once, for one of `workers` equal shares."""
    unit_s = rate.period_s / limit * workers if limit > 0 else _FORBIDDEN_S
    capacity_s = rate.period_s * burst_share
    return unit_s, max(capacity_s, unit_s) if limit > 0 else capacity_s


def share_of_slots(slots: int, workers: int, rank: int) -> int:
    """The slots of worker number `rank` of `workers`: the shares of all add up to `slots` exactly."""
    return slots * (rank + 1) // workers - slots * rank // workers


def terms(scope: Scope) -> tuple[int | None, int | None, tuple[tuple[int, int], ...]]:
    """(slots, month's budget in nano-USD, (place in RATES, limit) of each rate) of a scope.

    A guarantee has its rate of tokens and nothing else, and none at all when it guarantees nothing.
    """
    limits = scope.limits
    if scope.guarantee:
        rate = limits.tokens_per_second
        return None, None, ((_GUARANTEE_PLACE, rate),) if rate else ()
    rates = tuple((place, limit) for place, rate in enumerate(RATES) if (limit := limits.units(rate)) is not None)
    return limits.concurrency, limits.budget_nusd, rates


_GUARANTEE_PLACE = next(n for n, rate in enumerate(RATES) if rate.dimension is Dimension.TOKENS_PER_SECOND)


def unit_of(place: int) -> int:
    """What the rate at this place counts, as a number: the place of its `Unit` in `Demand.units`."""
    return _UNIT_OF[RATES[place].unit]


def _part(scope: Scope, counter: Counter, workers: int, rank: int) -> Part:
    slots, budget_nusd, rates = terms(scope)
    gates = tuple(
        (
            counter.full_at_s,
            place,
            unit_of(place),
            *unit_and_capacity_s(RATES[place], limit, scope.limits.burst_share, workers),
            limit,
        )
        for place, limit in rates
    )
    return Part(
        scope,
        counter,
        gates,
        None if slots is None else share_of_slots(slots, workers, rank),
        budget_nusd,
        scope.guarantee,
        scope.limits.shadow and not scope.guarantee,
        scope.layer.shared,
    )


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
        self._spent: dict[tuple[Layer, str], tuple[int, int]] = {}  # of scopes without a counter: (month, nano-USD)
        self._month = 0

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
        limited = tuple(scope for scope in scopes if scope.limits.counted)
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
            if name in self._spent:
                counter.spend.at_least(*self._spent.pop(name))
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
                self._remember(name, *counter.spend.known)
            else:
                self._old_counters.append(name)

    def spent(self, layer: Layer, scope_id: str, month: int, spent_nusd: int) -> None:
        """So much has been spent in that month at least; held also for scopes that have no counter yet."""
        name = (layer, scope_id)
        counter = self._counters.get(name)
        if counter is None:
            self._remember(name, month, spent_nusd)
        else:
            counter.spend.at_least(month, spent_nusd)

    def _remember(self, name: tuple[Layer, str], month: int, spent_nusd: int) -> None:
        if month > self._month:  # nobody asks what was spent before
            self._month = month
            self._spent.clear()
        if month == self._month and spent_nusd > 0:
            self._spent[name] = max(self._spent.get(name, (month, 0)), (month, spent_nusd))
