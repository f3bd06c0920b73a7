"""What this month will cost at the pace of the last days, against other prices, and with a commitment. Pure."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import msgspec

from crosslogic.billing.charges.fees import month_with
from crosslogic.billing.charges.model import Item
from crosslogic.pricing.book import PriceBook

PACE_DAYS = 7
_DAY = timedelta(days=1)


class Estimate(msgspec.Struct, frozen=True):
    """Pico-units of the org's currency, before credits."""

    today: int
    month_to_date: int
    projected_month: int
    last_month: int


class Advice(msgspec.Struct, frozen=True):
    """A commitment that would have paid in each of the months looked at."""

    amount_per_month: int
    saving_per_month: int
    percent: str


def estimate(spent: Mapping[str, int], now: datetime) -> Estimate:
    """`spent` is by day, "2026-01-05". The rest of the month goes on at the mean pace of the last seven whole days (or
    of the days since the first usage, where there are fewer)."""
    now = now.astimezone(UTC)
    month, today = month_with(now), f"{now:%Y-%m-%d}"
    so_far = sum(amount for day, amount in spent.items() if day.startswith(month.name))
    before = month_with(month.starts_at - _DAY).name
    days = [f"{now - _DAY * back:%Y-%m-%d}" for back in range(1, PACE_DAYS + 1)]
    first = min(spent, default=today)
    known = [spent.get(day, 0) for day in days if day >= first]
    rest_of_today = (now.replace(hour=0, minute=0, second=0, microsecond=0) + _DAY) - now
    if known:
        per_day, whole_days = sum(known), len(known)
    else:  # today is the first day
        per_day, whole_days = spent.get(today, 0), 1
        elapsed = max(_DAY - rest_of_today, timedelta(hours=1))
        per_day = per_day * (_DAY // timedelta(seconds=1)) // (elapsed // timedelta(seconds=1))
    left = (month.ends_at - now) // timedelta(seconds=1)
    projected = so_far + per_day * left // (whole_days * (_DAY // timedelta(seconds=1)))
    return Estimate(
        today=spent.get(today, 0),
        month_to_date=so_far,
        projected_month=projected,
        last_month=sum(amount for day, amount in spent.items() if day.startswith(before)),
    )


def elsewhere_pusd(quantities: Mapping[str, int], prices: PriceBook) -> int | None:
    """What the same tokens would cost by another price list, in pico-USD; None where it lacks one of the models."""
    total = 0
    for name, quantity in quantities.items():
        item, _, model = name.partition(" ")
        if item == Item.REQUEST:
            continue
        price = prices.price(model, "")
        if not price.known:
            return None
        each = {Item.INPUT: price.input_pusd, Item.CACHED: price.cached_pusd, Item.OUTPUT: price.output_pusd}
        total += quantity * each[Item(item)]
    return total


def advice(months: list[int], percent_basis_points: int) -> Advice | None:
    """`months` are what whole months cost, or are projected to. Nobody is advised to promise more than the least."""
    least = min(months, default=0)
    if least <= 0 or percent_basis_points == 0:
        return None
    lower = least * (10_000 - percent_basis_points) // 10_000
    whole, rest = divmod(percent_basis_points, 100)
    return Advice(lower, least - lower, f"{whole}" + (f".{rest:02}" if rest else ""))
