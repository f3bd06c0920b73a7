"""What an org owes for a month whatever it used: plan, reserved capacity, a commitment that was not used up. Pure.

Amounts for a part of a month are by the second, and rounded once, half to even. Invariant: the parts of a month that a
reservation is cut into sum to what it costs in whole, to within half a pico-unit each.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal, localcontext

import msgspec

from crosslogic.billing.charges.model import FeeKind
from crosslogic.billing.charges.terms import Commitment
from crosslogic.capacity.model import Reservation
from crosslogic.tenancy.model import Plan


class DueFee(msgspec.Struct, frozen=True):
    kind: FeeKind
    reference: str
    amount: int  # pico-units of the org's currency
    description: str


class Month(msgspec.Struct, frozen=True):
    """A calendar month in UTC."""

    name: str  # "2026-01"
    starts_at: datetime
    ends_at: datetime

    @property
    def length(self) -> timedelta:
        return self.ends_at - self.starts_at


def month_with(at: datetime) -> Month:
    start = at.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    following = start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1)
    return Month(f"{start:%Y-%m}", start, following)


def fees_of(
    month: Month,
    *,
    plan: Plan | None,
    member_since: datetime,
    reservations: Iterable[Reservation],
    commitment: Commitment | None,
    used: int,
    exchange_rate: Decimal,
) -> list[DueFee]:
    """`used` is what the org's usage of the month costs before credits; prices of plan and capacity are US dollars."""
    due = []
    if plan is not None and plan.price_per_month_pusd:
        amount = _share(plan.price_per_month_pusd, month, member_since, month.ends_at)
        due.append(DueFee(FeeKind.PLAN, plan.id, _converted(amount, exchange_rate), f"Plan {plan.name}"))
    for one in reservations:
        end = one.expires_at if one.cancelled_at is None else min(one.expires_at, one.cancelled_at)
        amount = _share(one.price_per_month_pusd or 0, month, one.starts_at, end)
        if amount:
            shown = f"Reserved capacity: {one.units} tokens/s of {one.model}" + (f" in {one.region}" * bool(one.region))
            due.append(DueFee(FeeKind.RESERVED_CAPACITY, one.id, _converted(amount, exchange_rate), shown))
    if commitment is not None and commitment.in_force(month.starts_at) and used < commitment.amount_per_month:
        short = commitment.amount_per_month - used
        due.append(DueFee(FeeKind.COMMITMENT_SHORTFALL, month.name, short, "Commitment that was not used"))
    return [fee for fee in due if fee.amount]


def _share(price: int, month: Month, start: datetime, end: datetime) -> int:
    """Of a month's price, what falls between `start` and `end`."""
    length = min(end, month.ends_at) - max(start, month.starts_at)
    if length <= timedelta(0):
        return 0
    return _half_even(price * (length // timedelta(microseconds=1)), month.length // timedelta(microseconds=1))


def _converted(amount: int, rate: Decimal) -> int:
    with localcontext(Context(prec=80)):
        return int((amount * rate).to_integral_value("ROUND_HALF_EVEN"))


def _half_even(dividend: int, divisor: int) -> int:
    whole, rest = divmod(dividend, divisor)
    return whole + (2 * rest > divisor or (2 * rest == divisor and whole % 2 == 1))
