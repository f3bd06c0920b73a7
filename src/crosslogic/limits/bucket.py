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

A request that costs more than the burst is refused for good (`too_large`), as OpenAI does ("Request too
large"). Letting it through on a full bucket would serve one tenant a hundred times its minute and break the
bound above. Callers that do not say how much they want are the gateway's business: `scopes.reservable_tokens`
tells how much may be reserved, and settlement charges the rest as debt.
"""

from typing import Any

from crosslogic.limits.model import Admitted, Dimension, Headroom, Rejected, Scope
from crosslogic.limits.plan import Counter, Gate, Plan

TOLERANCE_S = 1e-6  # k charges of period/k must fit into the period in spite of rounding
CONCURRENCY_RETRY_S = 1.0
NEVER_RETRY_S = 60.0


class Reservation:
    """What an `Admitted` holds until it is settled. `open` makes a second settlement harmless."""

    __slots__ = ("local", "open", "plan")

    def __init__(self, plan: Plan[Any], local: bool = True) -> None:
        self.plan = plan
        self.open = True
        self.local = local  # False: charged in Redis


def reserve(plan: Plan[Counter], now_s: float, tokens: int) -> Admitted | Rejected:
    """Take one request, `tokens` and one slot from every scope of the plan, or nothing from any."""
    # Two passes over flat tuples, spelled out: this runs for every request, and calls would triple its cost.
    for full_at_s, place, unit_s, capacity_s, _ in plan.request_gates:
        at_s = full_at_s[place] - now_s
        if (at_s if at_s > 0.0 else 0.0) + unit_s > capacity_s + TOLERANCE_S:
            return _refuse_or_take(plan, now_s, tokens)
    for full_at_s, place, unit_s, capacity_s, _ in plan.token_gates:
        at_s = full_at_s[place] - now_s
        if (at_s if at_s > 0.0 else 0.0) + tokens * unit_s > capacity_s + TOLERANCE_S:
            return _refuse_or_take(plan, now_s, tokens)
    for counter, slots in plan.slot_gates:
        if counter.in_flight >= slots:
            return _refuse_or_take(plan, now_s, tokens)
    return _take(plan, now_s, tokens)


def _take(plan: Plan[Counter], now_s: float, tokens: int) -> Admitted:
    requests = _charge(plan.request_gates, now_s, 1) if plan.request_gates else None
    of_tokens = _charge(plan.token_gates, now_s, tokens) if plan.token_gates else None
    for counter in plan.counters:
        counter.in_flight += 1
    return Admitted(plan.scopes, tokens, requests, of_tokens, Reservation(plan))


def _charge(gates: tuple[Gate, ...], now_s: float, units: int) -> Headroom:
    least = float("inf")
    limit = 0
    reset_s = 0.0
    for full_at_s, place, unit_s, capacity_s, ceiling in gates:
        at_s = full_at_s[place] - now_s
        at_s = units * unit_s + (at_s if at_s > 0.0 else 0.0)
        full_at_s[place] = now_s + at_s
        left = (capacity_s - at_s) / unit_s
        if left < least:
            least = left
            limit = ceiling
            reset_s = at_s
    return Headroom(limit, int(least + 1e-6) if least > 0.0 else 0, reset_s)


def headroom(gates: tuple[Gate, ...], now_s: float) -> Headroom | None:
    """What the tightest of these gates leaves at present; None when there is no gate."""
    return _charge_nothing(gates, now_s) if gates else None


def _charge_nothing(gates: tuple[Gate, ...], now_s: float) -> Headroom:
    rooms = [
        Headroom(limit, max(0, int((capacity_s - at_s) / unit_s + 1e-6)), at_s)
        for full_at_s, place, unit_s, capacity_s, limit in gates
        for at_s in (max(0.0, full_at_s[place] - now_s),)
    ]
    return min(rooms, key=lambda room: room.remaining)


def _refuse_or_take(plan: Plan[Counter], now_s: float, tokens: int) -> Admitted | Rejected:
    """The slow half of `reserve`: the longest wait among all that refuse, or the exception for shares."""
    worst: tuple[bool, float, Scope, Dimension] | None = None
    waits = (
        *_waits(plan.request_gates, plan.request_owners, now_s, 1, plan.workers),
        *_waits(plan.token_gates, plan.token_owners, now_s, tokens, plan.workers),
        *(
            (slots == 0, NEVER_RETRY_S if slots == 0 else CONCURRENCY_RETRY_S, scope, Dimension.CONCURRENCY)
            for (counter, slots), scope in zip(plan.slot_gates, plan.slot_owners, strict=True)
            if counter.in_flight >= slots
        ),
    )
    for wait in waits:
        if worst is None or wait[:2] > worst[:2]:
            worst = wait
    if worst is None:
        return _take(plan, now_s, tokens)
    too_large, retry_after_s, scope, dimension = worst
    return Rejected(
        scope.layer,
        dimension,
        retry_after_s,
        headroom(plan.request_gates, now_s),
        headroom(plan.token_gates, now_s),
        too_large,
    )


def _waits(
    gates: tuple[Gate, ...],
    owners: tuple[tuple[Scope, Dimension], ...],
    now_s: float,
    units: int,
    workers: int,
) -> list[tuple[bool, float, Scope, Dimension]]:
    """(too large, seconds to wait, whose, which) of every gate that refuses `units`."""
    found = []
    for (full_at_s, place, unit_s, capacity_s, _), (scope, dimension) in zip(gates, owners, strict=True):
        ahead_s = max(0.0, full_at_s[place] - now_s)
        cost_s = units * unit_s
        if ahead_s + cost_s <= capacity_s + TOLERANCE_S:
            continue
        if cost_s / workers > capacity_s + TOLERANCE_S:
            found.append((True, NEVER_RETRY_S, scope, dimension))
        elif cost_s > capacity_s + TOLERANCE_S:
            # More than this worker's share, though within the limit: taken from a full share, into debt.
            if ahead_s > 0.0:
                found.append((False, ahead_s, scope, dimension))
        else:
            found.append((False, ahead_s + cost_s - capacity_s, scope, dimension))
    return found


def settle(plan: Plan[Counter], now_s: float, tokens_back: int) -> None:
    """Give back `tokens_back` (negative: charge that many more) and the slot in every scope."""
    if tokens_back:
        for full_at_s, place, unit_s, _, _ in plan.token_gates:
            at_s = full_at_s[place]
            full_at_s[place] = (at_s if at_s > now_s else now_s) - tokens_back * unit_s
    for counter in plan.counters:
        counter.in_flight -= 1


def release(plan: Plan[Counter], now_s: float, tokens: int) -> None:
    """Give back everything that `reserve` took."""
    settle(plan, now_s, tokens)
    for full_at_s, place, unit_s, _, _ in plan.request_gates:
        full_at_s[place] -= unit_s
