"""Settings of invoices: who sells, which taxes, how numbers look, when people are reminded."""

from datetime import date
from decimal import Decimal
from typing import Annotated

from pydantic import Field

from crosslogic.settings.values import Count, Money, Positive, Seconds, Section, Texts, Truth, list_as_tuple


class SellerSettings(Section):
    """Who sends the invoices; all of it is printed."""

    legal_name: str = Field(default="CrossLogic", description="Name of the company.")
    address: Texts = Field(default=(), description="Lines of its address, without what follows.")
    city: str = Field(default="", description="City.")
    state: str = Field(default="", description="Code of the state, such as `KA`.")
    postal_code: str = Field(default="", description="Postal code.")
    country: str = Field(default="", description="Two letters, such as `IN`.")
    email: str | None = Field(default=None, description="Where customers ask.")
    website: str | None = Field(default=None, description="Web site.")
    gstin: str | None = Field(default=None, description="With it invoices bear GST of India.")
    lut: str | None = Field(default=None, description="Letter of undertaking: exports then bear no IGST.")
    vat_id: str | None = Field(default=None, description="With it invoices bear VAT of the EU or the United Kingdom.")
    vat_countries: Texts = Field(
        default=(), description="Others whose VAT it collects, by registration or the one-stop shop."
    )
    sac: str = Field(default="998315", description="Services accounting code for GST.")
    payment_instructions: str | None = Field(default=None, description="For whoever is not charged automatically.")


class TaxRuleSettings(Section):
    """A tax that you collect in a place: sales taxes of US states, say. It goes before GST and VAT."""

    name: str = Field(min_length=1, description="As it is printed, such as `Texas sales tax`.")
    country: str = Field(min_length=2, max_length=2, description="Of the customer, such as `US`.")
    state: str = Field(default="", description="Of the customer, such as `TX`; empty: all of the country.")
    percent: Money = Field(description="Rate, such as `8.25`.")
    taxable_percent: Money = Field(default=Decimal(100), description="Share of the price that is taxed.")
    since: Annotated[date, Field(strict=False)] = Field(
        default=date(2000, 1, 1), description="First day that it holds."
    )
    until: Annotated[date, Field(strict=False)] | None = Field(
        default=None, description="First day that it holds no more."
    )
    businesses: Truth = Field(default=True, description="`false`: who gives a tax number pays none.")


class InvoiceSettings(Section):
    """How invoices look and when they are made."""

    seller: SellerSettings = SellerSettings()
    tax_rules: Annotated[tuple[TaxRuleSettings, ...], list_as_tuple] = Field(
        default=(), description="Taxes besides GST and VAT."
    )
    series: str = Field(default="INV", pattern=r"^[A-Za-z0-9-]{1,6}$", description="What numbers begin with.")
    credit_note_series: str = Field(
        default="CN", pattern=r"^[A-Za-z0-9-]{1,6}$", description="What numbers of credit notes begin with."
    )
    fiscal_year_first_month: Annotated[Positive, Field(le=12)] = Field(
        default=1, description="Numbers begin anew with it; `4` in India."
    )
    time_zone: str = Field(
        default="UTC",
        description="In which fiscal years begin, and months of organisations without a zone of their own.",
    )
    close_delay_s: Seconds = Field(default=3600.0, description="From the end of a period to its invoice.")
    issue_at_once: Truth = Field(default=True, description="`false`: drafts wait for `crosslogic invoices issue`.")
    payment_terms_days: Annotated[Count, Field(le=365)] = Field(
        default=7, description="From issue to the day it is due."
    )
    reminder_days: Annotated[tuple[int, ...], list_as_tuple] = Field(
        default=(-3, 1, 3, 7),
        description="Days after it was due, or before where negative, on which people are reminded.",
    )
    suspend_unpaid: Truth = Field(
        default=False, description="Suspend the organisation `billing.grace_period_days` after it was due."
    )
    usage_threshold: Positive = Field(
        default=100,
        description="For `billing.cycle: usage-based`: amount, in whole units of the currency, to invoice at.",
    )
