"""Hands what invoices have to tell to whoever sends notices.

Invariant: each notice is raised once: it goes under its own id, which the outbox of notices knows again, so a kill
between raising it and marking it as handed over raises nothing twice.
"""

from typing import Any

from crosslogic.billing.invoices.currency import minor_text
from crosslogic.billing.invoices.notices import Notice as InvoiceNotice
from crosslogic.billing.invoices.notices import NoticeOutbox
from crosslogic.insight.notices.model import Notice, NoticeKind, Severity
from crosslogic.insight.notices.outbox import Outbox
from crosslogic.kernel.clock import Clock

_TITLES = {
    "invoice.issued": ("Invoice {number}", Severity.INFO),
    "invoice.reminder": ("Reminder: invoice {number}", Severity.WARNING),
    "invoice.overdue": ("Invoice {number} is overdue", Severity.ERROR),
    "invoice.paid": ("Invoice {number} is paid", Severity.INFO),
    "invoice.void": ("Invoice {number} is void", Severity.INFO),
    "credit_note.issued": ("Credit note {credit_note} for invoice {number}", Severity.INFO),
    "invoice.reopened": ("Invoice {number} is open again: what had paid it was charged back", Severity.ERROR),
    "org.restored": ("Active again: invoice {number} is paid", Severity.INFO),
    "org.suspended": ("Suspended: invoice {number} is not paid", Severity.CRITICAL),
}


class InvoiceNotices:
    """Run as a leased job."""

    def __init__(self, pending: NoticeOutbox, outbox: Outbox, clock: Clock) -> None:
        self._pending = pending
        self._outbox = outbox
        self._clock = clock

    async def round(self) -> int:
        """Returns how many were handed over."""
        found = await self._pending.pending()
        await self._outbox.raise_all(map(raised, found))
        if found:
            await self._pending.sent([each.id for each in found], self._clock.now())
        return len(found)


_CHARGEBACKS = {
    "inquiry": ("A payment is inquired about", Severity.WARNING),
    "needs_response": ("A payment is disputed: give evidence", Severity.ERROR),
    "under_review": ("A disputed payment is under review", Severity.WARNING),
    "won": ("A disputed payment is won", Severity.INFO),
    "lost": ("A disputed payment is lost", Severity.ERROR),
}


def raised(told: InvoiceNotice) -> Notice:
    if told.kind.startswith("chargeback."):
        return _chargeback(told)
    title, severity = _TITLES[told.kind]
    suspended = told.kind in ("org.suspended", "org.restored")
    return Notice(
        org_id=told.org_id,
        kind=NoticeKind.SUSPENDED if suspended else NoticeKind.INVOICE,
        severity=severity,
        once=f"invoice:{told.id}",
        title=title.format(**told.payload),
        text=_text(told.payload),
        facts={"event": told.kind, "entity_id": told.entity_id, **told.payload},
        at=told.at,
    )


def _chargeback(told: InvoiceNotice) -> Notice:
    """For operators alone: who disputes a payment knows of it."""
    title, severity = _CHARGEBACKS[told.kind.removeprefix("chargeback.")]
    said = told.payload
    currency = said["currency"].upper()
    amount, withdrawn = (minor_text(said[name], currency) for name in ("amount_minor", "withdrawn_minor"))
    by = f" Evidence is due by {said['respond_by'][:10]}." if said["respond_by"] else ""
    return Notice(
        org_id=None,
        kind=NoticeKind.CHARGEBACK,
        severity=severity,
        once=f"invoice:{told.id}",
        title=f"{title}: {currency} {amount} ({said['reason']})",
        text=f"Payment {said['payment_id']} of {told.org_id}; withdrawn: {currency} {withdrawn}.{by} "
        f"All that there is of it: {said['pack']}.",
        facts={"event": told.kind, "org_id": told.org_id, "chargeback_id": told.entity_id, **said},
        at=told.at,
    )


def _text(payload: dict[str, Any]) -> str:
    currency = payload["currency"]
    total, left = (minor_text(payload[name], currency, grouped=True) for name in ("total_minor", "open_minor"))
    due = f", due on {payload['due_at'][:10]}" if payload["due_at"] and payload["open_minor"] > 0 else ""
    return f"Invoice {payload['number']} over {currency} {total}; open: {currency} {left}{due}."
