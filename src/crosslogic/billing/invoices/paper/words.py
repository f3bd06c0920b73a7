"""Numbers, days and amounts as printed. Pure."""

from collections.abc import Mapping
from datetime import date
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

from crosslogic.billing.invoices.currency import minor_digits, minor_text

_MONTHS = (
    "January February March April May June July August September October November December".split()  # noqa: SIM905
)
_SYMBOLS = {"INR": "₹", "USD": "$", "EUR": "€", "GBP": "£", "JPY": "¥"}


def amount(minor: int, currency: str) -> str:
    """`1,234.50`, in rupees grouped as in India: `12,34,567.50`. A true minus sign."""
    plain = minor_text(abs(minor), currency)
    whole, point, fraction = plain.partition(".")
    grouped = _indian(whole) if currency == "INR" else f"{int(whole):,}"
    return f"{'−' if minor < 0 else ''}{grouped}{point}{fraction}"


def money(minor: int, currency: str) -> str:
    """With the sign of the currency, or its code where it has none of its own."""
    sign = "−" if minor < 0 else ""
    symbol = _SYMBOLS.get(currency)
    shown = amount(abs(minor), currency)
    return f"{sign}{symbol}{shown}" if symbol else f"{sign}{currency} {shown}"


def count(number: int) -> str:
    return f"{number:,}" if number >= 0 else f"−{-number:,}"


def day(iso: str | None) -> str:
    """`8 February 2026`, the same in every language."""
    if iso is None:
        return "—"
    at = date.fromisoformat(iso)
    return f"{at.day} {_MONTHS[at.month - 1]} {at.year}"


def month(iso: str) -> str:
    """`January 2026` of `2026-01`."""
    year, number = iso.split("-")
    return f"{_MONTHS[int(number) - 1]} {year}"


def rounded(exact: str, currency: str) -> int:
    """Minor units of an exact decimal, half to even: for display, where the line itself is exact."""
    return int((Decimal(exact) * 10 ** minor_digits(currency)).to_integral_value(ROUND_HALF_EVEN))


def period(span: Mapping[str, Any]) -> str:
    first, last = date.fromisoformat(span["first_day"]), date.fromisoformat(span["last_day"])
    if first == last:
        return day(span["first_day"])
    if (first.year, first.month) == (last.year, last.month):
        return f"{first.day} – {day(span['last_day'])}"
    return f"{day(span['first_day'])} – {day(span['last_day'])}"


def address_lines(address: Mapping[str, Any], states: Mapping[str, str]) -> list[str]:
    """As an envelope has it; `states` are names of states by country and code, "IN-KA"."""
    state = states.get(f"{address['country']}-{address['state']}", address["state"])
    town = " ".join(filter(None, (address["city"], address["postal_code"])))
    place = ", ".join(filter(None, (state, address["country"])))
    return [line for line in (*address["lines"], town, place) if line]


def _indian(whole: str) -> str:
    if len(whole) <= 3:
        return whole
    head, tail = whole[:-3], whole[-3:]
    pairs = [head[max(0, end - 2) : end] for end in range(len(head), 0, -2)]
    return ",".join([*reversed(pairs), tail])
