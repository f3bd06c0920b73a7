"""Values of payments (interface document, `PaymentProcessor`, `PaymentResult`, `PaymentMethod`).

Amounts are whole minor units of their currency (cents, yen). What is here holds no secret: cards and accounts stay with
the provider.
"""

from datetime import datetime
from enum import StrEnum

import msgspec

from crosslogic.kernel.ids import OrgId


class Status(StrEnum):
    """Of a payment or a refund; `states.py` says which may follow which."""

    CREATED = "created"  # written down; nothing was sent
    SENDING = "sending"  # may have arrived
    PENDING = "pending"  # the provider has it: its payer has to act, or a bank takes its time
    SUCCEEDED = "succeeded"
    FAILED = "failed"  # no money moved, and none ever will under this id
    UNKNOWN = "unknown"  # it was sent, and what became of it is not known yet


class Purpose(StrEnum):
    INVOICE = "invoice"
    TOP_UP = "top_up"  # buys credits


class MethodKind(StrEnum):
    CARD = "card"
    BANK_ACCOUNT = "bank_account"
    PAYPAL = "paypal"


class Method(msgspec.Struct, frozen=True):
    """What an org may pay with."""

    id: str
    org_id: OrgId
    provider: str
    method_ref: str
    kind: MethodKind
    is_default: bool
    created_at: datetime
    brand: str | None = None
    last4: str | None = None
    expiry_month: int | None = None
    expiry_year: int | None = None
    removed_at: datetime | None = None


class MethodFound(msgspec.Struct, frozen=True):
    """A method as its provider tells it."""

    method_ref: str
    kind: MethodKind
    brand: str | None = None
    last4: str | None = None
    expiry_month: int | None = None
    expiry_year: int | None = None


class SetupStarted(msgspec.Struct, frozen=True):
    """Where an org's person enters a card or an account: a form of the provider's (`client_secret`), or its page."""

    setup_ref: str
    client_secret: str | None = None
    url: str | None = None


class Movement(msgspec.Struct, frozen=True, kw_only=True):
    """Money on its way through a provider: what payments and refunds have in common. One column for each field."""

    id: str
    org_id: OrgId
    amount_minor: int
    currency: str  # in lower case
    status: Status
    created_at: datetime
    provider_ref: str | None = None
    failure_code: str | None = None
    failure_message: str | None = None
    first_sent_at: datetime | None = None
    last_sent_at: datetime | None = None
    sendings: int = 0
    answered: bool = False
    next_step_at: datetime | None = None
    resolved_at: datetime | None = None
    applied_at: datetime | None = None
    creation_ref: str | None = None


class Payment(Movement, frozen=True, kw_only=True):
    """One attempt to take money; a row of the table `payments`."""

    provider: str
    purpose: Purpose
    invoice_id: str | None
    attempt: int
    method_id: str
    customer_present: bool  # may be asked for 3-D Secure
    charge_ref: str | None = None
    captured_minor: int = 0
    refund_reserved_minor: int = 0
    action_url: str | None = None
    disputed_minor: int = 0  # withdrawn by chargebacks, and not reinstated
    charged_back: bool = False  # some of it was lost to a chargeback: it pays its invoice no more, for good

    @property
    def refundable_minor(self) -> int:
        return max(0, self.captured_minor - self.refund_reserved_minor - self.disputed_minor)

    @property
    def stands(self) -> bool:
        """Whether it is under way or has succeeded, so that nothing else is to be taken for the same invoice."""
        return self.status is not Status.FAILED and not self.charged_back


class Refund(Movement, frozen=True, kw_only=True):
    """Money that goes back; its amount is kept of the payment from before it is sent until it has failed."""

    payment_id: str
    reason: str | None = None


class ChargeOrder(msgspec.Struct, frozen=True):
    """What a provider is asked to take. `payment_id` goes along as metadata, and makes the idempotency key."""

    payment_id: str
    org_id: str
    customer_ref: str
    method_ref: str
    kind: MethodKind
    amount_minor: int
    currency: str
    customer_present: bool
    description: str
    sent_at: datetime  # first; bounds where it is looked for


class RefundOrder(msgspec.Struct, frozen=True):
    refund_id: str
    payment_ref: str
    charge_ref: str
    amount_minor: int
    currency: str


class Result(msgspec.Struct, frozen=True):
    """What a provider says has become of a charge or a refund: SUCCEEDED, PENDING or FAILED, and that is sure."""

    status: Status
    provider_ref: str | None = None
    charge_ref: str | None = None
    captured_minor: int = 0
    action_url: str | None = None
    failure_code: str | None = None
    failure_message: str | None = None


class ChargebackStatus(StrEnum):
    INQUIRY = "inquiry"  # the payer has asked; nothing was withdrawn
    NEEDS_RESPONSE = "needs_response"  # evidence is to be given, at the provider
    UNDER_REVIEW = "under_review"
    WON = "won"  # for us, or withdrawn by the payer
    LOST = "lost"


class ChargebackFound(msgspec.Struct, frozen=True):
    """How a chargeback stands at its provider now."""

    provider_ref: str
    payment_ref: str | None  # payment intent
    charge_ref: str | None  # charge, capture
    amount_minor: int
    currency: str
    reason: str
    status: ChargebackStatus
    withdrawn_minor: int  # net: what was withdrawn of us and not reinstated
    opened_at: datetime
    respond_by: datetime | None = None


class Withdrawal(msgspec.Struct, frozen=True):
    """What a change of a chargeback means for what its payment has paid for. Deltas below zero: it came back."""

    chargeback_id: str
    ref: str  # of this change
    held_minor: int  # of the payment, by all its chargebacks that are not decided
    withdrawn_delta_minor: int
    lost_minor: int  # of this chargeback, now
    lost_delta_minor: int
    at: datetime


class Settled(msgspec.Struct, frozen=True):
    """A payment or a refund as the provider's own books have it, for reconciliation."""

    kind: str  # payment or refund
    our_id: str | None  # from its metadata
    provider_ref: str
    amount_minor: int
    currency: str
    succeeded: bool
