"""Minor units of currencies, and rounding to them: once for each line, half to even. Pure.

Source of the digits: ISO 4217 (list one, as published by SIX Interbank Clearing), those that are not 2.
"""

from crosslogic.kernel.errors import InvalidRequest

PICO_DIGITS = 12  # exact amounts are integers of 1e-12 of the major unit
_BY_DIGITS = {
    0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
    3: "BHD IQD JOD KWD LYD OMR TND",
    4: "CLF UYW",
}
_DIGITS = {currency: digits for digits, currencies in _BY_DIGITS.items() for currency in currencies.split()}


def minor_digits(currency: str) -> int:
    """How many decimals its minor unit has: 2 of USD and INR, 0 of JPY."""
    return _DIGITS.get(currency, 2)


def check_currency(currency: str) -> str:
    if len(currency) != 3 or not currency.isascii() or not currency.isalpha() or not currency.isupper():
        raise InvalidRequest("a currency is three capital letters, such as USD", param="currency")
    return currency


def pico_per_minor(currency: str) -> int:
    return int(10 ** (PICO_DIGITS - minor_digits(currency)))


def to_minor(exact_amount: int, currency: str) -> int:
    """Rounded half to even, so that many roundings lean to neither side."""
    return divided(exact_amount, pico_per_minor(currency))


def divided(dividend: int, divisor: int) -> int:
    """The quotient rounded half to even; exact for integers of any size and sign."""
    whole, rest = divmod(dividend, divisor)
    return whole + (2 * rest > divisor or (2 * rest == divisor and whole % 2 == 1))


def minor_text(amount_minor: int, currency: str, grouped: bool = False) -> str:
    """As a decimal of the major unit: `1234.50`, or `1,234.50`."""
    digits = minor_digits(currency)
    whole, rest = divmod(abs(amount_minor), 10**digits)
    sign = "-" if amount_minor < 0 else ""
    fraction = f".{rest:0{digits}d}" if digits else ""
    return f"{sign}{whole:,}{fraction}" if grouped else f"{sign}{whole}{fraction}"


def exact_text(exact_amount: int, currency: str) -> str:
    """Without rounding, with at least the digits of the minor unit."""
    whole, rest = divmod(abs(exact_amount), 10**PICO_DIGITS)
    digits = f"{rest:012d}".rstrip("0").ljust(minor_digits(currency), "0")
    return f"{'-' if exact_amount < 0 else ''}{whole}{'.' if digits else ''}{digits}"
