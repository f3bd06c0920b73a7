"""Charges issued invoices with their orgs' default methods; a leased job.

Invariant: at most four attempts for an invoice, days apart, each another payment; while one is under way there is no
next. Who has no method is left alone, and who took a payment back by their bank: reminders tell them.
"""

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta

from crosslogic.billing.payments.model import Payment
from crosslogic.billing.payments.ports import InvoiceBook
from crosslogic.billing.payments.service import PaymentService
from crosslogic.kernel.errors import CrossLogicError

WAITS = (timedelta(0), timedelta(days=1), timedelta(days=3), timedelta(days=5))  # before each attempt
INVOICES_AT_ONCE = 200
_log = logging.getLogger(__name__)


def may_charge(attempts: Sequence[Payment], now: datetime) -> bool:
    """Whether it is time for another attempt."""
    if any(each.stands or each.charged_back for each in attempts) or len(attempts) >= len(WAITS):
        return False
    last = max((each.resolved_at or each.created_at for each in attempts), default=now)
    return now - last >= WAITS[len(attempts)]


class AutoCharge:
    def __init__(self, payments: PaymentService, invoices: InvoiceBook) -> None:
        self._payments = payments
        self._invoices = invoices

    async def run(self) -> int:
        """Returns how many invoices were charged, or tried to be."""
        tried = 0
        for invoice in await self._invoices.due(INVOICES_AT_ONCE):
            attempts = await self._payments.payments(invoice_id=invoice.id)
            if not may_charge(attempts, self._payments.now()):
                continue
            try:
                await self._payments.pay_invoice(invoice.id)
                tried += 1
            except CrossLogicError as error:
                _log.info("invoice %s is not charged (%s)", invoice.id, type(error).__name__)
        return tried
