"""Values of taxes. Percentages are exact decimals as text ("18", "8.25"); amounts are minor units."""

from datetime import date
from enum import StrEnum

import msgspec


class Scheme(StrEnum):
    GST = "gst"  # India
    VAT = "vat"  # European Union, United Kingdom
    RULE = "rule"  # what the operator wrote: sales taxes of US states, and any other country
    NONE = "none"


class TaxRule(msgspec.Struct, frozen=True):
    """A tax that the operator collects. It holds from the day `since` to before the day `until`."""

    name: str
    country: str
    percent: str
    state: str = ""  # empty: all of the country
    taxable_percent: str = "100"  # the share of the price that is taxed: Texas taxes 80% of data processing
    since: date = date(2000, 1, 1)
    until: date | None = None
    businesses: bool = True  # False: who gives a tax number pays none


class TaxPart(msgspec.Struct, frozen=True):
    """One line of tax."""

    name: str
    percent: str
    jurisdiction: str
    taxable_minor: int
    amount_minor: int


class Taxes(msgspec.Struct, frozen=True):
    """What an invoice bears; `notes` are what the law wants printed."""

    scheme: Scheme
    parts: tuple[TaxPart, ...] = ()
    notes: tuple[str, ...] = ()
    place_of_supply: str | None = None
    reverse_charge: bool = False
    supply: str = ""  # of GST e-invoices: B2B, B2C, EXPWP, EXPWOP
    service_code: str | None = None  # SAC

    @property
    def amount_minor(self) -> int:
        return sum(part.amount_minor for part in self.parts)
