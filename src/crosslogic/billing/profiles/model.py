"""Whom invoices are addressed to, who sends them, and on which terms."""

from enum import StrEnum

import msgspec


class Cycle(StrEnum):
    """When an invoice is made."""

    MONTHLY = "monthly"
    USAGE = "usage-based"  # where usage has reached an amount, and at the end of a month in any case


class Address(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`country` is ISO 3166-1 alpha-2; `state` the code by which taxes tell states apart: IN-KA, US-TX without the
    country ("KA", "TX")."""

    lines: tuple[str, ...] = ()
    city: str = ""
    state: str = ""
    postal_code: str = ""
    country: str = ""


NO_ADDRESS = Address()


class BillingProfile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an org has said of itself. None: as the configuration has it."""

    legal_name: str | None = None  # None: the org's name
    address: Address = NO_ADDRESS
    email: str | None = None  # where invoices and reminders go
    gstin: str | None = None
    vat_id: str | None = None
    tax_exemption: str | None = None  # on which ground it pays no tax, with its certificate
    purchase_order: str | None = None  # to be printed
    cycle: Cycle | None = None
    time_zone: str | None = None  # in which its months begin
    invoice_day: int | None = None
    payment_terms_days: int | None = None
    grace_days: int | None = None
    auto_charge: bool | None = None


NO_PROFILE = BillingProfile()


class BillingTerms(msgspec.Struct, frozen=True):
    """What holds of an org in the end. `usage_threshold` is in major units of its currency."""

    cycle: Cycle = Cycle.MONTHLY
    time_zone: str = "UTC"
    invoice_day: int = 1
    payment_terms_days: int = 7
    grace_days: int = 7
    auto_charge: bool = False
    usage_threshold: int = 100


class Seller(msgspec.Struct, frozen=True):
    """Who sends the invoices; all of it is printed."""

    legal_name: str = "CrossLogic"
    address: Address = NO_ADDRESS
    email: str | None = None
    website: str | None = None
    gstin: str | None = None
    lut: str | None = None  # letter of undertaking: exports bear no IGST
    vat_id: str | None = None
    vat_countries: tuple[str, ...] = ()  # others that it is registered in, or serves through the one-stop shop
    sac: str = "998315"  # hosting and IT infrastructure provisioning
    payment_instructions: str | None = None  # for whoever is not charged automatically


def terms_of(profile: BillingProfile, configured: BillingTerms) -> BillingTerms:
    """The org's own terms where it has any, the configured ones otherwise."""
    own = {name: getattr(profile, name) for name in BillingTerms.__struct_fields__ if name != "usage_threshold"}
    return msgspec.structs.replace(configured, **{name: value for name, value in own.items() if value is not None})
