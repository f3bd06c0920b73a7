"""Values of reconciliation."""

from datetime import date, datetime
from enum import StrEnum

import msgspec


class Kind(StrEnum):
    """Which two books differ."""

    ENGINE_LEDGER = "engine_ledger"  # the tokens that engines count themselves, and those in the ledger; of all orgs
    LEDGER_CHAIN = "ledger_chain"  # a row of the ledger is not what was written
    LEDGER_ROLLUP = "ledger_rollup"
    LEDGER_CHARGE = "ledger_charge"
    CHARGE_INVOICE = "charge_invoice"
    INVOICE_PAYMENT = "invoice_payment"
    CREDIT_PAYMENT = "credit_payment"
    PAYMENT_PROVIDER = "payment_provider"
    REFUND_PROVIDER = "refund_provider"
    POSTINGS = "postings"  # an account does not hold what invoices, payments and credits say
    CHARGE_EXPORT = "charge_export"
    EXPORT_PROVIDER = "export_provider"


class Repair(StrEnum):
    """What can be done about it on demand; each is a correction beside what is there, never a change of it."""

    LOOK = "look"  # ask the provider how the payment or refund stands, and tell whom it concerns
    POST = "post"  # write the postings that are missing, as those of books from before there were any
    TELL_AGAIN = "tell_again"  # find out which windows of an hour count there, and tell the others in further ones


class Difference(msgspec.Struct, frozen=True):
    """One thing that two books do not agree on."""

    kind: Kind
    org_id: str
    entity: str  # request, invoice, payment, window, month
    ours: str
    theirs: str
    cause: str
    repair: Repair | None = None
    provider_ref: str | None = None


class Report(msgspec.Struct, frozen=True):
    id: str
    day: date  # the last day that it looked at
    days: int
    started_at: datetime
    ended_at: datetime
    checked: dict[str, int]  # how much of what was compared
    differences: tuple[Difference, ...]
    skipped: tuple[str, ...] = ()  # what could not be looked at, in words

    @property
    def agrees(self) -> bool:
        return not self.differences and not self.skipped
