"""How many decimals currencies have, as payment providers count minor units. Pure."""

from decimal import Decimal

from crosslogic.kernel.errors import InvalidRequest

_NONE = frozenset(
    ("bif", "clp", "djf", "gnf", "jpy", "kmf", "krw", "mga", "pyg", "rwf", "ugx", "vnd", "vuv", "xaf", "xof", "xpf")
)
_THREE = frozenset(["bhd", "jod", "kwd", "omr", "tnd"])


def decimals_of(currency: str) -> int:
    code = currency.lower()
    return 0 if code in _NONE else 3 if code in _THREE else 2


def checked_currency(currency: str) -> str:
    """In lower case. Raises InvalidRequest for what is no currency code."""
    code = currency.lower()
    if len(code) != 3 or not (code.isascii() and code.isalpha()):
        raise InvalidRequest("a currency has three letters, such as usd", param="currency")
    return code


def minor_text(amount_minor: int, currency: str) -> str:
    """`1050` US cents as `10.50`."""
    return f"{Decimal(amount_minor).scaleb(-decimals_of(currency)):.{decimals_of(currency)}f}"


def minor_of(amount: Decimal, currency: str) -> int:
    """Raises InvalidRequest for an amount finer than the currency, or one that is no number."""
    exact = amount.scaleb(decimals_of(currency)) if amount.is_finite() else None
    if exact is None or exact != exact.to_integral_value():
        raise InvalidRequest(f"{currency} has {decimals_of(currency)} decimals", param="amount")
    return int(exact)
