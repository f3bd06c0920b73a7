"""Token buckets as the generic cell rate algorithm: the whole state of a bucket is one time.

That time is `full_at_s`, when the bucket is full again if nothing more is taken. One unit costs
`unit_s = period / limit` seconds of it, and a charge is allowed while `full_at_s` stays at most
`capacity_s = period * burst_share` ahead of now. So waiting times are exact, and a changed limit keeps the
used *share* of the old one. (ITU-T I.371 Annex A; the names here are ours.)

Invariants:

- In any interval of W seconds, what was reserved minus what was given back is at most
  `burst + limit * W / period`, burst being `limit * burst_share` (at least one unit). There is no window
  boundary at which the whole limit can be had twice at once.
- The default burst is one whole period, as clients of OpenAI's API expect: a fresh key with 200 requests a
  minute may send its 200 together; in the worst minute, burst included, it gets 2 * limit. `burst_share=0.1`
  makes that 1.1 * limit, and no steady caller loses anything by it.
- A reservation touches all scopes or none.
- Settling to less gives back, but never lifts a bucket above full; settling to more may put it into debt, which
  later callers wait out. So the units *used* over the life of a bucket obey the same bound.

Besides plain ceilings there are two kinds of scope (architecture document §17, §26.2):

- A *guarantee* (reserved capacity) covers a request while its bucket is not empty; the request is charged to it,
  even beyond what it holds, and is not asked of the shared layers, which are charged all the same. Otherwise the
  guarantee is left alone and all layers are asked.
- A *shadow* refuses nobody. What it would have refused is told and not charged to it, so that it goes on to tell
  what would happen if it were no shadow.

A request that costs more than the burst is refused for good (`too_large`), as OpenAI does ("Request too
large"). Letting it through on a full bucket would serve one tenant a hundred times its minute and break the
bound above. Callers that do not say how much they want are the gateway's business: `scopes.reservable_tokens`
tells how much may be reserved, and settlement charges the rest as debt.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

from crosslogic.limits.budget import NO_MONTH, Month, Spend
from crosslogic.limits.model import RATES, Admitted, Demand, Dimension, Headroom, Rejected, Room
from crosslogic.limits.plan import MONEY, REQUESTS, Counter, Gate, Part, Plan

TOLERANCE_S = 1e-6  # k charges of period/k must fit into the period in spite of rounding
CONCURRENCY_RETRY_S = 1.0  # among the waits that refuse; if it is named, the estimate is told instead
NEVER_RETRY_S = 60.0
SHARE_RETRY_S = 60.0
_ENDLESS = float("inf")
_LIMIT = 5  # in a Gate; a ceiling of 0 has no bucket that could be charged

Units = tuple[int, int, int, int, int]
NOTHING: Units = (0, 0, 0, 0, 0)


class Reservation:
    """What an `Admitted` holds until it is settled. `open` makes a second settlement harmless."""

    __slots__ = ("local", "month", "open", "plan", "skipped")

    def __init__(self, plan: Plan[Any], month: int = 0, skipped: tuple[int, ...] = (), local: bool = True) -> None:
        self.plan = plan
        self.month = month  # in which its money is held
        self.skipped = skipped  # places in the plan of scopes that were not charged
        self.open = True
        self.local = local  # False: charged in Redis

    def charged(self) -> Iterable[Any]:
        """The counters that were charged."""
        if not self.skipped:
            counters: Iterable[Any] = self.plan.counters
            return counters
        return [counter for number, counter in enumerate(self.plan.counters) if number not in self.skipped]

    def spends(self) -> list[Spend]:
        """The budgets in which its money is held."""
        if not self.plan.budgets:
            return []
        parts = enumerate(self.plan.parts)
        return [p.counter.spend for n, p in parts if p.budget_nusd is not None and n not in self.skipped]


def reserve(plan: Plan[Counter], now_s: float, demand: Demand, month: Month = NO_MONTH) -> Admitted | Rejected:
    """Take what a request demands, the request itself and one slot from every scope of the plan, or nothing from any.

    `month` is asked for only where the plan has budgets.
    """
    # Two passes over flat tuples, spelled out: this runs for every request, and calls would triple its cost.
    units = demand.units
    if plan.special:
        return _decide(plan, now_s, demand, units, month)
    for full_at_s, place, _, unit_s, capacity_s, _ in plan.request_gates:
        at_s = full_at_s[place] - now_s
        if (at_s if at_s > 0.0 else 0.0) + unit_s > capacity_s + TOLERANCE_S:
            return _decide(plan, now_s, demand, units, month)
    for gates in (plan.token_gates, plan.money_gates):
        for full_at_s, place, unit, unit_s, capacity_s, _ in gates:
            at_s = full_at_s[place] - now_s
            if (at_s if at_s > 0.0 else 0.0) + units[unit] * unit_s > capacity_s + TOLERANCE_S:
                return _decide(plan, now_s, demand, units, month)
    for counter, slots in plan.slot_gates:
        if counter.in_flight >= slots:
            return _decide(plan, now_s, demand, units, month)
    for spend, budget_nusd in plan.budgets:
        if units[MONEY] > spend.left_nusd(month, budget_nusd, plan.workers):
            return _decide(plan, now_s, demand, units, month)
    return _take(plan, now_s, demand, units, month)


def _take(plan: Plan[Counter], now_s: float, demand: Demand, units: Units, month: Month) -> Admitted:
    requests = _charge(plan.request_gates, now_s, units) if plan.request_gates else None
    tokens = _charge(plan.token_gates, now_s, units) if plan.token_gates else None
    if plan.money_gates:
        _charge(plan.money_gates, now_s, units)
    for counter in plan.counters:
        counter.in_flight += 1
    for spend, _ in plan.budgets:
        spend.hold(month.number, units[MONEY])
    return Admitted(plan.scopes, demand, requests, tokens, Reservation(plan, month.number))


def _charge(gates: Iterable[Gate], now_s: float, units: Units) -> Headroom:
    """Take from all; what the tightest leaves."""
    least = _ENDLESS
    limit = 0
    reset_s = 0.0
    for full_at_s, place, unit, unit_s, capacity_s, ceiling in gates:
        at_s = full_at_s[place] - now_s
        at_s = units[unit] * unit_s + (at_s if at_s > 0.0 else 0.0)
        full_at_s[place] = now_s + at_s
        left = (capacity_s - at_s) / unit_s
        if left < least:
            least = left
            limit = ceiling
            reset_s = at_s
    return Headroom(limit, int(least + 1e-6) if 0.0 < least < _ENDLESS else 0, reset_s)


def headrooms(parts: Iterable[Part], now_s: float) -> tuple[Headroom | None, Headroom | None]:
    """What the tightest ceilings of requests and of tokens (of any kind) leave at present; None without any."""
    rooms: tuple[list[Headroom], list[Headroom]] = ([], [])
    for part in parts:
        for full_at_s, place, unit, unit_s, capacity_s, limit in part.gates:
            if unit != MONEY:
                at_s = max(0.0, full_at_s[place] - now_s)
                left = max(0, int((capacity_s - at_s) / unit_s + 1e-6))
                rooms[unit != REQUESTS].append(Headroom(limit, left, at_s))
    requests, tokens = (min(found, key=lambda room: room.remaining, default=None) for found in rooms)
    return requests, tokens


def look(plan: Plan[Counter], now_s: float) -> Room:
    """What the ceilings that would bind the next request leave at present."""
    covered = plan.guarantee is not None and _has_something(plan.parts[plan.guarantee], now_s)
    binding = [part for part in plan.parts if not (part.guarantee or part.shadow or (covered and part.shared))]
    return Room(*headrooms(binding, now_s))


class _Refusal(NamedTuple):
    """Compared by what binds most: never is longer than any wait."""

    never: bool
    wait_s: float
    dimension: Dimension


def _decide(plan: Plan[Counter], now_s: float, demand: Demand, units: Units, month: Month) -> Admitted | Rejected:
    """The slow and whole decision: guarantees, shadows, the longest wait among all that refuse."""
    covered = plan.guarantee is not None and _has_something(plan.parts[plan.guarantee], now_s)
    binding: list[Part] = []
    skipped: list[int] = []
    shadowed = []
    worst: tuple[_Refusal, Part] | None = None
    for number, part in enumerate(plan.parts):
        if part.guarantee:
            if not covered or number != plan.guarantee:
                skipped.append(number)
            continue
        if covered and part.shared:
            continue
        refusals = _refusals(part, now_s, units, month, plan.workers)
        if part.shadow:
            shadowed += [(part.scope.layer, refusal.dimension) for refusal in refusals]
            if refusals:
                skipped.append(number)
            continue
        binding.append(part)
        for refusal in refusals:
            if worst is None or refusal[:2] > worst[0][:2]:
                worst = refusal, part
    if worst is not None:
        refusal, part = worst
        rooms = headrooms(binding, now_s)
        wait_s = refusal.wait_s
        if refusal.dimension is Dimension.CONCURRENCY and part.slots:
            wait_s = part.counter.slot_refused(now_s, part.slots)
        return Rejected(part.scope.layer, refusal.dimension, wait_s, *rooms, refusal.never)
    for number, part in enumerate(plan.parts):
        if number not in skipped:
            _charge([gate for gate in part.gates if gate[_LIMIT]], now_s, units)
            part.counter.in_flight += 1
            if part.budget_nusd is not None:
                part.counter.spend.hold(month.number, units[MONEY])
    reservation = Reservation(plan, month.number, tuple(skipped))
    return Admitted(plan.scopes, demand, *headrooms(binding, now_s), reservation, covered, tuple(shadowed))


def _has_something(part: Part, now_s: float) -> bool:
    return any(full_at_s[place] - now_s < capacity_s for full_at_s, place, _, _, capacity_s, _ in part.gates)


def _refusals(part: Part, now_s: float, units: Units, month: Month, workers: int) -> list[_Refusal]:
    """Everything in this scope that refuses the request."""
    found = []
    for full_at_s, place, unit, unit_s, capacity_s, _ in part.gates:
        ahead_s = max(0.0, full_at_s[place] - now_s)
        cost_s = units[unit] * unit_s
        if ahead_s + cost_s <= capacity_s + TOLERANCE_S:
            continue
        dimension = RATES[place].dimension
        if cost_s / workers > capacity_s + TOLERANCE_S:
            found.append(_Refusal(True, NEVER_RETRY_S, dimension))
        elif cost_s > capacity_s + TOLERANCE_S:
            # More than this worker's share, though within the limit: taken from a full share, into debt.
            if ahead_s > 0.0:
                found.append(_Refusal(False, ahead_s, dimension))
        else:
            found.append(_Refusal(False, ahead_s + cost_s - capacity_s, dimension))
    if part.slots is not None and part.counter.in_flight >= part.slots:
        never = part.slots == 0
        found.append(_Refusal(never, NEVER_RETRY_S if never else CONCURRENCY_RETRY_S, Dimension.CONCURRENCY))
    budget_nusd, spend = part.budget_nusd, part.counter.spend
    if budget_nusd is not None and units[MONEY] > spend.left_nusd(month, budget_nusd, workers):
        never = units[MONEY] > budget_nusd
        gone = units[MONEY] > spend.left_nusd(month, budget_nusd, 1)  # and not just this worker's share of it
        wait_s = NEVER_RETRY_S if never else month.left_s if gone else SHARE_RETRY_S
        found.append(_Refusal(never, wait_s, Dimension.SPEND_PER_MONTH))
    return found


def settle(admitted: Admitted, now_s: float, used: Demand | None) -> None:
    """Replace in every scope that was charged what was reserved by what was used, and give back the slot.

    None: nothing ran, and the request itself is given back, too.
    """
    reservation = admitted.reservation
    assert isinstance(reservation, Reservation)
    plan = reservation.plan
    taken = admitted.reserved.units
    needed = NOTHING if used is None else used.units
    back = difference(taken, needed)
    if plan.special:
        _settle_parts(reservation, now_s, back)
    else:  # as in `reserve`: flat and spelled out, for this too runs for every request
        gates = plan.token_gates if used is not None else (*plan.request_gates, *plan.token_gates)
        for full_at_s, place, unit, unit_s, _, limit in gates:
            if back[unit] and limit:  # what was used under a ceiling of 0 has no price
                at_s = full_at_s[place]
                full_at_s[place] = (at_s if at_s > now_s else now_s) - back[unit] * unit_s
        for full_at_s, place, unit, unit_s, _, limit in plan.money_gates:
            if back[unit] and limit:
                at_s = full_at_s[place]
                full_at_s[place] = (at_s if at_s > now_s else now_s) - back[unit] * unit_s
        for counter in plan.counters:
            counter.in_flight -= 1
    for counter, _ in plan.slot_gates:
        if counter.turnover is not None and counter.turnover.ended(now_s):
            counter.turnover = None
    if plan.budgets:
        for spend in reservation.spends():
            spend.settle(reservation.month, taken[MONEY], needed[MONEY])


def _settle_parts(reservation: Reservation, now_s: float, back: Units) -> None:
    """Scope by scope, without those that were not charged."""
    skipped = reservation.skipped
    for number, part in enumerate(reservation.plan.parts):
        if number in skipped:
            continue
        for full_at_s, place, unit, unit_s, _, limit in part.gates:
            if back[unit] and limit:
                at_s = full_at_s[place]
                full_at_s[place] = (at_s if at_s > now_s else now_s) - back[unit] * unit_s
        part.counter.in_flight -= 1


def difference(taken: Units, needed: Units) -> Units:
    """What goes back of each unit (negative: what is charged in addition)."""
    requests, tokens, given, made, money = taken
    return (
        requests - needed[0],
        tokens - needed[1],
        given - needed[2],
        made - needed[3],
        money - needed[4],
    )
