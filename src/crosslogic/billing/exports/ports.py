"""What exports ask of a provider. Errors are those of `payments/ports.py`."""

from datetime import datetime
from typing import Protocol

import msgspec


class MeterEvent(msgspec.Struct, frozen=True):
    identifier: str
    meter: str
    customer_ref: str
    quantity: int
    at: datetime


class MeterSink(Protocol):
    """Sums of usage by meter and customer."""

    async def send(self, event: MeterEvent) -> None:
        """Taken, or taken before under the same identifier. Raises ProviderRefused, OutcomeUnknown."""
        ...

    async def total(self, meter: str, customer_ref: str, hour: datetime) -> int:
        """What the provider has summed up of an hour, perhaps not all yet. Raises Unavailable."""
        ...

    async def rejected(self, event_ref: str) -> list[tuple[str, str]]:
        """The identifiers that a report of errors names, with their codes."""
        ...


class InvoiceItem(msgspec.Struct, frozen=True):
    """One line: a quantity and the price of one, where both are exact, else an amount."""

    n: int
    description: str
    amount_minor: int
    quantity: str | None = None
    unit_amount: str | None = None  # in minor units


class InvoiceOrder(msgspec.Struct, frozen=True):
    invoice_id: str
    number: str
    customer_ref: str
    currency: str
    items: tuple[InvoiceItem, ...]
    total_minor: int


class InvoiceSink(Protocol):
    """Our invoices in the provider's books."""

    async def put(self, order: InvoiceOrder) -> str:
        """Bring the invoice there to what it is here, whatever of it is there already, and finalise it only when both
        sums are the same. Returns its name there. Raises ProviderRefused, OutcomeUnknown."""
        ...

    async def settle(self, provider_ref: str, payment_ref: str | None) -> bool:
        """Mark it paid there, by this payment where it is one of the provider's; harmless to repeat."""
        ...

    async def void(self, provider_ref: str) -> None:
        """Harmless to repeat."""
        ...
