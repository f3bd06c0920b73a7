"""Bodies of invoices. Amounts are decimals of the currency as text: JSON numbers are floats to most readers."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any

from pydantic import Field

from crosslogic.api.models import Body, Instant, View, Word
from crosslogic.billing.invoices.currency import exact_text, minor_digits, minor_text
from crosslogic.billing.invoices.model import CreditNote, Invoice, InvoiceKind, InvoiceStatus, Line, LineKind, Payment
from crosslogic.billing.profiles.model import Address, BillingProfile, BillingTerms, Cycle
from crosslogic.kernel.errors import InvalidRequest

Amount = Annotated[Decimal, Field(gt=0, le=10**13, max_digits=18, description="decimal of the invoice's currency")]
Day = Annotated[int, Field(strict=True, ge=1, le=28)]
Days = Annotated[int, Field(strict=True, ge=0, le=365)]


def minor_of(amount: Decimal, currency: str) -> int:
    """Raises InvalidRequest for more decimals than the currency has."""
    scaled = amount * 10 ** minor_digits(currency)
    if scaled != scaled.to_integral_value():
        raise InvalidRequest(f"{currency} has {minor_digits(currency)} decimals", param="amount")
    return int(scaled)


class LineView(View):
    kind: LineKind
    description: str
    model: str | None
    region: str | None
    quantity: dict[str, int]
    details: dict[str, Any]
    amount: str = Field(description="rounded once, half to even")
    exact_amount: str = Field(description="before it was rounded")

    @classmethod
    def of(cls, line: Line, currency: str) -> "LineView":
        return cls(
            kind=line.kind,
            description=line.description,
            model=line.model,
            region=line.region,
            quantity=line.quantity,
            details=line.details,
            amount=minor_text(line.amount_minor, currency),
            exact_amount=exact_text(line.exact_amount, currency),
        )


class InvoiceView(View):
    id: str
    org_id: str
    number: str | None = Field(description="null as long as it is a draft")
    kind: InvoiceKind
    status: InvoiceStatus
    revision: int
    root_id: str = Field(description="the first of its revisions: what the charges name")
    period_start: datetime
    period_end: datetime = Field(description="not included")
    currency: str
    subtotal: str
    discount: str
    credit: str
    tax: str
    total: str = Field(description="subtotal - discount - credit + tax")
    prepaid: str = Field(description="of the total, paid before with bought credits")
    paid: str
    credited: str = Field(description="by credit notes")
    open: str = Field(description="still to be paid; below zero where more came in")
    rounding: str = Field(description="the lines before tax as rounded, minus exactly")
    created_at: datetime
    issued_at: datetime | None
    due_at: datetime | None
    paid_at: datetime | None
    overdue_at: datetime | None
    voided_at: datetime | None
    void_reason: str | None
    auto_charge: bool
    digest: str | None = Field(description="SHA-256 of the document")

    @classmethod
    def fields_of(cls, invoice: Invoice) -> dict[str, Any]:
        amounts = ("subtotal", "discount", "credit", "tax", "total", "prepaid", "paid", "credited", "open")
        same = [name for name in cls.model_fields if name in Invoice.__struct_fields__]
        return {
            **{name: getattr(invoice, name) for name in same},
            **{name: minor_text(getattr(invoice, f"{name}_minor"), invoice.currency) for name in amounts},
            "rounding": exact_text(invoice.rounding_amount, invoice.currency),
        }

    @classmethod
    def of(cls, invoice: Invoice) -> "InvoiceView":
        return cls(**InvoiceView.fields_of(invoice))


class PaymentView(View):
    payment_ref: str
    amount: str
    at: datetime

    @classmethod
    def of(cls, payment: Payment, currency: str) -> "PaymentView":
        amount = minor_text(payment.amount_minor, currency)
        return cls(payment_ref=payment.payment_ref, amount=amount, at=payment.at)


class CreditNoteView(View):
    id: str
    org_id: str
    invoice_id: str
    number: str
    currency: str
    net: str
    tax: str
    total: str
    reason: str
    ref: str
    issued_at: datetime
    digest: str

    @classmethod
    def of(cls, note: CreditNote) -> "CreditNoteView":
        same = [name for name in cls.model_fields if name in CreditNote.__struct_fields__]
        fields: dict[str, Any] = {name: getattr(note, name) for name in same}
        for name in ("net", "tax", "total"):
            fields[name] = minor_text(getattr(note, f"{name}_minor"), note.currency)
        return cls(**fields)


class InvoiceDetail(InvoiceView):
    lines: list[LineView]
    payments: list[PaymentView]
    credit_notes: list[CreditNoteView]

    @classmethod
    def with_lines(
        cls,
        invoice: Invoice,
        lines: Sequence[Line],
        payments: Sequence[Payment] = (),
        notes: Sequence[CreditNote] = (),
    ) -> "InvoiceDetail":
        currency = invoice.currency
        return cls(
            **InvoiceView.fields_of(invoice),
            lines=[LineView.of(line, currency) for line in lines],
            payments=[PaymentView.of(payment, currency) for payment in payments],
            credit_notes=[CreditNoteView.of(note) for note in notes],
        )


class CloseBody(Body):
    org: Word | None = Field(default=None, description="id or name; null: all orgs, and drafts are issued")
    now: bool = Field(default=False, description="up to now, before the period has ended; needs an org")


class ReasonBody(Body):
    reason: Word


class CreditNoteBody(Body):
    ref: Word = Field(description="a repeat under the same one makes no second credit note")
    reason: Word
    amount: Amount | None = Field(default=None, description="tax included; null: all that is left of the invoice")


class PaymentBody(Body):
    """A payment that came in another way than through the payment provider: by bank transfer, say."""

    payment_ref: Word = Field(description="counts once, however often it is reported")
    amount: Amount
    at: Instant | None = Field(default=None, description="null: now")


class AddressBody(Body):
    lines: list[Word] = Field(default=[], max_length=4)
    city: str = Field(default="", max_length=200)
    state: str = Field(default="", max_length=60, description="its code, such as KA or TX")
    postal_code: str = Field(default="", max_length=20)
    country: str = Field(default="", max_length=2, description="two letters")

    def value(self) -> Address:
        return Address(tuple(self.lines), self.city, self.state, self.postal_code, self.country)


class OwnProfileChange(Body):
    """What an org may say of itself. What is left out stays as it is; null takes it away."""

    legal_name: Word | None = None
    address: AddressBody | None = None
    email: Word | None = Field(default=None, description="where invoices and reminders go")
    gstin: Word | None = None
    vat_id: Word | None = None
    purchase_order: Word | None = None
    time_zone: Word | None = Field(default=None, description="in which its months begin, such as Asia/Kolkata")
    auto_charge: bool | None = None

    def given(self) -> dict[str, Any]:
        values = {name: getattr(self, name) for name in self.model_fields_set}
        if "address" in values:
            values["address"] = Address() if self.address is None else self.address.value()
        return values


class ProfileChange(OwnProfileChange):
    """What an operator may say as well: on which terms the org buys."""

    tax_exemption: Word | None = Field(default=None, description="on which ground it pays no tax")
    cycle: Cycle | None = None
    invoice_day: Day | None = None
    payment_terms_days: Days | None = None
    grace_days: Days | None = None


class AddressView(View):
    lines: tuple[str, ...]
    city: str
    state: str
    postal_code: str
    country: str


class ProfileView(View):
    """With the terms that hold in the end, the configured ones where the org has none of its own."""

    legal_name: str | None
    address: AddressView
    email: str | None
    gstin: str | None
    vat_id: str | None
    tax_exemption: str | None
    purchase_order: str | None
    cycle: Cycle
    time_zone: str
    invoice_day: int
    payment_terms_days: int
    grace_days: int
    auto_charge: bool

    @classmethod
    def of(cls, profile: BillingProfile, terms: BillingTerms) -> "ProfileView":
        held = {name: getattr(terms, name) for name in cls.model_fields if name in BillingTerms.__struct_fields__}
        said = {name: getattr(profile, name) for name in cls.model_fields if name not in held}
        return cls(**{**said, "address": AddressView.model_validate(profile.address)}, **held)
