"""Where an invoice may go from where it stands. Pure; the triggers of migration 0021 have the same table.

draft → issued → paid
                → overdue → paid
      → void    → void    → void

paid ⇄ disputed, and from either of them back to issued, where a bank has taken the money back for good

`void` is final, and so is `paid` but for chargebacks: what was paid in error is a matter of credit notes and refunds.
"""

from datetime import datetime

from crosslogic.billing.invoices.model import OPEN, Invoice, InvoiceStatus
from crosslogic.kernel.errors import Conflict

MOVES = frozenset(
    {
        (InvoiceStatus.DRAFT, InvoiceStatus.ISSUED),
        (InvoiceStatus.DRAFT, InvoiceStatus.VOID),
        (InvoiceStatus.ISSUED, InvoiceStatus.PAID),
        (InvoiceStatus.ISSUED, InvoiceStatus.OVERDUE),
        (InvoiceStatus.ISSUED, InvoiceStatus.VOID),
        (InvoiceStatus.OVERDUE, InvoiceStatus.PAID),
        (InvoiceStatus.OVERDUE, InvoiceStatus.VOID),
        (InvoiceStatus.PAID, InvoiceStatus.DISPUTED),
        (InvoiceStatus.PAID, InvoiceStatus.ISSUED),
        (InvoiceStatus.DISPUTED, InvoiceStatus.PAID),
        (InvoiceStatus.DISPUTED, InvoiceStatus.ISSUED),
    }
)


def check_move(now: InvoiceStatus, then: InvoiceStatus) -> None:
    """Raises Conflict."""
    if (now, then) not in MOVES:
        raise Conflict(f"an invoice that is {now} cannot become {then}")


def check_void(invoice: Invoice) -> None:
    """Raises Conflict: what somebody paid or was credited for stays; credit the rest of it instead."""
    check_move(invoice.status, InvoiceStatus.VOID)
    if invoice.paid_minor or invoice.credited_minor:
        raise Conflict("payments or credit notes stand against this invoice; make a credit note of the rest instead")


def settled(invoice: Invoice) -> bool:
    """Whether nothing of an open invoice is left to pay, so that it becomes paid."""
    return invoice.status in OPEN and invoice.open_minor <= 0


def after_chargeback(invoice: Invoice, held_minor: int) -> InvoiceStatus:
    """Where an invoice stands of whose payments `held_minor` is held by banks that have not decided yet."""
    if invoice.status not in (InvoiceStatus.PAID, InvoiceStatus.DISPUTED):
        return invoice.status
    if held_minor > 0:
        return InvoiceStatus.DISPUTED
    return InvoiceStatus.ISSUED if invoice.open_minor > 0 else InvoiceStatus.PAID


def became_overdue(invoice: Invoice, now: datetime) -> bool:
    return invoice.status is InvoiceStatus.ISSUED and invoice.due_at is not None and now > invoice.due_at
