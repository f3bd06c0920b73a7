"""Money is an integer number of pico-USD (1e-12 USD): $0.05 per million tokens is exactly 50,000 a token."""

from decimal import Decimal
from typing import NewType

from crosslogic.kernel.errors import ConfigurationError

PicoUsd = NewType("PicoUsd", int)

PUSD_PER_USD = 10**12
PUSD_PER_MICRODOLLAR = 10**6
TOKENS_PER_PRICE_UNIT = 10**6


def token_price_pusd(usd_per_million_tokens: Decimal) -> PicoUsd:
    """The price of one token; a price that is no whole number of pico-USD is refused.

    Raises ConfigurationError.
    """
    exact = usd_per_million_tokens * PUSD_PER_USD / TOKENS_PER_PRICE_UNIT
    if exact != exact.to_integral_value():
        raise ConfigurationError(
            f"the price {usd_per_million_tokens} USD per million tokens is no whole number of pico-USD a token; "
            "use at most 6 decimals after region multiplier and discounts"
        )
    return PicoUsd(int(exact))


def pusd_of(usd: Decimal) -> PicoUsd:
    """An amount in pico-USD. Raises ValueError for one that is no whole number of them."""
    exact = usd * PUSD_PER_USD
    if exact != exact.to_integral_value():
        raise ValueError(f"{usd} has more than 12 decimals")
    return PicoUsd(int(exact))


def usd_text(amount: int) -> str:
    """Pico-USD as exact decimal US dollars with at least the cents: `25.00`, `0.000125`."""
    dollars, rest = divmod(abs(amount), PUSD_PER_USD)
    cents = f"{rest:012d}"
    return f"{'-' if amount < 0 else ''}{dollars}.{cents[:2]}{cents[2:].rstrip('0')}"


def microdollars(amount: int) -> int:
    """Pico-USD rounded half-even to millionths of a dollar: the documents' `cost_microdollars`, for display."""
    whole, rest = divmod(amount, PUSD_PER_MICRODOLLAR)
    half = PUSD_PER_MICRODOLLAR // 2
    return whole + (rest > half or (rest == half and whole % 2 == 1))
