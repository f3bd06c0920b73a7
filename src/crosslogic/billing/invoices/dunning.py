"""What is to be done about an invoice that is not paid: remind, call overdue, suspend at the end of its grace. Pure.

Invariant: of the reminders whose day has come only the last one is due, so that who was not told in time, because
nothing ran, is not told everything at once.
"""

from datetime import datetime, timedelta
from enum import StrEnum

import msgspec

from crosslogic.billing.invoices.model import OPEN, Invoice, InvoicingTerms
from crosslogic.billing.invoices.states import became_overdue


class Measure(StrEnum):
    REMIND = "remind"
    OVERDUE = "overdue"
    SUSPEND = "suspend"


class Step(msgspec.Struct, frozen=True):
    """`name` tells the steps of one invoice apart: each is taken once."""

    measure: Measure
    name: str = ""
    days: int = 0  # after the day on which it was due; before it where negative


def steps(invoice: Invoice, terms: InvoicingTerms, now: datetime) -> list[Step]:
    """What should have been done of an open invoice by now, in this order."""
    if invoice.status not in OPEN or invoice.due_at is None or invoice.open_minor <= 0:
        return []
    found = []
    if became_overdue(invoice, now):
        found.append(Step(Measure.OVERDUE))
    passed = [days for days in terms.reminder_days if now > invoice.due_at + timedelta(days=days)]
    if passed:
        last = max(passed)
        found.append(Step(Measure.REMIND, f"{last:+d}d", last))
    if terms.suspend_unpaid and now > grace_ends_at(invoice, invoice.due_at):
        found.append(Step(Measure.SUSPEND, "" if invoice.reopened_at is None else invoice.reopened_at.isoformat()))
    return found


def grace_ends_at(invoice: Invoice, due_at: datetime) -> datetime:
    """Grace begins anew where an invoice is owed again."""
    return max(due_at, invoice.reopened_at or due_at) + timedelta(days=invoice.grace_days)
