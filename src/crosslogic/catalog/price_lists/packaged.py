"""The price list that comes with the product: a start, of unknown date, so that all of it is marked stale.

Invariant: read once, and never changes in a process.
"""

from datetime import UTC, datetime
from functools import cache
from importlib import resources

from crosslogic.catalog.price_lists.rows import PriceList, price_list
from crosslogic.catalog.price_lists.skypilot import read_skypilot


@cache
def packaged_prices() -> PriceList:
    text = resources.files("crosslogic.catalog").joinpath("data/gpu_prices.csv").read_text("utf-8")
    # No row has a date, so that none gets fresher or staler with the day that it is read on.
    return price_list(read_skypilot(text.splitlines()), datetime(2026, 1, 1, tzinfo=UTC).date())
