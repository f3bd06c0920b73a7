"""From what happened to the postings of it. Pure.

Invariant: every list sums to zero. So the accounts can be computed again from invoices, payments, credit notes, grants
and chargebacks, and `reconciliation` does.
"""

from crosslogic.billing.invoices.currency import pico_per_minor
from crosslogic.billing.invoices.model import CreditNote, Invoice
from crosslogic.billing.postings.model import Account, Posting

Postings = tuple[Posting, ...]
_A = Account


def of_invoice(invoice: Invoice) -> Postings:
    """Issued: what is owed after bought credits, which are used up; what each line was rounded by stands apart."""
    unit = _unit(invoice.currency)
    return _kept(
        (_A.RECEIVABLE, (invoice.total_minor - invoice.prepaid_minor) * unit),
        (_A.CREDITS, invoice.prepaid_minor * unit),
        (_A.REVENUE, -invoice.exact_amount),
        (_A.ROUNDING, -invoice.rounding_amount),
        (_A.TAX, -invoice.tax_minor * unit),
    )


def of_void(invoice: Invoice) -> Postings:
    return tuple(Posting(each.account, -each.amount) for each in of_invoice(invoice))


def of_receipt(amount_minor: int, currency: str) -> Postings:
    """Money for an invoice came in, or went back where it is below zero."""
    return _moved(_A.RECEIVABLE, _A.CASH, amount_minor * _unit(currency))


def of_credit_note(note: CreditNote) -> Postings:
    unit = _unit(note.currency)
    return _kept(
        (_A.RECEIVABLE, -note.total_minor * unit), (_A.REVENUE, note.net_minor * unit), (_A.TAX, note.tax_minor * unit)
    )


def of_bought(amount: int) -> Postings:
    return _moved(_A.CREDITS, _A.CASH, amount)


def of_voided(remaining: int) -> Postings:
    """Bought credits that somebody voided by hand: nothing is owed for them any more."""
    return _moved(_A.REVENUE, _A.CREDITS, remaining)


def of_returned(amount: int) -> Postings:
    """Bought credits were taken back for a refund; below zero: given again."""
    return _moved(_A.REFUNDS, _A.CREDITS, amount)


def of_refund(amount_minor: int, currency: str) -> Postings:
    """The money of a refund of credits went out; below zero: it came back."""
    return _moved(_A.CASH, _A.REFUNDS, amount_minor * _unit(currency))


def of_withdrawal(amount_minor: int, currency: str) -> Postings:
    """A bank holds it; below zero: it was reinstated."""
    return _moved(_A.CASH, _A.DISPUTES, amount_minor * _unit(currency))


def of_lost_invoice(amount_minor: int, currency: str) -> Postings:
    """What was lost is owed again."""
    return _moved(_A.DISPUTES, _A.RECEIVABLE, amount_minor * _unit(currency))


def of_disputed_credits(amount: int) -> Postings:
    """Bought credits were taken back as long as their money is away; below zero: given again."""
    return _moved(_A.DISPUTES, _A.CREDITS, amount)


def of_lost_credits(amount: int) -> Postings:
    """What was lost of credits that had been used."""
    return _moved(_A.DISPUTES, _A.LOSSES, amount)


def _unit(currency: str) -> int:
    return pico_per_minor(currency.upper())  # payments have it in lower case


def _moved(source: Account, target: Account, amount: int) -> Postings:
    return _kept((target, amount), (source, -amount))


def _kept(*each: tuple[Account, int]) -> Postings:
    found = tuple(Posting(account, amount) for account, amount in each if amount)
    assert sum(posting.amount for posting in found) == 0
    return found
