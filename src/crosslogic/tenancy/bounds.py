"""What one request of a principal may be at most, and whether its money is counted: computed once a principal. Pure.

Invariant: a principal without such ceilings has no `Bounds` at all, so that its requests do nothing for them.
"""

from collections.abc import Sequence

import msgspec

from crosslogic.limits.model import PUSD_PER_NUSD, Limits, Scope, Unit
from crosslogic.limits.scopes import Maxima, request_maxima, reservable_tokens


class Bounds(msgspec.Struct, frozen=True, gc=False):
    """`maxima` refuse, `watched` (those in shadow) only tell. `spend_pusd` is the most that one request may reserve."""

    maxima: Maxima
    watched: Maxima
    counts_money: bool
    spend_pusd: int | None


def bounds_of(scopes: Sequence[Scope]) -> Bounds | None:
    """None where nothing bounds a request by itself and its money counts nowhere."""
    counts_money = any(_of_money(scope.limits) for scope in scopes)
    if not counts_money and not any(_of_one_request(scope.limits) for scope in scopes):
        return None  # most principals; there may be very many, and this runs at the first look-up of each
    return Bounds(request_maxima(scopes), _watched(scopes), counts_money, _spend_pusd(scopes))


def _of_money(limits: Limits) -> bool:
    return not (limits.spend_per_hour_pusd is limits.spend_per_day_pusd is limits.spend_per_month_pusd is None)


def _of_one_request(limits: Limits) -> bool:
    return not (limits.max_input_tokens is limits.max_output_tokens is limits.max_total_tokens is None)


def _watched(scopes: Sequence[Scope]) -> Maxima:
    return request_maxima(
        [
            msgspec.structs.replace(scope, limits=msgspec.structs.replace(scope.limits, shadow=False))
            for scope in scopes
            if scope.limits.shadow
        ]
    )


def _spend_pusd(scopes: Sequence[Scope]) -> int | None:
    rate_nusd = reservable_tokens(scopes, Unit.MONEY)
    budgets = [scope.limits.budget_nusd for scope in scopes if not scope.limits.shadow]
    most = [nusd for nusd in (rate_nusd, *budgets) if nusd is not None]
    return min(most) * PUSD_PER_NUSD if most else None
