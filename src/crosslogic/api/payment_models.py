"""Bodies of payments: methods, payments, refunds, events. Amounts are minor units, and decimal text for people."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, HttpUrl, StringConstraints

from crosslogic.api.models import Body, View, Word
from crosslogic.billing.payments.currencies import minor_text
from crosslogic.billing.payments.model import Method, MethodKind, Payment, Purpose, Refund, Status

Minor = Annotated[int, Field(strict=True, gt=0, le=10**12)]
Currency = Annotated[str, StringConstraints(pattern=r"^[A-Za-z]{3}$")]


class SetupCreate(Body):
    kind: Literal[MethodKind.CARD, MethodKind.BANK_ACCOUNT, MethodKind.PAYPAL] = MethodKind.CARD


class SetupView(View):
    setup_ref: str
    client_secret: str | None = Field(description="for the provider's own form in a browser")
    url: str | None = Field(description="the provider's own page, where there is one")


class SetupFinish(Body):
    setup_ref: Word


class MethodView(View):
    """The interface document's `PaymentMethod`."""

    id: str
    provider: str
    type: MethodKind
    brand: str | None
    last4: str | None
    expiry_month: int | None
    expiry_year: int | None
    is_default: bool
    created_at: datetime

    @classmethod
    def of(cls, method: Method) -> "MethodView":
        return cls(
            id=method.id,
            provider=method.provider,
            type=method.kind,
            brand=method.brand,
            last4=method.last4,
            expiry_month=method.expiry_month,
            expiry_year=method.expiry_year,
            is_default=method.is_default,
            created_at=method.created_at,
        )


class OwnPaymentCreate(Body):
    """Pay an invoice, or buy credits: exactly one of them."""

    invoice_id: Word | None = None
    amount_minor: Minor | None = Field(default=None, description="credits to buy, in minor units of `currency`")
    currency: Currency | None = None
    payment_method: Word | None = Field(default=None, description="absent: the default")


class PaymentCreate(Body):
    invoice_id: Word
    payment_method: Word | None = Field(default=None, description="absent: the org's default")


class RefundCreate(Body):
    payment_id: Word
    amount_minor: Minor | None = Field(default=None, description="absent: all that is left of it")
    reason: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = None


class PortalCreate(Body):
    return_url: HttpUrl


class PortalView(View):
    url: str


class PaymentView(View):
    """The interface document's `PaymentResult`."""

    id: str
    org_id: str
    provider: str
    purpose: Purpose
    invoice_id: str | None
    attempt: int
    amount_minor: int
    amount: str
    currency: str
    payment_method: str
    status: Status
    transaction_id: str | None
    captured_minor: int
    refundable_minor: int
    disputed_minor: int = Field(description="withdrawn by chargebacks, and not reinstated")
    action_url: str | None = Field(description="where its payer goes on, while it is pending")
    failure_code: str | None
    error: str | None
    created_at: datetime
    processed_at: datetime | None

    @classmethod
    def of(cls, payment: Payment) -> "PaymentView":
        return cls(
            id=payment.id,
            org_id=payment.org_id,
            provider=payment.provider,
            purpose=payment.purpose,
            invoice_id=payment.invoice_id,
            attempt=payment.attempt,
            amount_minor=payment.amount_minor,
            amount=minor_text(payment.amount_minor, payment.currency),
            currency=payment.currency,
            payment_method=payment.method_id,
            status=payment.status,
            transaction_id=payment.charge_ref or payment.provider_ref,
            captured_minor=payment.captured_minor,
            refundable_minor=payment.refundable_minor,
            disputed_minor=payment.disputed_minor,
            action_url=payment.action_url,
            failure_code=payment.failure_code,
            error=payment.failure_message,
            created_at=payment.created_at,
            processed_at=payment.resolved_at,
        )


class RefundView(View):
    id: str
    payment_id: str
    org_id: str
    amount_minor: int
    amount: str
    currency: str
    reason: str | None
    status: Status
    transaction_id: str | None
    failure_code: str | None
    error: str | None
    created_at: datetime
    processed_at: datetime | None

    @classmethod
    def of(cls, refund: Refund) -> "RefundView":
        return cls(
            id=refund.id,
            payment_id=refund.payment_id,
            org_id=refund.org_id,
            amount_minor=refund.amount_minor,
            amount=minor_text(refund.amount_minor, refund.currency),
            currency=refund.currency,
            reason=refund.reason,
            status=refund.status,
            transaction_id=refund.provider_ref,
            failure_code=refund.failure_code,
            error=refund.failure_message,
            created_at=refund.created_at,
            processed_at=refund.resolved_at,
        )


class EventView(View):
    """A webhook's event. What it held stays in the database: it may tell of people."""

    provider: str
    event_id: str
    type: str
    received_at: datetime
    copies: int
    attempts: int
    processed_at: datetime | None
    error: str | None
