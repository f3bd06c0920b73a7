"""What payments ask of a provider, and what they tell those whom they pay for.

An adapter answers with a `Result` only what is sure. It raises `OutcomeUnknown` where the call may have had its effect,
and lets nobody but itself know how its provider words things.
"""

from datetime import datetime, timedelta
from typing import Protocol

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from crosslogic.billing.payments.model import (
    ChargebackFound,
    ChargeOrder,
    MethodFound,
    MethodKind,
    Payment,
    Refund,
    RefundOrder,
    Result,
    Settled,
    SetupStarted,
    Withdrawal,
)
from crosslogic.kernel.errors import CrossLogicError, Unavailable
from crosslogic.kernel.ids import OrgId


class OutcomeUnknown(Unavailable):
    """The provider may have done it or not. `answered`: it answered with an error of its own, which its idempotency
    would repeat; else no answer came, and the same call under the same key is safe."""

    def __init__(self, message: str, *, answered: bool) -> None:
        super().__init__(message)
        self.answered = answered


class ProviderRefused(CrossLogicError):
    """The provider has refused, and did nothing."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class PaymentProcessor(Protocol):
    """Every call is under a deadline, and may raise OutcomeUnknown; what only reads raises Unavailable."""

    provider: str
    resend_within: timedelta  # for how long the same call under the same key is surely not carried out again
    kinds: tuple[MethodKind, ...]  # that it can set up

    async def create_customer(self, org_id: str, name: str) -> str:
        """The provider's name of a customer; for one org the same for a day."""
        ...

    async def begin_setup(self, customer_ref: str, kind: MethodKind, key: str, currency: str) -> SetupStarted:
        """`currency` is the org's, in lower case: banks are debited in one. Raises ProviderRefused."""
        ...

    async def finish_setup(self, customer_ref: str, setup_ref: str) -> MethodFound | None:
        """The method that its owner has set up there; None while that is not so. Raises ProviderRefused."""
        ...

    async def methods(self, customer_ref: str) -> list[MethodFound]: ...

    async def set_default(self, customer_ref: str, method_ref: str) -> None: ...

    async def remove_method(self, customer_ref: str, method_ref: str) -> None:
        """Harmless to repeat."""
        ...

    async def charge(self, order: ChargeOrder) -> Result: ...

    async def find_charge(self, order: ChargeOrder) -> Result | None:
        """Look for it in the provider's books by its metadata; None when it is not there."""
        ...

    async def refresh(self, provider_ref: str, payment_id: str, *, give_up: bool = False) -> Result:
        """How a charge stands. FAILED only when it can never succeed any more; `give_up` sees to that."""
        ...

    async def refund(self, order: RefundOrder) -> Result: ...

    async def find_refund(self, order: RefundOrder) -> Result | None: ...

    async def refresh_refund(self, provider_ref: str, refund_id: str) -> Result: ...

    async def portal(self, customer_ref: str, return_url: str) -> str:
        """Where the payer looks after methods and receipts. Raises ProviderRefused where there is none."""
        ...

    async def settled(self, customer_ref: str, start: datetime, end: datetime) -> list[Settled]:
        """The provider's own books of a customer, for reconciliation."""
        ...

    async def chargeback(self, provider_ref: str) -> ChargebackFound:
        """How it stands. Raises ProviderRefused for one that is not there."""
        ...

    async def chargebacks(self, since: datetime) -> list[str]:
        """Those that were opened since then, of the whole account, by the provider's names of them."""
        ...

    async def close(self) -> None: ...


class PaidFor(Protocol):
    """What payments pay for: invoices, credits. Each call may be repeated, and then does nothing more."""

    async def currency(self, org_id: OrgId) -> str:
        """The one in which an org may buy credits, in lower case."""
        ...

    async def paid(self, payment: Payment) -> None: ...

    async def refunding(self, conn: AsyncConnection, payment: Payment, refund: Refund) -> None:
        """In the transaction that makes a refund, before anything of it is sent."""
        ...

    async def withdrawn(self, conn: AsyncConnection, payment: Payment, change: Withdrawal) -> None:
        """In the transaction that writes down how a chargeback of the payment has changed."""
        ...

    async def refunded(self, payment: Payment, refund: Refund) -> None: ...

    async def failed(self, payment: Payment) -> None: ...


class PayableInvoice(msgspec.Struct, frozen=True):
    """An invoice that is issued and not paid."""

    id: str
    org_id: OrgId
    number: str
    amount_minor: int
    currency: str  # in lower case
    due_at: datetime


class InvoiceBook(Protocol):
    """The invoices, as payments see them."""

    async def payable(self, invoice_id: str, org_id: OrgId | None = None) -> PayableInvoice:
        """Raises NotFound, also for another org's, and Conflict for one that is not to be paid."""
        ...

    async def due(self, limit: int) -> list[PayableInvoice]:
        """Those that are issued and not paid, oldest first."""
        ...

    async def mark_paid(self, invoice_id: str, payment_ref: str, amount_minor: int, at: datetime) -> None:
        """Harmless to repeat with the same payment."""
        ...
