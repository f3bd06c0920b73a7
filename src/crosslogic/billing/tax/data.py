"""Rates of GST and VAT with the days from which they hold, and the states of India; sources are in the files.

Invariant: the packaged data is read once and never changes in a process.
"""

from datetime import date
from functools import cache
from importlib import resources

import msgspec


class DatedRate(msgspec.Struct, frozen=True):
    since: date
    percent: str


class IndianState(msgspec.Struct, frozen=True):
    """`code` is what addresses say, the key of its row the number that GSTINs begin with."""

    code: str
    name: str
    union_territory: bool = False  # without a legislature of its own: UTGST instead of SGST


class _GstFile(msgspec.Struct):
    sources: list[str]
    rates: list[DatedRate]
    states: dict[str, IndianState]


class _VatFile(msgspec.Struct):
    sources: list[str]
    european_union: list[str]
    rates: dict[str, list[DatedRate]]


@cache
def _gst() -> _GstFile:
    return msgspec.json.decode(_bytes("gst.json"), type=_GstFile)


@cache
def _vat() -> _VatFile:
    return msgspec.json.decode(_bytes("vat.json"), type=_VatFile)


def _bytes(name: str) -> bytes:
    return resources.files("crosslogic.billing.tax").joinpath("data", name).read_bytes()


def gst_states() -> dict[str, IndianState]:
    """By the two digits that their GSTINs begin with."""
    return _gst().states


def gst_state_of_code(digits: str) -> IndianState | None:
    return _gst().states.get(digits)


def gst_digits_of(code: str) -> str | None:
    """The two digits of a state by its letters."""
    return next((digits for digits, state in _gst().states.items() if state.code == code), None)


def gst_percent(on: date) -> str | None:
    return in_force(_gst().rates, on)


def vat_percent(country: str, on: date) -> str | None:
    """The standard rate; None for a country without one here."""
    return in_force(_vat().rates.get(country, []), on)


def in_european_union(country: str) -> bool:
    return country in _vat().european_union


def in_force(rates: list[DatedRate], on: date) -> str | None:
    """The last one that began by that day."""
    begun = [rate for rate in rates if rate.since <= on]
    return max(begun, key=lambda rate: rate.since).percent if begun else None
