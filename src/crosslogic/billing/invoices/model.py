"""Values of invoices. Amounts in `_minor` are whole minor units of the currency (cents, paise); exact ones are integers
of 1e-12 of its major unit.

Invariants: total = subtotal - discount - credit + tax; open = total - prepaid - paid - credited; what is issued never
changes but for its status, its payments and its credit notes.
"""

from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

from crosslogic.billing.profiles.model import BillingTerms, Seller
from crosslogic.billing.tax.model import TaxRule
from crosslogic.kernel.ids import CreditNoteId, InvoiceId, OrgId


class InvoiceKind(StrEnum):
    MONTHLY = "monthly"  # closes at the org's invoice day
    USAGE = "usage"  # closes where usage has reached an amount


class InvoiceStatus(StrEnum):
    DRAFT = "draft"
    ISSUED = "issued"
    PAID = "paid"
    OVERDUE = "overdue"
    VOID = "void"
    DISPUTED = "disputed"  # paid, and its payer's bank has taken the money back until it has decided


OPEN = (InvoiceStatus.ISSUED, InvoiceStatus.OVERDUE)


class LineKind(StrEnum):
    USAGE = "usage"
    RESERVED = "reserved"  # reserved capacity of a month
    FEE = "fee"  # of a plan, or what was promised to be used and was not
    CREDIT = "credit"  # given: free allowance, promotions; lowers what is taxed
    TAX = "tax"
    PREPAID = "prepaid"  # bought credits: paid before, so they lower what is due and no tax


class Line(msgspec.Struct, frozen=True):
    """`amount_minor` is `exact_amount` rounded once, half to even; what a line takes off is negative."""

    kind: LineKind
    description: str
    exact_amount: int
    amount_minor: int
    model: str | None = None
    region: str | None = None
    quantity: dict[str, int] = {}  # requests, and tokens by kind
    details: dict[str, Any] = {}  # of a credit its grant, of a tax its rate, …


class Invoice(msgspec.Struct, frozen=True):
    """One row of `invoices`. `root_id` names the first revision, which the charges belong to."""

    id: InvoiceId
    org_id: OrgId
    kind: InvoiceKind
    period_start: datetime
    period_end: datetime  # not included
    revision: int
    root_id: InvoiceId
    status: InvoiceStatus
    currency: str
    subtotal_minor: int
    discount_minor: int
    credit_minor: int
    tax_minor: int
    total_minor: int
    prepaid_minor: int
    exact_amount: int
    rounding_amount: int
    line_count: int
    created_at: datetime
    series: str | None = None
    fiscal_year: str | None = None
    serial: int | None = None
    number: str | None = None
    issued_at: datetime | None = None
    due_at: datetime | None = None
    grace_days: int = 0
    auto_charge: bool = False
    document: str | None = None
    digest: str | None = None
    paid_minor: int = 0
    credited_minor: int = 0
    paid_at: datetime | None = None
    overdue_at: datetime | None = None
    voided_at: datetime | None = None
    void_reason: str | None = None
    reopened_at: datetime | None = None  # what had paid it was charged back

    @property
    def open_minor(self) -> int:
        """What is still to be paid; below zero where more was paid or credited than it came to."""
        if self.status in (InvoiceStatus.DRAFT, InvoiceStatus.VOID):
            return 0
        return self.total_minor - self.prepaid_minor - self.paid_minor - self.credited_minor


class CreditNote(msgspec.Struct, frozen=True):
    """Takes back part of an issued invoice, or all of it, with its tax."""

    id: CreditNoteId
    org_id: OrgId
    invoice_id: InvoiceId
    series: str
    fiscal_year: str
    serial: int
    number: str
    currency: str
    net_minor: int
    tax_minor: int
    total_minor: int
    reason: str
    ref: str
    issued_at: datetime
    document: str
    digest: str


class Payment(msgspec.Struct, frozen=True):
    """What was received for an invoice, below zero where it went back again (a refund, a chargeback); `payment_ref`
    is the payer's or the provider's, and counts once. All of an invoice's sum to its `paid_minor`."""

    invoice_id: InvoiceId
    payment_ref: str
    amount_minor: int
    at: datetime
    recorded_at: datetime


class InvoicingTerms(msgspec.Struct, frozen=True):
    """How the operator invoices: who sells, which taxes, how numbers look, when and how people are reminded."""

    seller: Seller = Seller()
    configured: BillingTerms = BillingTerms()
    tax_rules: tuple[TaxRule, ...] = ()
    series: str = "INV"
    credit_note_series: str = "CN"
    fiscal_year_first_month: int = 1
    time_zone: str = "UTC"  # of the seller: in which its fiscal year begins
    close_delay_s: float = 3600.0  # after a period's end, so that what is still on its way comes in
    issue_at_once: bool = True  # False: drafts wait for somebody to issue them
    reminder_days: tuple[int, ...] = (-3, 1, 3, 7)  # after the day it is due; before it where negative
    suspend_unpaid: bool = False  # when the days of grace are over
