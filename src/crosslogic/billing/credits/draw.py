"""Which grants pay for a charge, and which get back what a correction takes back. Pure.

Invariants: a grant is drawn from only while it is good, in its own currency, and never below zero; grants are drawn in
the order of rank, priority, expiry, id; what a correction gives back goes first to what the org owes, then to the
grants that were drawn last.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

from crosslogic.billing.charges.model import Charge
from crosslogic.billing.credits.model import RANKS, Draw, Grant, Standing

_NEVER = datetime.max.replace(tzinfo=UTC)


def place(grant: Grant) -> tuple[int, int, datetime, str]:
    """Lower is drawn first: of two of one priority, the one that expires first."""
    return RANKS[grant.credit_class], grant.priority, grant.expires_at or _NEVER, grant.id


def in_order(grants: Iterable[Grant]) -> list[Grant]:
    """As they are drawn."""
    return sorted(grants, key=place)


def is_good(grant: Grant, charge: Charge) -> bool:
    if grant.currency != charge.currency or charge.seq <= grant.from_seq:
        return False
    if grant.void_seq is not None and charge.seq > grant.void_seq:
        return False
    return grant.starts_at <= charge.at and (grant.expires_at is None or charge.at < grant.expires_at)


def draws_for(
    charge: Charge,
    ordered: Sequence[Grant],
    drawn: Mapping[str, int],
    earlier: Sequence[Charge] = (),
    earlier_draws: Sequence[Draw] = (),
) -> list[Draw]:
    """Of grants that are `in_order`; `drawn` is what was taken of each so far."""
    if charge.amount < 0:
        return _given_back(charge, earlier, earlier_draws)
    due, draws = charge.amount, []
    for grant in ordered:
        if due == 0:
            break
        part = min(due, grant.amount - drawn.get(grant.id, 0))
        if part > 0 and is_good(grant, charge):
            due -= part
            draws.append(Draw(charge.org_id, charge.seq, grant.id, part, charge.at))
    return draws


def _given_back(charge: Charge, earlier: Sequence[Charge], earlier_draws: Sequence[Draw]) -> list[Draw]:
    owed = sum(each.amount for each in earlier) - sum(each.amount for each in earlier_draws)
    left = -charge.amount - min(owed, -charge.amount)
    standing: dict[str, int] = {}
    for draw in earlier_draws:
        standing[draw.grant_id] = standing.get(draw.grant_id, 0) + draw.amount
    draws = []
    for grant_id, amount in reversed(standing.items()):
        part = min(left, amount)
        if part > 0:
            left -= part
            draws.append(Draw(charge.org_id, charge.seq, grant_id, -part, charge.at))
    return draws


def standing(grant: Grant, drawn: int, now: datetime) -> Standing:
    """Where a grant stands: its parts sum to what it was."""
    left = grant.amount - drawn
    if grant.voided_at is not None:
        return Standing(grant, drawn, 0, left, 0)
    if grant.expires_at is not None and now >= grant.expires_at:
        return Standing(grant, drawn, left, 0, 0)
    return Standing(grant, drawn, 0, 0, left)
