"""How much of each tax a credit note takes back. Pure.

Invariants: never more than the invoice came to; however many credit notes there are, net and each tax of all of them
are those of the invoice once they come to all of it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from crosslogic.billing.invoices.currency import divided
from crosslogic.billing.invoices.model import Invoice, InvoiceStatus
from crosslogic.kernel.errors import Conflict, InvalidRequest


def check_credit(invoice: Invoice, amount_minor: int | None) -> int:
    """What is to be credited, all that is left where nothing is said. Raises Conflict and InvalidRequest."""
    if invoice.status in (InvoiceStatus.DRAFT, InvoiceStatus.VOID):
        raise Conflict(f"an invoice that is {invoice.status} has no credit notes")
    left = invoice.total_minor - invoice.credited_minor
    wanted = left if amount_minor is None else amount_minor
    if left <= 0:
        raise Conflict("all of this invoice is credited already")
    if not 0 < wanted <= left:
        raise InvalidRequest(f"a credit note of this invoice is of 1 to {left} minor units", param="amount_minor")
    return wanted


def credit_of_refund(invoice: Invoice, refund_minor: int) -> int:
    """What of a refund is credited: not what had been paid or credited beyond the invoice, which only goes back."""
    if invoice.status in (InvoiceStatus.DRAFT, InvoiceStatus.VOID):
        return 0
    beyond = max(0, -invoice.open_minor)
    return max(0, min(refund_minor - beyond, invoice.total_minor - invoice.credited_minor))


def credited_parts(
    invoice: Invoice, parts: Sequence[Mapping[str, Any]], amount_minor: int
) -> tuple[int, list[dict[str, Any]]]:
    """Net, and each tax of `parts` (as the invoice's document has them), in the share of this credit note.

    Shares are taken of everything credited so far with and without this one, so that roundings do not add up.
    """
    before = _taxes_of(invoice, parts, invoice.credited_minor)
    after = _taxes_of(invoice, parts, invoice.credited_minor + amount_minor)
    taxes = [late - early for early, late in zip(before, after, strict=True)]
    net = amount_minor - sum(taxes)
    shown = []
    for part, amount in zip(parts, taxes, strict=True):
        taxable = divided(int(part["taxable_minor"]) * amount, int(part["amount_minor"])) if part["amount_minor"] else 0
        shown.append({**part, "amount_minor": amount, "taxable_minor": taxable})
    return net, shown


def _taxes_of(invoice: Invoice, parts: Sequence[Mapping[str, Any]], credited_minor: int) -> list[int]:
    tax = divided(invoice.tax_minor * credited_minor, invoice.total_minor)
    amounts, reached, given = [], 0, 0
    for part in parts:
        reached += int(part["amount_minor"])
        upto = divided(tax * reached, invoice.tax_minor) if invoice.tax_minor else 0
        amounts.append(upto - given)
        given = upto
    return amounts
